"""From the name of a task to a Task: its module, its checked options, rows drawn from one split.

Tasks are modules of the folder tasks/, loaded by path as `minitron.tasks`, so that a tasks.py of
yours is never taken for them; or files of your own, named by their path.  tasks/__init__.py says
what a task has.  Next: batches.py turns its rows into inputs and targets.
"""
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType

import numpy as np

from ..base.environment import ROOT
from ..base.errors import MinitronError
from ..base.rng import GALLERY, WORLD, Random

FOLDER = ROOT / "tasks"
DEFAULTS = {
    "LENGTH": 3,            # the length dial, where the user leaves it alone
    "VARIANTS": ("plain",),
    "OPTIONS": {},          # further dials: name -> default, smallest, largest value
    "STEP": 1,              # between two lengths
    "MIXED": True,          # training draws lengths from LENGTHS[0] up to the dial; False: the dial's
    "EXTRAPOLATES": True,   # longer rows ask for the same ability: they may be mixed, or only tested
    "ENDS": True,           # END follows a row, is learnt and not scored; never after int labels
    "EXACT": True,          # there is one right answer; False: the task is to learn a distribution
    "DISTINCT": True,       # a test asks no problem twice; False: as often as training does
    "BOS": None,            # the piece that stands for an empty prompt
    "BATCH": 128,           # sequences per step
    "VERSION": 1,           # raised when sample() changes: a run's key holds it
    "TEMPERATURE": 0.0,     # run.c samples with it unless told: 0 where there is one answer
    "DATA": False,          # --data may name a file for it
    "WATCH": (),            # instruments read during training: "heads", "fourier" (training/run.py)
}
END = b""                   # the piece after an answer; generation stops there, no text spells it
BEYOND = 12                 # test lengths beyond training's at the most: enough for a curve


@dataclass(frozen=True)
class Task:
    """A task with its options bound."""

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


def load_package():
    """The folder tasks/ as the package minitron.tasks."""
    spec = importlib.util.spec_from_file_location("minitron.tasks", FOLDER / "__init__.py",
                                                  submodule_search_locations=[str(FOLDER)])
    package = sys.modules["minitron.tasks"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return package


authors = load_package()        # tasks/__init__.py
SPLITS, shares = authors.SPLITS, authors.shares


def names():
    """The tasks of minitron itself, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def is_file(name):
    """Whether a task is named by the path of its file."""
    return name.endswith(".py")


def module(name):
    """The module of a task, with the DEFAULTS it leaves out.  Raises MinitronError."""
    if is_file(name):
        return module_of_file(name, file_content(name))
    if name not in names():
        raise MinitronError(f"task {name!r} is unknown: use one of {', '.join(names())}, "
                            "or the path of a file that ends in .py")
    return with_defaults(importlib.import_module(f"minitron.tasks.{name}"))


def file_content(path):
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise MinitronError(f"task {path} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=64)
def module_of_file(path, content):
    """The module that a user's file defines, run once per content.  Raises MinitronError."""
    own = ModuleType(f"minitron.tasks.{Path(path).stem}")
    own.__file__, own.__package__ = str(path), "minitron.tasks"
    try:
        exec(compile(content, str(path), "exec"), own.__dict__)
    except Exception as error:
        line = error_line(error, str(path))
        raise MinitronError(f"task {path}{line}: {type(error).__name__}: {error}") from error
    for name in ("LENGTHS", "VOCAB", "sample"):
        if not hasattr(own, name) and (name == "LENGTHS" or not hasattr(own, "prepare")):
            raise MinitronError(f"task {path} has no {name}: tasks/__init__.py says what a task has")
    return with_defaults(own)


def error_line(error, path):
    """", line 7": where in the file at `path` an exception arose"""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    step, line = error.__traceback__, None
    while step is not None:
        line = step.tb_lineno if step.tb_frame.f_code.co_filename == path else line
        step = step.tb_next
    return "" if line is None else f", line {line}"


def with_defaults(module):
    for attribute, default in DEFAULTS.items():
        if not hasattr(module, attribute):
            setattr(module, attribute, default)
    return module


def load(config):
    """The Task that a configuration names.  Raises MinitronError where its options do not fit."""
    m = module(config.task)
    variant = m.VARIANTS[0] if config.variant is None else config.variant
    length = m.LENGTH if config.length is None else config.length
    longest = length if config.test_length is None else config.test_length
    check_choice(m, config, variant, length, longest)
    options = parse_options(config.task, m.OPTIONS, config.options)
    arguments = options | {"world": world(options)} if "world" in options else options

    pieces, draw, rows, fingerprint = bind(m, config, length, variant, arguments)
    low, high = m.LENGTHS
    ends = rows(length)[1].dtype == bool and m.ENDS
    mixed = m.MIXED if config.mixed is None else config.mixed
    lengths = tuple(each for each in range(low if mixed else length, length + 1, m.STEP)
                    if has_problem(draw, each))
    if length not in lengths:
        raise MinitronError(f"length {length} has no problem in the share for training, "
                            f"{config.train_fraction}: use another --train-fraction or --length")

    def width(length):
        tokens, answer = rows(length)
        return tokens.shape[1] + 1 if ends else tokens.shape[1] - (answer.dtype == bool)

    return Task(
        name=config.task, module=m, variant=variant, options=options, arguments=arguments,
        length=length, mixed=mixed, lengths=lengths,
        beyond=thinned(range(length + m.STEP, longest + 1, m.STEP)),
        pieces=pieces + [END] * ends, draw=draw, ends=ends, exact=m.EXACT,
        bos=None if m.BOS is None else pieces.index(m.BOS) if m.BOS in pieces else 0,
        width=width(length), longest=width(longest), context=width(high if m.MIXED else longest),
        batch=m.BATCH, version=version(config.task, m, fingerprint), temperature=m.TEMPERATURE)


def version(name, module, fingerprint):
    """What a run's key holds of its task: of a user's file the content, and not where it lies"""
    if is_file(name):
        name = f"file {hashlib.sha256(file_content(name)).hexdigest()[:12]}"
    return f"{name} {module.VERSION} {fingerprint}".rstrip()


def world(options):
    """world(*numbers): a fresh random stream for hidden choices, the same in every run"""
    return partial(Random, WORLD, *([options["world"]] if "world" in options else []))


def has_problem(draw, length):
    """Whether training has a problem of this length: the split, or the options, may leave none."""
    try:
        return len(draw(Random(GALLERY), length, 1, "train")[0]) > 0
    except MinitronError:
        return False


def bind(m, config, length, variant, arguments):
    """-> pieces, draw(rng, length, batch, split), rows(length): an example's shape, fingerprint"""
    if hasattr(m, "prepare"):
        options = {name: value for name, value in arguments.items() if name != "world"}
        pieces, draw, fingerprint = named_errors(config.task, m.prepare)(
            arguments.get("world", world({})), length, variant, config.train_fraction, config.data,
            **options)

        def rows(length):
            return draw(Random(GALLERY), length, 1, "train")

        return as_bytes(pieces), draw, rows, fingerprint

    sample = named_errors(config.task, partial(m.sample, variant=variant, **arguments))
    twin = partial(m.mirror, variant=variant) if hasattr(m, "mirror") else None
    draw = split_by_hash(sample, config.train_fraction, twin)
    pieces = m.VOCAB(variant, **arguments) if callable(m.VOCAB) else m.VOCAB
    return as_bytes(pieces), draw, lambda length: sample(Random(GALLERY), length, 1), ""


def named_errors(task, function):
    """The same function, whose ValueError is a MinitronError that names the task."""
    def named(*arguments, **options):
        try:
            return function(*arguments, **options)
        except ValueError as error:
            raise MinitronError(f"task {task}: {error}") from error
    return named


def as_bytes(pieces):
    return [piece if isinstance(piece, bytes) else piece.encode() for piece in pieces]


def thinned(lengths):
    """At most BEYOND of them, evenly spread, the last always among them."""
    if len(lengths) <= BEYOND:
        return tuple(lengths)
    return tuple(lengths[(i + 1) * len(lengths) // BEYOND - 1] for i in range(BEYOND))


def check_choice(m, config, variant, length, longest):
    """Raises MinitronError where a task has no such variant, no such length, or no use for a file."""
    low, high = m.LENGTHS
    if variant not in m.VARIANTS:
        raise MinitronError(f"variant {variant!r} of task {config.task} is unknown: "
                            f"use one of {', '.join(m.VARIANTS)}")
    if not low <= length <= high:
        raise MinitronError(f"length {length} is out of range for task {config.task}: "
                            f"use {low} to {high}")
    if not m.EXTRAPOLATES and (longest != length or config.mixed):
        flag = "mixed" if config.mixed else f"test-length {longest}"
        raise MinitronError(f"{flag} has no use in task {config.task}, "
                            "whose length is part of the ability")
    if not length <= longest <= high:
        raise MinitronError(f"test-length {longest} is out of range for task {config.task} "
                            f"trained to {length}: use {length} to {high}")
    if config.data is not None and not m.DATA:
        raise MinitronError(f"data {config.data!r} has no use in task {config.task}: "
                            "it is for --task text")


def parse_options(task, known, text):
    """"pairs=8,symbols=32" -> {name: number}, the others at their defaults.  Raises MinitronError."""
    options, seen = {name: default for name, (default, low, high) in known.items()}, set()
    for part in (text or "").split(","):
        name, _, value = part.partition("=")
        if not part:
            continue
        if name in seen:
            raise MinitronError(f"option {name} is given twice in {text!r}: give it once")
        if name not in known:
            listed = ", ".join(f"{name}={default}" for name, default in options.items()) or "none"
            raise MinitronError(f"option {part!r} is unknown to task {task}, whose options are: "
                                f"{listed}")
        seen.add(name)
        options[name] = parse_option(task, name, value, *known[name])
    return options


def parse_option(task, name, value, default, low, high):
    try:
        number = type(default)(value)
    except ValueError:
        reason = f"option {name} {value!r} is not a number: use {low} to {high}"
        raise MinitronError(reason) from None
    if not low <= number <= high:
        raise MinitronError(f"option {name} {value} is out of range for task {task}: "
                            f"use {low} to {high}")
    return number


def row_hash(tokens):
    """tokens (B, S) -> (B,) in [0, 1), spread evenly, equal for equal rows on every machine

    A sum with a random odd factor per column, modulo 2^64 (Dietzfelbinger 1996), mixed.
    """
    columns = np.arange(1, tokens.shape[1] + 1, dtype=np.uint64)
    factors = mix(columns * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
    total = (tokens.astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64)
    return (mix(total) >> np.uint64(11)) * 2.0**-53


def mix(h):
    """uint64 -> uint64, one to one: each bit of the result depends on all of h.

    SplitMix64's (Steele, Lea & Flood 2014).
    """
    h = (h ^ h >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ h >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return h ^ h >> np.uint64(31)


def split_by_hash(sample, train_fraction, mirror):
    """Wrap sample(rng, length, batch) so that it draws from one split: no row is ever in two.

    The hash of a problem's tokens decides: the lowest `train_fraction` of hashes are for training,
    the next fifth of the rest decides when training stops, and the others are the test, which
    nothing looks at before the end.
    """
    ends = shares(train_fraction)

    def draw(rng, length, batch, split):
        number = SPLITS.index(split)
        low, high = ends[number], ends[number + 1]
        parts, rows, attempt = [], 0, 0
        while rows < batch and (rows or attempt < 7):
            size = max(int(1.1 * (batch - rows) / (high - low)) + 16, 64 * 4**attempt)
            tokens, answer = sample(rng, length, min(size, 2**18))
            h = row_hash(tokens)
            if mirror is not None:
                h = (h + row_hash(mirror(tokens))) % 1
            inside = (low <= h) & (h < high)
            parts.append((tokens[inside], answer[inside]))
            rows += int(inside.sum())
            attempt += 1
        # There are no rows if the split holds no problem of this length.
        tokens, answer = (np.concatenate(part)[:batch] for part in zip(*parts))
        return tokens, answer

    return draw
