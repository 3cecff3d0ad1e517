#!/usr/bin/env python3
"""A scaling law, and an ability that leaves it: the table and the picture of docs/sweeps.md.  Needs scipy and matplotlib.

    python results/scaling.py                       prints the table
    python results/scaling.py --svg scaling.svg     draws the picture, too

nll = E + A / x^alpha is fitted through the mean nll of each size, x being parameters or training FLOPs: for stories with E the
entropy of their grammar, which is known; for induction with E fitted.  Intervals are of 95%, over resampled seeds.  "Off by" is
how far the law typically is from the nll, less E where that is known, as a factor.
"""
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from minitron.base import cli
from minitron.measure import scaling
from minitron.report import phase, picture
from minitron.sweep import ledger

SIZES = {"parameters": "parameters", "flops": "training FLOPs"}
LEDGERS = {"stories": "results/stories.jsonl", "induction": "results/induction.jsonl"}


def points(path, size):
    """-> x (n,), the mean over seeds where they stopped at different steps; nll (n, seeds); exact (n, seeds); E or None"""
    found = {}
    for record in ledger.read_records(path)[0].values():
        found.setdefault(record["parameters"], []).append((record[size], phase.test_metrics(record)))
    runs = [found[parameters] for parameters in sorted(found)]
    x = np.array([np.mean([of for of, _ in same]) for same in runs])
    nll, exact = (np.array([[r[name] for _, r in same] for same in runs]) for name in ("nll", "exact"))
    references = [min(r["reference"].values()) for same in runs for _, r in same if r.get("reference")]
    return x, nll, exact, min(references) if references else None


def law(path, size):
    """-> what is drawn of one task over one size, with the law, and the ends of its interval"""
    x, nll, exact, E = points(path, size)
    found, (low, high) = scaling.fit(x, nll.mean(axis=1), E), scaling.bootstrap(x, nll, E)
    known = E or 0
    off = np.exp(np.sqrt(np.mean(np.log((found(x) - known) / (nll.mean(axis=1) - known)) ** 2)))
    return x, nll, exact, E, found, low, high, off


def table(laws):
    yield "| task | over | E | alpha | off by a factor of |"
    yield "|---|---|---:|---:|---:|"
    for (task, size), (_, _, _, E, found, low, high, off) in laws.items():
        floor = f"{found.E:.4f}, known" if E is not None else f"{found.E:.4f} ({low.E:.4f} to {high.E:.4f})"
        yield f"| {task} | {SIZES[size]} | {floor} | {found.alpha:.2f} ({low.alpha:.2f} to {high.alpha:.2f}) | {off:.2f} |"


def draw(path, laws):
    """Nll, less E where that is known, and its laws: a row for each task, parameters on the left, FLOPs on the right"""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots(len(LEDGERS), len(SIZES))
    for (task, size), (x, nll, exact, E, found, *_) in laws.items():
        axis = axes[list(LEDGERS).index(task), list(SIZES).index(size)]
        above = nll - (E or 0)
        axis.loglog(np.repeat(x, nll.shape[1]), above.ravel(), "o", color=picture.BLUE, markersize=4, alpha=0.6, label="runs")
        curve = np.geomspace(x.min(), x.max(), 100)
        axis.loglog(curve, found(curve) - (E or 0), "--", color=picture.ORANGE,
                    label=f"{'' if E is not None else 'E + '}A / x^{found.alpha:.2f}")
        axis.set(xlabel=SIZES[size], ylabel="nll above the entropy of the grammar" if E is not None else "nll",
                 title=task if task == "stories" else f"{task}; exact match {exact.min():.0%} to {exact.max():.0%}")
        axis.legend()
    picture.save(figure, path, "svg")


def main(argv):
    parser = cli.Parser(prog="results/scaling.py", description=__doc__)
    parser.add_argument("--svg", metavar="FILE")
    flags = parser.parse_args(argv)
    laws = {(task, size): law(ROOT / path, size) for task, path in LEDGERS.items() for size in SIZES}
    print("\n".join(table(laws)))
    if flags.svg:
        draw(flags.svg, laws)


if __name__ == "__main__":
    cli.run(main)
