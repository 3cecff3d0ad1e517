"""What ledgers show, in the terminal: the phase diagram, its frontier, a verdict for each column, and what does not work yet."""
import os
import sys

import numpy as np

from . import phase
from .verdict import verdict

SHADES = (235, 53, 54, 55, 61, 67, 73, 79, 114, 150, 186)     # of 256 colours, dark to light, told apart by colour-blind readers too


def lines(records, y=None, x=None, colour=False):
    """All lines of the report.      records: a list; y, x: fields of Config"""
    for task in sorted({record["config"]["task"] for record in records}):
        for panel in phase.panels([record for record in records if record["config"]["task"] == task], y, x):
            yield from diagram(task, panel, colour)
            yield ""


def diagram(task, panel, colour):
    """The lines of one phase diagram."""
    seeds = [len(cell.records) for cell in panel.cells.values()]
    fixed = "".join(f", {name} {value}" for name, value in panel.fixed.items())
    yield f"{task}{fixed}: percent of runs that learnt it, {span(seeds)} seeds a cell"
    head = "" if panel.x is None else panel.x.replace("_", "-")
    yield f"{panel.y.replace('_', '-'):>12}   {head}"
    if panel.x is not None:
        yield " " * 12 + "".join(f"{x!s:>7}" for x in panel.xs)
    for y in panel.ys:
        yield f"{y!s:>12}" + "".join(shown(panel.cells.get((y, x)), colour) for x in panel.xs)
    yield f"{'frontier':>12}" + "".join(f"{frontier(panel, x)!s:>7}" for x in panel.xs)
    yield f"{'chance':>12}" + "".join(f"{chance(panel, x):>7}" for x in panel.xs)
    for x in panel.xs:
        at = "" if panel.x is None else f"{panel.x} {x}: "
        yield f"  {at}{sentence(panel, x)}"


def shown(cell, colour):
    """Seven characters: percent, or what else there is"""
    if cell is None:
        return f"{'':>7}"
    there = cell.probability()
    if there is None:
        return f"{'n/a':>7}"
    text = f"{100 * there[0]:>6.0f} "
    if not colour:
        return text
    shade = SHADES[round(there[0] * (len(SHADES) - 1))]
    return f"\x1b[48;5;{shade};38;5;{16 if there[0] > 0.5 else 231}m{text}\x1b[0m"


def frontier(panel, x):
    """The first setting from which on, upwards, half of the runs or more learn it"""
    found = "-"
    for y in reversed(panel.ys):
        cell = panel.cells.get((y, x))
        if cell is None or cell.probability() is None:
            continue
        if cell.probability()[0] < 0.5:
            return found
        found = y
    return found


def chance(panel, x):
    """Exact match by guessing, in percent, of the first run that has it"""
    for y in panel.ys:
        for record in panel.cells[y, x].records if (y, x) in panel.cells else ():
            r = phase.numbers(record)
            if r:
                return f"{100 * r['chance_exact']:.1f}"
    return ""


def column(panel, x):
    """-> settings, exact (n, seeds) as shares of the way from chance, nll (n, seeds); NaN where there is no run"""
    ys = [y for y in panel.ys if (y, x) in panel.cells]
    seeds = max(len(panel.cells[y, x].records) for y in ys)
    exact, nll = np.full((2, len(ys), seeds), np.nan)
    for i, y in enumerate(ys):
        for j, record in enumerate(panel.cells[y, x].records):
            r, came = phase.numbers(record), phase.way(record)
            exact[i, j] = np.nan if came is None else came
            nll[i, j] = r["nll"] if r else np.nan
    return ys, exact, nll


def sentence(panel, x):
    """The verdict on one column"""
    ys, exact, nll = column(panel, x)
    if any(isinstance(y, str) for y in ys):
        return f"no verdict: {panel.y} is no dial that grows"
    if np.isnan(exact).all():
        return "no verdict: the task has no right answers and no reference"
    found = verdict(ys, exact, nll)
    confidence = "no confidence, for there is one seed" if found.confidence is None else f"confidence {found.confidence:.0%}"
    if found.window is None:
        return f"{found.name} ({confidence})"
    start, end = found.window
    return f"{found.name}, from {panel.y} {start} to {end} ({confidence}; {found.hidden:.0%} of what nll gains comes before)"


def span(counts):
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def can_colour():
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ
