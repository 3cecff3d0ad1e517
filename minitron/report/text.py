"""The report of ledgers in the terminal: phase diagrams, frontiers, verdicts and commands.

Next: verdict.py, the rule of the verdicts.
"""
import os
import sys

import numpy as np

from ..base.cli import dashed
from ..measure import learnt
from ..measure.record import wrapped
from . import phase
from .verdict import verdict

# Of 256 terminal colours, from dark to light, distinct for colour-blind readers too
SHADES = (235, 53, 54, 55, 61, 67, 73, 79, 114, 150, 186)
INDENT = "  ", "    "       # of the lines below a diagram: the first of a text, and the others


def lines(records, y=None, x=None, colour=False, with_verdicts=True):
    """All lines of the report.      y, x: fields of Config; with_verdicts: and with commands"""
    for task, records_of_task in phase.by_task(records):
        for diagram in phase.phase_diagrams(records_of_task, y, x):
            yield from diagram_lines(task, diagram, colour)
            if with_verdicts:
                yield from below_lines(diagram)
            yield ""


# ---- the diagram ----------------------------------------------------------------------------


def diagram_lines(task, diagram, colour):
    """The lines of one phase diagram"""
    yield f"{title(task, diagram)}: percent of runs that learnt it, {seeds_text(diagram)}"
    margin = 2 + max(len(str(name)) for name in (diagram.y, "frontier", *diagram.ys))
    frontiers = [frontier_text(diagram, x) for x in diagram.xs]
    width = max(7, 2 + max(map(len, map(str, [*diagram.xs, *frontiers]))))
    # The dials' names and the columns' settings
    columns = "" if diagram.x is None else f"   {dashed(diagram.x)}"
    yield f"{dashed(diagram.y):>{margin}}{columns}"
    if diagram.x is not None:
        yield row_line("", margin, diagram.xs, width)
    # A row per setting
    for y in diagram.ys:
        texts = [cell_text(diagram.cells.get((y, x)), width, colour) for x in diagram.xs]
        yield (f"{y!s:>{margin}}" + "".join(texts)).rstrip()
    # Frontier and chance below
    if phase.rows_have_order(diagram):
        yield row_line("frontier", margin, frontiers, width)
    chances = [phase.chance(diagram, x) for x in diagram.xs]
    if any(chance is not None for chance in chances):
        yield row_line("chance", margin, map(percent, chances), width)


def row_line(head, margin, texts, width):
    return f"{head!s:>{margin}}" + "".join(f"{text!s:>{width}}" for text in texts)


def title(task, diagram):
    fixed = [f", {dashed(name)} {value}" for name, value in diagram.fixed.items()]
    return task + "".join(fixed)


def seeds_text(diagram):
    """For example: 3 seeds per cell.  Only runs whose test can tell are counted."""
    counts = [sum(cell.counts()[:2]) for cell in diagram.cells.values() if cell.probability()]
    if not counts:
        return "no run has a test that can tell"
    low, high = min(counts), max(counts)
    return f"{low if low == high else f'{low} to {high}'} seed{'s' * (high > 1)} per cell"


def cell_text(cell, width, colour):
    """The percent of a cell in `width` characters, with a ? if not every run's test can tell"""
    if cell is None:
        return " " * width
    probability, mark = cell.probability(), "?" if cell.is_uncertain() else " "
    if probability is None:
        return f"{mark if mark == '?' else 'n/a':>{width}}"
    share = probability[0]
    text = f"{100 * share:>{width - 1}.0f}{mark}"
    if not colour:
        return text
    shade, black_or_white = SHADES[round(share * (len(SHADES) - 1))], 16 if share > 0.5 else 231
    return f"\x1b[48;5;{shade};38;5;{black_or_white}m{text}\x1b[0m"


def percent(share):
    return "" if share is None else f"{100 * share:.1f}"


def frontier_text(diagram, x):
    """For example 16-64: no run up to 16 learnt the task, all from 64 on; - if neither is so"""
    none_up_to, all_from = phase.frontier(diagram, x)
    if none_up_to is None:
        return "-" if all_from is None else f"<={all_from}"
    return f">{none_up_to}" if all_from is None else f"{none_up_to}-{all_from}"


# ---- below the diagram ----------------------------------------------------------------------


def below_lines(diagram):
    """The marks, verdicts, learning rates where they were searched, other settings, commands"""
    if any(cell.is_uncertain() for cell in diagram.cells.values()):
        yield from wrapped(f"?: runs with fewer than {learnt.ENOUGH} test problems per length, or "
                           f"too near {learnt.LEARNT:g} to say", *INDENT)
    for x in diagram.xs if phase.rows_have_order(diagram) else ():
        column = "" if diagram.x is None else f"{dashed(diagram.x)} {x}: "
        yield from wrapped(f"{column}{verdict_sentence(diagram, x)}", *INDENT)
    yield from rate_lines(diagram)
    yield from moved_lines(diagram)
    commands = phase.diagram_commands(diagram)
    yield "  to rerun a cell, with its settings for capitals:"
    yield from (f"    {command}" for command in commands)


def moved_lines(diagram):
    """The settings that moved with the dials, which are not varied on their own"""
    moved = phase.moved_settings(diagram)
    if moved:
        dials = " and ".join(dashed(name) for name in (diagram.y, diagram.x) if name)
        yield from wrapped(f"with {dials} also change: " + ", ".join(
            f"{dashed(name)} {values_text(values)}" for name, values in moved.items()), *INDENT)


def values_text(values):
    """For example 1-4; of settings without order, each"""
    if any(isinstance(value, (str, bool)) or value is None for value in values):
        return "/".join(map(str, values))
    return f"{values[0]:g}-{values[-1]:g}"


def verdict_sentence(diagram, x):
    """The verdict on one column"""
    if not phase.rows_have_order(diagram):
        return f"no verdict: {dashed(diagram.y)} has no order"
    ys, scores, nll = phase.column_scores(diagram, x)
    if np.isnan(scores).all():
        return f"no verdict: {why_no_score(diagram, x)}"
    name, confidence, window, hidden, missing = verdict(ys, scores, nll, dashed(diagram.y))
    if missing:
        return f"{name}, missing: {missing}"
    if window is None:
        return f"{name} (confidence {confidence:.0%})"
    start, end = window
    return (f"{name}, from {dashed(diagram.y)} {start} to {end} "
            f"(confidence {confidence:.0%}; {hidden:.0%} of the fall in nll comes earlier)")


def why_no_score(diagram, x):
    """Why no run of a column has a score"""
    records = [record for record in phase.column_records(diagram, x) if record["status"] == "ok"]
    tests = [metrics for record in records for metrics in learnt.trained(record).values()]
    if not records:
        return "no run finished"
    most = max((metrics["n"] for metrics in tests), default=0)
    if most < learnt.ENOUGH:
        return f"too few test problems to say ({most})"
    return "the task has no right answers and no reference"


def rate_lines(diagram):
    """The learning rate that each cell shows, and the range of scores over all rates

    A diagram of its own; nothing for a single rate.
    """
    if not any(cell.scores_by_rate for cell in diagram.cells.values()):
        return
    yield "  lr that is best on the validation problems (range of mean scores, percent):"
    texts = {place: rate_text(cell) for place, cell in diagram.cells.items()}
    margin = 2 + max(len(str(y)) for y in diagram.ys)
    width = 2 + max(len(str(text)) for text in [*texts.values(), *diagram.xs])
    if diagram.x is not None:
        yield row_line("", margin, diagram.xs, width)
    for y in diagram.ys:
        yield row_line(y, margin, [texts.get((y, x), "") for x in diagram.xs], width)


def rate_text(cell):
    """For example: 0.01 (15-47)"""
    rate = f"{cell.records[0]['config']['lr']:g}"
    percents = [100 * max(score, 0) for score in cell.scores_by_rate.values()]
    return f"{rate} ({min(percents):.0f}-{max(percents):.0f})" if percents else rate


def can_colour():
    is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return is_terminal and "NO_COLOR" not in os.environ
