"""A run's configuration: one frozen dataclass, whose fields are the flags of train.py.

Fields left at None depend on others, most of all on dim, the one dial; `resolve` fills them in.  Two runs with equal resolved
configurations give equal bits (on one machine and NumPy), so its hash, `key`, is the name of a run.
"""
import dataclasses
import hashlib
import json
from dataclasses import dataclass

from ..base.errors import MinitronError
from ..model.config import ModelConfig, check_number, flag, or_default
from . import tasks

RECORD_VERSION = 3
POSITIONS = ("plain", "random", "coupled")


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
        if tasks.is_file(self.task):
            del chosen["task"]          # task.version has the content
        content = {"config": chosen, "task": task.version, "record": RECORD_VERSION}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def restored(saved):
    """The Config that was kept as {field: value}, to be resolved again, its vocabulary too: data may have changed."""
    return dataclasses.replace(Config(**saved), vocab=None)


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


def default_shards(batch, time, dim):
    """One for a small batch, where two threads would wait for each other (a step of addition at dim 16: 2 ms with one shard, 5 ms
    with two); two, for two cores; four where the arrays of so large a shard would not stay in the caches.
    """
    size = batch * time * dim
    return min(batch, 1 if size < 2**16 else 2 if size < 2**19 else 4)
