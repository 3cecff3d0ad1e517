"""From records to phase diagrams: the settings that were swept, and in each cell the seeds' scores.

Next: text.py, which prints them.
"""
import dataclasses
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from ..data import tasks
from ..data.command_line import shortest_settings, train_with
from ..data.config import Config
from ..measure import evaluate, learnt
from ..sweep.ledger import is_finished

ROWS = ("dim", "layers", "heads", "ffn_dim", "steps", "train_fraction", "attention", "positions",
        "rope_theta", "variant", "options")
COLUMNS = ("length",) + ROWS
# Fields that are not settings of their own: they name a run, or only say what others do.
SAME_AS_OTHERS = ("seed", "shards", "vocab", "test_length", "kv_heads")


class Cell(NamedTuple):
    """The runs of one setting, all seeds."""

    records: list           # of the learning rate that did best on the validation problems
    scores_by_rate: dict    # learning rate -> mean normalized score; empty for a single rate

    def scores(self):
        """Scores of the runs that have one"""
        return [score for score in map(learnt.score, self.records) if score is not None]

    def counts(self):
        """Runs that learnt the task, runs that did not, runs that ended and whose test cannot tell

        A run that was killed or timed out is none of these.
        """
        outcomes = [learnt.has_learnt(record) for record in self.records if is_finished(record)]
        return tuple(outcomes.count(outcome) for outcome in (True, False, None))

    def probability(self):
        """Of the runs whose test can tell: share that learnt the task, its 95% interval, number

        None without any.
        """
        learnt_it, failed, _ = self.counts()
        runs = learnt_it + failed
        if not runs:
            return None
        return learnt_it / runs, evaluate.wilson(learnt_it / runs, runs), runs

    def is_uncertain(self):
        """Whether some runs' tests have too few problems, or a score too near the threshold"""
        return self.counts()[2] > 0


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


def validation_score(record):
    """(exact, -nll) on the validation problems, by which a learning rate is chosen

    exact is 0 where a distribution is to be learnt.  A run that did not end is the worst.
    """
    if record["status"] != "ok" or not record["curve"]:
        return 0.0, -np.inf
    last = record["curve"][-1]
    has_answers = learnt.has_right_answers(record["config"]["task"], test_metrics(record) or {})
    exact = last["exact"] or 0.0 if has_answers else 0.0
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


# ---- what a diagram says -------------------------------------------------------------------------


def rows_have_order(diagram):
    """Whether the settings of its rows are numbers"""
    return not any(isinstance(y, (str, bool)) for y in diagram.ys)


def column_records(diagram, x):
    """The records of a column"""
    cells = [diagram.cells[y, x] for y in diagram.ys if (y, x) in diagram.cells]
    return [record for cell in cells for record in cell.records]


def column_scores(diagram, x):
    """-> settings (n,), scores (n, seeds), nll (n, seeds); NaN for missing numbers

    nll is the mean over the lengths at which the score is judged.
    """
    ys = [y for y in diagram.ys if (y, x) in diagram.cells]
    seeds = max(len(diagram.cells[y, x].records) for y in ys)
    scores, nll = np.full((2, len(ys), seeds), np.nan)
    for i, y in enumerate(ys):
        for j, record in enumerate(diagram.cells[y, x].records):
            score = learnt.score(record)
            scores[i, j] = np.nan if score is None else score
            tests = learnt.judged(record).values()
            nll[i, j] = np.mean([metrics["nll"] for metrics in tests]) if tests else np.nan
    return ys, scores, nll


def frontier(diagram, x):
    """(a, b): no run learnt the task at setting a and below it, all did at b and above it

    Settings of one column, or None.  A setting is skipped if the test of none of its runs can tell.
    """
    shares = [(y, cell.probability()[0]) for y in diagram.ys
              if (cell := diagram.cells.get((y, x))) and cell.probability()]
    return last_of_run(shares, 0), last_of_run(reversed(shares), 1)


def last_of_run(shares, value):
    """The last setting before the share changes from `value`; None if it never has it"""
    settings = [y for y, _ in takewhile(lambda item: item[1] == value, shares)]
    return settings[-1] if settings else None


def chance(diagram, x):
    """Exact match of a guesser, mean over a column's runs; None where nothing is right or wrong"""
    chances = []
    for record in column_records(diagram, x):
        metrics = test_metrics(record)
        if metrics and learnt.has_right_answers(record["config"]["task"], metrics):
            chances.append(metrics["chance_exact"])
    return float(np.mean(chances)) if chances else None


def moved_settings(diagram):
    """{field of Config: its values, sorted}: those that differ between cells and are not dials

    Such as lr, which follows dim by default.  Fields that only say what another does are left out.
    """
    dials = {diagram.y, diagram.x, *diagram.fixed, *SAME_AS_OTHERS}
    searched = any(cell.scores_by_rate for cell in diagram.cells.values())
    configs = [record["config"] for cell in diagram.cells.values() for record in cell.records]
    values = {name: {config.get(name) for config in configs} for name in configs[0]
              if name not in dials and not (name == "lr" and searched)}
    return {name: sorted(found, key=sort_key) for name, found in values.items() if len(found) > 1}


def diagram_commands(diagram):
    """The commands that train all runs of a diagram: one, or one per setting of its yes/no fields

    The names of dials, and of settings that differ between its cells, stand in capitals.
    """
    dials = [name for name in (diagram.y, diagram.x, "seed") if name]
    groups = {}             # yes/no fields -> [{field: value}]
    for cell in diagram.cells.values():
        for record in cell.records:
            settings = shortest_settings(record["config"], dials)
            flags = tuple(item for item in settings.items() if isinstance(item[1], bool))
            groups.setdefault(flags, []).append(settings)
    return [train_with(in_capitals(group, dials)) for group in groups.values()]


def in_capitals(group, dials):
    """[{field: value}] -> {field: the value of all, or the field's name in capitals}"""
    merged = {}
    for name in dict.fromkeys(name for settings in group for name in settings):         # in order
        values = {settings.get(name) for settings in group}
        is_one = len(values) == 1 and (name not in dials or isinstance(next(iter(values)), bool))
        merged[name] = values.pop() if is_one else name.upper()
    return merged
