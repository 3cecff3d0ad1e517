"""The cells of a sweep: every combination of the values that its dials take, each a configuration, the cheapest first."""
import dataclasses
import itertools
import math
import re
from functools import cache

import numpy as np

from ..base.cli import flag, flag_types
from ..base.errors import MinitronError
from ..data import batches, tasks
from ..data.config import Config
from ..model.flops import train_flops

MOST = 100_000          # cells of a sweep
TRIED = 5               # cells that are tried before a sweep, to know what a step takes here,
GUESSED = 1e9           # FLOPs a second, where none of them could be


def dials():
    """What a sweep can turn: name -> kind"""
    return flag_types(Config)


def values(name, given):
    """The values of a dial.      given: "8,16,32", "1-5", "yes,no", "k=2;k=3" of options, or a list from a spec file

    Raises MinitronError.
    """
    items = given.split(";" if name == "options" else ",") if isinstance(given, str) else given
    found = [value for one in (items if isinstance(items, list) else [items]) for value in some(name, one)]
    if not found or len(set(found)) < len(found):
        raise MinitronError(f"{flag(name)} {given!r} names no value or one twice: give each once")
    return found


def some(name, one):
    """One item of a list: a value, or a range of whole numbers"""
    kind, text = dials()[name], one.strip() if isinstance(one, str) else one
    bounds = re.fullmatch(r"(\d{1,9})-(\d{1,9})", text) if kind is int and isinstance(text, str) else None
    if bounds:
        low, high = map(int, bounds.groups())
        if low <= high < low + 1000:
            return range(low, high + 1)
        raise MinitronError(f"{flag(name)} {one!r} counts down or is too long a range")
    try:
        if kind is bool:
            return [text if isinstance(text, bool) else {"yes": True, "no": False}[text]]
        if isinstance(text, str) or type(text) is kind or (kind is float and type(text) is int):
            return [kind(text)]
    except (ValueError, KeyError, TypeError):
        pass
    wanted = {bool: "yes or no", int: "a whole number or a range such as 1-5", float: "a number", str: "a name"}[kind]
    raise MinitronError(f"{flag(name)} {one!r} is not {wanted}")


def cells(axes):
    """axes {name: values} -> [(key, Config)], resolved, the cheapest first.  Raises MinitronError, which names the cell."""
    count = math.prod(len(found) for found in axes.values())
    if count > MOST:
        raise MinitronError(f"{count:,} cells are more than {MOST:,}: give fewer values")
    configs = {}
    for combination in itertools.product(*axes.values()):
        chosen = dict(zip(axes, combination))
        try:
            config = Config(**chosen).resolve()
            configs[config.key(tasks.load(config))] = config
        except MinitronError as error:
            turned = " ".join(f"{flag(name)} {value}" for name, value in chosen.items() if len(axes[name]) > 1 or name == "task")
            raise MinitronError(f"cell {turned}: {error}") from None
    return sorted(configs.items(), key=lambda cell: (run_flops(cell[1]), cell[0]))


def run_flops(config):
    """FLOPs of a run that uses all its steps, each with the longest rows, whatever its seed"""
    return config.steps * step_flops(dataclasses.replace(config, seed=0))


@cache
def step_flops(config):
    inputs, targets, _ = batches.longest_batch(tasks.load(config), config)
    return train_flops(config, inputs, targets)


def estimate(configs, measured):
    """Seconds that each run takes on one core if it uses all its steps: measured on TRIED of them, in between by their FLOPs.

    measured: config -> seconds a step, or None where they cannot be had: such a cell counts as the next smaller one.
    """
    flops = np.array([step_flops(dataclasses.replace(config, seed=0)) for config in configs])
    _, different = np.unique(flops, return_index=True)
    tried = {int(different[round(i * (len(different) - 1) / (TRIED - 1))]) for i in range(TRIED)}
    known = sorted((flops[i], seconds) for i in tried if (seconds := measured(configs[i])) is not None)
    steps = np.exp(np.interp(np.log(flops), *np.log(known).T)) if known else flops / GUESSED
    looks = np.array([2 / config.eval_every for config in configs])         # an evaluation is about the work of two steps
    return steps * (1 + looks) * np.array([config.steps for config in configs])
