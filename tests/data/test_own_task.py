"""A task in a user's own file works wherever a task's name does; its faults take one line."""
import dataclasses
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import train
from minitron.base.environment import ROOT
from minitron.base.errors import MinitronError
from minitron.base.rng import Random
from minitron.commands import tasks as tasks_command
from minitron.data import tasks
from minitron.data.config import Config

DOUBLE = '''"""Double a number.

    12:024
       ^^^
"""
from minitron.tasks import digits, join

VOCAB = "0123456789:"
LENGTHS = (1, 9)
LENGTH = 2


def sample(rng, length, batch, variant):
    number = rng.integers(0, 10**length, batch)
    return join(VOCAB, digits(number, length), ":", [digits(2 * number, length + 1)])
'''
TINY = ["--dim", "8", "--layers", "1", "--batch", "16", "--test-items", "20"]
TINY_CONFIG = {"dim": 8, "layers": 1, "batch": 16, "test_items": 20, "steps": 10, "eval_every": 5}
HEAD = 'import numpy as np\nfrom minitron.tasks import join\nVOCAB = "01:"\nLENGTHS = (1, 9)\n'
BITS = ("def sample(rng, length, batch, variant):\n"
        "    bits = rng.integers(0, 2, (batch, length))\n    return ")
GOOD = HEAD + BITS + "join(VOCAB, bits, ':', [bits])\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write(source, name) -> the path of a file, relative to the test's working directory"""
    monkeypatch.chdir(tmp_path)

    def write(source, name="mine.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
        return name

    return write


def key(task, **settings):
    config = Config(task=task, **settings).resolve()
    return config.key(tasks.load(config))


def rows(name, **settings):
    task = tasks.load(Config(task=name, **settings))
    return task.draw(Random(1), task.length, 20, "train")[0]


def refusal(name, **settings):
    with pytest.raises(MinitronError) as error:
        tasks.load(Config(task=name, **settings))
    assert "\n" not in str(error.value)
    return str(error.value)


# It works everywhere

def python(*arguments, **options):
    """A Python process in the working directory, with minitron to be imported -> its output"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True,
                          env=environment, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_own_task_is_trained_shown_measured_and_swept_beside_files_not_to_be_imported(write):
    """tasks.py and train.py are names that a user's working directory may well have."""
    mine, model = write(DOUBLE), "model.bin"
    for trap in ("tasks.py", "train.py"):
        write("raise SystemExit('the wrong file')", trap)
    trained = python(ROOT / "train.py", "--task", mine, *TINY, "--steps", "10")
    assert "mine.py (plain), length 2" in trained
    assert "Double a number." in python("-m", "minitron", "tasks", mine)
    assert f"{model}: mine.py (plain)" in python("-m", "minitron", "eval", model, "--length", "2,4")
    assert "problems of mine.py" in python("-m", "minitron", "heads", model, "--task", mine)

    swept = python("-m", "minitron", "sweep", mine, *TINY, "--steps", "5", "--length", "1-2",
                   "--seeds", "1", "--jobs", "1")
    assert "-m minitron report mine.jsonl" in swept, "not in results/"
    records = [json.loads(line) for line in open("mine.jsonl")]
    assert [record["status"] for record in records] == ["ok", "ok"]
    config = TINY_CONFIG | {"steps": 5, "eval_every": 100}
    keys = {key("mine.py", **config, length=length) for length in (1, 2)}
    assert {record["key"] for record in records} == keys
    assert python("-m", "minitron", "report", "mine.jsonl").startswith("mine: percent of runs")

    os.rename(mine, "moved.py")
    again = python("-m", "minitron", "sweep", "moved.py", *TINY, "--steps", "5", "--length", "1-2",
                   "--seeds", "1", "--out", "mine.jsonl", "--list")
    assert again.startswith("2 cells, 2 of them in mine.jsonl\n0 to run")


def test_a_sweep_of_a_spec_and_a_path_with_a_comma(write):
    write(DOUBLE, "my,own.py")
    write('task = "my,own.py"\n'
          'dim = [8]\nlayers = 1\nlength = 1\nsteps = 5\nbatch = 16\n', "spec.toml")
    python("-m", "minitron", "sweep", "spec.toml", "--seeds", "1", "--jobs", "1")
    assert json.loads(open("spec.jsonl").read())["config"]["task"] == "my,own.py"


def train_and_stop(config, monkeypatch):
    """Train with a stop after the first step's checkpoint."""
    class Stop(Exception):
        pass

    def stop(*arguments):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_step", stop)
        with pytest.raises(Stop):
            train.train(config, quiet=True)


def test_a_run_is_resumed_with_its_file_moved_but_not_with_it_edited(write, tmp_path, monkeypatch):
    train_and_stop(Config(task=write(DOUBLE), **TINY_CONFIG), monkeypatch)
    os.rename("mine.py", "moved.py")
    write(DOUBLE + "# edited\n", "edited.py")
    resume = ["--resume", "--task"]
    with pytest.raises(MinitronError, match="an older version of task edited.py"):
        train.main([*resume, "edited.py"])
    with pytest.raises(MinitronError, match="with task mine.py, not addition"):
        train.main([*resume, "addition"])
    assert train.main([*resume, "moved.py"]) == 0
    assert json.loads((tmp_path / "runs.jsonl").read_text())["config"]["task"] == "moved.py"


# Its content names it

def test_a_run_is_named_by_the_content_of_the_file_not_by_its_path(write, tmp_path):
    same = [write(DOUBLE), write(DOUBLE, "renamed.py"), write(DOUBLE, "folder/mine.py"),
            str(tmp_path / "mine.py")]
    assert len({key(name) for name in same}) == 1
    other = [write(DOUBLE + "\n", "edited.py"),
             write(DOUBLE.replace("LENGTH = 2", "LENGTH = 2; VERSION = 2"), "second.py")]
    assert len({key(name) for name in (same[0], *other)}) == 3


def test_an_edited_file_is_read_anew(write):
    before = key(write(DOUBLE)), rows("mine.py")
    write(DOUBLE.replace("2 * number", "3 * number"))
    assert key("mine.py") != before[0] and (rows("mine.py") != before[1]).any()


def test_files_of_one_stem_and_of_the_name_of_a_task_are_not_mixed_up(write):
    """Nor is a task of minitron taken for a file, in whatever order they are loaded."""
    names = [write(DOUBLE, "addition.py"), write(GOOD, "folder/addition.py"), "addition"]
    # 12:024, 010:010, 123+456=0579
    lengths = {"addition.py": 6, "folder/addition.py": 7, "addition": 12}
    for order in itertools.permutations(names):
        assert [rows(name).shape[1] for name in order] == [lengths[name] for name in order]
    assert len({key(name) for name in names}) == 3


def test_both_ways_to_import_give_the_same_functions(write):
    relative = DOUBLE.replace("from minitron.tasks import", "from . import")
    assert (rows(write(DOUBLE)) == rows(write(relative, "relative.py"))).all()
    assert tasks.module("mine.py").join is tasks.module("relative.py").join


def test_a_file_may_define_a_dataclass(write):
    """Which looks up the module that it is in."""
    source = ("from __future__ import annotations\nfrom dataclasses import dataclass\n"
              "@dataclass\nclass A:\n    x: int = 1\n")
    assert tasks.module(write(source + DOUBLE)).A().x == 1


def test_a_report_calls_it_by_its_stem_or_by_its_path_if_that_would_not_tell(write):
    assert tasks.titles(["addition", "a/mine.py", "b/yours.py"]) == {
        "addition": "addition", "a/mine.py": "mine", "b/yours.py": "yours"}
    for names in (["a/mine.py", "b/mine.py"], ["a/addition.py"]):       # addition is minitron's
        assert tasks.titles(names) == {name: name for name in names}


def test_the_gallery_shows_a_file_without_a_docstring(write):
    assert "no docstring" in tasks_command.describe(write(GOOD))


def test_options_variants_and_a_world_work_as_for_any_task(write):
    source = """VARIANTS = ("one", "two")
OPTIONS = {"k": (2, 1, 4), "world": (0, 0, 9)}
LENGTHS = (1, 9)
def VOCAB(variant, k, world): return ["0", "1"] + ["x"] * (k > 2)
def sample(rng, length, batch, variant, k, world):
    hidden = world(length).integers(0, 2, length)
    return rng.integers(0, 2, (batch, length)) ^ hidden, rng.integers(0, 2, (batch, length))
"""
    task = tasks.load(Config(task=write(source), variant="two", options="k=3"))
    assert (task.variant, task.options, len(task.pieces)) == ("two", {"k": 3, "world": 0}, 3)
    assert "is unknown" in refusal("mine.py", variant="three")
    assert "out of range" in refusal("mine.py", options="k=5")


def test_prepare_takes_the_place_of_vocab_and_sample(write):
    source = """import numpy as np
LENGTHS = (1, 9)
def prepare(world, length, variant, train_fraction, data):
    def draw(rng, length, batch, split):
        answer = np.tile(np.arange(length + 1) > 0, (batch, 1))
        return rng.integers(0, 2, (batch, length + 1)), answer
    return "01", draw, "fingerprint"
"""
    assert tasks.load(Config(task=write(source))).version.endswith(" 1 fingerprint")
    write(source.replace('"01"', '"0"'))
    assert "draw() at length 3 gives token 1: tokens must be 0 to 0" in refusal("mine.py")
    write(source.replace('"fingerprint"', "3"))
    assert "prepare() gives (str, function, int): it must give pieces" in refusal("mine.py")


# Its faults are told in one line

@pytest.mark.parametrize("source, complaint", [
    (b"\xff\xfe", " is not UTF-8 (byte 0): save it as UTF-8"),
    ("x = 1\ndef f(:\n", ", line 2: SyntaxError: invalid syntax"),
    ("x = 1\n  y = 2\n", ", line 2: IndentationError: unexpected indent"),
    ("import nosuch\n", ", line 1: ModuleNotFoundError: No module named 'nosuch'"),
    ("def f():\n    return 1 / 0\n\n\nf()\n", ", line 2: ZeroDivisionError: division by zero"),
    ("raise ValueError('a\\nb')\n", ", line 1: ValueError: a b"),
    ("import sys\nsys.exit()\n", ", line 2: SystemExit"),
    ("", ": LENGTHS is missing: a task needs VOCAB, LENGTHS and sample()"),
    (HEAD, ": sample is missing: a task needs VOCAB, LENGTHS and sample()"),
    (HEAD + "sample = 3\n", ": sample is missing: a task needs VOCAB, LENGTHS and sample()"),
    (GOOD.replace("VOCAB =", "VOCABULARY ="),
     ": VOCAB is missing: a task needs VOCAB, LENGTHS and sample()"),
    (GOOD + "LENGTHS = 5\n",
     ": LENGTHS is 5: it must be two whole numbers, the smallest length, at least 1, "
     "and the largest"),
    (GOOD + "LENGTHS = 5, 2\n", ": LENGTHS is (5, 2): it must be two whole numbers"),
    (GOOD + "LENGTHS = 1.0, 2.0\n", ": LENGTHS is (1.0, 2.0): it must be two whole numbers"),
    (GOOD + "LENGTHS = 5, 9\n",
     ": LENGTH is 3, outside LENGTHS (5, 9): set LENGTH, the default of the dial"),
    (GOOD + "VARIANTS = 'plain'\n", ": VARIANTS is 'plain': it must be of type tuple"),
    (GOOD + "VARIANTS = ()\n", ": VARIANTS is (): it must be one name or more"),
    (GOOD + "STEP = 0\n", ": STEP is 0: it must be at least 1"),
    (GOOD + "MIXED = 1\n", ": MIXED is 1: it must be of type bool"),
    (GOOD + "BOS = ':'\n", ": BOS is ':': it must be of type bytes"),
    (GOOD + "OPTIONS = {'k': 3}\n",
     ": OPTIONS['k'] is 3: it must be three numbers, the default, the smallest and the largest"),
    (GOOD + "OPTIONS = {'k': (3, 4, 5)}\n",
     ": OPTIONS['k'] is (3, 4, 5): its default must be 4 to 5"),
    (GOOD + "OPTIONS = {'k': (3, 1, 5)}\n",
     ": sample() cannot be called as sample(rng, length, batch, variant, k)"),
    (GOOD.replace(", variant)", ")"),
     ": sample() cannot be called as sample(rng, length, batch, variant)"),
    (GOOD + "def mirror(tokens): return tokens\n",
     ": mirror() cannot be called as mirror(tokens, variant)"),
    (GOOD + "VOCAB = ['0', '1', ':', '1']\n",
     ": pieces 1 and 3 of VOCAB are both '1': pieces must differ"),
    (GOOD + "VOCAB = ['0', '1', ':', 2]\n", ": piece 3 of VOCAB is 2: it must be text, not empty"),
    (GOOD + "VOCAB = ['0', '1', ':', '']\n",
     ": piece 3 of VOCAB is '': it must be text, not empty"),
    (GOOD.replace("':'", "'='"), ", line 7: '=' is not in VOCAB"),
    (GOOD.replace("[bits]", "[bits[:3]]"), ", line 7: "),
    (HEAD + BITS + "bits",
     ": sample() at length 3 gives int64 (16, 3): it must give two arrays, tokens and the answer"),
    (HEAD + BITS + "bits * 1.0, bits > 0",
     " gives tokens that are float64 (16, 3): they must be integers (B, S)"),
    (HEAD + BITS + "bits[0], bits[0] > 0",
     " gives tokens that are int64 (3,): they must be integers (B, S)"),
    (HEAD + BITS + "bits, bits[:, :1] > 0",
     " gives an answer that is bool (16, 1): it must be bool or int (16, 3), as the tokens"),
    (HEAD + BITS + "bits, bits * 1.0",
     " gives an answer that is float64 (16, 3): it must be bool or int (16, 3)"),
    (HEAD + BITS + "bits, bits < 5",
     " gives an answer that is True at a row's first token: there is no token before"),
    (HEAD + BITS + "bits, bits > 5", " gives a row without an answer: each row must have one"),
    (HEAD + BITS + "bits, np.full_like(bits, -1)",
     " gives a row without an answer: each row must have one"),
    (HEAD + BITS + "bits * 0 + 3, np.tile(np.arange(length) > 0, (batch, 1))",
     " gives token 3: tokens must be 0 to 2, for VOCAB has 3"),
    (HEAD + BITS + "-bits, bits", " gives token -1: tokens must be 0 to 2, for VOCAB has 3 pieces"),
    (HEAD + BITS + "bits, bits * 0 + 3",
     " gives label 3: labels must be -1 to 2, for VOCAB has 3 pieces"),
    (HEAD + BITS + "bits[:3], bits[:3]", " gives 3 rows: it must give batch rows, here 16"),
    (GOOD.replace("rng.integers", "np.random.default_rng().integers"),
     ": the same rng gives different rows"),
])
def test_a_fault_is_told_with_the_file_the_value_and_the_rule(write, source, complaint):
    text = refusal(write(source))
    assert text.startswith("task mine.py") and complaint in text, text


def test_a_file_that_cannot_be_read_is_told(write, tmp_path):
    write(GOOD, "folder.py/mine.py")
    assert refusal("nosuch.py") == "task nosuch.py cannot be read: No such file or directory"
    assert refusal("folder.py") == "task folder.py cannot be read: Is a directory"
    assert refusal("folder.py/mine").endswith("or the path of a file that ends in .py")


LATER = GOOD.replace("VOCAB", "CALLS = []\nVOCAB", 1).replace(
    "    return ", "    CALLS.append(1)\n    if len(CALLS) > 40:\n        {}\n    return ")


@pytest.mark.parametrize("statement, error, text", [
    ("raise ValueError('k is 9')", MinitronError, "task mine.py, line 10: k is 9"),
    ("bits = bits[1:]", MinitronError, "rows: it must give batch rows"),
    ("bits = bits - 1", MinitronError, "token -1: tokens must be 0 to 2"),
    ("raise KeyError('k')", KeyError, "k"),
])
def test_in_training_a_value_error_is_told_and_another_error_keeps_its_traceback(
        write, statement, error, text):
    config = Config(task=write(LATER.format(statement)), **TINY_CONFIG | {"steps": 500})
    with pytest.raises(error) as caught:
        train.train(config, quiet=True)
    assert text in str(caught.value) and "\n" not in str(caught.value)
    assert os.path.exists("model.bin.ckpt"), "training had begun"
    assert caught.traceback[-1].path.name == ("mine.py" if error is KeyError else "tasks.py")


def test_the_rows_of_minitrons_own_tasks_pass_the_same_checks(write):
    """A copy of each file draws the same rows as the task, and nothing in it is refused."""
    for name in tasks.names():
        copy = write((ROOT / "tasks" / f"{name}.py").read_bytes(), f"copy_{name}.py")
        task, config = tasks.load(Config(task=name)), Config(task=copy)
        for split in tasks.SPLITS:
            tokens, answer = tasks.load(config).draw(Random(2), task.length, 20, split)
            expected = task.draw(Random(2), task.length, 20, split)
            assert np.array_equal(tokens, expected[0]) and np.array_equal(answer, expected[1])
        original = dataclasses.replace(Config(task=name).resolve(), task=copy)
        assert config.resolve() == original


# Functions that evaluation calls

@pytest.mark.parametrize("function, words", [
    ("def group(tokens, length):\n    return tokens[:, 0] / 2", "group() gives float64 (16,)"),
    ("def group(tokens, length):\n    return [0] * len(tokens)", "group() gives list"),
    ("def group(tokens, length):\n    return tokens[:1, 0]", "group() gives int64 (1,)"),
    ("def group(tokens, length):\n    return tokens.nosuch", "group() raises AttributeError"),
    ("def reference(tokens, variant):\n    return {'best': np.nan}",
     "reference() gives nan for best"),
    ("def reference(tokens, variant):\n    return {'best': '1'}", "reference() gives '1' for best"),
    ("def reference(tokens, variant):\n    return 0.5", "reference() gives float"),
    ("def reference(tokens, variant):\n    return {}['best']",
     "line 9: reference() raises KeyError: 'best'"),
    ("def sampled(temperature, length, variant):\n    return None", "sampled() gives None"),
])
def test_faults_of_what_is_measured_are_named_before_training(write, function, words):
    name = write(f"{GOOD}{function}\n")
    message = refusal(name)
    assert message.startswith(f"task {name}") and words in message


def test_a_group_is_a_whole_number(write):
    """int() would merge 0.5 with 0."""
    name = write(f"{GOOD}def group(tokens, length):\n    return tokens[:, 0] / 2\n")
    assert "it must give integers (16,), one per row" in refusal(name)


def test_results_of_a_file_are_plain_numbers(write):
    """Of NumPy, they could not be written into a record."""
    functions = ("def reference(tokens, variant):\n    return {'best': np.float32(0.5)}\n"
                 "def sampled(temperature, length, variant):\n    return np.float32(1)\n")
    definition = tasks.load(Config(task=write(GOOD + functions))).module
    assert json.dumps([definition.reference([], "plain"), definition.sampled(1, 2, "plain")]) \
        == '[{"best": 0.5}, 1.0]'
