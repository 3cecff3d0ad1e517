"""The cells of a sweep: every combination of its dials' values, the cheapest first.

Next: pool.py, which runs them.
"""
import csv
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

MAX_CELLS = 100_000         # of a sweep
MAX_RANGE = 1000            # numbers in a range such as 1-5
TIMED_SIZES = 5             # sizes of which a step is timed before a sweep, for its estimate
GUESSED_SPEED = 1e9         # FLOPs per second, where none could be timed
EVALUATION = 2              # an evaluation is about the work of two steps
NAMES = {bool: "yes or no", int: "a whole number or a range such as 1-5", float: "a number",
         str: "a name"}


def dials():
    """The fields of Config that a sweep can vary: name -> kind"""
    return flag_types(Config)


def dial_values(name, given):
    """The values of a dial.  Raises MinitronError.

    given: "8,16,32", "1-5", "yes,no", of options "k=2;k=3", or a value or list from a spec file
    """
    items = split_list(name, given) if isinstance(given, str) else given
    items = items if isinstance(items, list) else [items]
    values = [value for item in items for value in item_values(name, item)]
    if not values or len(set(values)) < len(values):
        raise MinitronError(f"{flag(name)} {given!r} names no value, or one twice: "
                            "give each value once")
    return values


def split_list(name, text):
    """The items of a list, as in a line of CSV: one in double quotes may have commas"""
    separator = ";" if name == "options" else ","
    if '"' not in text:
        return text.split(separator)
    try:
        return next(csv.reader([text], delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise MinitronError(f"{flag(name)} {text!r} is not a list: {error}") from None


def item_values(name, item):
    """The values of one item of a list: one, or those of a range of whole numbers"""
    kind, text = dials()[name], item.strip() if isinstance(item, str) else item
    if kind is int and isinstance(text, str) and (match := re.fullmatch(r"(\d+)-(\d+)", text)):
        return range_values(name, item, *match.groups())
    try:
        if kind is bool:
            return [text if isinstance(text, bool) else {"yes": True, "no": False}[text]]
        is_number = type(text) is kind or kind is float and type(text) is int   # but not a bool
        if isinstance(text, str) or is_number:
            return [kind(text)]
    except (ValueError, KeyError, TypeError, OverflowError):
        pass
    raise MinitronError(f"{flag(name)} {item!r} is not {NAMES[kind]}")


def range_values(name, item, low, high):
    """low, high: digits"""
    if max(len(low), len(high)) < 10 and int(low) <= int(high) < int(low) + MAX_RANGE:
        return range(int(low), int(high) + 1)
    raise MinitronError(f"{flag(name)} {item!r} is not an increasing range of at most "
                        f"{MAX_RANGE:,} numbers")


def cells(*grids):
    """Grids {dial: values} -> [(key, Config)], resolved, the cheapest first

    Combinations that resolve to the same configuration are one cell.  Raises MinitronError, which
    names the cell.
    """
    count = sum(math.prod(map(len, axes.values())) for axes in grids)
    if count > MAX_CELLS:
        raise MinitronError(f"{count:,} cells are more than {MAX_CELLS:,}: give fewer values")
    configs = {}
    for axes in grids:
        for combination in itertools.product(*axes.values()):
            key, config = cell(dict(zip(axes, combination)), axes)
            configs[key] = config
    return sorted(configs.items(), key=lambda item: (run_flops(item[1]), item[0]))


def cell(settings, axes):
    """Settings {dial: value} of a grid {dial: values} -> key, Config.  Raises MinitronError."""
    try:
        config = Config(**settings).resolve()
        return config.key(tasks.load(config)), config
    except (MinitronError, OverflowError) as error:
        raise MinitronError(f"cell {cell_flags(settings, axes)}: {error}") from None


def cell_flags(settings, axes):
    """The flags that distinguish a cell from the others, after its task"""
    return " ".join(f"{flag(name)} {value}" for name, value in settings.items()
                    if name == "task" or len(axes[name]) > 1)


def run_flops(config):
    """FLOPs of a run that uses all its steps, each with the longest rows"""
    return config.steps * step_flops(dataclasses.replace(config, seed=0))


@cache
def step_flops(config):
    inputs, targets, _ = batches.longest_batch(tasks.load(config), config)
    return train_flops(config, inputs, targets)


def estimate(configs, step_seconds):
    """Seconds (n,) that each run takes on one core if it uses all its steps

    step_seconds: config -> seconds per training step, None where it cannot be measured.  It is
    asked for TIMED_SIZES of the sizes; between them time is interpolated by FLOPs.
    """
    flops = np.array([step_flops(dataclasses.replace(config, seed=0)) for config in configs])
    _, sizes = np.unique(flops, return_index=True)
    spread = {int(sizes[round(i * (len(sizes) - 1) / (TIMED_SIZES - 1))])
              for i in range(TIMED_SIZES)}
    times = sorted((flops[i], seconds) for i in spread
                   if (seconds := step_seconds(configs[i])) is not None)
    if times:
        seconds = np.exp(np.interp(np.log(flops), *np.log(times).T))
    else:
        seconds = flops / GUESSED_SPEED
    evaluations = np.array([EVALUATION / config.eval_every for config in configs])     # per step
    return seconds * (1 + evaluations) * np.array([config.steps for config in configs])
