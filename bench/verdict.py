#!/usr/bin/env python3
"""How often the verdict on a sweep is wrong where it is given: ledgers whose truth is known.

    python bench/verdict.py [--ledgers 2000]        the tables in docs/verdict.md, Markdown

A synthetic ledger is a list of records as train.py writes them, as far as the report reads them,
and goes through the report's own code.  Its dial stands for dims from 2 to 128; its grid is thinned
at random, and so are its seeds, its test problems and its noise.  The truth is the kind of the
curves without noise, on all settings between the first and the last of the grid.  The rule is
minitron/report/verdict.py.
"""
import argparse
import dataclasses
import functools
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from minitron.data.config import Config
from minitron.measure.evaluate import wilson
from minitron.measure.learnt import LEARNT
from minitron.report import phase
from minitron.report.verdict import verdict

DIMS = np.array([2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128])
DOUBLINGS = 6                       # from the first of them to the last
KINDS = ("always", "not yet", "luck", "mirage", "jump", "gradual")
NO_KIND = "none of these"           # smooth, within two doublings, and less than half of it hidden
NAMES = (*KINDS, "unclear")


class World(NamedTuple):
    """The test of the runs, and how far equal runs differ"""

    tokens: int             # of an answer: exact match needs them all; one is of two, chance 50%
    problems: int           # of the test
    noise: float            # of a run's error, as a share of it: log-normal
    is_lossy: bool          # one run in 20 diverged, and one in 10 is missing


def random_world(r):
    return World(int(r.choice([1, 4, 8, 12])), int(50 * 40**r.random()), r.choice([0.2, 0.4]),
                 r.random() < 1 / 3)


def random_grid(r):
    """Two of DIMS or more: each is in the sweep with a probability that is drawn first"""
    density = 0.2 + 0.8 * r.random()
    grid = DIMS[r.random(len(DIMS)) < density]
    return grid if len(grid) > 1 else random_grid(r)


# ---- truths: functions from doublings of the dial (settings, seeds or 1) to normalized scores ----


def always(r, n, bad, good, seeds):
    return lambda x: np.full(x.shape, good)


def not_yet(r, n, bad, good, seeds):
    """Nothing at all, or a rise that ends early"""
    top = r.integers(0, 2) * (0.6 - bad) * r.random()
    return lambda x: bad + top * x / DOUBLINGS


def luck(r, n, bad, good, seeds):
    """A coin for each run: of any bias, better along the dial, or rarely one or the other"""
    chance = (0.25 + 0.5 * r.random(), None, r.choice([0.15, 0.85]))[r.integers(0, 3)]
    return lambda x: np.where(r.random(x.shape) < (x / DOUBLINGS if chance is None else chance),
                              good, bad)


def jump(r, n, bad, good, seeds):
    """Within a doubling at most, which may be another for each seed, after one of three plateaus:
    level, sloping, or with a step a doubling or more before, where easy things are learnt
    """
    place, width = r.random() * DOUBLINGS, r.choice([0.01, 0.25, 0.5, 1])
    places = place + r.integers(0, 2) * (r.random(seeds) - 0.5) / 2
    slope, step = ((1, 0), (0.93, 0), (1, (place - 1) * r.random()))[r.integers(0, 3)]

    def scores(x):
        share = np.clip(0.5 + (x - places[:x.shape[1]]) / width, 0, 1)
        plateau = np.where(x < step, min(0.02**n, bad), bad**(slope**x))
        return plateau + np.maximum(good - plateau, 0) * share
    return scores


def mirage(r, n, bad, good, seeds):
    """nll falls by the same factor per doubling, by the same amount, or faster and faster"""
    first, last, end = 1.5 + r.random(), -np.log(good) / n, (0.5 + 0.5 * r.random()) * DOUBLINGS
    form = r.integers(0, 3)

    def scores(x):
        share = np.minimum(x / end, 1)
        falling = (first * (last / first)**share, first * (1 - share), first * (1 - share**1.5))
        return np.exp(-n * np.maximum(last, falling[form]))
    return scores


def gradual(r, n, bad, good, seeds):
    """Exact match itself rises over three doublings or more: a line or a sigmoid"""
    start, bad, is_line = r.random() * 2, max(bad, 0.02), r.random() < 0.5
    length = 3 + (DOUBLINGS - start - 3) * r.random()

    def scores(x):
        share = np.clip((x - start) / length, 0, 1)
        sigmoid = 1 / (1 + np.exp(3.6 * (1 - 2 * share)))
        return bad + (good - bad) * share if is_line else np.clip(sigmoid, bad, good)
    return scores


def nll_of(score, n):
    """Of two answers, the nll of a model that knows how sure it is; else a little above the least
    that a model with these answers can have.      nats per token
    """
    if n > 1:
        return -1.2 * np.log(score) / n
    p = np.clip(0.5 + 0.5 * score, 1e-6, 1 - 1e-6)
    return -p * np.log(p) - (1 - p) * np.log(1 - p)


def truth_of(kind, scores, n, first, last):
    """The kind of the noiseless curves between two places of the dial, in doublings"""
    if kind in ("always", "not yet", "luck"):
        return kind
    x = np.linspace(first, last, 400)
    score = scores(x[:, None])[:, 0]
    nll = nll_of(score, n)
    if score[-1] < LEARNT or score[0] >= LEARNT:
        return "not yet" if score[-1] < LEARNT else "always"
    if kind == "jump":
        return kind
    end = np.argmax(score >= LEARNT)
    start = max(np.sum(score[:end] < 0.1) - 1, 0)
    if nll[0] - nll[start] >= 0.5 * (nll[0] - nll[end]):
        return "mirage"
    two_on = np.minimum(np.searchsorted(x, x + 2), len(x) - 1)
    return "gradual" if (score[two_on] - score).max() < 0.8 else NO_KIND


# ---- synthetic ledgers ---------------------------------------------------------------------------


class Sweep(NamedTuple):
    truth: str
    records: list
    grid: np.ndarray
    seeds: int
    world: World


def sweep(kind, i):
    """The i-th sweep of a kind -> Sweep"""
    r = np.random.default_rng([2, KINDS.index(kind), i])
    world, grid, seeds = random_world(r), random_grid(r), int(r.integers(1, 9))
    if kind == "mirage":
        world = world._replace(tokens=max(world.tokens, 4))     # one token hides nothing
    n, x = world.tokens, np.log2(grid / DIMS[0])
    bad = 0.02 * r.random() + 1e-6 if n == 1 else (0.1 + 0.5 * r.random())**n
    good = 0.93 + 0.07 * r.random()
    scores = globals()[kind.replace(" ", "_")](r, n, bad, good, seeds)
    truth = truth_of(kind, scores, n, x[0], x[-1])
    runs = scores(x[:, None] + np.zeros(seeds))
    return Sweep(truth, records_of(runs, r, grid, world), grid, seeds, world)


def records_of(scores, r, grid, world):
    """scores (settings, seeds), without noise -> records"""
    noise = np.exp(world.noise * r.standard_normal(scores.shape))
    scores = np.exp(np.log(scores) * noise)
    chance, nll = 0.5 if world.tokens == 1 else 0.0, nll_of(scores, world.tokens)
    exact = r.binomial(world.problems, chance + (1 - chance) * scores) / world.problems
    diverged, missing = r.random((2, *scores.shape)) if world.is_lossy \
        else np.ones((2, *scores.shape))
    return [record(int(grid[i]), j, world, chance, exact[i, j], nll[i, j], diverged[i, j] < 0.05)
            for i, j in np.ndindex(scores.shape) if missing[i, j] >= 0.1]


@functools.cache
def config(task):
    return dataclasses.asdict(Config(task=task).resolve())


def record(dim, seed, world, chance, exact, nll, diverged):
    """As train.py writes it, as far as the report reads it"""
    settings = config("addition" if world.tokens > 1 else "parity") | {"dim": dim, "seed": seed}
    if diverged:
        return {"status": "diverged", "config": settings, "metrics": {}, "curve": []}
    numbers = {"exact": float(exact), "nll": float(nll)}
    metrics = {"n": world.problems, "chance_exact": chance} | numbers
    return {"status": "ok", "config": settings, "metrics": {str(settings["length"]): metrics},
            "curve": [numbers]}


def verdict_of(records):
    diagram, = phase.phase_diagrams(records, y="dim")
    return verdict(*phase.column_scores(diagram, diagram.xs[0]))


# ---- tables --------------------------------------------------------------------------------------


def judged(ledgers):
    """[(Sweep without its records, the name that it is given)]"""
    pairs = []
    for kind in KINDS:
        for i in range(ledgers):
            one = sweep(kind, i)
            if one.records:
                pairs.append((one._replace(records=[]), verdict_of(one.records).name))
    return pairs


def tables(pairs):
    """The lines of all tables"""
    yield (f"**Where a word is given**: wrong, of {len(pairs):,} ledgers, as many of each kind of "
           "world")
    yield from table_head("word", ("given", "wrong", "percent wrong (95% interval)", "the truth"))
    for name in KINDS:
        truths = [one.truth for one, given in pairs if given == name]
        others = {truth: truths.count(truth) for truth in (*KINDS, NO_KIND) if truth != name}
        yield row(name, (f"{len(truths):,}", str(sum(others.values())), wrong_text(truths, name),
                         ", ".join(f"{n} {truth}" for truth, n in others.items() if n)))
    yield from ("", "**Where a truth holds**: percent of its ledgers (down) that get a name "
                "(across)")
    yield from table_head("truth", ("ledgers", *NAMES))
    for truth in (*KINDS, NO_KIND):
        names = [given for one, given in pairs if one.truth == truth]
        yield row(truth, (f"{len(names):,}", *(f"{100 * names.count(name) / len(names):.1f}"
                                               for name in NAMES)))
    yield from ("", "**By sweep**: percent of ledgers that get a word, and percent of these wrong")
    yield from table_head("sweeps with", ("ledgers", "a word", "wrong"))
    for label, belongs in GROUPS.items():
        yield row(label, group_texts([pair for pair in pairs if belongs(pair[0])]))


GROUPS = {
    "1 or 2 seeds": lambda one: one.seeds < 3,
    "3 or 4 seeds": lambda one: 3 <= one.seeds < 5,
    "5 to 8 seeds": lambda one: one.seeds >= 5,
    "2 to 5 settings": lambda one: len(one.grid) < 6,
    "6 to 9 settings": lambda one: 6 <= len(one.grid) < 10,
    "10 to 13 settings": lambda one: len(one.grid) >= 10,
    "no gap of more than a factor 2": lambda one: (one.grid[1:] <= 2 * one.grid[:-1]).all(),
    "50 to 199 problems": lambda one: one.world.problems < 200,
    "200 to 2,000 problems": lambda one: one.world.problems >= 200,
    "equal runs that differ by 20%": lambda one: one.world.noise < 0.3,
    "equal runs that differ by 40%": lambda one: one.world.noise > 0.3,
    "lost runs": lambda one: one.world.is_lossy,
    "one answer token": lambda one: one.world.tokens == 1,
}


def wrong_text(truths, name):
    """For example: 2.1 (1.2 to 3.4)"""
    share = sum(truth != name for truth in truths) / max(len(truths), 1)
    low, high = wilson(share, max(len(truths), 1))
    return f"{100 * share:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def group_texts(pairs):
    words = [(one.truth, name) for one, name in pairs if name != "unclear"]
    wrong = sum(truth != name for truth, name in words)
    return (f"{len(pairs):,}", f"{100 * len(words) / max(len(pairs), 1):.0f}",
            f"{100 * wrong / max(len(words), 1):.1f}")


def table_head(first, others):
    """The lines above a table's rows"""
    others = list(others)
    return "", row(first, others), "|---|" + "---:|" * len(others)


def row(first, others):
    return f"| {' | '.join([first, *others])} |"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ledgers", type=int, default=2000, help="of each kind of world")
    flags = parser.parse_args(argv)
    option = f" --ledgers {flags.ledgers}" if flags.ledgers != 2000 else ""
    print(f"python bench/verdict.py{option}\n")
    print("\n".join(tables(judged(flags.ledgers))))


if __name__ == "__main__":
    main()
