"""Which cells of a sweep to run: durations, shards, budgets."""
import re

from ..base.errors import MinitronError
from . import pool

SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(name, text):
    """The seconds of "90s", "10m" or "2h".      name: of the flag.  Raises MinitronError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = float(match[1]) * SECONDS[match[2]] if match else 0
    if not 0 < seconds <= pool.YEAR:
        raise MinitronError(f"--{name} {text!r} is not a duration (up to a year): "
                            "use a number with s, m or h, such as 10m")
    return seconds


def duration_text(seconds):
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def take_shard(cells, text):
    """Every Nth cell from cell I on.      text: "I/N".  Raises MinitronError.

    Cells have a fixed order, so the shards of a sweep are disjoint and cover it.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not int(match[1]) < int(match[2]):
        raise MinitronError(f"--shard {text!r} is not I/N with I from 0 to N-1, such as 0/2")
    return cells[int(match[1])::int(match[2])]


def cells_within_budget(cells, costs, jobs, budget):
    """-> the cheapest cells that fit into a budget in seconds, each and all together; the others"""
    fitting, total = [], 0.0
    for cell in sorted(cells, key=lambda cell: costs[cell[0]]):
        cost = costs[cell[0]]
        if cost <= budget and total + cost <= budget * jobs:
            fitting.append(cell)
            total += cost
    keys = {key for key, _ in fitting}
    return fitting, [cell for cell in cells if cell[0] not in keys]


def total_seconds(costs, jobs):
    """Seconds for all cells, `jobs` at a time: never less than for the dearest"""
    return max(sum(costs.values()) / jobs, max(costs.values(), default=0.0))
