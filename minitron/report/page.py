"""The report of a ledger as one HTML file, which opens from disk and needs no network.

Python computes and page.html draws: its phase diagrams are made here for each choice of axes that
it offers, by the functions that the terminal's report uses.  Numbers go out with three or four
digits, as JSON in place of DATA; curves and the lengths tested are thinned where there are many.
"""
import dataclasses
import json
import math
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np

from ..base.cli import flag_types
from ..base.errors import MinitronError
from ..base.files import write_atomically
from ..data.command_line import OPTIONAL, training_command
from ..data.config import Config
from ..measure import learnt, scaling
from ..measure.evaluate import wilson
from ..measure.record import evenly_spaced
from . import phase, text
from .not_yet import not_yet

TEMPLATE = Path(__file__).with_name("page.html")
PLACE = "DATA"                      # in the template, once
TESTED = "length tested"            # an axis beside the fields of Config
MEANS = ("exact", "token", "nll", "brier", "edit", "p_length")      # that cells show
METRICS = (*MEANS, "n", "exact_low", "exact_high")
CURVES = ("loss", "nll", "exact", "norm", "distance", "fourier")    # and the scores of the heads
HEADS = ("previous", "induction")
# Limits that keep 500 runs below 1 MB: points per curve, values of all curves, lengths of all runs
MAX_POINTS, MAX_VALUES, MAX_LENGTHS = 20, 55_000, 3000
MIN_PER_RUN = 6                     # points and lengths, however many runs there are
MIN_SIZES = 4                       # distinct, for a scaling law
MAX_CELLS = 3000                    # of all diagrams of a task, but the first view has all of its
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
    return {"title": title, "means": MEANS, "metrics": [*METRICS, "score"], "tested": TESTED,
            "learnt": learnt.LEARNT, "tasks": tasks}


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
        check_numbers(record)
        record = with_all_fields(record)
        embedded(record["config"])          # ValueError for NaN; all other numbers are rounded
        page_data([record], "")
    except MinitronError as error:
        return str(error).partition(":")[0]
    except UNREADABLE:
        return "a field is missing or of another kind"
    return None


def check_kinds(config):
    """Raises TypeError for a value that a resolved configuration cannot have"""
    for name, kind in flag_types(Config).items():
        value = config.get(name, kind())
        is_kind = isinstance(value, (int, float) if kind is float else kind)
        if not (is_kind or value is None and name in OPTIONAL):
            raise TypeError(f"{name} is {value!r}")


def check_numbers(record):
    """Raises TypeError or KeyError where a run lacks a number that all of its status have"""
    numbers = [record["seconds"]]
    for name in ("parameters", "flops", "steps"):
        numbers.append(record[name] if record["status"] == "ok" else record.get(name, 0))
    for metrics in record["metrics"].values():
        if metrics["n"]:
            numbers += [metrics["exact"], metrics["nll"]]
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise TypeError("a field is not a number")


def with_all_fields(record):
    """The record, with None for fields of Config that are newer than it"""
    return record | {"config": dict.fromkeys(FIELDS) | record["config"]}


# ---- one task --------------------------------------------------------------------------------


def task_data(name, records):
    runs = runs_data(records)
    # A curve is named once per task, not in every run.
    curves = list(dict.fromkeys(curve for run in runs for curve in run["curve"]))
    for run in runs:
        run["curve"] = [run["curve"].get(curve) for curve in curves]
    return {"name": name, "curves": curves, "runs": runs,
            "views": views_data(records, phase.varied_fields(records)),
            "not_yet": [entry | {"best": rounded(entry["best"], 3)} for entry in not_yet(records)]}


# ---- its phase diagrams ----------------------------------------------------------------------


def views_data(records, varied):
    """A view per choice of axes, first the terminal's: {"y", "x", "diagrams"}"""
    views, cells = [], 0
    for y, x in view_axes(records, varied):
        view = {"y": y, "x": x, "diagrams": diagrams_data(records, y, x, with_laws=not views)}
        cells += sum(len(diagram["cells"]) for diagram in view["diagrams"])
        if not views or cells <= MAX_CELLS:
            views.append(view)
    return views


def view_axes(records, varied):
    """[(y, x)]: pairs of the varied dials; beside one dial the lengths tested, or no columns"""
    dials = [name for name in varied if name != "lr"]
    y, x = phase.default_axes(varied)
    columns = list(dials)
    if "length" not in varied and any(len(record["metrics"]) > 1 for record in records):
        columns.append(TESTED)
        x = x or TESTED
    pairs = [pair for pair in product(dials, columns) if pair[0] != pair[1]]
    return list(dict.fromkeys([(y, x), *pairs]))


def diagrams_data(records, y, x, with_laws):
    """The diagrams of a view.      x: a field of Config, TESTED or None"""
    number = {id(record): i for i, record in enumerate(records)}
    if x == TESTED:
        at_lengths = []
        for record in records:
            for length in tested_lengths(record):
                at_lengths.append(learnt.at_length(record, length))
                number[id(at_lengths[-1])] = number[id(record)]
        records, x = at_lengths, "length"
    return [diagram_data(diagram, number, with_laws)
            for diagram in phase.phase_diagrams(records, y, x)]


def diagram_data(diagram, number, with_laws):
    """number: {id(record): its place in the task's runs}"""
    cells = [{"at": [diagram.ys.index(y), diagram.xs.index(x)],
              "runs": [number[id(record)] for record in sorted(cell.records, key=seed_of)],
              **cell_data(cell)}
             for (y, x), cell in diagram.cells.items()]
    return {"fixed": diagram.fixed, "ys": diagram.ys, "xs": diagram.xs, "cells": cells,
            "moved": " ".join(" ".join(text.moved_lines(diagram)).split()),
            "columns": [column_data(diagram, x, with_laws) for x in diagram.xs]}


def seed_of(record):
    return record["config"]["seed"]


def cell_data(cell):
    """The content of a cell: success and means of metrics, each None where no run has it"""
    probability, (learnt_it, failed, unknown) = cell.probability(), cell.counts()
    success, interval = None, ""
    if probability:
        success, (low, high), runs = probability
        interval = (f"{learnt_it} of {runs} run{'s' * (runs > 1)} learnt it "
                    f"(95% interval {100 * low:.0f} to {100 * high:.0f}%)")
    counts = [f"{learnt_it}/{learnt_it + failed}"] * bool(probability)
    counts += [f"{unknown} unclear"] * (unknown > 0)
    counts += [f"{n} {status}" for status, n in sorted(Counter(
        record["status"] for record in cell.records if record["status"] != "ok").items())]
    return {"success": rounded(success, 4), "interval": interval, "counts": ", ".join(counts),
            "uncertain": cell.is_uncertain(), "means": [cell_mean(cell, name) for name in MEANS]}


def cell_mean(cell, name):
    """The mean of a metric over the runs of a cell that have it, None without any"""
    metrics = [phase.test_metrics(record) or {} for record in cell.records]
    values = [each[name] for each in metrics if each.get(name) is not None]
    return rounded(float(np.mean(values)), 4) if values else None


def column_data(diagram, x, with_laws):
    """Below a column: the frontier as two rows or None, chance, the verdict, scaling laws"""
    records = phase.column_records(diagram, x)
    rows = [None if y is None else diagram.ys.index(y) for y in phase.frontier(diagram, x)]
    laws = {size: scaling_law(records, size) if with_laws else None
            for size in ("flops", "parameters")}
    return {"frontier": rows if phase.rows_have_order(diagram) else [None, None],
            "frontier_text": text.frontier_text(diagram, x),
            "chance": rounded(phase.chance(diagram, x), 4),
            "verdict": text.verdict_sentence(diagram, x), "laws": laws}


# ---- scaling laws ----------------------------------------------------------------------------


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


def runs_data(records):
    points, lengths = per_run_limits(records)
    return [run_data(record, points, lengths) for record in records]


def per_run_limits(records):
    """-> points per curve, lengths tested"""
    curves = sum(1 + len(CURVES) + len(HEADS) * record["config"]["layers"] for record in records)
    points = min(MAX_POINTS, MAX_VALUES // curves)
    return max(MIN_PER_RUN, points), max(MIN_PER_RUN, MAX_LENGTHS // len(records))


def run_data(record, max_points, max_lengths):
    """The numbers of one run; max_lengths does not count the dial's length"""
    config, lengths = record["config"], tested_lengths(record)
    lengths = sorted({*evenly_spaced(lengths, max_lengths), *({config["length"]} & set(lengths))})
    return {
        "key": str(record["key"]),
        "status": str(record["status"]),
        "reason": str(record.get("reason") or ""),
        "seed": config["seed"],
        "length": config["length"],
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
    """METRICS and the score; None for each that a run has not"""
    metrics = phase.test_metrics(record) or {}
    if metrics.get("exact") is not None:
        low, high = wilson(metrics["exact"], metrics["n"])
        metrics = metrics | {"exact_low": low, "exact_high": high}
    return [rounded(metrics.get(name), 4) for name in METRICS] + [rounded(learnt.score(record), 4)]


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
                rounded(highest(point[name][layer]), 3) if point.get(name) else None
                for point in points]
    return {name: values for name, values in curves.items()
            if any(value is not None for value in values)}


def highest(scores):
    """The highest score of a layer's heads, None if none is a number"""
    return max((score for score in scores if score is not None), default=None)


def rounded(value, digits):
    """A number with this many digits, as short as JSON has it; None for NaN, None, above 1e300"""
    if value is None or not abs(value) < 1e300:
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
