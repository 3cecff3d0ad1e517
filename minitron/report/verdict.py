"""The kind of emergence that runs show along one dial that grows: one of

    always      at every setting the runs learnt the task on average, and none failed
    not yet     no run learnt it, at any setting
    luck        seeds of one setting disagree: at two settings or more, or at one that does not lie
                between the settings where all fail and those where all have learnt it
    mirage      exact match is near 0 while nll makes half or more of its fall, and nll is falling
                when the rise begins: progress that exact match hides
    jump        exact match rises by 0.8 or more within two doublings of the dial, and nll falls
                there, too, not before
    gradual     exact match rises by less than 0.7 within any two doublings, together with nll
    unclear     the runs do not tell; `missing` says which runs would

Scores are normalized, 0 at chance and 1 at perfect: a run has learnt the task at 0.9, has failed
below 0.5, and is near 0 below 0.1.  A word is given if the grid has no gap of more than a factor 2
where the change is, and if the rule gives the same word in 90% of resamplings (bootstrap, Efron
1979), each with the seeds of each setting drawn anew and up to one setting left out.
docs/verdict.md has the reasons, and the error rates on ledgers whose truth is known.
"""
from typing import NamedTuple

import numpy as np

from ..base.rng import Random
from ..measure.learnt import LEARNT

FAILED, NEAR_ZERO = 0.5, 0.1    # normalized scores, beside LEARNT
HIDDEN = 0.5            # share of nll's fall that a mirage makes while exact match is near 0
FALLING = 0.4           # least pace of nll before the rise, as a share of its pace in the rise
ONE_STEP = 0.5          # of the fall of nll before the rise, the most that its last step may make
JUMP, GRADUAL = 0.8, 0.7        # rises within two doublings: at least of a jump, less if gradual
DOUBLINGS, WIDEST = 2 + 1e-9, 1 + 1e-9      # of a jump; between neighbours.  24 / 12 may round up.
MIN_SETTINGS, MIN_SEEDS = 4, 3
RESAMPLINGS, AGREEMENT = 200, 0.9


class Verdict(NamedTuple):
    name: str
    confidence: float | None    # share of the resamplings that agree; None if the name is unclear
    window: tuple | None        # last setting where exact match is near 0, first where it is learnt
    hidden: float               # share of nll's fall that comes before the window
    missing: str                # to tell, if the name is unclear; else ""


def verdict(settings, exact, nll, dial="setting"):
    """settings (n,), increasing; exact, nll (n, seeds) -> Verdict.      dial: its name, for missing

    exact is a normalized score, NaN for a missing run.  nll is NaN also for a run that diverged.
    """
    exact, nll = np.asarray(exact, float), np.asarray(nll, float)
    has_run = ~np.isnan(exact).all(axis=1)
    settings = [setting for setting, some in zip(settings, has_run) if some]
    exact, nll, places = exact[has_run], nll[has_run], doublings(settings)
    missing, agreement = missing_runs(exact), None
    if not missing:
        name, window, hidden, missing = rule(places, exact, nll, WIDEST)
    if not missing:
        agreement, missing = agreement_and_missing(name, places, exact, nll)
    if missing:
        words, *where = missing
        where = " and ".join(f"{settings[i]}" for i in where)
        return Verdict("unclear", None, None, 0.0, f"{words} {dial} {where}" if where else words)
    window = window and tuple(settings[i] for i in window)
    return Verdict(name, agreement, window, hidden, "")


def doublings(settings):
    """log2 of the settings: how many doublings apart they are.      (n,)

    No factor leads from 0 to another setting, except that nothing lies between the whole numbers 0
    and 1: 0 is far below, or one doubling below 1.
    """
    is_whole = all(isinstance(setting, int) for setting in settings)
    return np.log2(np.maximum(np.array(settings, float), 0.5 if is_whole else 1e-300))


def missing_runs(exact):
    """The least that any word needs and these runs lack, () if nothing.      exact (n, seeds)"""
    if not len(exact):
        return ("more test problems",)
    if np.median((~np.isnan(exact)).sum(axis=1)) < MIN_SEEDS:
        return (f"more seeds, at least {MIN_SEEDS}",)
    return () if len(exact) >= MIN_SETTINGS else (f"more settings, at least {MIN_SETTINGS}",)


def agreement_and_missing(name, places, exact, nll):
    """Share of the resamplings to which the rule gives this name; missing, as in rule()

    Of n settings, every (n - 1)th resampling has all, the others leave out one between the ends.
    """
    runs = (~np.isnan(exact)).sum(axis=1, keepdims=True)                # (n, 1)
    # Runs before missing ones, so that a random index below `runs` is a run.
    runs_first = np.argsort(np.isnan(exact), axis=1, kind="stable")
    exact, nll = (np.take_along_axis(values, runs_first, 1) for values in (exact, nll))
    rows, columns, rng = np.arange(len(exact)), np.arange(exact.shape[1]), Random(0)
    agree = [[] for _ in rows[:-1]]                         # [left out; 0: none][resampling]
    for i in range(RESAMPLINGS):
        left_out = i % (len(rows) - 1)
        kept = rows[(rows != left_out) | (left_out == 0)]
        draw = np.where(columns < runs, (rng.uniform(exact.shape) * runs).astype(int), columns)
        resampled = (np.take_along_axis(values, draw, 1)[kept] for values in (exact, nll))
        agree[left_out].append(rule(places[kept], *resampled)[0] == name)
    agreement = sum(map(sum, agree)) / RESAMPLINGS
    shares = [np.mean(same) for same in agree]
    if agreement >= AGREEMENT:
        return agreement, ()
    if shares[0] < AGREEMENT:
        return agreement, ("more seeds",)
    return agreement, ("more settings near", int(np.argmin(shares)))


def rule(places, exact, nll, widest=np.inf):
    """places (n,); exact, nll (n, seeds) -> name, window as two indices or None, hidden, missing

    places: doublings(settings); widest: the most doublings between neighbours of a rise; missing:
    (words, indices of settings), () if the name is not unclear.
    """
    is_run, learnt = ~np.isnan(exact), exact >= LEARNT
    ended = is_run & np.isfinite(nll)
    if not learnt.any():
        return "not yet", None, 0.0, ()
    if not ended.any():
        return "unclear", None, 0.0, ("a finite nll",)
    # A run that diverged has not learnt the task, but that is not luck: it is left out below.
    failed = (exact < FAILED) & ended
    has_ended = ended.any(axis=1)
    rows = np.flatnonzero(has_ended)
    mean_exact = masked_mean(exact[rows], ended[rows])
    if has_ended.all() and not failed.any() and (mean_exact >= LEARNT).all():
        return "always", None, 0.0, ()
    if is_luck(learnt, failed, ended):
        return "luck", None, 0.0, ()
    name, window, hidden, missing = rule_of_curves(
        places[rows], mean_exact, masked_mean(nll[rows], ended[rows]), widest)
    words, *where = missing or ("",)
    return (name, window and tuple(int(rows[i]) for i in window), hidden,
            missing and (words, *(int(rows[i]) for i in where)))


def is_luck(learnt, failed, ended):
    """Whether seeds disagree at two settings or more, or outside the transition.      (n, seeds)"""
    mixed = learnt.any(axis=1) & failed.any(axis=1)
    all_learnt, all_failed = ((runs | ~ended).all(axis=1) & ended.any(axis=1)
                              for runs in (learnt, failed))
    after_learnt, before_failed = np.cumsum(all_learnt) > 0, np.cumsum(all_failed[::-1])[::-1] > 0
    return mixed.sum() > 1 or (mixed & (after_learnt | before_failed)).any()


def rule_of_curves(places, exact, nll, widest):
    """exact, nll (n,), means over seeds -> as rule()"""
    start, end, missing = rise(places, exact, widest)
    # How much of nll's fall comes before the rise, and whether nll is falling when it begins.
    fall, fall_in_rise, last_step = nll[[0, start, start - 1]] - nll[[end, end, start]]
    if not missing and min(fall, fall_in_rise) <= 0:
        missing = "more seeds, since nll does not fall up to", end
    if missing:
        return "unclear", None, 0.0, missing
    hidden = float(np.clip((nll[0] - nll[start]) / fall, 0, 1))
    pace = fall_in_rise / (places[end] - places[start])
    is_falling = last_step >= FALLING * pace * (places[start] - places[start - 1])
    rises = np.where(places - places[:, None] <= DOUBLINGS, exact - exact[:, None], 0)     # (n, n)
    if hidden >= HIDDEN and is_falling:
        name = "mirage"
        if last_step > ONE_STEP * (nll[0] - nll[start]):    # a slope, or the beginning of a jump
            missing = "settings between", start - 1, start
    else:
        name = "jump" if rises.max() >= JUMP else "gradual"
        if GRADUAL <= rises.max() < JUMP:
            missing = "settings between", *np.unravel_index(np.argmax(rises), rises.shape)
    return "unclear" if missing else name, (start, end), hidden, missing


def rise(places, exact, widest):
    """-> last setting where exact is near 0, first where it is learnt, () or missing: see rule()"""
    learnt = np.flatnonzero(exact >= LEARNT)
    if not len(learnt):
        return 0, 0, ("settings above", len(exact) - 1)
    end = learnt[0]
    near_zero = np.flatnonzero(exact[:end] < NEAR_ZERO)
    start = near_zero[-1] if len(near_zero) else 0
    if start == 0:                  # nll may have been falling before
        return 0, end, ("settings below", 0)
    if (exact[end:] < FAILED).any():
        return start, end, ("more seeds or steps above", end)
    gaps = np.diff(places[start - 1:end + 1])
    if not gaps.max() <= widest:
        return start, end, ("settings between", *(start - 1 + np.argmax(gaps) + np.arange(2)))
    return start, end, ()


def masked_mean(values, mask):
    """Mean over axis 1 of the values under the mask, at least one in each row"""
    return np.where(mask, values, 0).sum(axis=1) / mask.sum(axis=1)
