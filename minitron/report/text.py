"""What ledgers show, in the terminal: the phase diagram, its frontier, a verdict for each column, and how to run a cell again."""
import os
import sys

import numpy as np

from ..base.cli import dashed
from . import phase
from .verdict import verdict

SHADES = (235, 53, 54, 55, 61, 67, 73, 79, 114, 150, 186)     # of 256 colours, dark to light, safe for colour-blind readers


def lines(records, y=None, x=None, colour=False, judged=True):
    """All lines of the report.      records: a list; y, x: fields of Config; judged: with verdicts, and the commands"""
    for task, of_task in phase.by_task(records):
        for panel in phase.panels(of_task, y, x):
            yield from diagram(task, panel, colour)
            if judged:
                yield from judgement(panel)
            yield ""


def diagram(task, panel, colour):
    """The lines of one phase diagram."""
    yield f"{title(task, panel)}: percent of runs that learnt it, {seeds(panel)}"
    left = 2 + max(len(str(name)) for name in (panel.y, "frontier", *panel.ys))
    width = max(7, 2 + max(len(str(x)) for x in panel.xs))
    yield f"{dashed(panel.y):>{left}}" + ("" if panel.x is None else f"   {dashed(panel.x)}")
    if panel.x is not None:
        yield " " * left + "".join(f"{x!s:>{width}}" for x in panel.xs)
    for y in panel.ys:
        yield (f"{y!s:>{left}}" + "".join(shown(panel.cells.get((y, x)), width, colour) for x in panel.xs)).rstrip()
    if ordered(panel):
        yield f"{'frontier':>{left}}" + "".join(f"{frontier(panel, x)!s:>{width}}" for x in panel.xs)
    if any(chances := [chance(panel, x) for x in panel.xs]):
        yield f"{'chance':>{left}}" + "".join(f"{guessed:>{width}}" for guessed in chances)


def title(task, panel):
    return task + "".join(f", {dashed(name)} {value}" for name, value in panel.fixed.items())


def seeds(panel):
    """Such as: 3 seeds a cell"""
    counts = [len(cell.records) for cell in panel.cells.values()]
    low, high = min(counts), max(counts)
    return f"{low if low == high else f'{low} to {high}'} seed{'s' * (high > 1)} a cell"


def ordered(panel):
    """Whether there is a smaller and a larger along its rows"""
    return not any(isinstance(y, (str, bool)) for y in panel.ys)


def judgement(panel):
    """The lines below it: a verdict for each column, and how to run a cell again."""
    for x in panel.xs if ordered(panel) else ():
        at = "" if panel.x is None else f"{dashed(panel.x)} {x}: "
        yield f"  {at}{sentence(panel, x)}"
    yield from rates(panel)
    yield "  any cell again:" if len(ways := phase.commands(panel)) == 1 else "  cells again:"
    yield from (f"    {command}" for command in ways)


def rates(panel):
    """Which of several learning rates each cell shows, and how far apart they are: a diagram of its own, nothing for one rate"""
    if not any(cell.searched for cell in panel.cells.values()):
        return
    yield "  lr that the held-out problems chose; in brackets, of the searched ones the least and the most percent of the way:"
    texts = {place: rate(cell) for place, cell in panel.cells.items()}
    left, width = 2 + max(len(str(y)) for y in panel.ys), 2 + max(len(str(text)) for text in [*texts.values(), *panel.xs])
    if panel.x is not None:
        yield " " * left + "".join(f"{x!s:>{width}}" for x in panel.xs)
    for y in panel.ys:
        yield f"{y!s:>{left}}" + "".join(f"{texts.get((y, x), ''):>{width}}" for x in panel.xs)


def rate(cell):
    text, ways = f"{cell.records[0]['config']['lr']:g}", [100 * max(came, 0) for came in cell.searched.values()]
    return f"{text} ({min(ways):.0f}-{max(ways):.0f})" if ways else text


def shown(cell, width, colour):
    """`width` characters: percent, or what else there is"""
    if cell is None:
        return " " * width
    there = cell.probability()
    if there is None:
        return f"{'n/a':>{width}}"
    text = f"{100 * there[0]:>{width - 1}.0f} "
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
    """Exact match by guessing, in percent, mean of the runs; nothing where no answer is right or wrong"""
    found = [r["chance_exact"] for y in panel.ys if (y, x) in panel.cells for record in panel.cells[y, x].records
             if (r := phase.numbers(record)) and phase.has_right_answers(record, r)]
    return f"{100 * np.mean(found):.1f}" if found else ""


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
    if not ordered(panel):
        return f"no verdict: {dashed(panel.y)} has no order"
    ys, exact, nll = column(panel, x)
    if np.isnan(exact).all():
        return "no verdict: the task has no right answers and no reference"
    found = verdict(ys, exact, nll)
    confidence = "no confidence, for there is one seed" if found.confidence is None else f"confidence {found.confidence:.0%}"
    if found.window is None:
        return f"{found.name} ({confidence})"
    start, end = found.window
    return (f"{found.name}, from {dashed(panel.y)} {start} to {end} ({confidence}; {found.hidden:.0%} of what nll gains "
            "comes before)")


def can_colour():
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ
