"""Equal configurations have equal keys, however their values are given; others are refused."""
import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from minitron.base.errors import MinitronError
from minitron.data import tasks
from minitron.data.config import Config
from minitron.model.config import ModelConfig


def key(config):
    config = config.resolve()
    return config.key(tasks.load(config))


@pytest.mark.parametrize("name, plain, others", [
    ("dim", 16, [np.int32(16), np.uint8(16), np.float32(16), 16.0, Fraction(32, 2)]),
    ("lr", 1.0, [1, np.float64(1), np.int64(1), np.float16(1)]),
    ("weight_decay", 0.0, [0, -0.0, np.float32(-0.0)]),
    ("rope_theta", 0.0, [0, np.int8(0)]),
    ("tied", False, [np.False_]),
    ("task", "parity", [np.str_("parity")]),
    ("length", None, []),
    ("length", 4, [np.int64(4)]),
])
def test_equal_values_are_one(name, plain, others):
    expected = Config(**{name: plain})
    for other in others:
        config = Config(**{name: other})
        value = getattr(config, name)
        assert value == plain and type(value) is type(plain) and str(value) == str(plain)
        assert json.dumps(dataclasses.asdict(config)) == json.dumps(dataclasses.asdict(expected))
        assert key(config) == key(expected)


@pytest.mark.parametrize("name, value, rule", [
    ("dim", "16", "a whole number"), ("dim", 16.5, "a whole number"), ("dim", True, "a whole"),
    ("dim", None, "a whole number"), ("dim", [16], "a whole number"), ("dim", 1j, "a whole number"),
    ("dim", np.array([16, 16]), "a whole number"), ("dim", float("inf"), "a whole number"),
    ("length", float("nan"), "a whole number"), ("length", "3", "a whole number"),
    ("lr", "0.1", "a number"), ("lr", False, "a number"),
    ("lr", 10**400, "a number"), ("lr", 1j, "a number"),
    ("tied", 1, "True or False"), ("tied", None, "True or False"), ("tied", "yes", "True or False"),
    ("task", 3, "text"), ("task", None, "text"), ("task", b"parity", "text"), ("data", 3, "text"),
])
def test_a_value_of_another_type_is_refused(name, value, rule):
    with pytest.raises(MinitronError) as refusal:
        Config(**{name: value})
    text = str(refusal.value)
    assert text.startswith(f"{name} ") and f" is not {rule}" in text and "\n" not in text


def test_a_model_on_its_own_is_checked_too():
    assert ModelConfig(dim=np.int64(8), vocab=np.uint16(9)).resolve() == \
        ModelConfig(dim=8, vocab=9).resolve()
    with pytest.raises(MinitronError, match="^layers 'two' is not a whole number"):
        ModelConfig(layers="two")


def test_the_key_has_the_data_and_not_its_path(tmp_path):
    """A relative path, an absolute one, a Path, a copy: one key; another text: another."""
    first, copy, other = (tmp_path / name for name in ("a.txt", "b.txt", "c.txt"))
    first.write_text(300 * "hello world\n")
    copy.write_text(300 * "hello world\n")
    other.write_text(300 * "hello World\n")
    spellings = [first, str(first), f"{tmp_path}/./a.txt", copy]
    keys = {key(Config(task="text", data=path, length=8)) for path in spellings}
    assert len(keys) == 1
    assert key(Config(task="text", data=other, length=8)) not in keys
    assert isinstance(Config(data=Path("a.txt")).data, str)


@pytest.mark.parametrize("dim", [2, 4, 8, 32, 64, 128, 256])
def test_heads_do_not_follow_dim(dim):
    """--dim is one dial: a frontier of dim was once one of the number of heads."""
    c = Config(dim=dim).resolve()
    assert (c.heads, c.kv_heads, c.head_dim) == (4, 4, 16)
