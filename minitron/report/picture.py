"""Phase diagrams as a picture (PNG, SVG), by matplotlib, an optional extra."""
import re
from io import BytesIO

import numpy as np

from ..base.cli import dashed
from ..base.environment import pip_command
from ..base.errors import MinitronError
from ..base.files import write_atomically
from . import phase, text

PICTURES = ("png", "svg")
BLUE, ORANGE = "#0072b2", "#d55e00"         # distinct for colour-blind readers too


def draw(path, kind, records, y=None, x=None):
    """Draw all phase diagrams, one below the other: over two dials as heat maps, over one as curves

    Raises MinitronError.
    """
    Figure = figure_class()
    diagrams = [(task, diagram) for task, records_of_task in phase.by_task(records)
                for diagram in phase.phase_diagrams(records_of_task, y, x)]
    heights = [1.2 + 0.4 * len(diagram.ys) if is_heat_map(diagram) else 3.5
               for _, diagram in diagrams]
    figure = Figure(figsize=(7, sum(heights)), layout="constrained")
    axes = figure.subplots(len(diagrams), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (task, diagram) in zip(axes, diagrams):
        axis.set_title(text.title(task, diagram), fontsize=10, loc="left")
        (heat_map if is_heat_map(diagram) else curves)(axis, diagram)
    save(figure, path, kind)


def figure_class():
    """matplotlib's Figure.  Raises MinitronError if matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MinitronError(f"a picture needs matplotlib: {pip_command('matplotlib')}") from None
    return Figure


def save(figure, path, kind):
    """Write a figure, whole or not at all.      kind: png, svg or pdf.  Raises MinitronError."""
    from matplotlib import rc_context
    picture = BytesIO()
    with rc_context({"svg.hashsalt": "minitron"}):      # the same ledger gives the same file
        metadata = {"Date": None} if kind == "svg" else None
        try:
            figure.savefig(picture, format=kind, dpi=150, metadata=metadata)
        except ValueError as error:             # matplotlib does not know the format
            raise MinitronError(f"picture {path} cannot be written: {error}") from None
    write_atomically(path, picture.getvalue())


def is_heat_map(diagram):
    return diagram.x is not None and len(diagram.xs) > 1 or not phase.rows_have_order(diagram)


def heat_map(axis, diagram):
    """Cells coloured and labelled by the share of runs that learnt, columns by their verdict

    Hatched: the tests of some runs cannot tell.
    """
    shares = np.full((len(diagram.ys), len(diagram.xs)), np.nan)
    for (y, x), cell in diagram.cells.items():
        place = j, i = diagram.xs.index(x), diagram.ys.index(y)
        if cell.is_uncertain():
            axis.add_patch(hatched_cell(*place))
        if cell.probability() is None:
            continue
        shares[i, j] = share = cell.probability()[0]
        learnt_it, failed, _ = cell.counts()
        axis.text(j, i, f"{share:.0%}\n{learnt_it} of {learnt_it + failed}", ha="center",
                  va="center", fontsize=7, color="black" if share > 0.5 else "white")
    axis.imshow(shares, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    labels = ["" if x is None else f"{x}" for x in diagram.xs]
    if phase.rows_have_order(diagram):
        labels = [f"{label}\n{short_verdict(diagram, x)}" for label, x in zip(labels, diagram.xs)]
    axis.set_xticks(range(len(diagram.xs)), labels)
    axis.set_yticks(range(len(diagram.ys)), [str(y) for y in diagram.ys])
    axis.set(ylabel=dashed(diagram.y), xlabel=dashed(diagram.x or ""))


def hatched_cell(column, row):
    from matplotlib.patches import Rectangle
    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="///", linewidth=0,
                     edgecolor="grey")


def short_verdict(diagram, x):
    """The verdict on a column with its confidence, without its window; "" where there is none"""
    name, _, rest = text.verdict_sentence(diagram, x).partition(" (")
    confidence = re.search(r"\d+%", rest)
    return f"{name.partition(',')[0]} ({confidence[0]})" if confidence else ""


def curves(axis, diagram):
    """Normalized score and nll over one dial: a dot per run, and lines through the means"""
    [x] = diagram.xs
    ys, exact, nll = phase.column_scores(diagram, x)             # (n,), (n, seeds), (n, seeds)
    places, right = np.arange(len(ys)), axis.twinx()
    draw_runs(axis, places, exact, BLUE, "o", "-")
    draw_runs(right, places, nll, ORANGE, "s", "--")
    axis.set_ylabel("exact match, normalized: 0 at chance", color=BLUE)
    right.set_ylabel("nll, nats per token", color=ORANGE)
    axis.set_ylim(-0.03, 1.03)
    right.set_ylim(bottom=0)
    axis.set_xticks(places, [str(y) for y in ys])
    axis.set_xlabel(f"{dashed(diagram.y)}\n{text.verdict_sentence(diagram, x)}")


def draw_runs(axis, places, values, colour, marker, linestyle):
    """values (n, seeds), NaN for missing runs, and their means"""
    axis.plot(places, values, marker, color=colour, markersize=4, alpha=0.6)
    means = [np.mean(row[~np.isnan(row)]) if not np.isnan(row).all() else np.nan for row in values]
    axis.plot(places, means, color=colour, linestyle=linestyle)
