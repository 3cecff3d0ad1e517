"""A run's configuration: one frozen dataclass, whose fields are the flags of train.py.

Fields left at None depend on others, most of all on dim; `resolve` fills them in.
Two runs with equal resolved configurations give equal bits (on one machine, with one NumPy), so
its hash, `key`, is the name of a run.
"""
import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import MinitronError
from ..model.config import ModelConfig, check_number, check_numbers, flag, or_default
from . import tasks

RECORD_VERSION = 4
POSITIONS = ("plain", "random", "coupled")
LIMITS = {                      # field -> smallest and largest value; the task checks the others
    "train_fraction": (0.01, 0.99),
    "position_range": (1, 2**20),
    "steps": (1, 10**9),
    "batch": (1, 2**20),
    "lr": (0, 1e6),
    "warmup": (0, 10**9),
    "lr_floor": (0, 1),
    "weight_decay": (0, 100),
    "beta1": (0, 0.999999),
    "beta2": (0, 0.999999),
    "clip": (1e-6, 1e12),
    "seed": (0, 2**63),
    "shards": (1, 1024),
    "eval_every": (1, 10**9),
    "test_items": (1, 10**7),
}


@dataclass(frozen=True)
class Config(ModelConfig):
    """A run: the model, its task, and how it is trained."""

    task: str = flag("addition", "the task: a file in tasks/, or the path of your own")
    variant: str | None = flag(
        None, "the task's variant; `python -m minitron tasks` lists them")
    length: int | None = flag(
        None, "the task's length, the other dial, e.g. the number of digits")
    mixed: bool | None = flag(
        None, "train on all lengths up to --length, or on that length alone (default: the task's)")
    options: str | None = flag(None, "further dials of the task, such as pairs=8,vocab=256")
    test_length: int | None = flag(
        None, "test also on lengths beyond those of training, up to this one (default length)")
    positions: str = flag(
        "plain", "plain: 0, 1, 2, ...; random: sorted draws from a longer range; "
        "coupled: as the task says")
    position_range: int | None = flag(
        None, "random positions are below this (default 4 times the longest row tested)")
    data: str | None = flag(None, "your own file, for --task text")
    train_fraction: float = flag(0.9, "share of all problems that training may use")
    steps: int = flag(
        2500, "optimizer steps; training stops earlier if the task is solved")
    batch: int | None = flag(None, "sequences per step (default: the task's)")
    lr: float | None = flag(None, "peak learning rate (default 0.024 / sqrt(dim))")
    warmup: int | None = flag(None, "steps until the peak (default steps / 20)")
    lr_floor: float = flag(
        0.1, "share of the peak at which the learning rate ends; 1: constant after the warmup")
    weight_decay: float = flag(0.01, "AdamW's decoupled decay of the matrices")
    beta1: float = flag(0.9, "AdamW's decay rate of the mean of gradients")
    beta2: float = flag(0.99, "AdamW's decay rate of the mean of their squares")
    clip: float = flag(1.0, "largest norm of the gradient")
    seed: int = flag(0, "names the random streams of weights and data")
    init: str | None = flag(
        None, "start from the weights of this model file, of the same shape, to train on")
    shards: int | None = flag(
        None, "pieces of a batch, one thread each (default 1, 2 or 4, by its size)")
    eval_every: int = flag(100, "steps between evaluations, each with a checkpoint")
    test_items: int = flag(2000, "test problems per length, at most")

    def resolve(self):
        """This configuration with every None filled in from the task and from dim, checked.

        Raises MinitronError.
        """
        check_number("train_fraction", self.train_fraction, LIMITS)
        task = tasks.load(self)
        if self.vocab not in (None, len(task.pieces)):
            raise MinitronError(f"vocab {self.vocab} is not the vocabulary of task {task.name}, "
                                f"{len(task.pieces)}: leave it out")
        batch = or_default(self.batch, task.batch)
        default_lr = round(0.024 * max(self.dim, 1) ** -0.5, 6)
        position_range = or_default(self.position_range, 4 * task.longest)
        c = dataclasses.replace(
            self,
            variant=task.variant,
            length=task.length,
            mixed=task.mixed,
            options=",".join(f"{name}={value}" for name, value in task.options.items()),
            test_length=max(task.length, *task.beyond) if task.beyond else task.length,
            position_range=position_range if self.positions == "random" else None,
            vocab=len(task.pieces),
            batch=batch,
            lr=or_default(self.lr, default_lr),
            warmup=or_default(self.warmup, self.steps // 20),
            shards=or_default(self.shards, default_shards(batch, task.width, self.dim)),
            init=self.init and with_hash(self.init),
        )
        c = ModelConfig.resolve(c)
        check_numbers(c, LIMITS)
        check_positions(c, task)
        if c.shards > c.batch:
            raise MinitronError(f"shards {c.shards} exceeds batch {c.batch}: "
                                "a shard needs at least one sequence")
        return c

    def key(self, task):
        """12 hex digits that name this run: a hash of it and the versions of task and record

        Fields at their defaults are left out: a field added to minitron later changes no name.  A
        default that changes needs a new RECORD_VERSION.  The paths of the data and of a task's
        file are left out, too: task.version has their contents.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)
                  if getattr(self, field.name) != field.default}
        values.pop("data", None)
        if tasks.is_file(self.task):
            del values["task"]
        if self.init:
            values["init"] = split_hash(self.init)[1]
        content = {"config": values, "task": task.version, "record": RECORD_VERSION}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def with_hash(path):
    """"model.bin" -> "model.bin#", 12 hex digits of a hash of its content; with them: as it is

    Raises MinitronError.
    """
    if split_hash(path)[1]:
        return path
    if not os.path.isfile(path):
        raise MinitronError(f"init {path} is not a model file: give the path of one")
    try:
        return f"{path}#{hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]}"
    except OSError as error:
        raise MinitronError(f"init {path} cannot be read: {error.strerror}") from None


def split_hash(name):
    """"m.bin#4613c4732fd8" -> ("m.bin", "4613c4732fd8"); "m.bin" -> ("m.bin", "")"""
    match = re.fullmatch(r"(.*)#([0-9a-f]{12})", name, re.DOTALL)
    return match.groups() if match else (name, "")


def config_from_dict(values):
    """The Config of these values of a resolved one, {field: value}, to be resolved again

    Its vocabulary is left out, since the data may have changed.
    """
    return dataclasses.replace(Config(**values), vocab=None)


def check_positions(c, task):
    """Raises MinitronError if the task lacks these positions, or their range is below a row."""
    if c.positions not in POSITIONS:
        raise MinitronError(f"positions {c.positions!r} are unknown: "
                            f"use one of {', '.join(POSITIONS)}")
    if c.positions == "coupled" and not hasattr(task.module, "positions"):
        raise MinitronError(f"positions 'coupled' are not defined for task {task.name}: "
                            "use plain or random")
    if c.positions == "random" and c.position_range < task.longest:
        raise MinitronError(f"position-range {c.position_range} is shorter than the longest row, "
                            f"{task.longest} tokens at length {c.test_length}: use a larger one")
    if c.positions != "plain" and not c.rope_theta:
        raise MinitronError(f"positions {c.positions!r} have no effect at rope-theta 0: "
                            "use a --rope-theta above 0")


def default_shards(batch, time, dim):
    """The number of shards of a batch, by its size: 1, 2 or 4

    Two threads would wait for each other on a small batch, and the arrays of half a large batch
    would not fit the caches.
    """
    size = batch * time * dim
    return min(batch, 1 if size < 2**16 else 2 if size < 2**19 else 4)
