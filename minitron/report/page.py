"""The report of a ledger as one HTML file, which opens from disk and needs no network.

Python decides and page.html draws: whether a run has learnt its task, which runs have a score,
which learning rate is best, verdicts, scaling laws and causes are worked out here, by the
functions that the terminal's report uses.  The page only counts and averages runs, over the axes
that its reader chooses.  Numbers go out with three or four digits, as JSON in place of DATA;
curves and the lengths tested are thinned where there are many.
"""
import dataclasses
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np

from ..base.cli import flag_types
from ..base.errors import MinitronError
from ..base.files import write_atomically
from ..data.command_line import OPTIONAL, training_command
from ..data.config import Config
from ..measure import learnt, scaling
from ..measure.record import evenly_spaced
from . import phase, text
from .not_yet import not_yet

TEMPLATE = Path(__file__).with_name("page.html")
PLACE = "DATA"                      # in the template, once
TESTED = "length tested"            # an axis beside the fields of Config
METRICS = ("exact", "token", "nll", "brier", "edit", "p_length", "n", "chance_exact",
           "chance_token")
CURVES = ("loss", "nll", "exact", "norm", "distance", "fourier")    # and the scores of the heads
HEADS = ("previous", "induction")
# Limits that keep 500 runs below 1 MB: points per curve, values of all curves, lengths of all runs
MAX_POINTS, MAX_VALUES, MAX_LENGTHS = 20, 55_000, 3000
MIN_PER_RUN = 6                     # points and lengths, however many runs there are
MIN_SIZES = 4                       # distinct, for a scaling law
AXES = ("dim", "length", "layers", "steps")         # offered as axes even where they do not vary
# Raised by records that are not ones of this version
UNREADABLE = (MinitronError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
FIELDS = [field.name for field in dataclasses.fields(Config)]


def write(path, records, title, left_out=None):
    """Write the page.      records: readable ones, of any tasks; left_out {reason: how many others}

    Raises MinitronError.
    """
    data = page_data(records, title) | {"left_out": left_out or {}}
    template = TEMPLATE.read_text(encoding="utf-8")
    write_atomically(path, template.replace(PLACE, embedded(data), 1).encode())


def embedded(data):
    """JSON inside of which an HTML parser sees no tag: only `<` can end a script element"""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def page_data(records, title):
    """Everything that the page shows"""
    tasks = [task_data(name, of_task) for name, of_task in phase.by_task(records)]
    return {"title": title, "metrics": [*METRICS, "score", "learnt"], "tested": TESTED,
            "tasks": tasks}


# ---- records that can be shown ---------------------------------------------------------------


def readable_records(records):
    """-> the records that this version can show, with all fields; and {reason: how many} others

    A ledger may hold lines of older versions, and of tasks that others wrote.
    """
    records = list(records)
    reasons = list(map(why_unreadable, records))
    readable = [with_all_fields(record) for record, reason in zip(records, reasons)
                if reason is None]
    return readable, Counter(filter(None, reasons))


def why_unreadable(record):
    """The reason why this version cannot show a record, None if it can"""
    try:
        check_kinds(record["config"])
        record = with_all_fields(record)
        embedded(record["config"])          # ValueError for NaN; all other numbers are rounded
        page_data([record], "")
    except MinitronError as error:
        return str(error).partition(":")[0]
    except UNREADABLE:
        return "a field is missing or of another kind"
    return None


def check_kinds(config):
    """Raises TypeError for a value that a resolved configuration cannot have

    Nor one that a terminal would take for a command, or cannot show.
    """
    for name, kind in flag_types(Config).items():
        value = config.get(name, kind())
        is_kind = isinstance(value, (int, float) if kind is float else kind)
        is_shown = not isinstance(value, str) or value.isprintable()
        if not (is_kind and is_shown or value is None and name in OPTIONAL):
            raise TypeError(f"{name} is {value!r}")


def with_all_fields(record):
    """The record, with None for fields of Config that are newer than it"""
    return record | {"config": dict.fromkeys(FIELDS) | record["config"]}


# ---- one task --------------------------------------------------------------------------------


def task_data(name, records):
    varied = phase.varied_fields(records)
    dials = varied + [axis for axis in AXES if axis not in varied]
    y, x = page_axes(records, varied)
    runs = runs_data(records, dials)
    # A curve is named once per task, not in every run.
    curves = list(dict.fromkeys(curve for run in runs for curve in run["curve"]))
    for run in runs:
        run["curve"] = [run["curve"].get(curve) for curve in curves]
    return {"name": name, "varied": varied, "dials": dials, "y": y, "x": x, "curves": curves,
            "runs": runs, "diagrams": diagrams_data(records, y, x),
            "not_yet": [entry | {"best": rounded(entry["best"], 3)} for entry in not_yet(records)]}


def page_axes(records, varied):
    """The first axes: the terminal's; beside a single varied dial, the lengths tested"""
    y, x = phase.default_axes(varied)
    has_lengths = any(len(record["metrics"]) > 1 for record in records)
    return y, x or (TESTED if has_lengths else "length")


def diagrams_data(records, y, x):
    if x == TESTED:
        records = [learnt.at_length(record, length)
                   for record in records for length in tested_lengths(record)]
        x = "length"
    return [diagram_data(diagram) for diagram in phase.phase_diagrams(records, y, x)]


def diagram_data(diagram):
    """The verdict and the scaling laws of each column"""
    columns = []
    for x in diagram.xs:
        records = phase.column_records(diagram, x)
        laws = {size: scaling_law(records, size) for size in ("flops", "parameters")}
        columns.append({"x": x, "verdict": text.verdict_sentence(diagram, x), "laws": laws})
    return {"fixed": diagram.fixed, "columns": columns}


def scaling_law(records, size):
    """loss = E + A / size^alpha through the test's nll, with its typical error as a factor

    None where there are too few sizes, where no law fits, and without scipy.
    """
    runs = [(rounded(record.get(size), 15), phase.test_metrics(record)) for record in records
            if record["status"] == "ok"]
    points = np.array([(x, metrics["nll"]) for x, metrics in runs
                       if metrics and metrics["nll"] and metrics["nll"] > 0 and x])
    if len({x for x, _ in points.tolist()}) < MIN_SIZES:
        return None
    E = known_floor([metrics for _, metrics in runs], points[:, 1].min())
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            law = scaling.fit(*points.T, E=E)
            log_errors = np.log(law(points[:, 0]) / points[:, 1])
            error = math.exp(np.sqrt(np.mean(log_errors ** 2)))
    except (MinitronError, OverflowError):
        return None
    if not (law.alpha > 0 and math.isfinite(error)):
        return None
    return {"E": rounded(law.E, 4), "A": rounded(law.A, 4), "alpha": rounded(law.alpha, 4),
            "error": rounded(error, 3), "is_entropy": E is not None}


def known_floor(all_metrics, lowest_nll):
    """The lowest possible nll, None unless all runs know it and stay above it"""
    floors = [min(metrics["reference"].values()) for metrics in all_metrics
              if metrics and metrics.get("reference")]
    if len(floors) < len(all_metrics) or not 0 <= min(floors) < lowest_nll:
        return None
    return min(floors)


# ---- one run ---------------------------------------------------------------------------------


def runs_data(records, dials):
    points, lengths = per_run_limits(records)
    best = {id(record) for diagram in phase.phase_diagrams(records)
            for cell in diagram.cells.values() for record in cell.records}
    return [run_data(record, dials, points, lengths) | {"best_rate": id(record) in best}
            for record in records]


def per_run_limits(records):
    """-> points per curve, lengths tested"""
    curves = sum(1 + len(CURVES) + len(HEADS) * record["config"]["layers"] for record in records)
    points = min(MAX_POINTS, MAX_VALUES // curves)
    return max(MIN_PER_RUN, points), max(MIN_PER_RUN, MAX_LENGTHS // len(records))


def run_data(record, dials, max_points, max_lengths):
    """The numbers of one run; max_lengths does not count the dial's length"""
    config, lengths = record["config"], tested_lengths(record)
    lengths = sorted({*evenly_spaced(lengths, max_lengths), *({config["length"]} & set(lengths))})
    return {
        "key": str(record["key"]),
        "status": str(record["status"]),
        "reason": str(record.get("reason") or ""),
        "seed": config["seed"],
        "length": config["length"],
        "settings": [config.get(name) for name in dials],
        "lengths": lengths,
        "metrics": [metrics_row(learnt.at_length(record, length)) for length in lengths],
        "reference": lowest_nll(record),
        "curve": curve_data(evenly_spaced(record["curve"], max_points)),
        "command": training_command(config),
        "parameters": rounded(record.get("parameters"), 9),
        "flops": rounded(record.get("flops"), 4),
        "steps": rounded(record.get("steps"), 9),
        "seconds": rounded(record["seconds"], 3),
    }


def tested_lengths(record):
    """In order; of a run without a test, the length of the dial"""
    return sorted(map(int, record["metrics"])) or [record["config"]["length"]]


def metrics_row(record):
    """METRICS, the normalized score, and learnt as 1 or 0; None for each that a run has not

    The score decides how a run counts in a cell: a run without one is left out.
    """
    metrics = phase.test_metrics(record) or {}
    if metrics.get("reference") and not learnt.has_right_answers(record["config"]["task"], metrics):
        metrics = metrics | {"chance_exact": None}      # nll is scored: a guesser has no chance
    outcome = learnt.has_learnt(record)
    return [rounded(metrics.get(name), 4) for name in METRICS] + [
        rounded(learnt.score(record), 4), None if outcome is None else int(outcome)]


def lowest_nll(record):
    """The nll below which no predictor gets, None where it is unknown"""
    metrics = phase.test_metrics(record)
    if not metrics or not metrics.get("reference"):
        return None
    return rounded(min(metrics["reference"].values()), 4)


def curve_data(points):
    """Points of the learning curve -> {name: values}; of the heads, the best of each layer"""
    curves = {"step": [rounded(point["step"], 9) for point in points]}
    for name in CURVES:
        curves[name] = [rounded(point.get(name), 3) for point in points]
    for name in HEADS:
        layers = max((len(point.get(name) or ()) for point in points), default=0)
        for layer in range(layers):
            curves[f"{name}, layer {layer + 1}"] = [
                rounded(max(point[name][layer]), 3) if point.get(name) else None
                for point in points]
    return {name: values for name, values in curves.items()
            if any(value is not None for value in values)}


def rounded(value, digits):
    """A number with this many digits, as short as JSON has it; None for NaN, None, above 1e300"""
    if value is None or not abs(value) < 1e300:
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
