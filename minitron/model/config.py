"""The model's configuration: with the weights, all that run.c needs to know.

Fields left at None depend on others, most of all on dim, the one dial; `resolve` fills them in.
"""
import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np

from ..base.errors import MinitronError

ATTENTIONS = ("softmax", "linear")


def flag(default, help):
    """A dataclass field that is a command-line flag; without a help text it is not one."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class ModelConfig:
    """What the model is: with the weights, all that run.c needs to know."""

    dim: int = flag(128, "width of the residual stream, the dial of scale")
    layers: int = flag(2, "number of blocks")
    heads: int | None = flag(None, "query heads (default dim / 32, at least 1)")
    kv_heads: int | None = flag(None, "key/value heads; fewer than heads is grouped-query attention (default heads)")
    head_dim: int | None = flag(None, "width of a head, even (default dim / heads)")
    ffn_dim: int | None = flag(None, "width of the feed-forward, 0 for attention only (default 8/3 dim)")
    rope_theta: float = flag(10000.0, "base of the rotary positions, 0 for no positions")
    norm_eps: float = flag(1e-5, "added to the mean square in every norm")
    qk_norm: bool = flag(True, "normalise queries and keys")
    tied: bool = flag(True, "one tensor for the embedding and the head")
    attention: str = flag("softmax", "softmax, or linear, which is attention without it")
    plain: bool = flag(False, "train with the ops as ops.py states them, without fast.py's drop-ins")
    vocab: int | None = flag(None, None)        # the task's

    def resolve(self):
        """This configuration with every None filled in, checked.  Raises MinitronError."""
        check_number("dim", self.dim)
        heads = or_default(self.heads, max(1, self.dim // 32))
        check_number("heads", heads)
        c = dataclasses.replace(
            self,
            heads=heads,
            kv_heads=or_default(self.kv_heads, heads),
            head_dim=or_default(self.head_dim, 2 * max(1, math.ceil(self.dim / heads / 2))),
            rope_theta=single(self.rope_theta),
            norm_eps=single(self.norm_eps),
            ffn_dim=or_default(self.ffn_dim, min(8 * math.ceil(self.dim / 3), LIMITS["ffn_dim"][1])),
        )
        for name in LIMITS:
            if getattr(c, name, None) is not None:
                check_number(name, getattr(c, name))
        if c.heads % c.kv_heads:
            raise MinitronError(f"heads {c.heads} is not a multiple of kv-heads {c.kv_heads}: "
                                "each key/value head serves the same number of query heads")
        if c.heads * c.head_dim > 2**16:
            raise MinitronError(f"heads {c.heads} times head-dim {c.head_dim} is over {2**16}: use fewer or narrower heads")
        if c.head_dim % 2:
            raise MinitronError(f"head-dim {c.head_dim} is odd: rotary positions turn pairs of channels; "
                                f"use {c.head_dim + 1}")
        if c.attention not in ATTENTIONS:
            raise MinitronError(f"attention {c.attention!r} is unknown: use one of {', '.join(ATTENTIONS)}")
        return c


# Field -> smallest and largest value.  run.c holds a model file to the same limits.
LIMITS = {
    "train_fraction": (0.01, 0.99), "dim": (1, 2**16), "layers": (1, 2**12), "heads": (1, 2**16),
    "kv_heads": (1, 2**16), "head_dim": (2, 2**16), "ffn_dim": (0, 2**16), "vocab": (2, 2**20),
    "rope_theta": (0, 1e12), "norm_eps": (1e-12, 1), "steps": (1, 10**9), "batch": (1, 2**20), "lr": (0, 1e6),
    "warmup": (0, 10**9), "lr_floor": (0, 1), "weight_decay": (0, 100), "beta1": (0, 0.999999), "beta2": (0, 0.999999),
    "clip": (1e-6, 1e12), "position_range": (1, 2**20),
    "seed": (0, 2**63), "shards": (1, 1024), "eval_every": (1, 10**9), "test_items": (1, 10**7),
}


def check_number(name, value):
    low, high = LIMITS[name]
    if not low <= value <= high:        # written so that a NaN fails too
        raise MinitronError(f"{name.replace('_', '-')} {value} is out of range: use {low:g} to {high:g}")


def single(x):
    """The shortest decimal of the nearest float32, which is what a model file holds: NumPy and run.c are to use equal ones."""
    return float(str(np.float32(x)))


def or_default(value, default):
    return default if value is None else value
