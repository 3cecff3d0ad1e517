"""What kind of emergence a row of runs shows, along one dial that grows: one of

    always      every run learnt it, at every setting
    not yet     no run did, at any
    luck        seeds of the same setting disagree, at more than one setting or beyond one where all agree that it is learnt
    jump        exact match rises at one step of the dial, and so does the likelihood of the right answer
    mirage      exact match rises at one step, but the likelihood had been rising all along: the jump is made by the metric
    gradual     exact match rises over several steps: there is no jump to explain
    unclear     too few settings to tell a jump from a slope

A run has learnt it at 90% of the way from chance to perfect, and has failed below half of it.  A rise is at one step if half or more of
all that is gained from the first setting to the last is gained there.  The rule is applied anew to resampled seeds; `confidence` is
the share of them that agree (bootstrap).  docs/verdict.md has its error rates on ledgers whose truth is known.
"""
from typing import NamedTuple

import numpy as np

from .rng import Random

LEARNT, FAILED = 0.9, 0.5       # of the way from chance to perfect
STEEP = 0.5                     # of all that is gained, gained at one step
SETTINGS = 4                    # of the dial, at the least, to tell a jump from a slope
TIMES = 200                     # resamplings


class Verdict(NamedTuple):
    name: str
    confidence: float           # share of resamplings of the seeds that agree
    step: tuple | None          # the two settings between which exact match rises most
    exact_share: float          # share of what exact match gains in all that it gains there,
    nll_share: float            # and the largest such share of nll


def verdict(settings, exact, nll):
    """settings (n,), increasing; exact, nll (n, seeds), exact being the share of the way from chance, NaN for no run -> Verdict"""
    exact, nll = np.asarray(exact, float), np.asarray(nll, float)
    name, step, shares = rule(exact, nll)
    rng, again = Random(0), 0
    for _ in range(TIMES):
        chosen = rng.integers(0, exact.shape[1], exact.shape)
        again += rule(np.take_along_axis(exact, chosen, 1), np.take_along_axis(nll, chosen, 1))[0] == name
    return Verdict(name, again / TIMES, None if step is None else (settings[step], settings[step + 1]), *shares)


def rule(exact, nll):
    """-> name, index of the steepest step of exact, (its share, the largest share of nll)"""
    learnt, failed = exact >= LEARNT, exact < FAILED
    there = ~np.isnan(exact)
    shares = steepest(mean(exact)), steepest(-mean(nll))
    step = None if shares[0] is None else shares[0][1]
    both = tuple(0.0 if share is None else share[0] for share in shares)
    if (learnt | ~there).all():
        return "always", step, both
    if not learnt.any():
        return "not yet", step, both
    mixed = learnt.any(axis=1) & failed.any(axis=1)
    sure = (learnt | ~there).all(axis=1)
    if mixed.sum() > 1 or (mixed & (np.cumsum(sure) > 0)).any():
        return "luck", step, both
    if len(exact) < SETTINGS:
        return "unclear", step, both
    if both[0] < STEEP:
        return "gradual", step, both
    return "jump" if both[1] >= STEEP else "mirage", step, both


def mean(values):
    """Over the seeds that there are; settings without any are left out of what follows"""
    with np.errstate(invalid="ignore"):
        there = ~np.isnan(values)
        return np.where(there, values, 0).sum(axis=1) / there.sum(axis=1)


def steepest(values):
    """(largest share of the whole rise that is made at one step, where), None where nothing rises"""
    rise = np.diff(values)
    total = np.nansum(rise)
    if not total > 0:
        return None
    where = int(np.nanargmax(rise))
    return min(1.0, float(rise[where] / total)), where
