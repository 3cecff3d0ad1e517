"""What kind of emergence a row of runs shows, along one dial that grows: one of

    always      at every setting the runs learnt it on average, and none failed
    not yet     no run did, at any
    luck        seeds of the same setting disagree, at more than one setting or at one that does not lie between those where all
                fail and those where all have learnt it
    mirage      exact match is near 0 while half or more of what nll gains is gained, and nll is falling when the rise begins:
                progress that this metric hides
    jump        exact match rises by 0.8 or more in one or two steps of the dial, and nll falls there, too, not before
    gradual     exact match rises over more steps than that, together with nll: there is no jump to explain
    unclear     none of these can be told from the settings that there are, mostly because they begin too late or end too early

A run has learnt it at 90% of the way from chance to perfect, has failed below half of it, and is near 0 below 10%.  The rule is
applied anew to resampled seeds; `confidence` is the share of them that agree (bootstrap, Efron 1979).  docs/verdict.md has the
reasons, and the error rates on ledgers whose truth is known.
"""
from typing import NamedTuple

import numpy as np

from ..base.rng import Random

LEARNT, FAILED, NEAR = 0.9, 0.5, 0.1    # of the way from chance to perfect
HIDDEN = 0.5                    # of what nll gains, gained while exact match is near 0
FALLING = 0.4                   # of nll's pace in the rise, its pace in the step before: below it stands still
RISE, STEPS = 0.8, 2            # what exact match rises by in a jump, and in how many steps of the dial at the most
SETTINGS = 4                    # of the dial, at the least, to tell a jump from a slope
TIMES = 200                     # resamplings


class Verdict(NamedTuple):
    name: str
    confidence: float | None    # share of resamplings of the seeds that agree; None where no setting has two runs
    window: tuple | None        # the last setting where exact match is near 0, and the first where it is learnt
    hidden: float               # share of what nll gains that is gained up to the first of them


def verdict(settings, exact, nll):
    """settings (n,), increasing; exact, nll (n, seeds) -> Verdict

    exact is the share of the way from chance to perfect, NaN for no run.  nll is NaN also for a run that did not end.
    """
    exact, nll = np.asarray(exact, float), np.asarray(nll, float)
    name, window, hidden = rule(exact, nll)
    return Verdict(name, confidence(name, exact, nll), None if window is None else tuple(settings[i] for i in window), hidden)


def confidence(name, exact, nll):
    """The share of resamplings, of the runs that each setting has, that have this name"""
    runs = (~np.isnan(exact)).sum(axis=1, keepdims=True)
    if runs.max(initial=0) < 2:
        return None
    first = np.argsort(np.isnan(exact), axis=1, kind="stable")          # the runs that there are, then the others
    exact, nll = (np.take_along_axis(values, first, 1) for values in (exact, nll))
    places, rng, again = np.arange(exact.shape[1]), Random(0), 0
    for _ in range(TIMES):
        chosen = np.where(places < runs, (rng.uniform(exact.shape) * runs).astype(int), places)
        again += rule(np.take_along_axis(exact, chosen, 1), np.take_along_axis(nll, chosen, 1))[0] == name
    return again / TIMES


def rule(exact, nll):
    """-> name, window as two indices, hidden"""
    learnt, there = exact >= LEARNT, ~np.isnan(exact)
    ended = there & np.isfinite(nll)
    if not there.any():
        return "unclear", None, 0.0
    if not learnt.any():
        return "not yet", None, 0.0
    if not ended.any():
        return "unclear", None, 0.0
    # A run that diverged or was stopped has not learnt it, but that is no luck: it takes no part from here on.
    failed = (exact < FAILED) & ended
    left = np.flatnonzero(ended.any(axis=1))
    average = mean(exact[left], ended[left])
    if not failed.any() and (average >= LEARNT).all() and ended.any(axis=1)[there.any(axis=1)].all():
        return "always", None, 0.0
    mixed = learnt.any(axis=1) & failed.any(axis=1)
    sure, never = ((each | ~ended).all(axis=1) & ended.any(axis=1) for each in (learnt, failed))
    after_sure, before_never = np.cumsum(sure) > 0, np.cumsum(never[::-1])[::-1] > 0
    if mixed.sum() > 1 or (mixed & (after_sure | before_never)).any():
        return "luck", None, 0.0
    name, window, hidden = shape(average, mean(nll[left], ended[left]))
    return name, None if window is None else tuple(int(left[i]) for i in window), hidden


def shape(exact, nll):
    """The same of two curves (n,), means over seeds"""
    near, above = exact < NEAR, np.flatnonzero(exact >= LEARNT)
    end = above[0] if len(above) else len(exact) - 1
    start = np.flatnonzero(near[:end])[-1] if near[:end].any() else 0
    gain, drop = nll[0] - nll[end], nll[start] - nll[end]
    lost = (exact[end:] < FAILED).any()                                 # what was learnt, or not even on average
    if end == start or lost:
        return "unclear", None, 0.0
    hidden = float(np.clip((nll[0] - nll[start]) / gain, 0, 1)) if gain > 0 else 0.0
    if len(exact) < SETTINGS or gain <= 0:
        return "unclear", (start, end), hidden
    falling = start > 0 and nll[start - 1] - nll[start] >= FALLING * max(drop, 0) / (end - start)
    sharp = max((exact[k:] - exact[:-k]).max() for k in range(1, STEPS + 1)) >= RISE
    if hidden >= HIDDEN and falling:                                    # one step down may be a slope's, or lead to a plateau
        name = "mirage" if start > 1 or not sharp else "unclear"
    elif sharp:                                                         # with nothing before it, nll may have been falling
        name = "jump" if drop > 0 and start > 0 else "unclear"
    else:
        name = "gradual" if end - start > STEPS else "unclear"
    return name, (start, end), hidden


def mean(values, there):
    """Over the seeds that there are, at least one"""
    return np.where(there, values, 0).sum(axis=1) / there.sum(axis=1)
