"""A run's configuration: one frozen dataclass, whose fields are the flags of train.py.

Fields left at None depend on others, most of all on dim, the one dial; `resolve` fills them in.  Two runs with equal resolved
configurations give equal bits (on one machine and NumPy), so its hash, `key`, is the name of a run.
"""
import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field

import numpy as np

import tasks

from .errors import MinitronError

RECORD_VERSION = 3
ATTENTIONS = ("softmax", "linear")
POSITIONS = ("plain", "random", "coupled")


def flag(default, help):
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


@dataclass(frozen=True)
class Config(ModelConfig):
    """What a run is: the model, what it learns, and how."""

    task: str = flag("addition", "what to learn: the name of a file in tasks/")
    variant: str | None = flag(None, "the task's variant; `python -m minitron tasks` lists them")
    length: int | None = flag(None, "the task's length, the other dial, e.g. the number of digits")
    mixed: bool | None = flag(None, "train on all lengths up to the dial, or on the dial's alone (default: the task's)")
    options: str | None = flag(None, "the task's further dials, such as pairs=8,vocab=256")
    test_length: int | None = flag(None, "test lengths beyond those of training too, up to this one (default length)")
    positions: str = flag("plain", "plain: 0, 1, 2, ...; random: sorted draws from a longer range; coupled: the task's own")
    position_range: int | None = flag(None, "random positions are below this (default 4 times the longest row tested)")
    data: str | None = flag(None, "a file of your own, for --task text")
    train_fraction: float = flag(0.9, "share of all problems that training may see")
    steps: int = flag(2500, "optimizer steps at the most; training stops early when it has solved the task")
    batch: int | None = flag(None, "sequences a step (default: the task's)")
    lr: float | None = flag(None, "peak learning rate (default 0.024 / sqrt(dim))")
    warmup: int | None = flag(None, "steps until the peak (default steps / 20)")
    lr_floor: float = flag(0.1, "share of the peak at which the learning rate ends; 1 keeps it where it is")
    weight_decay: float = flag(0.01, "AdamW's decoupled decay of the matrices")
    beta1: float = flag(0.9, "AdamW's memory of gradients")
    beta2: float = flag(0.99, "AdamW's memory of their squares")
    clip: float = flag(1.0, "longest gradient allowed")
    seed: int = flag(0, "names the random streams of weights and data")
    shards: int | None = flag(None, "pieces a batch is cut into, each worked on by one thread (default 1, 2 or 4, by its size)")
    eval_every: int = flag(100, "steps between evaluations, each with a checkpoint")
    test_items: int = flag(2000, "test problems per length at the most")

    def resolve(self):
        """This configuration with every None filled in from the task and from dim, checked.  Raises MinitronError."""
        check_number("train_fraction", self.train_fraction)
        task = tasks.load(self)
        if self.vocab not in (None, len(task.pieces)):
            raise MinitronError(f"vocab {self.vocab} is not the vocabulary of task {task.name}, {len(task.pieces)}: leave it out")
        batch = or_default(self.batch, task.batch)
        c = dataclasses.replace(
            self,
            variant=task.variant,
            length=task.length,
            mixed=task.mixed,
            options=",".join(f"{name}={value}" for name, value in task.options.items()),
            test_length=max(task.length, *task.beyond) if task.beyond else task.length,
            position_range=or_default(self.position_range, 4 * task.longest) if self.positions == "random" else None,
            vocab=len(task.pieces),
            batch=batch,
            lr=or_default(self.lr, round(0.024 * max(self.dim, 1) ** -0.5, 6)),
            warmup=or_default(self.warmup, self.steps // 20),
            shards=or_default(self.shards, default_shards(batch, task.width, self.dim)),
        )
        c = ModelConfig.resolve(c)
        check_positions(c, task)
        if c.shards > c.batch:
            raise MinitronError(f"shards {c.shards} exceeds batch {c.batch}: a shard needs at least one sequence")
        return c

    def key(self, task):
        """12 hex digits that name this run: a hash of the configuration, the version of its task, and the record's.

        Fields at their defaults are left out, so that a field added to minitron later changes no name.
        """
        values = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        chosen = {field.name: value for field, value in values if value != field.default}
        content = {"config": chosen, "task": task.version, "record": RECORD_VERSION}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def restored(saved):
    """The Config that was kept as {field: value}, to be resolved again, its vocabulary too: data may have changed."""
    return dataclasses.replace(Config(**saved), vocab=None)


# Field -> smallest and largest value.  run.c holds a model file to the same limits.
LIMITS = {
    "train_fraction": (0.01, 0.99), "dim": (1, 2**16), "layers": (1, 2**12), "heads": (1, 2**16),
    "kv_heads": (1, 2**16), "head_dim": (2, 2**16), "ffn_dim": (0, 2**16), "vocab": (2, 2**20),
    "rope_theta": (0, 1e12), "norm_eps": (1e-12, 1), "steps": (1, 10**9), "batch": (1, 2**20), "lr": (0, 1e6),
    "warmup": (0, 10**9), "lr_floor": (0, 1), "weight_decay": (0, 100), "beta1": (0, 0.999999), "beta2": (0, 0.999999),
    "clip": (1e-6, 1e12), "position_range": (1, 2**20),
    "seed": (0, 2**63), "shards": (1, 1024), "eval_every": (1, 10**9), "test_items": (1, 10**7),
}


def check_positions(config, task):
    """Raises MinitronError where the task has no such positions, or the range is shorter than a row."""
    if config.positions not in POSITIONS:
        raise MinitronError(f"positions {config.positions!r} are unknown: use one of {', '.join(POSITIONS)}")
    if config.positions == "coupled" and not hasattr(task.module, "positions"):
        raise MinitronError(f"positions 'coupled' have no meaning in task {task.name}: use plain or random")
    if config.positions == "random" and config.position_range < task.longest:
        raise MinitronError(f"position-range {config.position_range} is shorter than the longest row, {task.longest} tokens at "
                            f"length {config.test_length}: use a larger one")
    if config.positions != "plain" and not config.rope_theta:
        raise MinitronError(f"positions {config.positions!r} have no meaning without positions: use a --rope-theta above 0")


def check_number(name, value):
    low, high = LIMITS[name]
    if not low <= value <= high:        # written so that a NaN fails too
        raise MinitronError(f"{name.replace('_', '-')} {value} is out of range: use {low:g} to {high:g}")


def single(x):
    """The shortest decimal of the nearest float32, which is what a model file holds: NumPy and run.c are to use equal ones."""
    return float(str(np.float32(x)))


def default_shards(batch, time, dim):
    """One for a small batch, where two threads would wait for each other (a step of addition at dim 16: 2 ms with one shard, 5 ms
    with two); two, for two cores; four where the arrays of so large a shard would not stay in the caches.
    """
    size = batch * time * dim
    return min(batch, 1 if size < 2**16 else 2 if size < 2**19 else 4)


def or_default(value, default):
    return default if value is None else value
