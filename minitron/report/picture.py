"""Phase diagrams as a picture (PNG, SVG), by matplotlib, which is an optional extra: pip install matplotlib."""
from io import BytesIO

import numpy as np

from ..base.cli import dashed
from ..base.errors import MinitronError
from ..base.files import write_atomically
from . import phase
from . import text as report

PICTURES = ("png", "svg")
BLUE, ORANGE = "#0072b2", "#d55e00"         # told apart by colour-blind readers too


def draw(path, kind, records, y=None, x=None):
    """The phase diagrams below each other; where one dial was turned, exact match and nll over it.  Raises MinitronError."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MinitronError("a picture needs matplotlib: pip install matplotlib") from None
    found = [(task, panel) for task, of_task in phase.by_task(records) for panel in phase.panels(of_task, y, x)]
    heights = [1.2 + 0.4 * len(panel.ys) if two_dials(panel) else 3.5 for _, panel in found]
    figure = Figure(figsize=(7, sum(heights)), layout="constrained")
    axes = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (task, panel) in zip(axes, found):
        axis.set_title(report.title(task, panel), fontsize=10, loc="left")
        (heat_map if two_dials(panel) else curves)(axis, panel)
    save(figure, path, kind)


def save(figure, path, kind):
    """Write a figure, whole or not at all.      kind: of PICTURES.  Raises MinitronError."""
    from matplotlib import rc_context
    drawn = BytesIO()
    with rc_context({"svg.hashsalt": "minitron"}):          # so that the same ledger gives the same file
        figure.savefig(drawn, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    write_atomically(path, drawn.getvalue())


def two_dials(panel):
    return panel.x is not None and len(panel.xs) > 1 or not report.ordered(panel)


def heat_map(axis, panel):
    """Cells coloured and labelled by the share of runs that learnt it, columns by their verdict"""
    share = np.full((len(panel.ys), len(panel.xs)), np.nan)
    for (y, x), cell in panel.cells.items():
        there = cell.probability()
        if there is not None:
            i, j = panel.ys.index(y), panel.xs.index(x)
            share[i, j] = there[0]
            axis.text(j, i, f"{there[0]:.0%}\n{sum(cell.learnt())} of {there[2]}", ha="center", va="center", fontsize=7,
                      color="black" if there[0] > 0.5 else "white")
    axis.imshow(share, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    under = [f"\n{report.sentence(panel, x).split(' (')[0].split(',')[0]}" if report.ordered(panel) else "" for x in panel.xs]
    axis.set_xticks(range(len(panel.xs)), [f"{'' if x is None else x}{verdict}" for x, verdict in zip(panel.xs, under)])
    axis.set_yticks(range(len(panel.ys)), [str(y) for y in panel.ys])
    axis.set(ylabel=dashed(panel.y), xlabel=dashed(panel.x or ""))


def curves(axis, panel):
    """Exact match, as the share of the way from chance, and nll over one dial: each run a dot, lines through their means"""
    [x] = panel.xs
    ys, exact, nll = report.column(panel, x)
    places, right = np.arange(len(ys)), axis.twinx()
    for where, values, colour, name, shape in ((axis, exact, BLUE, "exact match, of the way from chance", "o"),
                                               (right, nll, ORANGE, "nll, nats a token", "s")):
        where.plot(places, values, shape, color=colour, markersize=4, alpha=0.6)
        means = [np.mean(row[~np.isnan(row)]) if not np.isnan(row).all() else np.nan for row in values]
        where.plot(places, means, color=colour, linestyle="-" if shape == "o" else "--")
        where.set_ylabel(name, color=colour)
    axis.set_ylim(-0.03, 1.03)
    right.set_ylim(bottom=0)
    axis.set_xticks(places, [str(y) for y in ys])
    axis.set_xlabel(f"{dashed(panel.y)}\n{report.sentence(panel, x)}")
