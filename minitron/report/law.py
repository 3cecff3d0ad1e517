"""Scaling laws of ledgers: nll against parameters and training FLOPs, as a table and a picture.

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

    x: np.ndarray           # (n,) sizes: FLOPs are means over seeds, which differ in steps
    nll: np.ndarray         # (n, seeds)
    exact: np.ndarray       # (n, seeds)
    E: float | None         # nats per token, if known
    law: scaling.Law
    low: scaling.Law        # the ends of its interval
    high: scaling.Law
    off: float


def fitted_laws(records):
    """{size: FittedLaw} of a ledger.  Raises MinitronError unless its runs fill sizes x seeds."""
    tasks = sorted({record["config"]["task"] for record in records})
    if len(tasks) > 1:
        raise MinitronError(f"tasks {', '.join(tasks)} are in one ledger: a law is of one task")
    return {size: fitted_law(*size_points(records, size)) for size in SIZES}


def fitted_law(x, nll, exact, E):
    law = scaling.fit(x, nll.mean(axis=1), E)
    low, high = scaling.bootstrap(x, nll, E)
    floor = E or 0
    errors = np.log((law(x) - floor) / (nll.mean(axis=1) - floor))
    return FittedLaw(x, nll, exact, E, law, low, high, float(np.exp(np.sqrt(np.mean(errors**2)))))


def size_points(records, size):
    """-> x (n,), nll (n, seeds), exact (n, seeds), E or None.      size: of SIZES"""
    by_parameters = {}
    for record in records:
        if phase.test_metrics(record):
            by_parameters.setdefault(record["parameters"], []).append(record)
    runs = [by_parameters[parameters] for parameters in sorted(by_parameters)]  # n lists of seeds
    check_seeds(runs)
    x = np.array([np.mean([record[size] for record in seeds]) for seeds in runs])
    metrics = [[phase.test_metrics(record) for record in seeds] for seeds in runs]
    nll, exact = (np.array([[m[name] for m in seeds] for seeds in metrics], float)
                  for name in ("nll", "exact"))
    floors = [min(m["reference"].values()) for seeds in metrics for m in seeds
              if m.get("reference")]
    return x, nll, exact, min(floors) if floors else None


def check_seeds(runs):
    """Raises MinitronError unless each size has the same number of runs, which differ in seed."""
    if not runs:
        raise MinitronError("no run has finished: a law needs finished runs")
    if len({len(seeds) for seeds in runs}) > 1:
        raise MinitronError("the sizes have different numbers of finished runs: "
                            "a law needs the same seeds of each")
    for seeds in runs:
        if varied := phase.varied_fields(seeds):
            raise MinitronError(f"runs of {seeds[0]['parameters']:,} parameters differ in "
                                f"{', '.join(varied)}: a law needs one setting per size")


def law_table(laws):
    """laws [(name, {size: FittedLaw})] -> lines of Markdown"""
    yield "| task | over | E | alpha | off by a factor of |"
    yield "|---|---|---:|---:|---:|"
    for name, by_size in laws:
        for size, f in by_size.items():
            floor = f"{f.law.E:.4f}"
            floor += ", known" if f.E is not None else f" ({f.low.E:.4f} to {f.high.E:.4f})"
            alpha = f"{f.law.alpha:.2f} ({f.low.alpha:.2f} to {f.high.alpha:.2f})"
            yield f"| {name} | {SIZES[size]} | {floor} | {alpha} | {f.off:.2f} |"


def draw(path, laws):
    """A row of axes per ledger, a column per size, as SVG.  Raises MinitronError."""
    figure = picture.figure_class()(figsize=(9, 3.25 * len(laws)), layout="constrained")
    axes = figure.subplots(len(laws), len(SIZES), squeeze=False)
    for (name, by_size), row in zip(laws, axes):
        for (size, fitted), axis in zip(by_size.items(), row):
            draw_law(axis, name, size, fitted)
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
    has_floor = fitted.E is not None
    exact = f"exact match {fitted.exact.min():.0%} to {fitted.exact.max():.0%}"
    axis.set(xlabel=SIZES[size], ylabel="nll above the best predictor's" if has_floor else "nll",
             title=name if has_floor else f"{name}; {exact}")
    axis.legend()
