"""From records to a phase diagram: which settings were swept, what each cell's seeds came to, where the frontier runs."""
import dataclasses
from typing import NamedTuple

import numpy as np

from ..data import tasks
from ..data.command_line import shortest_settings, train_with
from ..data.config import Config
from ..measure.evaluate import wilson
from .verdict import LEARNT

NEAR = 0.05             # nats above the best there can be within which a distribution counts as learnt
ROWS = ("dim", "layers", "heads", "ffn_dim", "steps", "train_fraction", "attention", "positions", "rope_theta", "variant",
        "options")
COLUMNS = ("length",) + ROWS


class Cell(NamedTuple):
    """The runs of one setting, all seeds."""

    records: list           # of the learning rate that the validation problems chose
    searched: dict          # learning rate -> mean share of the way that its runs came, on the test; empty where there is one

    def learnt(self):
        return [x >= LEARNT for x in map(way, self.records) if x is not None]

    def probability(self):
        """Share of runs that learnt it, its interval, number of runs; None where no run can be said to"""
        learnt = self.learnt()
        if not learnt:
            return None
        share = sum(learnt) / len(learnt)
        return share, wilson(share, len(learnt)), len(learnt)


class Panel(NamedTuple):
    """A phase diagram."""

    fixed: dict             # settings that tell it from the other panels
    y: str
    x: str | None
    ys: list
    xs: list
    cells: dict             # (y, x) -> Cell


def numbers(record):
    """The test's numbers at the dial's length, or None"""
    found = record["metrics"].get(str(record["config"]["length"]))
    return found if found and found["n"] else None


def way(record):
    """The share of the way from chance to perfect that a run came on the test, at most 1; 0 for one that diverged

    None where there is none: nothing has been seen of what was killed or took too long, so it is no failure of the model.
    """
    r = numbers(record)
    if r is None:
        return 0.0 if record["status"] == "diverged" else None
    if has_right_answers(record, r):
        return (r["exact"] - r["chance_exact"]) / (1 - r["chance_exact"]) if r["chance_exact"] < 1 else 0.0
    if r.get("reference"):
        return float(r["nll"] - min(r["reference"].values()) <= NEAR)
    return None


def has_right_answers(record, r):
    """Whether exact match is what counts, and not how near nll comes to the best there can be.      r: numbers(record)"""
    return tasks.module(record["config"]["task"]).EXACT or bool(r.get("sampled"))


def chosen_by_validation(record):
    """What a learning rate is chosen by: exact match on the held-out problems that are not the test, then their nll

    By nll alone where that is what is learnt.  A run that has not come to its end is the worst, however well it did before.
    """
    last = record["curve"][-1] if record["status"] == "ok" and record["curve"] else {"exact": None, "nll": None}
    exact = last["exact"] or 0.0 if tasks.module(record["config"]["task"]).EXACT else 0.0
    return exact, -(np.inf if last["nll"] is None else last["nll"])


def varying(records):
    """The fields of Config that were turned, in its order, without seed and shards: they vary, and not because ones before do."""
    names = [field.name for field in dataclasses.fields(Config) if field.name not in ("seed", "shards")]
    names.sort(key=lambda name: (name != "task", name == "vocab"))
    turned = []
    for name in names:
        seen = {}
        for record in records:
            seen.setdefault(tuple(record["config"].get(other) for other in turned), set()).add(record["config"].get(name))
        if any(len(found) > 1 for found in seen.values()):
            turned.append(name)
    return turned


def axes(turned, y=None, x=None):
    """The dials of rows and columns, where they are not given: what was turned of ROWS and COLUMNS first; x may be None."""
    y = y or next((name for name in ROWS if name in turned), "dim")
    return y, x or next((name for name in COLUMNS if name in turned and name != y), None)


def by_task(records):
    """[(title of a task, its records)]"""
    titles = tasks.titles(sorted({record["config"]["task"] for record in records}))
    return [(title, [record for record in records if record["config"]["task"] == name])
            for name, title in titles.items()]


def panels(records, y=None, x=None):
    """[Panel]: one for each combination of the settings that are turned beside the two axes.  Learning rates are no axis: the
    best is searched for each cell.

    y, x: fields of Config, or None.
    """
    turned = varying(records)
    y, x = axes(turned, y, x)
    others = [name for name in turned if name not in (y, x, "lr")]
    found = {}
    for record in records:
        c = record["config"]
        fixed = tuple((name, c[name]) for name in others)
        found.setdefault(fixed, {}).setdefault((c[y], c[x] if x else None), {}).setdefault(c["lr"], []).append(record)
    return [Panel(dict(fixed), y, x, *(sorted({place[i] for place in cells}, key=order) for i in (0, 1)),
                  {place: best(by_lr) for place, by_lr in cells.items()}) for fixed, cells in found.items()]


def best(by_lr):
    """learning rate -> records: the Cell with those of the rate that did best on the validation problems, over all seeds

    Among the rates that most seeds have been run with, in a sweep that has not ended.
    """
    def validation(records):
        scores = [chosen_by_validation(record) for record in records]
        return len(records), *(float(np.mean([score[i] for score in scores])) for i in (0, 1))

    chosen = max(sorted(by_lr), key=lambda lr: validation(by_lr[lr]))
    ways = {lr: [x for x in map(way, records) if x is not None] for lr, records in by_lr.items()}
    searched = {lr: float(np.mean(found)) for lr, found in sorted(ways.items()) if found}
    return Cell(by_lr[chosen], searched if len(by_lr) > 1 else {})


def order(value):
    """Numbers by size, then names, None first"""
    return (value is not None, isinstance(value, str), value if value is not None else 0)


def commands(panel):
    """Commands for all its runs, as few as will do: with the dials' names in capitals in place of what they are at"""
    dials, found = [name for name in (panel.y, panel.x, "seed") if name], {}
    for cell in panel.cells.values():
        for record in cell.records:
            chosen = shortest_settings(record["config"], dials)
            named = {name: name.upper() for name in dials if not isinstance(chosen[name], bool)}
            found[train_with(chosen | named)] = None
    return list(found)
