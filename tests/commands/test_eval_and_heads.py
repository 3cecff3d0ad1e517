"""`python -m minitron eval` and `heads` print the metrics of the record and NumPy's attention.

Every mistake ends in one line.
"""
import builtins
import dataclasses
import importlib.util
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest

import minitron.__main__
import train
from minitron.base import cli
from minitron.base.environment import ROOT
from minitron.base.rng import GALLERY, Random
from minitron.data import tasks
from minitron.data.config import Config
from minitron.engine import model_file as export
from minitron.engine.engine import EngineMissing
from minitron.measure import evaluate, heads, record

needs_engine = pytest.mark.skipif(not any(ROOT.glob("build/libminitron.*")),
                                  reason="the engine is not built: run make")
needs_matplotlib = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None,
                                      reason="matplotlib is not installed: pip install matplotlib")
CONFIG = Config(dim=8, layers=2, heads=2, length=2, test_length=3, batch=16, steps=20,
                eval_every=20, test_items=40)


def trained(folder, config):
    """-> path of a model, its record"""
    path = folder / f"{config.task}.bin"
    return path, train.train(config, path, quiet=True)


@pytest.fixture(scope="module")
def addition(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("addition"), CONFIG)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Models of other tasks, by their names, each after one step"""
    folder = tmp_path_factory.mktemp("others")
    one_step = dataclasses.replace(CONFIG, steps=1, test_length=None)
    tasks = [{"task": "mqar", "length": 24}, {"task": "experts", "length": 8},
             {"task": "parity", "length": 6, "variant": "scratchpad"},
             {"task": "modular", "length": 11},
             {"task": "markov", "length": 12, "positions": "random"}]
    return {options["task"]: trained(folder, dataclasses.replace(one_step, **options))[0]
            for options in tasks}


@pytest.fixture
def command(monkeypatch, capsys):
    """Call `python -m minitron` -> status, lines on standard output, lines on standard error"""
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["minitron", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.run(minitron.__main__.main)
        out, error = capsys.readouterr()
        return left.value.code, out.splitlines(), error.splitlines()

    return call


def remove_engine(monkeypatch):
    """Play a machine without the engine."""
    def library():
        raise EngineMissing("the C engine is not built: install a C compiler and run make")

    monkeypatch.setattr("minitron.engine.engine.library", library)


def hide(monkeypatch, module):
    """Play a machine on which a module is not installed."""
    original = builtins.__import__

    def without_module(name, *arguments, **named):
        if name.split(".")[0] == module:
            raise ImportError(name)
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without_module)


def numbers(lines):
    return [float(number) for number in re.findall(r"\d+\.\d+", "\n".join(lines))]


def rewritten(path, out, provenance):
    """A model file once more, with another provenance"""
    config, p, vocabulary, _ = export.read_model(path)
    export.write_model(out, config, p, vocabulary, provenance)
    return out


# ---- eval ----------------------------------------------------------------------------------------


def test_eval_prints_the_numbers_of_the_record(command, addition):
    path, result = addition
    status, [headline, *lines], error = command("eval", path)
    assert (status, error) == (0, []) and headline == f"{path}: addition (plain)"
    assert lines == record.metrics_lines(result["metrics"]) and len(lines) == 4


@pytest.mark.parametrize("text, lengths", [
    ("1", [1]), ("3,1", [3, 1]), ("1-3", [1, 2, 3]), (" 2 , 5-6", [2, 5, 6]), ("4-4", [4]),
    ("20", [20]),
])
def test_lengths_may_be_any_that_the_task_knows(command, addition, text, lengths):
    path, result = addition
    status, [_, _, *lines], _ = command("eval", path, "--length", text)
    rows = [line for line in lines if re.match(r" +\d+ ", line)]
    assert status == 0 and [int(row.split()[0]) for row in rows] == lengths
    of_record = record.metrics_lines(result["metrics"])
    assert all(row == of_record[length] for row, length in zip(rows, lengths) if length <= 3)


def test_temperatures(command, addition):
    path, _ = addition
    config, p, _, provenance = export.read_model(path)
    config = Config(**provenance["config"]).resolve()
    task = tasks.load(config)
    _, lines, _ = command("eval", path, "--length", "2", "--temperature", "2,0")
    text = r"length 2: right when sampled at temperature 2: (.*)%, 0: (.*)%"
    percents = list(map(float, re.fullmatch(text, lines[-1]).groups()))
    rows = evaluate.problems(task, config, 2, "test", 40)
    accuracy = evaluate.sampling_accuracy(evaluate.numpy_scorer(p, config), rows, 2)
    exact = evaluate.basic_metrics(evaluate.numpy_scorer(p, config), rows)["exact"]
    assert percents == pytest.approx([100 * accuracy, 100 * exact], abs=0.006)  # printed to 0.01%
    assert accuracy > 1e-4


def test_temperatures_of_a_task_with_a_closed_form(command, others):
    _, lines, _ = command("eval", others["experts"], "--temperature", "0.5,0,0.0001")
    text = " ".join(" ".join(lines).split())
    assert re.search(r"temperature 0\.5: .*% \(closed form 90\.00%\), "
                     r"0: .*% \(closed form 100\.00%\), 0\.0001: ", text)


def test_options_variant_and_seed_may_be_others(command, others):
    flags = [[], ["--options", "pairs=2"], ["--variant", "random"], ["--seed", "1"],
             ["--test-items", "10"]]
    results = [command("eval", others["mqar"], *each) for each in flags]
    assert all(status == 0 and error == [] for status, _, error in results)
    _, pairs, variant, _, items = outputs = [lines for _, lines, _ in results]
    assert "(zeros) pairs=2," in pairs[0] and "(random)" in variant[0]
    assert len({tuple(numbers(lines)) for lines in outputs}) == 5
    assert items[2].split()[1] == "10"


def test_another_task_of_the_same_vocabulary(command, others):
    flags = ["--task", "sparse_parity", "--options", "k=2", "--length", "9"]
    status, [headline, *lines], _ = command("eval", others["parity"], *flags)
    assert status == 0 and "sparse_parity (plain) k=2,world=0" in headline
    assert lines[1].split()[0] == "9"


def test_eval_of_random_positions_draws_them(command, others):
    status, lines, _ = command("eval", others["markov"])
    plain = command("eval", others["markov"], "--positions", "plain")[1]
    assert status == 0 and lines[0] == plain[0] and lines[2] != plain[2]


def test_without_the_engine_the_numbers_are_the_same(command, addition, monkeypatch):
    remove_engine(monkeypatch)
    path, result = addition
    _, [_, *lines], error = command("eval", path)
    # printed to four decimal places, of which the last may be rounded otherwise
    of_record = numbers(record.metrics_lines(result["metrics"]))
    assert numbers(lines) == pytest.approx(of_record, abs=2e-4) and error == []


def test_split_without_a_problem_is_named(command, addition):
    path, _ = addition
    status, lines, error = command("eval", path, "--variant", "reversed", "--length", "1",
                                   "--train-fraction", "0.99")
    assert (status, error) == (0, [])
    assert lines[2:] == ["     1         0  the test split has no problems of this length"]


# ---- heads ---------------------------------------------------------------------------------------


def scores_of(lines):
    """The printed table -> {(layer, head): (previous, induction)} in percent"""
    cells = [line.replace("%", "").split() for line in lines if re.match(r" +\d", line)]
    return {(int(layer), int(head)): (float(previous), float(induction))
            for layer, head, previous, induction in cells}


def uniform_scores(tokens, scored):
    """Previous-token and induction score, in percent, of uniform attention, pair by pair"""
    back = follows = 0
    for row, counts in zip(tokens.tolist(), scored):
        for t in range(len(row)):
            back += (t > 0) / (t + 1)
            follows += counts[t] * sum(row[s - 1] == row[t] for s in range(1, t + 1)) / (t + 1)
    return 100 * back / tokens.size, 100 * follows / scored.sum()


def assert_scores_are_numpys(lines, p, config, tokens, positions, scored):
    weights = heads.attention_weights(p, config, tokens, positions)
    expected = heads.head_scores(weights, tokens, scored)
    scores = scores_of(lines)
    assert scores.keys() == set(np.ndindex(2, 2))
    for head, pair in scores.items():
        percents = [100 * expected[name][head] for name in ("previous", "induction")]
        assert pair == pytest.approx(percents, abs=0.051)
    assert numbers(lines[-1:]) == pytest.approx(uniform_scores(tokens, scored), abs=0.051)


@pytest.mark.parametrize("flags, changes", [
    (["--task", "addition"], {}),
    (["--seed", "3", "--positions", "coupled"], {"seed": 3, "positions": "coupled"}),
])
def test_heads_on_problems_are_those_of_numpy(command, addition, flags, changes):
    path, _ = addition
    _, p, _, provenance = export.read_model(path)
    status, [headline, _, *lines], error = command("heads", path, *flags)
    assert (status, error) == (0, [])
    assert headline == f"{path}: share of attention on a pattern; 16 problems of addition"
    config = Config(**provenance["config"] | changes).resolve()
    rows = evaluate.problems(tasks.load(config), config, 2, "test", heads.ROWS)
    assert_scores_are_numpys(lines, p, config, rows.inputs, rows.positions, rows.targets >= 0)


def test_heads_on_random_tokens_are_those_of_numpy(command, addition):
    path, _ = addition
    config, p, vocabulary, _ = export.read_model(path)
    status, [headline, _, *lines], error = command("heads", path)
    assert (status, error) == (0, [])
    assert headline == (f"{path}: share of attention on a pattern; 25 random tokens repeated 4 "
                        "times, 16 rows, at positions 0, 1, 2, ...")
    # all tokens but END, which is the last
    tokens = heads.repeated(Random(GALLERY), len(vocabulary.pieces) - 1, 25)
    assert_scores_are_numpys(lines, p, config, tokens, None, np.ones(tokens.shape, bool))


@needs_engine
@pytest.mark.parametrize("flags", [[], ["--task", "addition", "--positions", "coupled"]])
def test_heads_without_the_engine_are_the_same(command, addition, flags, monkeypatch):
    by_engine = scores_of(command("heads", addition[0], *flags)[1])
    remove_engine(monkeypatch)
    by_numpy = scores_of(command("heads", addition[0], *flags)[1])
    assert by_engine.keys() == by_numpy.keys()
    for head, scores in by_numpy.items():
        assert by_engine[head] == pytest.approx(scores, abs=0.11)           # printed to 0.1


def test_heads_of_a_model_with_positions_of_its_own(command, others):
    """Of random tokens they are counted, and the first line says so."""
    status, lines, error = command("heads", others["markov"])
    assert (status, error) == (0, []) and "at positions 0, 1, 2, ..." in lines[0]
    assert len(scores_of(lines)) == 4


@needs_matplotlib
@pytest.mark.parametrize("ending, begins", [
    ("png", b"\x89PNG\r\n"), ("svg", b"<?xml"), ("pdf", b"%PDF"),
])
@pytest.mark.parametrize("flags", [[], ["--task", "addition"]])
def test_picture(command, addition, tmp_path, ending, begins, flags):
    picture = tmp_path / f"heads.{ending}"
    status, lines, error = command("heads", addition[0], "--picture", picture, *flags)
    assert (status, error) == (0, []) and lines[-1].startswith(f"{picture}: ")
    content = picture.read_bytes()
    assert content.startswith(begins) and len(content) > 5000


# ---- numbers that are not finite, and files that a model names -----------------------------------


@pytest.mark.parametrize("engine", [pytest.param(True, marks=needs_engine), False])
@pytest.mark.parametrize("weight", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("words", ["eval", "eval --length 1", "heads", "heads --task addition"])
def test_a_model_that_has_overflowed_is_not_measured(command, addition, tmp_path, monkeypatch,
                                                     words, weight, engine):
    """argmax of NaN is token 0, which is right now and then."""
    config, p, vocabulary, provenance = export.read_model(addition[0])
    p.wqkv[:] = weight
    p.norm1[:] = 1e38
    export.write_model(tmp_path / "model.bin", config, p, vocabulary, provenance)
    if not engine:
        remove_engine(monkeypatch)
    verb, *flags = words.split()
    status, out, [complaint] = command(verb, tmp_path / "model.bin", *flags)
    assert status == 2 and len(out) <= 1 and "%" not in "".join(out)
    assert "not finite, so there is nothing to measure" in complaint


OWN_TASK = """
from pathlib import Path
from minitron.tasks import join
LENGTHS, VOCAB = (1, 3), "0123456789=" + SPARE
Path(__file__).with_suffix(".ran").touch()
def sample(rng, length, batch, variant):
    digits = rng.integers(0, 10, (batch, 1))
    return join(VOCAB, digits, "=", [digits])
"""


def test_a_task_file_is_run_only_if_it_is_that_of_the_training(command, tmp_path):
    path, ran = tmp_path / "own.py", tmp_path / "own.ran"
    path.write_text(OWN_TASK.replace("SPARE", "'+'"))
    config = Config(task=str(path), dim=4, layers=1, length=1, steps=1, test_items=5)
    train.train(config, tmp_path / "model.bin", quiet=True)
    ran.unlink()
    for verb in ("eval", "heads"):          # unchanged; random tokens need no task
        assert command(verb, tmp_path / "model.bin")[::2] == (0, [])

    path.write_text(OWN_TASK.replace("SPARE", "'-'"))
    ran.unlink(missing_ok=True)
    status, out, [complaint] = command("eval", tmp_path / "model.bin")
    assert (status, out) == (2, []) and not ran.exists()
    assert f"task {path} is not the file that the model was trained on" in complaint
    assert "--task" in complaint
    assert command("eval", tmp_path / "model.bin", "--seed", "1")[0] == 2 and not ran.exists()
    command("eval", tmp_path / "model.bin", "--task", path)         # the user's own wish
    assert ran.exists()


def test_a_text_is_read_only_if_it_is_that_of_the_training(command, tmp_path):
    data, model = tmp_path / "text.txt", tmp_path / "model.bin"
    data.write_text("to be or not to be " * 50)
    config = Config(task="text", data=str(data), dim=4, layers=1, length=8, steps=1, test_items=5)
    train.train(config, model, quiet=True)
    assert command("eval", model)[::2] == (0, [])
    data.write_text("not to be or to be " * 50)
    status, out, [complaint] = command("eval", model)
    assert (status, out) == (2, []) and "is not the file that the model was trained on" in complaint
    assert command("eval", model, "--data", data)[::2] == (0, [])
    data.unlink()
    status, _, [complaint] = command("eval", model)
    assert status == 2 and "No such file" in complaint and "name yours with --data" in complaint


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "pipe", ".", "large"])
@pytest.mark.parametrize("name", ["data", "task"])
def test_what_is_not_a_regular_file_is_not_read(command, addition, tmp_path, name, path):
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2**40)
    path = str(tmp_path / path)             # joined with an absolute one that is itself
    if name == "task":
        os.symlink(path, tmp_path / "own.py")
        path = str(tmp_path / "own.py")
    config = {"task": "text"} | {name: path}
    model = rewritten(addition[0], tmp_path / "model.bin", {"config": config, "task": "text 1 ab"})
    status, out, [complaint] = command("eval", model)
    assert (status, out) == (2, []) and path in complaint
    assert "not a regular file" in complaint or "at most 1073741824 are read" in complaint
    if "large" not in path and "large" not in os.path.realpath(path):
        given = ["--task", path] if name == "task" else ["--task", "text", "--data", path]
        status, _, [complaint] = command("eval", model, *given)
        assert status == 2 and "not a regular file" in complaint
    status, _, [complaint] = command("eval", tmp_path / "pipe")
    assert status == 2 and "not a regular file" in complaint


@needs_engine
def test_without_assertions_and_docstrings(addition, tmp_path):
    """python -OO: the commands, and the engine on a file of int8"""
    script = ("import sys; from minitron import Engine; from minitron.__main__ import main; "
              "main(['quantize', *sys.argv[1:]]); main(['eval', sys.argv[2], '--length', '2']); "
              "main(['heads', sys.argv[2]]); print(Engine(sys.argv[2]).generate('12+34=', 2))")
    command = [sys.executable, "-OO", "-c", script, addition[0], tmp_path / "int8.bin"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "") and len(done.stdout.splitlines()) == 12


# ---- mistakes ------------------------------------------------------------------------------------

# model, arguments with {} for a folder, words that the one line must have
WRONG = [
    ("addition", "eval --length x", ["length 'x'", "4-8"]),
    ("addition", "eval --length 1,,2", ["length ''"]),
    ("addition", "eval --length=", ["length ''"]),
    ("addition", "eval --length=-3", ["length '-3'"]),
    ("addition", "eval --length 3-1", ["length '3-1'", "counts down"]),
    ("addition", "eval --length 1-2000", ["length '1-2000'", "too long"]),
    ("addition", "eval --length 0", ["length 0", "1 to 64"]),
    ("addition", "eval --length 65", ["length 65", "1 to 64"]),
    ("addition", "eval --length " + 5000 * "9", ["length '9999"]),
    ("addition", "eval --temperature x", ["temperature 'x'", "1,0.5"]),
    ("addition", "eval --temperature=", ["temperature ''"]),
    ("addition", "eval --temperature nan", ["temperature nan", "0 to 100"]),
    ("addition", "eval --temperature=-1", ["temperature -1", "0 to 100"]),
    ("addition", "eval --task parity",
     ["parity", "another vocabulary", "4 pieces", "14", "--task"]),
    ("addition", "eval --task nosuch", ["nosuch", "addition"]),
    ("addition", "eval --variant nosuch", ["nosuch", "plain, reversed"]),
    ("addition", "eval --options k=1", ["option 'k=1'", "none"]),
    ("addition", "eval --data {}/nosuch", ["nosuch", "--task text"]),
    ("addition", "eval --test-items 0", ["test-items 0"]),
    ("addition", "eval --train-fraction nan", ["train-fraction nan"]),
    ("addition", "eval --positions nosuch", ["positions 'nosuch'", "plain, random, coupled"]),
    ("addition", "eval --positions random --position-range 3", ["position-range 3", "13 tokens"]),
    ("addition", "heads --dim 3", ["--dim"]),
    ("addition", "heads --picture {}/nosuch/a.png", ["nosuch/a.png", "No such file"]),
    ("addition", "heads --picture {}/a.nosuch", ["a.nosuch", "png"]),
    ("addition", "heads --picture {}", ["picture", "cannot be written|.png"]),
    ("modular", "eval --length 12", ["length 12", "modular", "another ability", "length 11"]),
    ("modular", "heads --seed=-1", ["seed -1"]),
    ("mqar", "eval --length 25", ["length 25", "even"]),
    ("mqar", "eval --options vocab=64", ["mqar", "64 pieces", "128"]),
    ("markov", "eval --positions coupled", ["coupled", "markov"]),
    ("markov", "eval --length 12,60", ["length 60", "59 tokens", "position-range 44"]),
]


@pytest.mark.parametrize("name, line, words", [
    pytest.param(name, line, words, marks=[needs_matplotlib] * ("--picture" in line),
                 id=f"{name} {line}"[:60]) for name, line, words in WRONG])
def test_wrong_command_is_refused_in_one_line(
        command, addition, others, tmp_path, name, line, words):
    verb, *flags = line.format(tmp_path).split(" ")
    status, _, error = command(verb, addition[0] if name == "addition" else others[name], *flags)
    [complaint] = error
    assert status == 2 and complaint.startswith(("minitron: ", "python -m minitron"))
    assert all(any(one in complaint for one in word.split("|")) for word in words), complaint
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["eval", "heads"])
def test_file_that_is_not_a_model_is_refused(command, addition, tmp_path, verb):
    content = addition[0].read_bytes()
    (tmp_path / "short.bin").write_bytes(content[:1000])
    (tmp_path / "bad.bin").write_bytes(content[:-3] + b"abc")
    (tmp_path / "text.bin").write_text("hello")
    reasons = {"short.bin": "1000 bytes", "bad.bin": "checksum", "nosuch.bin": "No such file",
               "text.bin": "shorter than a header", "": "not a regular file"}
    for name, reason in reasons.items():
        status, out, [complaint] = command(verb, tmp_path / name)
        assert status == 2 and out == []
        assert str(tmp_path / name) in complaint and reason in complaint


def test_model_without_matplotlib_has_no_picture(command, addition, tmp_path, monkeypatch):
    hide(monkeypatch, "matplotlib")
    status, out, [complaint] = command("heads", addition[0], "--picture", tmp_path / "a.png")
    assert status == 2 and "pip install matplotlib" in complaint and not any(tmp_path.iterdir())
    assert command("heads", addition[0])[0] == 0


@pytest.mark.parametrize("provenance", [
    {}, [], None, 5, "x", {"config": None}, {"config": [1]}, {"config": {}}, {"config": {"a": 1}},
])
def test_model_that_does_not_say_what_it_was_trained_on(command, addition, tmp_path, provenance):
    path = rewritten(addition[0], tmp_path / "model.bin", provenance)
    status, out, [complaint] = command("eval", path)
    assert status == 2 and out == [] and "name a --task" in complaint
    status, out, error = command("eval", path, "--task", "addition", "--length", "2",
                                 "--test-items", "40")
    assert (status, error) == (0, []) and out[2] == record.metrics_lines(addition[1]["metrics"])[2]
    assert command("heads", path)[0] == 0


def test_provenance_that_names_the_task_alone_is_enough(command, addition, tmp_path):
    path = rewritten(addition[0], tmp_path / "model.bin", {"config": {"task": "addition"}})
    for flags in ([], ["--variant", "reversed"], ["--variant", "plain", "--length", "1"]):
        status, _, error = command("eval", path, "--test-items", "5", *flags)
        assert (status, error) == (0, [])


VALUES = [None, True, False, 0, 1, 2, 5, -1, 10**30, 0.5, -2.0, float("nan"), float("inf"), "", "x",
          "1", "text", "plain", [], [1], {}, {"a": 1}]
NAMES = ["task", "variant", "length", "options", "data", "positions", "seed", "test_items"]


@pytest.mark.parametrize("seed", range(150))
def test_any_provenance_is_refused_in_one_line_or_works(command, addition, tmp_path, seed):
    """One to three fields of the configuration hold something else, or are gone."""
    r = random.Random(seed)
    provenance = export.read_model(addition[0])[3]
    config = provenance["config"] | {"test_items": 5, "test_length": None}
    for name in r.sample(sorted(config) if seed % 2 else NAMES, r.randint(1, 3)):
        config[name] = r.choice(VALUES)
        if r.random() < 0.2:
            del config[name]
    path = rewritten(addition[0], tmp_path / "model.bin", provenance | {"config": config})
    verb, *flags = r.choice([["eval"], ["eval", "--length", "1"], ["heads", "--test-items", "3"],
                             ["eval", "--positions", "random"]])
    status, _, error = command(verb, path, *flags)
    assert (status, len(error)) in [(0, 0), (2, 1)], error


@pytest.mark.parametrize("config", [
    {"task": 5}, {"task": "addition", "length": "2"}, {"task": "addition", "options": 3},
    {"task": "text", "data": 0}, {"task": "addition", "seed": 1.5}, {"task": ["addition"]},
])
def test_provenance_of_other_types_names_the_field(command, addition, tmp_path, config):
    path = rewritten(addition[0], tmp_path / "model.bin", {"config": config})
    status, _, [complaint] = command("eval", path)
    assert status == 2 and (list(config)[-1] in complaint)
