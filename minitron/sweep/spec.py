"""The settings of a sweep, from flags or from a spec file: lines of TOML, such as

    task = "addition"               # a dial with one value, as on the command line of train.py
    dim = [8, 16, 32]               # a dial with several: every combination is a cell
    length = "1-4"
    seeds = 3                       # seeds 0, 1, 2 of each cell, or seed = [5, 7]

Cells that do not form one grid are listed as several.  Each table of `cells` is a grid of its own:
its dials replace or join those above, except for the task and the seeds, which all cells share.

    cells = [{layers = 1}, {layers = 2, ffn_dim = [0, 64]}]         # 1 + 2 cells, times seeds

Two lines are for the table of `report --markdown` (report/table.py): `show` names its metric, and
`curve` a cell whose learning curve is printed below it.

    show = "exact"
    curve = {layers = 1}

The ledger that is published with NAME.toml is NAME.jsonl beside it.  A sweep writes into NAME.jsonl
of the current folder, unless --out is given.
"""
from pathlib import Path

from ..base.environment import pip_command
from ..base.errors import MinitronError
from ..data import tasks
from . import grid

OTHER_LINES = {"seeds": int, "cells": list, "show": str, "curve": dict}     # that are not dials
SHARED = ("task", "seed")           # dials that all cells share
KINDS = {int: "a whole number", list: "a list of tables", str: "a text in quotes", dict: "a table"}


def read_spec(path):
    """A spec file -> {name: value}.  Raises MinitronError."""
    try:
        with open(path, "rb") as file:
            spec = toml_reader().load(file)
    except OSError as error:
        raise MinitronError(f"spec {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:       # not TOML, not UTF-8, thousands of [
        raise MinitronError(f"spec {path} is not TOML: {error}") from None
    for name, kind in OTHER_LINES.items():
        if name in spec and not isinstance(spec[name], kind):
            raise MinitronError(f"spec {path}: {name} {spec[name]!r} is not {KINDS[kind]}")
    check_names(path, spec, [*grid.dials(), *OTHER_LINES])
    for cell in [*spec.get("cells", ()), spec.get("curve", {})]:
        if not isinstance(cell, dict):
            raise MinitronError(f"spec {path}: cell {cell!r} is not a table such as {{dim = 8}}")
        check_names(path, cell, [name for name in grid.dials() if name not in SHARED])
    if "seed" in spec and "seeds" in spec:
        raise MinitronError(f"spec {path}: seed and seeds cannot both be given")
    if spec.get("cells") == []:
        raise MinitronError(f"spec {path}: cells is empty: leave it out, or list a table")
    return spec


def toml_reader():
    """The module that reads TOML: Python's own from 3.11 on.  Raises MinitronError."""
    try:
        import tomllib
    except ImportError:
        try:
            import tomli as tomllib
        except ImportError:
            reason = f"spec files need Python 3.11 or newer, or {pip_command('tomli')}"
            raise MinitronError(reason) from None
    return tomllib


def check_names(path, table, names):
    """Raises MinitronError if a line of the table has another name."""
    for name in table:
        if name not in names:
            raise MinitronError(f"spec {path}: {name!r} is unknown: use {', '.join(sorted(names))}")


def grids(what, flags, seeds):
    """[{dial: values}]: the grids of a sweep.  Raises MinitronError.

    what: a task, or the path of a spec file; flags {dial: text} override its lines; seeds: the
    number of --seeds, or None
    """
    spec = read_spec(what) if is_spec(what) else {"task": what}
    if seeds is not None and "seed" in flags:
        raise MinitronError("--seeds and --seed cannot both be given")
    if "task" not in spec:
        raise MinitronError(f'spec {what} names no task: give it a line such as task = "addition"')
    tasks.module(str(spec["task"]))
    lines = dial_lines(spec) | flags
    if seeds is not None or "seed" not in lines:
        lines["seed"] = first_seeds(spec.get("seeds", 3) if seeds is None else seeds)
    head = {"task": spec["task"]}               # a message about a cell names its task first
    return [parsed(head | lines | cell | flags) for cell in spec.get("cells", [{}])]


def first_seeds(count):
    """[0, 1, ...].  Raises MinitronError."""
    if isinstance(count, bool) or not 1 <= count <= 10_000:         # True is an int
        raise MinitronError(f"--seeds {count!r} is out of range: use 1 to 10000")
    return list(range(count))


def dial_lines(spec):
    """The lines of a spec that are dials"""
    return {name: value for name, value in spec.items() if name not in OTHER_LINES}


def parsed(lines):
    """{dial: text, value or list} -> {dial: values}"""
    return {name: [value] if name == "task" else grid.dial_values(name, value)
            for name, value in lines.items()}           # one task, whose path may have commas


def is_spec(path):
    return path.endswith(".toml")


def ledger_of(spec):
    """The ledger that is published with a spec file: beside it"""
    return str(Path(spec).with_suffix(".jsonl"))


def new_ledger(what, shard=None):
    """The default ledger of a sweep, in the current folder: those of results/ are not for users

    shard: "I/N", whose cells are a ledger of their own
    """
    part = "" if shard is None else "." + shard.replace("/", "-of-")
    return f"{Path(what).stem}{part}.jsonl"
