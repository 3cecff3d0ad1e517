"""Phase diagrams as a picture (PNG, SVG, PDF), by matplotlib, which is an optional extra: pip install matplotlib."""
import numpy as np

from . import phase, report
from .errors import MinitronError


def draw(path, records, y=None, x=None):
    """Phase diagrams below each other, coloured and labelled by the share of runs that learnt it.  Raises MinitronError."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MinitronError("a picture needs matplotlib: pip install matplotlib") from None
    found = [(task, panel) for task in sorted({record["config"]["task"] for record in records})
             for panel in phase.panels([record for record in records if record["config"]["task"] == task], y, x)]
    height = sum(1.6 + 0.45 * len(panel.ys) + 0.2 * len(panel.xs) for _, panel in found)
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.subplots(len(found), 1, squeeze=False, height_ratios=[3 + len(panel.ys) for _, panel in found])[:, 0]
    for axis, (task, panel) in zip(axes, found):
        shown = draw_panel(axis, task, panel)
    figure.colorbar(shown, ax=list(axes), label="share of runs that learnt it", shrink=0.6)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise MinitronError(f"picture {path} cannot be written: {getattr(error, 'strerror', None) or error}") from None


def draw_panel(axis, task, panel):
    """One phase diagram on a matplotlib axis -> its image"""
    share = np.full((len(panel.ys), len(panel.xs)), np.nan)
    for (y, x), cell in panel.cells.items():
        there = cell.probability()
        if there is not None:
            i, j = panel.ys.index(y), panel.xs.index(x)
            share[i, j] = there[0]
            axis.text(j, i, f"{there[0]:.0%}\n{sum(cell.learnt())}/{there[2]}", ha="center", va="center", fontsize=7,
                      color="black" if there[0] > 0.5 else "white")
    shown = axis.imshow(share, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(panel.xs)), [str(x) for x in panel.xs])
    axis.set_yticks(range(len(panel.ys)), [str(y) for y in panel.ys])
    axis.set(ylabel=panel.y.replace("_", "-"), xlabel="" if panel.x is None else panel.x.replace("_", "-"))
    fixed = "".join(f", {name} {value}" for name, value in panel.fixed.items())
    verdicts = "\n".join(("" if panel.x is None else f"{panel.x} {x}: ") + report.sentence(panel, x) for x in panel.xs)
    axis.set_title(f"{task}{fixed}\n{verdicts}", fontsize=8, loc="left")
    return shown
