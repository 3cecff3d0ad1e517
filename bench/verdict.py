#!/usr/bin/env python3
"""How often the verdict on a sweep is right: synthetic ledgers whose truth is known, told by the rule of minitron/verdict.py.

    python bench/verdict.py [--ledgers 200]         the tables in docs/verdict.md, Markdown

A ledger is a list of records as train.py writes them, as far as the report reads them, and goes through the report's own code:
chance levels, runs that diverged and runs that are missing are handled there.  Each truth comes in more than one form, the easy
ones together with those that the rule was seen to get wrong.
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
# Forms that no threshold was chosen on.
OTHERS = ("jump from a sloping plateau", "jump, one setting earlier for some seeds", "luck, rarely one or the other",
          "mirage, faster and faster", "mirage, a power law", "gradual, a sigmoid")
SHAPES = ((4, 3), (5, 3), (6, 3), (8, 3), (6, 5), (8, 5))          # settings of the dial, seeds
CALIBRATED = (6, 3)


class World(NamedTuple):
    """What the runs are measured on, and how many are lost."""

    what: str
    task: str
    tokens: int             # of an answer: exact match needs them all
    problems: int           # of the test
    noise: float            # of a run's error, as a share of it: log-normal
    diverged: float = 0.0   # share of the runs
    missing: float = 0.0


WORLDS = {
    "plain": World("8 answer tokens, 1,000 test problems, the nll of runs alike differs by 20%", "addition", 8, 1000, 0.2),
    "noisy": World("as plain, but 500 problems and 40%", "addition", 8, 500, 0.4),
    "lossy": World("as plain, but one run in 20 diverged and one in 10 is missing", "addition", 8, 1000, 0.2, 0.05, 0.1),
    "parity": World("one answer token of two, chance 50%, 500 problems", "parity", 1, 500, 0.2),
}


def made(truth, r, settings, seeds, world):
    """How far each run came from chance to perfect, without noise (settings, seeds); None for a mirage of one token"""
    x, n = np.arange(settings)[:, None] + np.zeros(seeds), world.tokens
    bad = 0.02 * r.random() + 1e-6 if n == 1 else (0.1 + 0.5 * r.random())**n
    good = 0.93 + 0.07 * r.random()
    if truth == "always":
        return np.full(x.shape, good)
    if truth == "not yet":          # nothing at all, or a rise that ends early
        return bad + r.integers(0, 2) * (0.6 - bad) * r.random() * x / settings
    if truth == "jump":
        place = r.integers(1, settings - 1)                         # the last setting where nothing is learnt
        right = np.where(x > place, good, bad)
        if r.random() < 0.5 and n > 1:                              # the first setting did not even learn what is easy
            right[0] = 0.02**n
        if r.random() < 0.3 and place + 2 < settings:               # where it begins, seeds disagree
            right[place + 1] = np.where(r.random(seeds) < 0.5, good, bad)
        return right
    if truth == "mirage":           # nll falls by the same factor at each setting, or by the same amount
        if n == 1:
            return None
        last, rest = -np.log(good) / n, 1.5 + r.random()
        if r.random() < 0.5:
            return np.exp(-n * rest * (last / rest)**(x / (settings - 1)))
        return np.exp(-n * np.maximum(last, rest * (1 - x / r.integers(3, settings))))
    if truth == "luck":             # a coin for each run, the same at each setting, or better along the dial
        chance = 0.25 + 0.5 * r.random() if r.random() < 0.5 else x / (settings - 1)
        return np.where(r.random(x.shape) < chance, good, bad)
    flat, bad = r.integers(0, settings - 3), max(bad, 0.02)         # gradual: exact match itself, after a few settings of nothing
    return bad + (good - bad) * np.maximum(0, x - flat) / (settings - 1 - flat)


def other(form, r, settings, seeds):
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
    return np.clip(1 / (1 + np.exp((6 + r.random()) * (0.5 - x / (settings - 1)))), 0.03, good)


def ledger(truth, r, settings, seeds, world):
    """Its records, or None"""
    way = other(truth, r, settings, seeds) if truth in OTHERS else made(truth, r, settings, seeds, world)
    if way is None:
        return None
    error = -np.log(way) / world.tokens * np.exp(world.noise * r.standard_normal(way.shape))        # nats a token
    chance = 0.5 if world.tokens == 1 else 0.0
    right = chance + (1 - chance) * np.exp(-world.tokens * error)
    # Of two answers, that of a model that knows how sure it is; else a little above the least that such answers can have.
    nll = entropy(right) if chance else 1.2 * error
    exact = r.binomial(world.problems, right) / world.problems
    lost = r.random((2, *way.shape))
    base = config(world.task)
    return [record(base | {"dim": 8 * 2**i, "seed": j}, world, chance, exact[i, j], nll[i, j], lost[0, i, j] < world.diverged)
            for i in range(settings) for j in range(seeds) if lost[1, i, j] >= world.missing]


def entropy(p):
    """In nats, of two outcomes"""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return -p * np.log(p) - (1 - p) * np.log(1 - p)


@functools.cache
def config(task):
    return dataclasses.asdict(Config(task=task).resolve())


def record(config, world, chance, exact, nll, diverged):
    """As train.py writes it, as far as the report reads it"""
    numbers = {"n": world.problems, "exact": float(exact), "nll": float(nll), "chance_exact": chance}
    return {"status": "diverged" if diverged else "ok", "config": config,
            "metrics": {} if diverged else {str(config["length"]): numbers},
            "curve": [] if diverged else [{"exact": float(exact), "nll": float(nll)}]}


def column(records):
    """settings, exact, nll of a ledger that has one column"""
    diagram, = phase.phase_diagrams(records, y="dim")
    return text.column_scores(diagram, None)


def told(truth, shape, world, ledgers, seed=1):       # on those of seed 0 the rule's thresholds were chosen
    """The names that so many ledgers of a truth are given, or None where there is no such truth"""
    r = np.random.default_rng([seed, (*TRUTHS, *OTHERS).index(truth), *shape])
    found = [ledger(truth, r, *shape, world) for _ in range(ledgers)]
    return None if found[0] is None else [rule(*column(records)[1:])[0] for records in found]


def tables(ledgers):
    """The lines of all tables"""
    found = {(world, truth): [told(truth, shape, WORLDS[world], ledgers) for shape in SHAPES]
             for world in WORLDS for truth in TRUTHS}
    yield f"**Names**, plain: percent of {len(SHAPES) * ledgers:,} ledgers of a truth (down) that get a name (across)"
    yield from head("truth", NAMES)
    for truth in TRUTHS:
        yield names_of(truth, found["plain", truth])
    yield from ("", "**By shape**, plain: percent told rightly / told wrongly; the rest is unclear")
    yield from head("truth", map(label, SHAPES))
    for truth in TRUTHS:
        yield row(truth, (right_wrong(truth, names) for names in found["plain", truth]))
    yield from ("", "**By world**, the same over all shapes:", "", *(f"- {name}: {world.what}" for name, world in WORLDS.items()))
    yield from head("truth", WORLDS)
    for truth in TRUTHS:
        everything = [found[world, truth] for world in WORLDS]
        yield row(truth, ("" if None in names else right_wrong(truth, sum(names, [])) for names in everything))
    yield from ("", "**Other forms**, plain: percent of as many ledgers that get a name; no threshold was chosen on these")
    yield from head("form", NAMES)
    for form in OTHERS:
        yield names_of(form, [told(form, shape, WORLDS["plain"], ledgers) for shape in SHAPES])
    yield from ("", *calibration(ledgers))


def head(first, others):
    """The lines above a table's rows"""
    others = list(others)
    return "", row(first, others), "|---|" + "---:|" * len(others)


def row(first, others):
    return f"| {' | '.join([first, *others])} |"


def names_of(truth, found):
    names = sum(found, [])
    return row(truth, (f"{100 * names.count(name) / len(names):.1f}" for name in NAMES))


def right_wrong(truth, names):
    wrong = sum(name not in (truth, "unclear") for name in names)
    return f"{100 * names.count(truth) / len(names):.1f} / {100 * wrong / len(names):.1f}"


def label(shape):
    return f"{shape[0]} settings, {shape[1]} seeds"


def calibration(ledgers, worlds=("plain", "noisy")):
    """What the confidence is worth: how many verdicts of such a confidence are right"""
    pairs = []
    for world in worlds:
        for truth in TRUTHS:
            r = np.random.default_rng([2, TRUTHS.index(truth), *CALIBRATED])
            for _ in range(ledgers // 2):
                given = verdict(*column(ledger(truth, r, *CALIBRATED, WORLDS[world])))
                if given.name != "unclear":
                    pairs.append((given.confidence, given.name == truth))
    of, right = np.array(pairs).T
    yield f"**Confidence**, {' and '.join(worlds)}, {label(CALIBRATED)}: percent right of the verdicts that are not unclear"
    yield from head("confidence", ("verdicts", "right"))
    for low, high in ((0.0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.0), (1.0, 1.1)):
        inside = (of >= low) & (of < high)
        if inside.any():
            name = "100%" if low == 1 else f"{low:.0%} to below {high:.0%}"
            yield row(name, (f"{inside.sum()}", f"{100 * right[inside].mean():.1f}"))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ledgers", type=int, default=200, help="of each truth and shape")
    flags = parser.parse_args(argv)
    print("python bench/verdict.py" + (f" --ledgers {flags.ledgers}" if flags.ledgers != 200 else ""), end="\n\n")
    print("\n".join(tables(flags.ledgers)))


if __name__ == "__main__":
    main()
