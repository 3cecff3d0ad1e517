"""Whatever is given to a method of Engine, it works or says in one line why not, and goes on."""
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers import LETTERS, SMALL, refused

from minitron import Engine
from minitron.base.environment import ROOT
from minitron.base.errors import MinitronError
from minitron.engine.engine import ffi

pytestmark = pytest.mark.skipif(not any(ROOT.glob("build/libminitron.*")),
                                reason="the engine is not built: run make")


class Nameless:
    def __repr__(self):
        return "two\nlines" * 1000


VALUES = [
    None, True, False, 0, 1, 3, -1, 2**31 - 1, 2**31, 2**40, 2**64, -2**70, 10**5000, 0.5, 1.5, 1.0,
    -0.5, float("nan"), float("inf"), 1e300, 1j, Fraction(1, 3), "", "a", "abc", "hot", "caf\udce9",
    "a\0.png", b"", b"ab", b"\xff", bytearray(b"ab"), memoryview(b"ab"), Path("a"), [], [0], ["a"],
    [None], [0.5], [[0]], [[0], [1, 2]], [[[1]]], [["a"]], ["a", 1], [10**5000], [bytearray(b"a")],
    (1, 2), {}, {1}, {"a": 1}, range(3), iter([1]), object(), Nameless(), [Nameless()], lambda: 0,
    np.int32(1), np.uint64(2**63), np.float32(0.5), np.float64("nan"), np.bool_(True), np.array(1),
    np.array([1.5]), np.zeros((0, 3), int), np.zeros((2, 2)), np.zeros((1, 3), int), np.array("a"),
    np.array([1, None]), np.datetime64("now"), ffi.NULL, ffi.new("int *"),
]

CALLS = {       # method -> good arguments
    "encode": {"text": "ab"},
    "decode": {"tokens": [0, 1]},
    "tokens_of": {"text": "ab"},
    "prompt_tokens": {"prompt": "ab"},
    "reset": {"sequences": 1, "context": 4},
    "length": {"sequence": 0},
    "rewind": {"length": 0, "sequence": 0},
    "forward": {"tokens": [1], "sequences": [0], "positions": [0], "wanted": [True]},
    "score": {"tokens": [1], "targets": [1], "sequences": [0], "positions": [0]},
    "logits": {"tokens": [[1, 2]], "positions": [[0, 1]], "wanted": [[True, False]]},
    "attention": {"tokens": [[1, 2]], "layer": 0, "head": 0, "positions": [[0, 1]]},
    "logprobs": {"prompts": ["a"], "continuations": ["b"]},
    "generate": {"prompts": ["a"], "steps": 1, "temperature": 1, "top_k": 2, "top_p": 0.5,
                 "min_p": 0.1, "seed": 1, "stop": "b"},
    "generate_tokens": {"prompts": [[1]], "steps": 1, "temperature": 1, "top_k": 2, "top_p": 0.5,
                        "min_p": 0.1, "seed": 1, "stop": [1]},
    "stream": {"prompt": "a", "steps": 1, "temperature": 1, "top_k": 2, "top_p": 0.5, "min_p": 0.1,
               "seed": 1},
    "sampling": {"temperature": 1, "top_k": 2, "top_p": 0.5, "min_p": 0.1},
    "sample": {"row": np.zeros(8), "how": None, "state": ffi.new("uint64_t *")},
}


def call(engine, name, **changes):
    """A method with good arguments but for the changes -> what attempt gives"""
    arguments = CALLS[name]
    if name == "sample":
        arguments = arguments | {"how": engine.sampling(1, 0, 1, 0)}
    return attempt(getattr(engine, name), **arguments | changes)


def attempt(function, *arguments, **named):
    """A call's result, a stream exhausted, or None if it is refused in one line"""
    try:
        result = function(*arguments, **named)
        return list(result) if hasattr(result, "send") else result
    except MinitronError as refusal:
        assert "\n" not in str(refusal) and 10 < len(str(refusal)) < 400
        return None


@pytest.mark.parametrize("name, argument", [
    (name, argument) for name, arguments in CALLS.items() for argument in arguments])
def test_any_argument_works_or_is_refused_in_one_line(letters, name, argument):
    expected = letters.generate("ab", seed=1)
    for value in VALUES:
        if name in ("forward", "score", "rewind"):
            letters.reset(1, 4)
        call(letters, name, **{argument: value})
    assert letters.generate("ab", seed=1) == expected


@pytest.mark.parametrize("name", CALLS)
def test_good_arguments_work(letters, name):
    letters.reset(1, 4)
    assert name in ("reset", "rewind") or call(letters, name) is not None


def test_any_path_and_any_threads(build, tmp_path):
    build(SMALL, pieces=LETTERS)
    for value in VALUES:
        assert attempt(Engine, value) is None
        engine = attempt(Engine, tmp_path / "0.bin", value)
        assert engine is None or engine.threads >= 1
    for path in (str(tmp_path / "0.bin"), bytes(tmp_path / "0.bin")):
        assert Engine(path, np.int64(2)).threads == 2


# a call, and the words of its refusal: thing, value, rule
@pytest.mark.parametrize("call, words", [
    (lambda e: e.generate("caf\udce9"), "text 'caf.udce9' cannot be written as UTF-8: character 3"),
    (lambda e: e.generate([1, 2]), "tokens 1: give a list"),
    (lambda e: e.generate(None), "prompts None: give a list"),
    (lambda e: e.generate([[[1, 2]]]), r"tokens of shape \(1, 2\): give one row"),
    (lambda e: e.generate("a", temperature="hot"), "temperature 'hot' is not a number"),
    (lambda e: e.generate("a", temperature=True), "temperature True is not a number"),
    (lambda e: e.generate("a", temperature=np.nan), "temperature nan is out of range: use 0 to"),
    (lambda e: e.generate("a", top_k=2.0), "top_k 2.0 is not a whole number"),
    (lambda e: e.generate("a", top_k=-1), "top_k -1 is out of range: use 0 to 2147483647"),
    (lambda e: e.generate("a", top_p=1.5), "top_p 1.5 is out of range: use 0 to 1"),
    (lambda e: e.generate("a", steps=True), "steps True is not a whole number"),
    (lambda e: e.generate("a", steps=-10**5000), "steps of type int is out of range: use 0 or"),
    (lambda e: e.reset(2**40, 1), "sequences 1099511627776 is out of range: use -2147483648 to"),
    (lambda e: e.reset(1.5, 1), "sequences 1.5 is not a whole number"),
    (lambda e: e.attention([[1]], "0", 0), "layer '0' is not a whole number"),
    (lambda e: e.forward([[1, 2]]), r"tokens of shape \(1, 2\): give one row, \(n,\)"),
    (lambda e: e.forward([1], wanted=["a"]), "the wanted values are <U1: give True or False"),
    (lambda e: e.decode(3), r"tokens of shape \(\): give one row"),
    (lambda e: e.sample([0] * 8, None, None), "how None is not a mt_sampling"),
    (lambda e: e.sample(["a"] * 8, None, None), "logits of shape .8,., <U1: give one for each of"),
    (lambda e: e.encode(5), "text 5 is neither str nor bytes"),
    (lambda e: Engine(None), "path None is not the name of a file"),
    (lambda e: Engine("m.bin\0.png"), r"path 'm.bin.x00.png' holds a zero byte"),
    (lambda e: Engine("m.bin", threads=1.5), "threads 1.5 is not a whole number"),
    (lambda e: Engine("m.bin", threads=0), "threads 0 is out of range: use 1 to 256"),
    (lambda e: Engine("m.bin", threads=257), "threads 257 is out of range: use 1 to 256"),
    (lambda e: Engine("no such\nfile"), "no such file: No such file"),
])
def test_refusals_name_the_thing_the_value_and_the_rule(letters, call, words):
    refused(words, call, letters)


def test_a_bytearray_is_text(letters):
    assert letters.encode(bytearray(b"ab")) == [0, 1]
    assert letters.generate(bytearray(b"ab"), seed=1) == letters.generate(b"ab", seed=1)
