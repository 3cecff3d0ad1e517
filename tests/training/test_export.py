"""A model file says how its model must be asked, as the rows of training show."""
import dataclasses

import pytest

import train
from minitron.data import tasks
from minitron.data.config import Config
from minitron.engine.model_file import read_model
from minitron.training.run import vocabulary

TINY = {"dim": 4, "layers": 1, "steps": 1, "batch": 8, "test_items": 5}


def exported(tmp_path, **settings):
    """-> Vocabulary and provenance of a model file after one step"""
    train.train(Config(**TINY | settings), tmp_path / "model.bin", quiet=True)
    return read_model(tmp_path / "model.bin")[2:]


@pytest.mark.parametrize("settings, least, most", [
    ({"task": "addition"}, len("1+2="), len("123+456=")),
    ({"task": "addition", "length": 4}, len("1+2="), len("1234+5678=")),
    ({"task": "addition", "length": 4, "mixed": False}, len("1234+5678="), len("1234+5678=")),
    ({"task": "parity", "length": 5}, len("1="), len("10110=")),
    ({"task": "modular", "length": 11}, 4, 4),
    # a label at each token from the second, and from the first
    ({"task": "khop", "length": 12}, 2, 13), ({"task": "groups", "length": 6}, 1, 6),
    # any beginning of a row is a prompt
    ({"task": "text", "length": 8}, 0, 0), ({"task": "markov", "length": 12}, 0, 0),
    ({"task": "stories"}, 0, 0),
])
def test_lengths_of_prompts(settings, least, most):
    config = Config(**settings).resolve()
    v = vocabulary(config, tasks.load(config))
    assert (v.prompt_min, v.prompt_max) == (least, most)


def test_answers_at_several_places_of_a_row():
    """A pair is asked for at 32 to 64 tokens, not only at the first place."""
    config = Config(task="mqar").resolve()
    v = vocabulary(config, tasks.load(config))
    assert 8 < v.prompt_min < 16 and 56 < v.prompt_max <= 64


@pytest.mark.parametrize("settings, begins", [
    ({"task": "stories"}, True),
    ({"task": "text", "length": 8}, False),     # a window begins anywhere; "\\n" stands for nothing
    ({"task": "addition"}, False),
])
def test_rows_begin_with_bos_if_all_of_them_do(settings, begins):
    config = Config(**settings).resolve()
    assert vocabulary(config, tasks.load(config)).begins_with_bos is begins


@pytest.mark.parametrize("positions", ["plain", "random", "coupled"])
def test_own_positions(tmp_path, positions):
    v, provenance = exported(tmp_path, length=2, positions=positions)
    assert v.own_positions == (positions != "plain")
    assert (v.prompt_min, v.prompt_max, v.begins_with_bos) == (4, 6, False)
    assert provenance["example"].endswith("=") and len(provenance["example"]) == len("12+34=")


@pytest.mark.parametrize("vocab, example", [
    ("ab=", True), ("'b=", False), ('"b=', False), ("\\b=", False), ("\nb=", False),
    ("\u00e9b=", False),
])
def test_an_example_can_be_typed_or_is_left_out(tmp_path, vocab, example):
    (tmp_path / "own.py").write_text(f"""
from minitron.tasks import join
LENGTHS, VOCAB = (3, 9), {vocab!r}
def sample(rng, length, batch, variant):
    letters = rng.integers(0, 1, (batch, length))
    return join(VOCAB, letters, "=", [letters])
""", encoding="utf-8")
    config = Config(**TINY, task=str(tmp_path / "own.py"), length=3, train_fraction=0.99)
    train.train(config, tmp_path / "model.bin", quiet=True)
    provenance = read_model(tmp_path / "model.bin")[3]
    assert ("example" in provenance) == example
    assert not example or provenance["example"] == "aaa="
    assert provenance["config"] == dataclasses.asdict(config.resolve())


def test_no_example_where_no_prompt_is_needed(tmp_path):
    assert "example" not in exported(tmp_path, task="stories")[1]
