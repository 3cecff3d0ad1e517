"""Scaling laws of whole ledgers: nll against parameters and training FLOPs, as a table and a picture.

nll = E + A / x^alpha is fitted through the mean nll of each size x.  E is the nll of the best
predictor if the task knows it, and is fitted otherwise.  Intervals are 95%, over resampled seeds.
"Off by" is the typical factor between the law and the nll, less E if E is known.
"""
from typing import NamedTuple

import numpy as np

from ..base.errors import MinitronError
from ..measure import scaling
from . import phase, picture

SIZES = {"parameters": "parameters", "flops": "training FLOPs"}


class FittedLaw(NamedTuple):
    """A law of one ledger over one size, and the runs it is fitted through."""

    x: np.ndarray           # (n,) sizes; of FLOPs the mean over seeds, which stop at different steps
    nll: np.ndarray         # (n, seeds)
    exact: np.ndarray       # (n, seeds)
    E: float | None         # nats per token, if known
    law: scaling.Law
    low: scaling.Law        # the ends of its interval
    high: scaling.Law
    off: float


def fitted_law(records, size):
    """size: of SIZES.  Raises MinitronError if the runs do not fill a grid of sizes and seeds."""
    x, nll, exact, E = size_points(records, size)
    law = scaling.fit(x, nll.mean(axis=1), E)
    low, high = scaling.bootstrap(x, nll, E)
    floor = E or 0
    errors = np.log((law(x) - floor) / (nll.mean(axis=1) - floor))
    return FittedLaw(x, nll, exact, E, law, low, high, float(np.exp(np.sqrt(np.mean(errors**2)))))


def size_points(records, size):
    """-> x (n,), nll (n, seeds), exact (n, seeds), E or None"""
    by_parameters = {}
    for record in records:
        metrics = phase.test_metrics(record)
        if metrics:
            by_parameters.setdefault(record["parameters"], []).append((record[size], metrics))
    runs = [by_parameters[parameters] for parameters in sorted(by_parameters)]
    if len({len(same) for same in runs}) != 1:
        raise MinitronError("a law needs finished runs with equally many seeds of each size: "
                            "finish the sweep first")
    x = np.array([np.mean([value for value, _ in same]) for same in runs])
    nll, exact = (np.array([[metrics[name] for _, metrics in same] for same in runs])
                  for name in ("nll", "exact"))
    floors = [min(metrics["reference"].values()) for same in runs for _, metrics in same
              if metrics.get("reference")]
    return x, nll, exact, min(floors) if floors else None


def law_table(laws):
    """laws {(name, size): FittedLaw} -> lines of Markdown"""
    yield "| task | over | E | alpha | off by a factor of |"
    yield "|---|---|---:|---:|---:|"
    for (name, size), f in laws.items():
        floor = (f"{f.law.E:.4f}, known" if f.E is not None else
                 f"{f.law.E:.4f} ({f.low.E:.4f} to {f.high.E:.4f})")
        alpha = f"{f.law.alpha:.2f} ({f.low.alpha:.2f} to {f.high.alpha:.2f})"
        yield f"| {name} | {SIZES[size]} | {floor} | {alpha} | {f.off:.2f} |"


def draw(path, laws):
    """A row of axes per ledger, a column per size, as SVG.  Raises MinitronError."""
    names = list(dict.fromkeys(name for name, _ in laws))
    figure = picture.figure_class()(figsize=(9, 3.25 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), len(SIZES), squeeze=False)
    for (name, size), fitted in laws.items():
        draw_law(axes[names.index(name), list(SIZES).index(size)], name, size, fitted)
    picture.save(figure, path, "svg")


def draw_law(axis, name, size, fitted):
    """Each run's nll, less E if E is known, and the law through their means"""
    floor = fitted.E or 0
    seeds = fitted.nll.shape[1]
    axis.loglog(np.repeat(fitted.x, seeds), (fitted.nll - floor).ravel(), "o", color=picture.BLUE,
                markersize=4, alpha=0.6, label="runs")
    curve = np.geomspace(fitted.x.min(), fitted.x.max(), 100)
    formula = f"{'' if fitted.E is not None else 'E + '}A / x^{fitted.law.alpha:.2f}"
    axis.loglog(curve, fitted.law(curve) - floor, "--", color=picture.ORANGE, label=formula)
    exact = f"exact match {fitted.exact.min():.0%} to {fitted.exact.max():.0%}"
    known = fitted.E is not None
    axis.set(xlabel=SIZES[size], ylabel="nll above the best predictor's" if known else "nll",
             title=name if known else f"{name}; {exact}")
    axis.legend()
