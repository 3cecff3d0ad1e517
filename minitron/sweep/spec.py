"""The settings of a sweep, from flags or from a spec file: lines of TOML, such as

    task = "addition"               # a dial of one value, as on the command line of train.py
    dim = [8, 16, 32]               # a dial of several: every combination is a cell
    length = "1-4"
    seeds = 3                       # seeds 0, 1, 2 of each cell, or seed = [5, 7]

Cells that do not form a grid are listed; each table is a grid of its own, beside the lines above:

    cells = [{layers = 1}, {layers = 2, ffn_dim = [0, 64]}]

`show` names the metric of the experiment's table (report/table.py), `curve` the cell whose learning
curve is printed below it.  The ledger of NAME.toml is NAME.jsonl beside it, unless --out is given.
"""
from ..base.errors import MinitronError
from ..data import tasks
from . import grid

OTHER_LINES = {"seeds": int, "cells": list, "show": str, "curve": dict}     # that are not dials
KINDS = {int: "a whole number", list: "a list of tables", str: "a text in quotes", dict: "a table"}


def read_spec(path):
    """A spec file -> {name: value}.  Raises MinitronError."""
    try:
        with open(path, "rb") as file:
            spec = toml_reader().load(file)
    except OSError as error:
        raise MinitronError(f"spec {path} cannot be read: {error.strerror}") from None
    except ValueError as error:         # not TOML, or not UTF-8
        raise MinitronError(f"spec {path} is not TOML: {error}") from None
    for name, kind in OTHER_LINES.items():
        if name in spec and not isinstance(spec[name], kind):
            raise MinitronError(f"spec {path}: {name} {spec[name]!r} is not {KINDS[kind]}")
    check_names(path, spec, [*grid.dials(), *OTHER_LINES])
    for cell in [*spec.get("cells", ()), spec.get("curve", {})]:
        if not isinstance(cell, dict):
            raise MinitronError(f"spec {path}: cell {cell!r} is not a table such as {{dim = 8}}")
        check_names(path, cell, grid.dials())
    return spec


def toml_reader():
    """The module that reads TOML: Python's own from 3.11 on.  Raises MinitronError."""
    try:
        import tomllib
    except ImportError:
        try:
            import tomli as tomllib
        except ImportError:
            reason = "spec files need Python 3.11 or newer, or pip install tomli"
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
    spec = read_spec(what) if what.endswith(".toml") else {"task": what}
    if seeds is not None:
        if "seed" in flags:
            raise MinitronError("--seeds and --seed cannot both be given")
        spec.pop("seed", None)
    if "task" not in spec | flags:
        raise MinitronError(f'spec {what} names no task: give it a line such as task = "addition"')
    tasks.module(str((spec | flags)["task"]))
    seeds = spec.get("seeds", 3) if seeds is None else seeds
    if isinstance(seeds, bool) or not 1 <= seeds <= 10_000:         # True is an int
        raise MinitronError(f"--seeds {seeds!r} is out of range: use 1 to 10000")
    common = {name: value for name, value in spec.items() if name not in OTHER_LINES}
    default_seed = {} if "seed" in common | flags else {"seed": list(range(seeds))}
    return [parsed(common | cell | flags | default_seed) for cell in spec.get("cells", [{}])]


def parsed(lines):
    """{dial: text, value or list} -> {dial: values}, the task first"""
    values = {name: grid.dial_values(name, value) for name, value in lines.items()
              if name != "task"}
    return {"task": [lines["task"]]} | values           # one task, whose path may have commas


def ledger_of(what):
    """The default ledger of a sweep"""
    return f"{what.removesuffix('.toml')}.jsonl" if what.endswith(".toml") else f"{what}.jsonl"
