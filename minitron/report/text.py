"""The report of ledgers in the terminal: phase diagrams, frontiers, verdicts and commands.

Next: verdict.py, the rule of the verdicts.
"""
import os
import sys

import numpy as np

from ..base.cli import dashed
from . import phase
from .verdict import verdict

# Of 256 terminal colours, from dark to light, distinct for colour-blind readers too
SHADES = (235, 53, 54, 55, 61, 67, 73, 79, 114, 150, 186)


def lines(records, y=None, x=None, colour=False, with_verdicts=True):
    """All lines of the report.      y, x: fields of Config; with_verdicts: and with commands"""
    for task, records_of_task in phase.by_task(records):
        for diagram in phase.phase_diagrams(records_of_task, y, x):
            yield from diagram_lines(task, diagram, colour)
            if with_verdicts:
                yield from verdict_lines(diagram)
            yield ""


# ---- the diagram ----------------------------------------------------------------------------


def diagram_lines(task, diagram, colour):
    """The lines of one phase diagram"""
    yield f"{title(task, diagram)}: percent of runs that learnt it, {seeds_text(diagram)}"
    margin = 2 + max(len(str(name)) for name in (diagram.y, "frontier", *diagram.ys))
    width = max(7, 2 + max(len(str(x)) for x in diagram.xs))
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
    if rows_have_order(diagram):
        yield row_line("frontier", margin, [frontier(diagram, x) for x in diagram.xs], width)
    chances = [chance_percent(diagram, x) for x in diagram.xs]
    if any(chances):
        yield row_line("chance", margin, chances, width)


def row_line(head, margin, texts, width):
    return f"{head!s:>{margin}}" + "".join(f"{text!s:>{width}}" for text in texts)


def title(task, diagram):
    fixed = [f", {dashed(name)} {value}" for name, value in diagram.fixed.items()]
    return task + "".join(fixed)


def seeds_text(diagram):
    """For example: 3 seeds per cell.  Runs without a score are not counted."""
    counts = [len(cell.scores()) for cell in diagram.cells.values()]
    low, high = min(counts), max(counts)
    if high == 0:
        return "no run has a score"
    return f"{low if low == high else f'{low} to {high}'} seed{'s' * (high > 1)} per cell"


def cell_text(cell, width, colour):
    """The percent of a cell in `width` characters; n/a where no run has a score"""
    if cell is None:
        return " " * width
    probability = cell.probability()
    if probability is None:
        return f"{'n/a':>{width}}"
    share = probability[0]
    text = f"{100 * share:>{width - 1}.0f} "
    if not colour:
        return text
    shade, black_or_white = SHADES[round(share * (len(SHADES) - 1))], 16 if share > 0.5 else 231
    return f"\x1b[48;5;{shade};38;5;{black_or_white}m{text}\x1b[0m"


def rows_have_order(diagram):
    """Whether the settings of its rows are numbers"""
    return not any(isinstance(y, (str, bool)) for y in diagram.ys)


def frontier(diagram, x):
    """The first setting of a column from which on half of the runs or more learn the task"""
    first = "-"
    for y in reversed(diagram.ys):
        cell = diagram.cells.get((y, x))
        probability = None if cell is None else cell.probability()
        if probability is None:
            continue
        if probability[0] < 0.5:
            return first
        first = y
    return first


def chance_percent(diagram, x):
    """Exact match of a guesser, mean over a column's runs; "" where no answer is right or wrong"""
    chances = []
    for record in column_records(diagram, x):
        metrics = phase.test_metrics(record)
        if metrics and phase.has_right_answers(record, metrics):
            chances.append(metrics["chance_exact"])
    return f"{100 * np.mean(chances):.1f}" if chances else ""


def column_records(diagram, x):
    cells = [diagram.cells[y, x] for y in diagram.ys if (y, x) in diagram.cells]
    return [record for cell in cells for record in cell.records]


# ---- below the diagram ----------------------------------------------------------------------


def verdict_lines(diagram):
    """A verdict per column, learning rates where they were searched, and commands"""
    for x in diagram.xs if rows_have_order(diagram) else ():
        column = "" if diagram.x is None else f"{dashed(diagram.x)} {x}: "
        yield f"  {column}{verdict_sentence(diagram, x)}"
    yield from rate_lines(diagram)
    commands = phase.diagram_commands(diagram)
    yield "  to rerun a cell:" if len(commands) == 1 else "  to rerun the cells:"
    yield from (f"    {command}" for command in commands)


def verdict_sentence(diagram, x):
    """The verdict on one column"""
    if not rows_have_order(diagram):
        return f"no verdict: {dashed(diagram.y)} has no order"
    ys, exact, nll = column_scores(diagram, x)
    if np.isnan(exact).all():
        return "no verdict: the task has no right answers and no reference"
    name, confidence, window, hidden = verdict(ys, exact, nll)
    sure = f"confidence {confidence:.0%}" if confidence is not None else "one seed: no confidence"
    if window is None:
        return f"{name} ({sure})"
    start, end = window
    return (f"{name}, from {dashed(diagram.y)} {start} to {end} "
            f"({sure}; {hidden:.0%} of the fall in nll comes earlier)")


def column_scores(diagram, x):
    """-> settings, normalized scores (n, seeds), nll (n, seeds); NaN for missing runs"""
    ys = [y for y in diagram.ys if (y, x) in diagram.cells]
    seeds = max(len(diagram.cells[y, x].records) for y in ys)
    exact, nll = np.full((2, len(ys), seeds), np.nan)
    for i, y in enumerate(ys):
        for j, record in enumerate(diagram.cells[y, x].records):
            metrics, score = phase.test_metrics(record), phase.normalized_score(record)
            exact[i, j] = np.nan if score is None else score
            nll[i, j] = metrics["nll"] if metrics else np.nan
    return ys, exact, nll


def rate_lines(diagram):
    """The learning rate that each cell shows, and the range of scores over all rates

    A diagram of its own; nothing for a single rate.
    """
    if not any(cell.scores_by_rate for cell in diagram.cells.values()):
        return
    yield ("  lr that is best on the validation problems; in brackets, the lowest and highest mean "
           "score of the rates tried, in percent:")
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
