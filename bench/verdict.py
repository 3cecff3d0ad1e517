#!/usr/bin/env python3
"""How often the verdict on a sweep is right: the rule applied to ledgers whose truth is known.

    python bench/verdict.py [--ledgers 200]         the tables in docs/verdict.md, Markdown

A synthetic ledger is a list of records as train.py writes them, as far as the report reads them,
and goes through the report's own code, which handles chance levels and runs that diverged or are
missing.  Each truth comes in more than one form: easy ones, and those that an earlier rule got
wrong.  The rule is minitron/report/verdict.py.
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
from minitron.report import phase, text
from minitron.report.verdict import rule, verdict

TRUTHS = ("always", "not yet", "luck", "mirage", "jump", "gradual")
NAMES = (*TRUTHS, "unclear")
# Forms on which no threshold was chosen
OTHERS = ("jump from a sloping plateau", "jump, one setting earlier for some seeds",
          "luck, rarely one or the other", "mirage, faster and faster", "mirage, a power law",
          "gradual, a sigmoid")
SHAPES = ((4, 3), (5, 3), (6, 3), (8, 3), (6, 5), (8, 5))           # settings of the dial, seeds
CALIBRATED = (6, 3)


class World(NamedTuple):
    """The test of the runs, and how many runs are lost"""

    about: str
    task: str
    tokens: int             # of an answer: exact match needs them all
    problems: int           # of the test
    noise: float            # of a run's error, as a share of it: log-normal
    diverged: float = 0.0   # share of the runs
    missing: float = 0.0


WORLDS = {
    "plain": World("8 answer tokens, 1,000 test problems, the nll of equal runs differs by 20%",
                   "addition", 8, 1000, 0.2),
    "noisy": World("as plain, but 500 problems and 40%", "addition", 8, 500, 0.4),
    "lossy": World("as plain, but one run in 20 diverged and one in 10 is missing",
                   "addition", 8, 1000, 0.2, 0.05, 0.1),
    "parity": World("one answer token of two, chance 50%, 500 problems", "parity", 1, 500, 0.2),
}


# ---- synthetic ledgers ----------------------------------------------------------------------


def true_scores(truth, r, settings, seeds, world):
    """Normalized scores (settings, seeds) without noise; None for a mirage of one token"""
    if truth in OTHERS:
        return scores_of_other(truth, r, settings, seeds)
    x, n = np.arange(settings)[:, None] + np.zeros(seeds), world.tokens
    bad = 0.02 * r.random() + 1e-6 if n == 1 else (0.1 + 0.5 * r.random())**n
    good = 0.93 + 0.07 * r.random()
    if truth == "always":
        return np.full(x.shape, good)
    if truth == "not yet":          # nothing at all, or a rise that ends early
        return bad + r.integers(0, 2) * (0.6 - bad) * r.random() * x / settings
    if truth == "jump":
        return jump_scores(r, x, n, bad, good)
    if truth == "mirage":
        return None if n == 1 else mirage_scores(r, x, n, good)
    if truth == "luck":             # a coin for each run, equal at each setting, or better along it
        chance = 0.25 + 0.5 * r.random() if r.random() < 0.5 else x / (settings - 1)
        return np.where(r.random(x.shape) < chance, good, bad)
    # Gradual: exact match itself rises, after a few settings of nothing.
    flat, bad = r.integers(0, settings - 3), max(bad, 0.02)
    return bad + (good - bad) * np.maximum(0, x - flat) / (settings - 1 - flat)


def jump_scores(r, x, n, bad, good):
    settings, seeds = x.shape
    place = r.integers(1, settings - 1)                     # the last setting that learns nothing
    scores = np.where(x > place, good, bad)
    if r.random() < 0.5 and n > 1:                          # the first did not learn easy things
        scores[0] = 0.02**n
    if r.random() < 0.3 and place + 2 < settings:           # seeds disagree where it begins
        scores[place + 1] = np.where(r.random(seeds) < 0.5, good, bad)
    return scores


def mirage_scores(r, x, n, good):
    """nll falls by the same factor at each setting, or by the same amount."""
    settings = len(x)
    last, fall = -np.log(good) / n, 1.5 + r.random()
    if r.random() < 0.5:
        return np.exp(-n * fall * (last / fall)**(x / (settings - 1)))
    return np.exp(-n * np.maximum(last, fall * (1 - x / r.integers(3, settings))))


def scores_of_other(form, r, settings, seeds):
    """The same of OTHERS, with eight answer tokens"""
    x, n = np.arange(settings)[:, None] + np.zeros(seeds), 8
    bad, good = (0.1 + 0.5 * r.random())**n, 0.93 + 0.07 * r.random()
    first, last, place = 1.5 + r.random(), -np.log(good) / n, r.integers(1, settings - 2)
    if form.startswith("jump from"):
        return np.where(x > place, good, bad**(0.93**x))
    if form.startswith("jump"):
        return np.where(x > place + r.integers(0, 2, seeds), good, bad)
    if form.startswith("luck"):
        return np.where(r.random(x.shape) < r.choice([0.15, 0.85]), good, bad)
    if form.endswith("faster"):
        return np.exp(-n * np.maximum(last, first * (1 - (x / (settings - 1))**1.5)))
    if form.endswith("power law"):
        return np.exp(-n * first * (x + 1)**(-np.log(first / last) / np.log(settings)))
    slope = 6 + r.random()
    return np.clip(1 / (1 + np.exp(slope * (0.5 - x / (settings - 1)))), 0.03, good)


def ledger(truth, r, settings, seeds, world):
    """The records of a sweep of this truth, None if the world has none"""
    scores = true_scores(truth, r, settings, seeds, world)
    if scores is None:
        return None
    noise = np.exp(world.noise * r.standard_normal(scores.shape))
    error = -np.log(scores) / world.tokens * noise                      # nats per token
    chance = 0.5 if world.tokens == 1 else 0.0
    right = chance + (1 - chance) * np.exp(-world.tokens * error)
    # Of two answers, the nll of a model that knows how sure it is; else a little above the least
    # that a model with these answers can have.
    nll = entropy(right) if chance else 1.2 * error
    exact = r.binomial(world.problems, right) / world.problems
    diverged, missing = r.random((2, *scores.shape))
    base = config(world.task)
    return [record(base | {"dim": 8 * 2**i, "seed": j}, world, chance, exact[i, j], nll[i, j],
                   diverged[i, j] < world.diverged)
            for i in range(settings) for j in range(seeds) if missing[i, j] >= world.missing]


def entropy(p):
    """In nats, of two outcomes"""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return -p * np.log(p) - (1 - p) * np.log(1 - p)


@functools.cache
def config(task):
    return dataclasses.asdict(Config(task=task).resolve())


def record(config, world, chance, exact, nll, diverged):
    """As train.py writes it, as far as the report reads it"""
    if diverged:
        return {"status": "diverged", "config": config, "metrics": {}, "curve": []}
    numbers = {"exact": float(exact), "nll": float(nll)}
    metrics = {"n": world.problems, "chance_exact": chance} | numbers
    return {"status": "ok", "config": config, "metrics": {str(config["length"]): metrics},
            "curve": [numbers]}


# ---- verdicts -------------------------------------------------------------------------------


def column_scores(records):
    """settings, exact, nll of a ledger that has one column"""
    diagram, = phase.phase_diagrams(records, y="dim")
    return text.column_scores(diagram, None)


def verdict_names(truth, shape, world, ledgers, seed=1):
    """The names that ledgers of a truth are given, None if the world has no such truth

    The rule's thresholds were chosen on the ledgers of seed 0.
    """
    r = np.random.default_rng([seed, (*TRUTHS, *OTHERS).index(truth), *shape])
    sweeps = [ledger(truth, r, *shape, world) for _ in range(ledgers)]
    if sweeps[0] is None:
        return None
    return [rule(*column_scores(records)[1:])[0] for records in sweeps]


# ---- tables ---------------------------------------------------------------------------------


def tables(ledgers):
    """The lines of all tables"""
    names = {(world, truth): [verdict_names(truth, shape, WORLDS[world], ledgers)
                              for shape in SHAPES] for world in WORLDS for truth in TRUTHS}
    total = f"{len(SHAPES) * ledgers:,}"
    yield (f"**Names**, plain: percent of {total} ledgers of a truth (down) that get a name "
           "(across)")
    yield from table_head("truth", NAMES)
    for truth in TRUTHS:
        yield names_row(truth, names["plain", truth])
    yield from ("", "**By shape**, plain: percent right / percent wrong; the rest is unclear")
    yield from table_head("truth", map(label, SHAPES))
    for truth in TRUTHS:
        yield row(truth, (right_wrong(truth, of_shape) for of_shape in names["plain", truth]))
    yield from ("", "**By world**, the same over all shapes:", "")
    yield from (f"- {name}: {world.about}" for name, world in WORLDS.items())
    yield from table_head("truth", WORLDS)
    for truth in TRUTHS:
        by_world = [names[world, truth] for world in WORLDS]
        yield row(truth, ("" if None in of_world else right_wrong(truth, sum(of_world, []))
                          for of_world in by_world))
    yield from ("", "**Other forms**, plain: percent of as many ledgers that get a name; "
                "no threshold was chosen on these")
    yield from table_head("form", NAMES)
    for form in OTHERS:
        yield names_row(form, [verdict_names(form, shape, WORLDS["plain"], ledgers)
                               for shape in SHAPES])
    yield from ("", *calibration(ledgers))


def table_head(first, others):
    """The lines above a table's rows"""
    others = list(others)
    return "", row(first, others), "|---|" + "---:|" * len(others)


def row(first, others):
    return f"| {' | '.join([first, *others])} |"


def names_row(truth, names_by_shape):
    names = sum(names_by_shape, [])
    return row(truth, (f"{100 * names.count(name) / len(names):.1f}" for name in NAMES))


def right_wrong(truth, names):
    right, wrong = names.count(truth), sum(name not in (truth, "unclear") for name in names)
    return f"{100 * right / len(names):.1f} / {100 * wrong / len(names):.1f}"


def label(shape):
    return f"{shape[0]} settings, {shape[1]} seeds"


def calibration(ledgers, worlds=("plain", "noisy")):
    """A table: the share of verdicts that are right, by their confidence"""
    pairs = []
    for world in worlds:
        for truth in TRUTHS:
            r = np.random.default_rng([2, TRUTHS.index(truth), *CALIBRATED])
            for _ in range(ledgers // 2):
                records = ledger(truth, r, *CALIBRATED, WORLDS[world])
                result = verdict(*column_scores(records))
                if result.name != "unclear":
                    pairs.append((result.confidence, result.name == truth))
    confidence, is_right = np.array(pairs).T
    yield (f"**Confidence**, {' and '.join(worlds)}, {label(CALIBRATED)}: "
           "percent right of the verdicts that are not unclear")
    yield from table_head("confidence", ("verdicts", "right"))
    for low, high in ((0.0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.0), (1.0, 1.1)):
        inside = (confidence >= low) & (confidence < high)
        if inside.any():
            name = "100%" if low == 1 else f"{low:.0%} to below {high:.0%}"
            yield row(name, (f"{inside.sum()}", f"{100 * is_right[inside].mean():.1f}"))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ledgers", type=int, default=200, help="of each truth and shape")
    flags = parser.parse_args(argv)
    option = f" --ledgers {flags.ledgers}" if flags.ledgers != 200 else ""
    print(f"python bench/verdict.py{option}\n")
    print("\n".join(tables(flags.ledgers)))


if __name__ == "__main__":
    main()
