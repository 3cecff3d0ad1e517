"""What kind of emergence a row of runs shows, along one dial that grows: one of

    always      every run learnt it, at every setting
    not yet     no run did, at any
    luck        seeds of the same setting disagree, at more than one setting or beyond one where all agree that it is learnt
    mirage      exact match stays near 0 while half or more of all that nll gains is gained: progress that this metric hides
    jump        exact match goes from near 0 to learnt in one or two steps of the dial, and nll gains most there, too
    gradual     exact match rises over more steps than that, together with nll: there is no jump to explain
    unclear     too few settings to tell these three

A run has learnt it at 90% of the way from chance to perfect, has failed below half of it, and is near 0 below 10%.  The rule is
applied anew to resampled seeds; `confidence` is the share of them that agree (bootstrap).  docs/verdict.md has its error rates on
ledgers whose truth is known.
"""
from typing import NamedTuple

import numpy as np

from .rng import Random

LEARNT, FAILED, NEAR = 0.9, 0.5, 0.1    # of the way from chance to perfect
HIDDEN = 0.5                    # of what nll gains, gained while exact match is near 0
STEPS = 2                       # of the dial, at the most, that a jump takes
SETTINGS = 4                    # of the dial, at the least, to tell a jump from a slope
TIMES = 200                     # resamplings


class Verdict(NamedTuple):
    name: str
    confidence: float           # share of resamplings of the seeds that agree
    window: tuple | None        # the last setting where exact match is near 0, and the first where it is learnt
    hidden: float               # share of what nll gains that is gained up to the first of them


def verdict(settings, exact, nll):
    """settings (n,), increasing; exact, nll (n, seeds), exact being the share of the way from chance, NaN for no run -> Verdict"""
    exact, nll = np.asarray(exact, float), np.asarray(nll, float)
    name, window, hidden = rule(exact, nll)
    rng, again = Random(0), 0
    for _ in range(TIMES):
        chosen = rng.integers(0, exact.shape[1], exact.shape)
        again += rule(np.take_along_axis(exact, chosen, 1), np.take_along_axis(nll, chosen, 1))[0] == name
    return Verdict(name, again / TIMES, None if window is None else tuple(settings[i] for i in window), hidden)


def rule(exact, nll):
    """-> name, window as two indices, hidden"""
    learnt, failed, there = exact >= LEARNT, exact < FAILED, ~np.isnan(exact)
    if (learnt | ~there).all():
        return "always", None, 0.0
    if not learnt.any():
        return "not yet", None, 0.0
    mixed = learnt.any(axis=1) & failed.any(axis=1)
    sure = (learnt | ~there).all(axis=1)
    window, hidden = rise(mean(exact), mean(nll))
    if mixed.sum() > 1 or (mixed & (np.cumsum(sure) > 0)).any():
        return "luck", window, hidden
    if len(exact) < SETTINGS or window is None:
        return "unclear", window, hidden
    if hidden >= HIDDEN:
        return "mirage", window, hidden
    return ("jump" if window[1] - window[0] <= STEPS else "gradual"), window, hidden


def rise(exact, nll):
    """exact, nll (n,) -> (last setting before the rise, first setting after it), share of nll's gain made up to the former"""
    above = np.flatnonzero(exact >= LEARNT)
    if len(above) == 0:
        above = np.array([len(exact) - 1])
    end = above[0]
    near = np.flatnonzero(exact[:end] < NEAR)
    start = near[-1] if len(near) else 0
    gain = nll[0] - nll[end]
    return (int(start), int(end)), float(np.clip((nll[0] - nll[start]) / gain, 0, 1)) if gain > 0 else 0.0


def mean(values):
    """Over the seeds that there are; NaN for settings without any"""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(axis=1) / there.sum(axis=1)
