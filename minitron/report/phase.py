"""From records to phase diagrams: the settings that were swept, and in each cell the seeds' scores.

Next: text.py, which prints them.
"""
import dataclasses
from typing import NamedTuple

import numpy as np

from ..data import tasks
from ..data.command_line import shortest_settings, train_with
from ..data.config import Config
from ..measure import evaluate
from .verdict import LEARNT

LEARNT_NATS = 0.05      # a distribution is learnt within this many nats of the lowest possible nll
ROWS = ("dim", "layers", "heads", "ffn_dim", "steps", "train_fraction", "attention", "positions",
        "rope_theta", "variant", "options")
COLUMNS = ("length",) + ROWS


class Cell(NamedTuple):
    """The runs of one setting, all seeds."""

    records: list           # of the learning rate that did best on the validation problems
    scores_by_rate: dict    # learning rate -> mean normalized score; empty for a single rate

    def scores(self):
        """Normalized scores of the runs that have one"""
        return [score for score in map(normalized_score, self.records) if score is not None]

    def learnt(self):
        """For each run with a score, whether it learnt the task"""
        return [score >= LEARNT for score in self.scores()]

    def probability(self):
        """Share of runs that learnt the task, its 95% interval, number of runs; None without any"""
        learnt = self.learnt()
        if not learnt:
            return None
        share = sum(learnt) / len(learnt)
        return share, evaluate.wilson(share, len(learnt)), len(learnt)


class PhaseDiagram(NamedTuple):
    """Cells over two dials."""

    fixed: dict             # settings that distinguish it from the other diagrams of its task
    y: str
    x: str | None
    ys: list
    xs: list
    cells: dict             # (y, x) -> Cell


def test_metrics(record):
    """The metrics of the test at the dial's length, None if there are none"""
    metrics = record["metrics"].get(str(record["config"]["length"]))
    return metrics if metrics and metrics["n"] else None


def normalized_score(record):
    """(exact - chance) / (1 - chance) on the test: 0 at chance, 1 at perfect; None if unknown

    A run that diverged scores 0.  A run that was killed or timed out has no score: it says nothing
    about the model.  Where a distribution is to be learnt, the score is 1 or 0: whether nll is
    within LEARNT_NATS of the lowest possible.
    """
    metrics = test_metrics(record)
    if metrics is None:
        return 0.0 if record["status"] == "diverged" else None
    if has_right_answers(record, metrics):
        return evaluate.normalized_score(metrics["exact"], metrics["chance_exact"])
    if metrics.get("reference"):
        return float(metrics["nll"] - min(metrics["reference"].values()) <= LEARNT_NATS)
    return None


def has_learnt(record):
    """Whether a run learnt its task; False where that is unknown"""
    score = normalized_score(record)
    return score is not None and score >= LEARNT


def has_right_answers(record, metrics):
    """Whether the score is exact match, not nll.      metrics: test_metrics(record)"""
    return tasks.module(record["config"]["task"]).EXACT or bool(metrics.get("sampled"))


def validation_score(record):
    """(exact, -nll) on the validation problems, by which a learning rate is chosen

    exact is 0 where a distribution is to be learnt.  A run that did not end is the worst.
    """
    if record["status"] != "ok" or not record["curve"]:
        return 0.0, -np.inf
    last = record["curve"][-1]
    exact = last["exact"] or 0.0 if tasks.module(record["config"]["task"]).EXACT else 0.0
    return exact, -(np.inf if last["nll"] is None else last["nll"])


def varied_fields(records):
    """The fields of Config that a sweep varied, in Config's order, without seed and shards

    A field that follows from fields before it was not varied: heads and lr may follow dim.
    """
    names = [field.name for field in dataclasses.fields(Config)
             if field.name not in ("seed", "shards")]
    names.sort(key=lambda name: (name != "task", name == "vocab"))
    varied = []
    for name in names:
        values = {}         # of the fields before -> of this field
        for record in records:
            before = tuple(record["config"].get(other) for other in varied)
            values.setdefault(before, set()).add(record["config"].get(name))
        if any(len(distinct) > 1 for distinct in values.values()):
            varied.append(name)
    return varied


def default_axes(varied, y=None, x=None):
    """(y, x): as given, else the first varied fields of ROWS and COLUMNS; x may be None"""
    y = y or next((name for name in ROWS if name in varied), "dim")
    return y, x or next((name for name in COLUMNS if name in varied and name != y), None)


def by_task(records):
    """[(title of a task, its records)]"""
    titles = tasks.titles(sorted({record["config"]["task"] for record in records}))
    return [(title, [record for record in records if record["config"]["task"] == name])
            for name, title in titles.items()]


def phase_diagrams(records, y=None, x=None):
    """[PhaseDiagram]: one for each combination of the varied fields that are not an axis

    Learning rates are searched: each cell has the best.      y, x: fields of Config, or None
    """
    varied = varied_fields(records)
    y, x = default_axes(varied, y, x)
    others = [name for name in varied if name not in (y, x, "lr")]
    groups = {}             # fixed -> place -> learning rate -> records
    for record in records:
        c = record["config"]
        fixed, place = tuple((name, c[name]) for name in others), (c[y], c[x] if x else None)
        by_rate = groups.setdefault(fixed, {}).setdefault(place, {})
        by_rate.setdefault(c["lr"], []).append(record)
    return [phase_diagram(dict(fixed), y, x, rates_by_place)
            for fixed, rates_by_place in groups.items()]


def phase_diagram(fixed, y, x, rates_by_place):
    """rates_by_place: {(y, x): {learning rate: records}}"""
    ys, xs = (sorted({place[i] for place in rates_by_place}, key=sort_key) for i in (0, 1))
    cells = {place: best_rate_cell(by_rate) for place, by_rate in rates_by_place.items()}
    return PhaseDiagram(fixed, y, x, ys, xs, cells)


def best_rate_cell(by_rate):
    """{learning rate: records} -> Cell of the rate that did best on the validation problems

    In an unfinished sweep, a rate that fewer seeds have run is not compared yet.
    """
    def rank(rate):
        scores = [validation_score(record) for record in by_rate[rate]]
        return len(scores), *(float(np.mean([score[i] for score in scores])) for i in (0, 1))

    best = max(sorted(by_rate), key=rank)
    if len(by_rate) == 1:
        return Cell(by_rate[best], {})
    scores = {rate: Cell(by_rate[rate], {}).scores() for rate in sorted(by_rate)}
    means = {rate: float(np.mean(values)) for rate, values in scores.items() if values}
    return Cell(by_rate[best], means)


def sort_key(value):
    """Sorts None first, then numbers by size, then names"""
    return (value is not None, isinstance(value, str), value if value is not None else 0)


def diagram_commands(diagram):
    """The commands that train all runs of a diagram, as few as possible

    Its dials' names in capitals stand in place of their values.
    """
    dials = [name for name in (diagram.y, diagram.x, "seed") if name]
    commands = {}           # a dict, for its order
    for cell in diagram.cells.values():
        for record in cell.records:
            settings = shortest_settings(record["config"], dials)
            names = {name: name.upper() for name in dials if not isinstance(settings[name], bool)}
            commands[train_with(settings | names)] = None
    return list(commands)
