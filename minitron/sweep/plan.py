"""Which cells of a sweep to run: durations, shards, budgets."""
import re

from ..base.errors import MinitronError
from . import pool


def seconds(name, text):
    """"90s", "10m", "2h" -> seconds"""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    found = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0
    if not 0 < found <= pool.YEAR:
        raise MinitronError(f"--{name} {text!r} is no time up to a year: use a number with s, m or h, such as 10m")
    return found


def clock(value):
    return f"{value:.0f} s" if value < 100 else f"{value / 60:.0f} min" if value < 6000 else f"{value / 3600:.1f} h"


def take_shard(cells, text):
    """Every Nth cell, from the Ith on, "I/N"; of cells in their fixed order, so that shards are disjoint and cover all"""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not int(match[1]) < int(match[2]):
        raise MinitronError(f"--shard {text!r} is not I/N with I from 0 to N-1, such as 0/2")
    return cells[int(match[1])::int(match[2])]


def within(cells, costs, jobs, budget):
    """The cheapest cells that fit into a budget, each by itself and all together, and the others"""
    fitting, total = [], 0.0
    for cell in sorted(cells, key=lambda cell: costs[cell[0]]):
        cost = costs[cell[0]]
        if cost <= budget and total + cost <= budget * jobs:
            fitting.append(cell)
            total += cost
    there = {key for key, _ in fitting}
    return fitting, [cell for cell in cells if cell[0] not in there]


def together(costs, jobs):
    """Seconds that cells take, so many at a time: never less than the dearest"""
    return max(sum(costs.values()) / jobs, max(costs.values(), default=0.0))
