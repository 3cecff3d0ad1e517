"""The kind of emergence that runs show along one dial that grows: one of

    always      at every setting the runs learnt the task on average, and none failed
    not yet     no run learnt it, at any setting
    luck        seeds of one setting disagree: at two settings or more, or at one that does not lie
                between the settings where all fail and those where all have learnt it
    mirage      exact match is near 0 while nll makes half or more of its fall, and nll is falling
                when the rise begins: progress that exact match hides
    jump        exact match rises by 0.8 or more within two steps of the dial, and nll falls there,
                too, not before
    gradual     exact match rises over more steps than that, together with nll: there is no jump
    unclear     the settings do not tell: mostly because they begin too late or end too early

Scores are normalized, 0 at chance and 1 at perfect: a run has learnt the task at 0.9, has failed
below 0.5, and is near 0 below 0.1.  The rule is applied again to resampled seeds; `confidence` is
the share of resamplings that agree (bootstrap, Efron 1979).  docs/verdict.md has the reasons, and
the error rates on ledgers whose truth is known.
"""
from typing import NamedTuple

import numpy as np

from ..base.rng import Random
from ..measure.learnt import LEARNT

FAILED, NEAR_ZERO = 0.5, 0.1    # normalized scores, beside LEARNT
HIDDEN = 0.5            # share of nll's fall that a mirage makes while exact match is near 0
FALLING = 0.4           # least pace of nll before the rise, as a share of its pace in the rise
RISE, RISE_STEPS = 0.8, 2       # a jump: the least rise of exact match, the most steps it may take
MIN_SETTINGS = 4        # of the dial, to tell a jump from a slope
RESAMPLINGS = 200


class Verdict(NamedTuple):
    name: str
    confidence: float | None    # None where no setting has two runs
    window: tuple | None        # last setting where exact match is near 0, first where it is learnt
    hidden: float               # share of nll's fall that comes before the window


def verdict(settings, exact, nll):
    """settings (n,), increasing; exact, nll (n, seeds) -> Verdict

    exact is a normalized score, NaN for a missing run.  nll is NaN also for a run that diverged.
    """
    exact, nll = np.asarray(exact, float), np.asarray(nll, float)
    name, window, hidden = rule(exact, nll)
    window = None if window is None else tuple(settings[i] for i in window)
    return Verdict(name, confidence(name, exact, nll), window, hidden)


def confidence(name, exact, nll):
    """Share of the resamplings of seeds, setting by setting, to which the rule gives this name"""
    runs = (~np.isnan(exact)).sum(axis=1, keepdims=True)                # (n, 1)
    if runs.max(initial=0) < 2:
        return None
    # Runs before missing ones, so that a random index below `runs` is a run.
    runs_first = np.argsort(np.isnan(exact), axis=1, kind="stable")
    exact, nll = (np.take_along_axis(values, runs_first, 1) for values in (exact, nll))
    columns, rng, agree = np.arange(exact.shape[1]), Random(0), 0
    for _ in range(RESAMPLINGS):
        draw = np.where(columns < runs, (rng.uniform(exact.shape) * runs).astype(int), columns)
        resampled = (np.take_along_axis(values, draw, 1) for values in (exact, nll))
        agree += rule(*resampled)[0] == name
    return agree / RESAMPLINGS


def rule(exact, nll):
    """exact, nll (n, seeds) -> name, window as two indices or None, hidden"""
    is_run, learnt = ~np.isnan(exact), exact >= LEARNT
    ended = is_run & np.isfinite(nll)
    if not is_run.any():
        return "unclear", None, 0.0
    if not learnt.any():
        return "not yet", None, 0.0
    if not ended.any():
        return "unclear", None, 0.0
    # A run that diverged has not learnt the task, but that is not luck: it is left out below.
    failed = (exact < FAILED) & ended
    has_ended = ended.any(axis=1)
    rows = np.flatnonzero(has_ended)
    mean_exact = masked_mean(exact[rows], ended[rows])
    all_learnt = not failed.any() and (mean_exact >= LEARNT).all()
    if all_learnt and has_ended[is_run.any(axis=1)].all():
        return "always", None, 0.0
    if is_luck(learnt, failed, ended):
        return "luck", None, 0.0
    name, window, hidden = rule_of_curves(mean_exact, masked_mean(nll[rows], ended[rows]))
    return name, None if window is None else tuple(int(rows[i]) for i in window), hidden


def is_luck(learnt, failed, ended):
    """Whether seeds disagree at two settings or more, or outside the transition.      (n, seeds)"""
    mixed = learnt.any(axis=1) & failed.any(axis=1)
    all_learnt, all_failed = ((runs | ~ended).all(axis=1) & ended.any(axis=1)
                              for runs in (learnt, failed))
    after_learnt, before_failed = np.cumsum(all_learnt) > 0, np.cumsum(all_failed[::-1])[::-1] > 0
    return mixed.sum() > 1 or (mixed & (after_learnt | before_failed)).any()


def rule_of_curves(exact, nll):
    """exact, nll (n,), means over seeds -> name, window as two indices or None, hidden"""
    # The rise: from the last setting near 0 to the first that is learnt.
    near_zero, learnt = exact < NEAR_ZERO, np.flatnonzero(exact >= LEARNT)
    end = learnt[0] if len(learnt) else len(exact) - 1
    start = np.flatnonzero(near_zero[:end])[-1] if near_zero[:end].any() else 0
    is_lost_again = (exact[end:] < FAILED).any()
    if end == start or is_lost_again:
        return "unclear", None, 0.0
    # How much of nll's fall comes before it, and whether nll is falling when it begins.
    fall, fall_in_rise = nll[0] - nll[end], nll[start] - nll[end]
    hidden = float(np.clip((nll[0] - nll[start]) / fall, 0, 1)) if fall > 0 else 0.0
    if len(exact) < MIN_SETTINGS or fall <= 0:
        return "unclear", (start, end), hidden
    least_pace = FALLING * max(fall_in_rise, 0) / (end - start)
    is_falling = start > 0 and nll[start - 1] - nll[start] >= least_pace
    rises = [(exact[k:] - exact[:-k]).max() for k in range(1, RISE_STEPS + 1)]
    is_sharp = max(rises) >= RISE
    if hidden >= HIDDEN and is_falling:     # a single step down may be a slope or lead to a plateau
        name = "mirage" if start > 1 or not is_sharp else "unclear"
    elif is_sharp:                          # without a setting before, nll may have been falling
        name = "jump" if fall_in_rise > 0 and start > 0 else "unclear"
    else:
        name = "gradual" if end - start > RISE_STEPS else "unclear"
    return name, (start, end), hidden


def masked_mean(values, mask):
    """Mean over axis 1 of the values under the mask, at least one in each row"""
    return np.where(mask, values, 0).sum(axis=1) / mask.sum(axis=1)
