"""How a run starts: from a model's weights, beside an older checkpoint, over an older model."""
import dataclasses
import shutil

import pytest
from training_helpers import TINY, flags, records, run, signal_at, step_saved

import train
from minitron.base.errors import MinitronError
from minitron.base.terminal import Interrupted
from minitron.data import tasks
from minitron.data.command_line import training_command
from minitron.engine.model_file import parse_model, read_model
from minitron.training.run import new_run


@pytest.fixture
def model(tmp_path):
    run(tmp_path)
    return tmp_path / "model.bin"


def on(model, **changes):
    """TINY, trained on from a model file"""
    return dataclasses.replace(TINY, init=model, **changes).resolve()


def key(config):
    return config.key(tasks.load(config))


def test_training_on_starts_from_the_weights_of_the_model(model):
    started = new_run(on(model), "out.bin", None, 1)
    weights = read_model(model)[1].flat
    assert (started.p.flat == weights).all() and (started.initial == weights).all()
    assert not started.m.flat.any() and not started.v.flat.any()


def test_training_on_improves_the_model_and_can_be_resumed(tmp_path, model, monkeypatch):
    config = on(model, steps=60)
    trained = run(tmp_path, config, "more.bin")
    before, after = (record["metrics"]["1"]["nll"] for record in records(tmp_path))
    assert after < before
    signal_at(monkeypatch, 7)
    with pytest.raises(Interrupted):
        run(tmp_path, config, "again.bin")
    moved = model.rename(tmp_path / "moved.bin")
    arguments = ["--resume", "--init", str(moved), "--out", str(tmp_path / "again.bin")]
    assert train.main(arguments) == 0
    with_other_path = (tmp_path / "again.bin").read_bytes()
    assert (parse_model(with_other_path)[1].flat == parse_model(trained)[1].flat).all()


def test_the_key_has_the_model_and_not_its_path(tmp_path, model):
    shutil.copy(model, tmp_path / "copy.bin")
    assert key(on(model)) == key(on(tmp_path / "copy.bin")) == key(on(model).resolve()) != key(TINY)
    run(tmp_path, dataclasses.replace(TINY, seed=1), "other.bin")
    assert key(on(model)) != key(on(tmp_path / "other.bin"))


def test_the_command_that_trains_on_names_the_model_and_its_content(model):
    config = on(model)
    assert f"--init {config.init}" in training_command(dataclasses.asdict(config)).replace("'", "")
    run(model.parent, dataclasses.replace(TINY, seed=1))                # another model.bin
    with pytest.raises(MinitronError, match="model.bin is not the file that it was, of hash "):
        train.train(config, model.parent / "more.bin", quiet=True)


@pytest.mark.parametrize("change, words", [
    ({"dim": 10}, "has dim 8, not 10"), ({"heads": 2}, "has heads 4, not 2"),
    ({"qk_norm": False}, "has qk-norm True, not False"),
    ({"task": "parity", "length": 4}, "another vocabulary than task parity"),
])
def test_a_model_of_another_shape_is_refused(tmp_path, model, change, words):
    with pytest.raises(MinitronError, match=words):
        train.train(on(model, **change), tmp_path / "more.bin", quiet=True)


def test_a_model_that_would_be_overwritten_or_is_none_is_refused(tmp_path, model):
    with pytest.raises(MinitronError, match="model.bin is both --init and --out"):
        train.train(on(model), f"{tmp_path}/./model.bin", quiet=True)
    for path in (tmp_path, tmp_path / "nosuch.bin"):
        with pytest.raises(MinitronError, match="is not a model file"):
            on(path)
    (tmp_path / "text.bin").write_text("text")
    with pytest.raises(MinitronError, match="text.bin"):
        train.train(on(tmp_path / "text.bin"), tmp_path / "more.bin", quiet=True)


def test_a_checkpoint_without_a_step_is_not_protected(tmp_path, monkeypatch):
    """Whoever leaves a debugger before the first step has lost nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_step", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path)
    assert step_saved(tmp_path / "model.bin.ckpt") == 0
    run(tmp_path, dataclasses.replace(TINY, dim=4))
    assert not (tmp_path / "model.bin.ckpt").exists()


def test_the_checkpoint_of_another_run_is_named_with_the_remedy(tmp_path, monkeypatch):
    signal_at(monkeypatch, 3)
    with pytest.raises(Interrupted):
        run(tmp_path)
    text = r"stopped run, after step 3, with dim 8, not 4.*--resume, or delete it, or give another"
    with pytest.raises(MinitronError, match=text):
        run(tmp_path, dataclasses.replace(TINY, dim=4))
    with pytest.raises(MinitronError, match="3: resume it with --resume, or delete it$"):
        run(tmp_path)


def test_without_a_checkpoint_the_way_to_train_on_is_named(model):
    with pytest.raises(MinitronError, match="train a finished model on with --init"):
        train.main(["--resume", "--steps", "8000", "--out", str(model)])


def test_the_model_that_a_run_replaces_is_named(tmp_path, model, capsys):
    def first_line(*arguments):
        assert train.main([*flags(TINY), *arguments, "--out", str(model)]) == 0
        return capsys.readouterr().err.splitlines()[0]

    assert first_line().startswith("step ")                             # the same run again
    name = f"{model} of run {key(TINY.resolve())} (addition, dim 8)"
    assert first_line("--seed", "1") == f"{name} will be replaced"
    model.write_text("no model")
    assert first_line() == f"{model} will be replaced"
