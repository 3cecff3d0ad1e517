"""Scaling laws: loss = E + A / x^alpha, x being parameters or FLOPs, fitted to points (x, loss).

E is the loss that no model gets below.  Where the entropy of the data is known, it is E, and only A
and alpha are fitted.  As in Hoffmann et al. 2022 (arXiv:2203.15556): Huber's loss on log loss, so
that one bad run does not bend the curve, from many starts, since the error has several minima.
Intervals come from fits to resampled seeds (bootstrap, Efron 1979).

Needs scipy, an optional extra: pip install scipy.
"""
from typing import NamedTuple

import numpy as np

from ..base.environment import pip_command
from ..base.errors import MinitronError
from ..base.rng import Random

DELTA = 1e-3                        # Huber: errors of log loss beyond this count linearly
ALPHAS = (0.1, 0.3, 0.6, 1.0, 1.5)  # starts of alpha
SHARES = (0.0, 0.5, 0.9)            # starts of E, as a share of the lowest loss
NELDER_MEAD = {"maxiter": 4000, "xatol": 1e-9, "fatol": 1e-12}


class Law(NamedTuple):
    """loss = E + A / x^alpha"""

    E: float
    A: float
    alpha: float

    def __call__(self, x):
        return self.E + self.A * np.asarray(x, float) ** -self.alpha


def fit(x, loss, E=None):
    """The Law through points x (n,), loss (n,), both above 0.      E: known, or None

    Raises MinitronError.
    """
    try:
        from scipy.optimize import minimize
        from scipy.special import huber
    except ImportError:
        raise MinitronError(
            f"fitting a scaling law needs scipy: {pip_command('scipy')}") from None
    x, loss = np.asarray(x, float), np.asarray(loss, float)
    check_points(x, loss, E)
    # A is fitted as the loss above E at the middle of x: then it hardly depends on alpha.
    middle = np.exp(np.log(x).mean())

    def error(theta):
        log_above, alpha, *log_E = theta
        floor = log_E[0] if E is None else np.log(E) if E > 0 else -np.inf
        prediction = np.logaddexp(floor, log_above - alpha * np.log(x / middle))
        return huber(DELTA, prediction - np.log(loss)).sum() / DELTA

    fits = [minimize(error, start, method="Nelder-Mead", options=NELDER_MEAD)
            for start in starts(loss, E)]
    log_above, alpha, *log_E = min(fits, key=lambda fit: fit.fun).x
    A = np.exp(log_above) * middle**alpha
    return Law(float(np.exp(log_E[0])) if E is None else float(E), float(A), float(alpha))


def check_points(x, loss, E):
    """Raises MinitronError if no law can be fitted to these points."""
    sizes = len(set(x.tolist()))
    if sizes < (3 if E is None else 2):
        raise MinitronError(f"{sizes} different sizes are too few for a scaling law: use more")
    finite = x.shape == loss.shape and np.all(np.isfinite([x, loss]))
    if not finite or not (np.all(x > 0) and np.all(loss > 0)):
        raise MinitronError("a scaling law needs sizes and losses above 0")
    if E is not None and not 0 <= E < loss.min():
        raise MinitronError(f"E is {E}, but must be at least 0 and below the lowest loss, "
                            f"{loss.min():g}")


def starts(loss, E):
    """Points from which to search: (log of the loss above E, alpha), and log E if it is fitted"""
    for alpha in ALPHAS:
        for share in SHARES if E is None else (None,):
            floor = E if E is not None else max(share * loss.min(), 1e-9)
            above = np.log(max(np.median(loss) - floor, 1e-9))
            yield [above, alpha] + ([np.log(floor)] if E is None else [])


def bootstrap(x, losses, E=None, times=200, level=0.95, seed=0):
    """(Law of the lower ends, Law of the upper ends) of intervals of E, A and alpha

    Over fits to resampled seeds.  x (n,), losses (n, seeds)
    """
    losses, rng = np.asarray(losses, float), Random(seed)
    if losses.ndim != 2 or losses.shape[1] < 2:
        raise MinitronError("an interval needs losses (sizes, seeds) of at least two seeds")
    laws = []
    for _ in range(times):
        seeds = rng.integers(0, losses.shape[1], losses.shape)
        laws.append(fit(x, np.take_along_axis(losses, seeds, axis=1).mean(axis=1), E))
    low, high = np.quantile(laws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Law(*map(float, low)), Law(*map(float, high))
