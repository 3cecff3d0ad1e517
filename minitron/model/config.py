"""The model's configuration: with the weights, all that run.c needs to know.

`resolve` fills in the fields that are left at None: some depend on others.
"""
import contextlib
import dataclasses
import math
import numbers
import os
import types
import typing
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ..base.errors import MinitronError

KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
ATTENTIONS = ("softmax", "linear")
WIDEST = 2**16                  # channels of all heads together
HEADS, HEAD_DIM = 4, 16         # the defaults do not follow dim: --dim is one dial
LIMITS = {                      # field -> smallest and largest value, in a model file too
    "dim": (1, 2**16),
    "layers": (1, 2**12),
    "heads": (1, 2**16),
    "kv_heads": (1, 2**16),
    "head_dim": (2, 2**16),
    "ffn_dim": (0, 2**16),
    "vocab": (2, 2**20),
    "rope_theta": (0, 1e12),
    "norm_eps": (1e-12, 1),
}


def flag(default, help):
    """A dataclass field that is a command-line flag, or not one if help is None"""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the model."""

    dim: int = flag(128, "width of the residual stream, the dial of scale")
    layers: int = flag(2, "number of blocks")
    heads: int | None = flag(None, "query heads (default 4)")
    kv_heads: int | None = flag(
        None, "key/value heads; fewer than heads: grouped-query attention (default heads)")
    head_dim: int | None = flag(None, "width of a head, even (default 16)")
    ffn_dim: int | None = flag(
        None, "width of the feed-forward layer, 0 for attention only (default 8/3 dim)")
    rope_theta: float = flag(10000.0, "base of the rotary positions, 0 for no positions")
    norm_eps: float = flag(1e-5, "added to the mean square in every norm")
    qk_norm: bool = flag(True, "normalize queries and keys")
    tied: bool = flag(True, "use one tensor as embedding and as head")
    attention: str = flag("softmax", "softmax, or linear: attention without the softmax")
    plain: bool = flag(
        False, "train with the ops as ops.py states them, without the drop-ins of fast.py")
    vocab: int | None = flag(None, None)        # the task's

    def __post_init__(self):
        """Give each field its own type: NumPy's numbers, paths and 1 for 1.0 may stand for it

        So equal configurations are equal as JSON.  Raises MinitronError for other values.
        """
        for name, kinds in field_kinds(type(self)).items():
            object.__setattr__(self, name, as_kind(name, getattr(self, name), *kinds))

    def resolve(self):
        """This configuration with every None filled in, checked.  Raises MinitronError."""
        check_number("dim", self.dim)
        heads = or_default(self.heads, HEADS)
        ffn_dim = min(8 * math.ceil(self.dim / 3), LIMITS["ffn_dim"][1])
        c = dataclasses.replace(
            self,
            heads=heads,
            kv_heads=or_default(self.kv_heads, heads),
            head_dim=or_default(self.head_dim, HEAD_DIM),
            ffn_dim=or_default(self.ffn_dim, ffn_dim),
            rope_theta=float32_decimal(self.rope_theta),
            norm_eps=float32_decimal(self.norm_eps),
        )
        check_numbers(c, LIMITS)
        check_attention(c)
        return c


@cache
def field_kinds(config_class):
    """{field: (type, whether None may stand for it)} of a dataclass"""
    hints = typing.get_type_hints(config_class)
    return {name: (hint.__args__[0], True) if isinstance(hint, types.UnionType) else (hint, False)
            for name, hint in hints.items()}


def as_kind(name, value, kind, optional):
    """A value as a bool, int, float or str, if it is one in its meaning.  Raises MinitronError."""
    if value is None and optional:
        return None
    is_bool = isinstance(value, (bool, np.bool_))
    is_number = isinstance(value, numbers.Real) and not is_bool
    if kind is bool and is_bool:
        return bool(value)
    is_whole = isinstance(value, numbers.Integral) or is_number and float(value).is_integer()
    if kind is int and is_number and is_whole:
        return int(value)
    with contextlib.suppress(OverflowError):            # of an int of 309 digits
        if kind is float and is_number:
            return float(value) + 0.0                   # -0.0 is 0.0
    if kind is str and isinstance(value, (str, os.PathLike)):
        return str(os.fspath(value))
    raise MinitronError(f"{name.replace('_', '-')} {value!r} is not {KINDS[kind]}")


def check_numbers(config, limits):
    """Raises MinitronError if a field is beyond its limits.      limits {field: (low, high)}"""
    for name in limits:
        if getattr(config, name) is not None:
            check_number(name, getattr(config, name), limits)


def check_number(name, value, limits=LIMITS):
    low, high = limits[name]
    if not low <= value <= high:        # written so that a NaN fails too
        raise MinitronError(f"{name.replace('_', '-')} {value} is out of range: "
                            f"use {low:g} to {high:g}")


def check_attention(c):
    """Raises MinitronError if the heads do not fit together."""
    if c.heads % c.kv_heads:
        raise MinitronError(f"heads {c.heads} is not a multiple of kv-heads {c.kv_heads}: "
                            "each key/value head serves the same number of query heads")
    if c.heads * c.head_dim > WIDEST:
        raise MinitronError(f"heads {c.heads} times head-dim {c.head_dim} is over {WIDEST}: "
                            "use fewer or narrower heads")
    if c.head_dim % 2:
        raise MinitronError(f"head-dim {c.head_dim} is odd: rotary positions turn pairs of "
                            f"channels; use {c.head_dim + 1}")
    if c.attention not in ATTENTIONS:
        raise MinitronError(f"attention {c.attention!r} is unknown: "
                            f"use one of {', '.join(ATTENTIONS)}")


def float32_decimal(x):
    """The shortest decimal of the nearest float32: NumPy then computes with run.c's value."""
    return float(str(np.float32(x)))


def or_default(value, default):
    return default if value is None else value
