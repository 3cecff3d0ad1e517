"""From a task's name, or the path of its file, to a Task: checked settings, rows of each split.

The tasks of minitron are modules of the folder tasks/, loaded by path as `minitron.tasks`, so that
a tasks.py of yours is never taken for them.  A name that ends in .py is the path of a file of your
own (own_file.py), which is held to its contract (contract.py).  tasks/__init__.py is that contract.

Next: batches.py turns rows into inputs and targets.
"""
import importlib
import importlib.util
import itertools
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ..base.cli import did_you_mean
from ..base.environment import ROOT
from ..base.errors import MinitronError
from ..base.rng import GALLERY, WORLD, Random
from ..model.config import or_default
from . import contract
from .options import parse_options
from .own_file import error_line, own_module
from .splits import split_by_hash

FOLDER = ROOT / "tasks"
DEFAULTS = {
    "LENGTH": 3,            # the length dial, where the user leaves it alone
    "VARIANTS": ("plain",),
    "OPTIONS": {},          # further dials: name -> default, smallest, largest value
    "STEP": 1,              # between two lengths
    "MIXED": True,          # training draws all lengths up to the dial; False: the dial's alone
    "EXTRAPOLATES": True,   # longer rows need the same ability: they may be mixed, or only tested
    "ENDS": True,           # END follows a row, is learnt and not scored; never after int labels
    "EXACT": True,          # there is one right answer; False: the task is to learn a distribution
    "DISTINCT": True,       # a test asks no problem twice; False: as often as training does
    "BOS": None,            # the piece that stands for an empty prompt
    "BATCH": 128,           # sequences per step
    "VERSION": 1,           # raised when sample() changes: a run's key holds it
    "TEMPERATURE": 0.0,     # run.c samples with it by default: 0 where there is one answer
    "DATA": False,          # --data may name a file for it
    "WATCH": (),            # instruments read during training: "heads", "fourier" (training/run.py)
}
END = b""                   # the piece after an answer; generation stops there, no text spells it
MOST_BEYOND = 12            # test lengths beyond those of training: enough for a curve


@dataclass(frozen=True)
class Task:
    """A task with its settings bound."""

    name: str
    module: ModuleType
    variant: str
    options: dict           # name -> number
    arguments: dict         # the same as the module's functions take them: `world` opens streams
    length: int
    mixed: bool             # training draws shorter ones too
    lengths: tuple          # the lengths that training draws from, those without a problem left out
    beyond: tuple           # longer ones, which only the test has
    pieces: list            # token id -> bytes
    draw: Callable          # (rng, length, batch, split) -> tokens (B, S), answer (B, S)
    ends: bool              # a row is followed by END
    exact: bool             # there is one right answer
    bos: int | None         # the token that stands for an empty prompt
    width: int              # tokens of a row at `length`, END included
    longest: int            # the same at the longest length that is tested
    context: int            # the same at the longest length of the dial: run.c makes room for it
    batch: int
    version: str
    temperature: float


class Source(NamedTuple):
    """The vocabulary and the rows that a task's module gives."""

    pieces: list            # token id -> bytes, without END
    rows: Callable          # (rng, length, batch) -> tokens (B, S), answer (B, S), of any split
    draw: Callable          # (rng, length, batch, split) -> the same, of one split
    fingerprint: str        # of the data that it was made from, or ""


def load_package():
    """The folder tasks/ as the package minitron.tasks"""
    spec = importlib.util.spec_from_file_location("minitron.tasks", FOLDER / "__init__.py",
                                                  submodule_search_locations=[str(FOLDER)])
    package = sys.modules["minitron.tasks"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return package


authors = load_package()        # tasks/__init__.py
SPLITS = authors.SPLITS


def names():
    """The tasks of minitron itself, sorted"""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def is_file(name):
    """Whether a task is named by the path of its file"""
    return name.endswith(".py")


def titles(task_names):
    """{name: title}: a file's stem, or its path if the stem is also another task's"""
    stems = {name: Path(name).stem if is_file(name) else name for name in task_names}
    counts = Counter([*stems.values(), *names()])
    return {name: stem if is_file(name) and counts[stem] == 1 else name
            for name, stem in stems.items()}


def module(name):
    """The module of a task, with the DEFAULTS it leaves out.  Raises MinitronError."""
    return held_to_contract(name, own_module(name)) if is_file(name) else built_in(name)


@cache
def built_in(name):
    """The module of one of minitron's own tasks.  Raises MinitronError."""
    if name not in names():
        raise MinitronError(f"task {name!r} is unknown: use one of {', '.join(names())}, or the "
                            f"path of a file that ends in .py{did_you_mean(name, names())}")
    return with_defaults(importlib.import_module(f"minitron.tasks.{name}"))


@lru_cache(maxsize=64)
def held_to_contract(path, definition):
    """The module of a user's file, which is checked once.  Raises MinitronError."""
    with_defaults(definition)
    named_errors(path, contract.check_attributes)(definition, DEFAULTS)
    for name in contract.RESULTS:
        if hasattr(definition, name):
            function = contract.measure(name, getattr(definition, name))
            setattr(definition, name, named_errors(path, function))
    return definition


def with_defaults(definition):
    for name, default in DEFAULTS.items():
        if not hasattr(definition, name):
            setattr(definition, name, default)
    return definition


def named_errors(task, function):
    """The same function, whose ValueError is a MinitronError that names the task"""
    def named(*arguments, **options):
        try:
            return function(*arguments, **options)
        except ValueError as error:
            reason = " ".join(str(error).splitlines())
            raise MinitronError(f"task {task}{error_line(error, task)}: {reason}") from error
    return named


def load(config):
    """The Task that a configuration names.  Raises MinitronError where its settings do not fit."""
    definition = module(config.task)
    variant = or_default(config.variant, definition.VARIANTS[0])
    length = or_default(config.length, definition.LENGTH)
    longest = or_default(config.test_length, length)
    check_settings(config, definition, variant, length, longest)
    options = parse_options(config.task, definition.OPTIONS, config.options)
    arguments = options | {"world": open_world(options)} if "world" in options else options

    source = bind(config, definition, variant, length, arguments)
    if is_file(config.task):
        named_errors(config.task, contract.check_repeats)(source.rows, length)
        try_measures(definition, source.rows, length, variant, arguments)
    pieces, bos, widest = source.pieces, definition.BOS, definition.LENGTHS[1]
    ends = example_rows(source, length)[1].dtype == bool and definition.ENDS
    mixed = or_default(config.mixed, definition.MIXED)
    return Task(
        name=config.task, module=definition, variant=variant, options=options, arguments=arguments,
        length=length, mixed=mixed,
        lengths=training_lengths(config, definition, source.draw, length, mixed),
        beyond=thinned(range(length + definition.STEP, longest + 1, definition.STEP)),
        pieces=pieces + [END] * ends, draw=source.draw, ends=ends, exact=definition.EXACT,
        bos=None if bos is None else pieces.index(bos) if bos in pieces else 0,
        width=row_width(source, length, ends), longest=row_width(source, longest, ends),
        context=row_width(source, widest if definition.MIXED else longest, ends),
        batch=definition.BATCH, temperature=definition.TEMPERATURE,
        version=version(config.task, definition, source.fingerprint))


def try_measures(definition, rows, length, variant, arguments):
    """Call the functions that are used only after training.  Raises MinitronError if one fails."""
    values = {"tokens": rows(Random(GALLERY), length, 16)[0], "length": length, "variant": variant,
              "temperature": 1.0}
    for name in contract.RESULTS:
        if hasattr(definition, name):
            call = (values[argument] for argument in contract.CALLS[name].split())
            getattr(definition, name)(*call, **arguments)


def check_settings(config, definition, variant, length, longest):
    """Raises MinitronError where a task has no such variant or length, or no use for a file."""
    task, (low, high) = config.task, definition.LENGTHS
    if variant not in definition.VARIANTS:
        raise MinitronError(f"variant {variant!r} of task {task} is unknown: "
                            f"use one of {', '.join(definition.VARIANTS)}"
                            f"{did_you_mean(variant, definition.VARIANTS)}")
    if not low <= length <= high:
        raise MinitronError(f"length {length} is out of range for task {task}: use {low} to {high}")
    if not definition.EXTRAPOLATES and (longest != length or config.mixed):
        flag = "mixed" if config.mixed else f"test-length {longest}"
        raise MinitronError(f"{flag} has no use in task {task}, "
                            "whose length is part of the ability")
    if not length <= longest <= high:
        raise MinitronError(f"test-length {longest} is out of range for task {task} "
                            f"trained to {length}: use {length} to {high}")
    if config.data is not None and not definition.DATA:
        raise MinitronError(f"data {config.data!r} has no use in task {task}: "
                            "it is for --task text")


def open_world(options):
    """world(*numbers): a fresh random stream for hidden choices, the same in every run"""
    return partial(Random, WORLD, *([options["world"]] if "world" in options else []))


def bind(config, definition, variant, length, arguments):
    """The Source of a task's module with its settings bound.  Raises MinitronError."""
    if hasattr(definition, "prepare"):
        return prepared_source(config, definition, variant, length, arguments)

    vocab, twin = definition.VOCAB, None
    pieces = named_errors(config.task, vocab)(variant, **arguments) if callable(vocab) else vocab

    def sample(rng, length, batch):
        return definition.sample(rng, length, batch, variant, **arguments)

    if hasattr(definition, "mirror"):
        def twin(tokens):
            return definition.mirror(tokens, variant)

    sample = checked(config.task, "sample", sample, pieces, exact=True)
    ranges = dict(zip(SPLITS, itertools.pairwise(authors.shares(config.train_fraction))))
    return Source(as_bytes(pieces), sample, split_by_hash(sample, ranges, twin), "")


def prepared_source(config, definition, variant, length, arguments):
    """The Source of a task that has prepare() in place of VOCAB and sample()"""
    world = arguments.get("world", open_world({}))
    options = {name: value for name, value in arguments.items() if name != "world"}
    parts = named_errors(config.task, definition.prepare)(
        world, length, variant, config.train_fraction, config.data, **options)
    if is_file(config.task):
        named_errors(config.task, contract.check_prepared)(parts)
    pieces, draw, fingerprint = parts
    draw = checked(config.task, "draw", draw, pieces, exact=False)

    def rows(rng, length, batch):
        return draw(rng, length, batch, "train")

    return Source(as_bytes(pieces), rows, draw, fingerprint)


def checked(task, name, function, pieces, exact):
    """sample() or draw() with errors that name the task; a user's own has its rows checked"""
    if is_file(task):
        named_errors(task, contract.check_pieces)(pieces)
        function = contract.checked(name, function, len(pieces), exact)
    return named_errors(task, function)


def as_bytes(pieces):
    return [piece if isinstance(piece, bytes) else piece.encode() for piece in pieces]


def example_rows(source, length):
    return source.rows(Random(GALLERY), length, 1)


def row_width(source, length, ends):
    """Tokens of a row in a batch: with END, or without the last one if that is only a target"""
    tokens, answer = example_rows(source, length)
    return tokens.shape[1] + (1 if ends else -1 if answer.dtype == bool else 0)


def training_lengths(config, definition, draw, length, mixed):
    """The lengths up to the dial that have a problem

    Raises MinitronError if the dial's length has none.
    """
    low = definition.LENGTHS[0] if mixed else length
    lengths = tuple(value for value in range(low, length + 1, definition.STEP)
                    if has_problem(draw, value))
    if length not in lengths:
        raise MinitronError(f"length {length} has no problem in the share for training, "
                            f"{config.train_fraction}: use another --train-fraction or --length")
    return lengths


def has_problem(draw, length):
    """Whether training has a problem of this length: the split, or the options, may leave none"""
    try:
        return len(draw(Random(GALLERY), length, 1, "train")[0]) > 0
    except MinitronError:
        return False


def thinned(lengths):
    """At most MOST_BEYOND of a range, evenly spread, the last among them"""
    count = min(len(lengths), MOST_BEYOND)
    return tuple(lengths[(i + 1) * len(lengths) // count - 1] for i in range(count))


def version(name, definition, fingerprint):
    """The part of a run's key that names its task: of a file the content, not the path"""
    identity = f"file {definition.DIGEST}" if is_file(name) else name
    return f"{identity} {definition.VERSION} {fingerprint}".rstrip()
