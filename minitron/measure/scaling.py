"""Scaling laws: loss = E + A / x^alpha, x being parameters or FLOPs, fitted to (x, loss) points.

E is what no model gets below; where the entropy of the data is known, E is given and only A and alpha are fitted.  As in Hoffmann
et al. 2022 (arXiv:2203.15556): Huber's loss on log loss, so that one bad run does not bend the curve, from many starts, since the
error has several valleys.  The interval comes from fitting resampled seeds again (bootstrap, Efron 1979).  Needs scipy, which is
an optional extra: pip install scipy.
"""
from typing import NamedTuple

import numpy as np

from ..base.errors import MinitronError
from ..base.rng import Random

DELTA = 1e-3                                                # Huber: errors of log loss beyond this count linearly
ALPHAS, SHARES = (0.1, 0.3, 0.6, 1.0, 1.5), (0.0, 0.5, 0.9)     # starts; SHARES: E as a share of the lowest loss


class Law(NamedTuple):
    """loss = E + A / x^alpha"""

    E: float
    A: float
    alpha: float

    def __call__(self, x):
        return self.E + self.A * np.asarray(x, float) ** -self.alpha


def fit(x, loss, E=None):
    """The Law through points x (n,), loss (n,), both above 0; E fixed where it is given.  Raises MinitronError."""
    try:
        from scipy.optimize import minimize
        from scipy.special import huber
    except ImportError:
        raise MinitronError("fitting a scaling law needs scipy: pip install scipy") from None
    x, loss = np.asarray(x, float), np.asarray(loss, float)
    if len(set(x.tolist())) < (3 if E is None else 2):
        raise MinitronError(f"{len(set(x.tolist()))} different sizes are too few for a scaling law: use more")
    if x.shape != loss.shape or not (np.all(x > 0) and np.all(loss > 0) and np.all(np.isfinite([x, loss]))):
        raise MinitronError("a scaling law needs sizes and losses above 0")
    if E is not None and not 0 <= E < loss.min():
        raise MinitronError(f"E {E} is not from 0 to below the lowest loss, {loss.min():g}: it is what no model gets below")
    middle = np.exp(np.log(x).mean())       # A is fitted as the loss above E there: then it hardly depends on alpha

    def error(theta):
        log_above, alpha, *log_E = theta
        floor = log_E[0] if E is None else np.log(E) if E > 0 else -np.inf
        predicted = np.logaddexp(floor, log_above - alpha * np.log(x / middle))
        return huber(DELTA, predicted - np.log(loss)).sum() / DELTA

    starts = []
    for alpha in ALPHAS:
        for share in SHARES if E is None else (None,):
            floor = E if E is not None else max(share * loss.min(), 1e-9)
            above = np.log(max(np.median(loss) - floor, 1e-9))
            starts.append([above, alpha] + ([np.log(floor)] if E is None else []))
    best = min((minimize(error, start, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-9, "fatol": 1e-12})
                for start in starts), key=lambda found: found.fun)
    log_above, alpha, *log_E = best.x
    return Law(float(np.exp(log_E[0])) if E is None else float(E), float(np.exp(log_above) * middle**alpha), float(alpha))


def bootstrap(x, losses, E=None, times=200, level=0.95, seed=0):
    """The interval of each of E, A, alpha over fits to resampled seeds.

    x (n,), losses (n, seeds) -> Law of the lower ends, Law of the upper ends
    """
    losses, rng = np.asarray(losses, float), Random(seed)
    if losses.ndim != 2 or losses.shape[1] < 2:
        raise MinitronError("an interval needs losses (sizes, seeds) of two seeds at the least")
    laws = []
    for _ in range(times):
        chosen = rng.integers(0, losses.shape[1], losses.shape)
        laws.append(fit(x, np.take_along_axis(losses, chosen, axis=1).mean(axis=1), E))
    low, high = np.quantile(laws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Law(*map(float, low)), Law(*map(float, high))
