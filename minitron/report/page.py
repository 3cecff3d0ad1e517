"""The report of a ledger as one HTML file, which opens from disk and asks nothing of a network.

Python chooses, rounds and judges; page.html draws.  What is shipped are the numbers that the page uses, at three or four digits,
as JSON in place of DATA; curves, and the lengths on which runs were tested, are thinned where there are many.  Verdicts, scaling
laws and suspected causes are worked out here, once, for the default axes, so that page and terminal cannot disagree.
"""
import dataclasses
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np

from ..base.errors import MinitronError
from ..base.files import write_atomically
from ..data.command_line import training_command
from ..data.config import Config
from ..measure import scaling
from ..measure.record import evenly_spaced
from . import phase
from . import text as report
from .cause import at, cause

TEMPLATE = Path(__file__).with_name("page.html")
PLACE = "DATA"                      # in the template, once
TESTED = "length tested"            # an axis beside the fields of Config: the lengths on which each run was tested
NUMBERS = ("exact", "token", "nll", "brier", "edit", "p_length", "n", "chance_exact", "chance_token")
CURVE = ("loss", "nll", "exact", "norm", "distance", "fourier")     # beside step, and the heads' scores
HEADS = ("previous", "induction")
# What keeps 500 runs below 1 MB: at the most so many points of a curve, values of all curves, lengths tested of all runs ...
POINTS, ALL_VALUES, ALL_LENGTHS = 20, 55_000, 3000
FEWEST = 6                          # ... but of each so many, however many runs there are
SIZES = 4                           # different ones, at the least, for a law
AXES = ("dim", "length", "layers", "steps")         # an axis of one value is an axis
WRONG = (MinitronError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)      # what no records lead to
FIELDS = [field.name for field in dataclasses.fields(Config)]


def write(path, records, title, left_out=None):
    """Write the page.      records: sound ones, of any tasks; left_out {why others are: how many}.  Raises MinitronError."""
    template = TEMPLATE.read_text(encoding="utf-8")
    write_atomically(path, template.replace(PLACE, embedded(facts(records, title) | {"left_out": left_out or {}}), 1).encode())


def embedded(data):
    """JSON that an HTML parser finds no tag in, whatever its strings say: it leaves a script element at `<` alone"""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def facts(records, title):
    """All that the page knows."""
    return {"title": title, "learnt": phase.LEARNT, "numbers": [*NUMBERS, "way"], "tested": TESTED,
            "tasks": [task_facts(name, of_task) for name, of_task in phase.by_task(records)]}


def sound(records):
    """-> those records that this version can show, complete, and {why not: how many} of the others

    A ledger may hold lines of older versions, and of tasks that others wrote.
    """
    records = list(records)
    reasons = list(map(unreadable, records))
    return [complete(record) for record, reason in zip(records, reasons) if reason is None], Counter(filter(None, reasons))


def unreadable(record):
    """Why this version cannot show a record, or None"""
    try:
        record = complete(record)
        embedded(record["config"])          # ValueError where a setting is no number; all else is rounded
        facts([record], "")
    except MinitronError as error:
        return str(error).partition(":")[0]
    except WRONG:
        return "a field is missing or of another kind"
    return None


def complete(record):
    """The record with None for the fields of Config that came after it"""
    return record | {"config": dict.fromkeys(FIELDS) | record["config"]}


def task_facts(name, records):
    turned = phase.varying(records)
    dials = turned + [name for name in AXES if name not in turned]
    y, x = axes(records, turned)
    pseudo = [at(record, length) for record in records for length in lengths(record)] if x == TESTED else records
    panels = phase.panels(pseudo, y, "length" if x == TESTED else x)
    points, most = share(records)
    runs = [run_facts(record, dials, points, most) for record in records]
    curves = list(dict.fromkeys(name for run in runs for name in run["curve"]))     # names, once instead of in every run
    return {"name": name, "turned": turned, "dials": dials, "y": y, "x": x, "panels": [panel_facts(panel) for panel in panels],
            "not_yet": not_yet(records), "curves": curves,
            "runs": [run | {"curve": [run["curve"].get(name) for name in curves]} for run in runs]}


def share(records):
    """Points of a curve, and lengths tested, that each run may have"""
    series = sum(1 + len(CURVE) + len(HEADS) * record["config"]["layers"] for record in records)
    return max(FEWEST, min(POINTS, ALL_VALUES // series)), max(FEWEST, ALL_LENGTHS // len(records))


def axes(records, dials):
    """The axes to begin with: those of the terminal's report; where one dial was turned, the lengths tested beside it"""
    y, x = phase.axes(dials)
    return y, x or (TESTED if any(len(record["metrics"]) > 1 for record in records) else "length")


def lengths(record):
    return [int(length) for length in record["metrics"]] or [record["config"]["length"]]


# ---- one run ---------------------------------------------------------------------------------------------------------


def run_facts(record, dials, points, most):
    """points: of its curves, most: of the lengths tested, at the most, beside the dial's"""
    config, tested = record["config"], sorted(map(int, record["metrics"]))
    tested = sorted({*evenly_spaced(tested, most), *({config["length"]} & set(tested))})
    return {
        "key": str(record["key"]), "status": str(record["status"]), "reason": str(record.get("reason") or ""),
        "seed": config["seed"], "length": config["length"], "set": [config.get(name) for name in dials], "lengths": tested,
        "numbers": [numbers(at(record, length)) for length in tested],
        "reference": reference(record), "validation": [rounded(x, 6) for x in phase.chosen_by_validation(record)],
        "curve": curve(evenly_spaced(record["curve"], points)), "command": training_command(config),
        "parameters": rounded(record.get("parameters"), 9), "flops": rounded(record.get("flops"), 4),
        "steps": rounded(record.get("steps"), 9), "seconds": rounded(record["seconds"], 3),
    }


def numbers(record):
    """NUMBERS and the share of the way from chance to perfect, at the length of the dial; None where no problem was there"""
    r = phase.numbers(record)
    if r is None:
        return None
    if r.get("reference") and not phase.has_right_answers(record, r):
        r = r | {"chance_exact": None}          # what counts there is nll, so that no guesser has a chance
    return [rounded(r.get(name), 4) for name in NUMBERS] + [rounded(phase.way(record), 4)]


def reference(record):
    """The nll that no predictor gets below, where it is known"""
    r = phase.numbers(record)
    return rounded(min(r["reference"].values()), 4) if r and r.get("reference") else None


def curve(points):
    """Points of the learning curve -> {name: values}; of the heads the best of each layer"""
    found = {"step": [rounded(point["step"], 9) for point in points]}
    for name in CURVE:
        found[name] = [rounded(point.get(name), 3) for point in points]
    for name in HEADS:
        layers = max((len(point.get(name) or ()) for point in points), default=0)
        for l in range(layers):
            found[f"{name}, layer {l + 1}"] = [rounded(max(point[name][l]), 3) if point.get(name) else None for point in points]
    return {name: values for name, values in found.items() if any(value is not None for value in values)}


def rounded(value, digits):
    """A number at so many digits, as short as JSON has it; None for what is none, or too large to be drawn"""
    if value is None or not abs(value) < 1e300:
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


# ---- what is judged --------------------------------------------------------------------------------------------------


def panel_facts(panel):
    """The judgements on a panel: of each column the verdict and the laws"""
    def column(x):
        records = [record for y in panel.ys if (y, x) in panel.cells for record in panel.cells[y, x].records]
        laws = {size: law(records, size) for size in ("flops", "parameters")}
        return {"x": x, "verdict": report.sentence(panel, x), "laws": laws}

    return {"fixed": panel.fixed, "columns": [column(x) for x in panel.xs]}


def law(records, size):
    """loss = E + A / size^alpha through the test's nll of runs, with its typical error as a factor; None where there is none"""
    there = [(rounded(record.get(size), 15), phase.numbers(record)) for record in records if record["status"] == "ok"]
    points = np.array([(x, r["nll"]) for x, r in there if r and r["nll"] and r["nll"] > 0 and x])
    if len({x for x, _ in points.tolist()}) < SIZES:
        return None
    references = [min(r["reference"].values()) for _, r in there if r and r.get("reference")]
    E = min(references) if len(references) == len(there) else None
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            found = scaling.fit(*points.T, E=E if E is not None and 0 <= E < points[:, 1].min() else None)
            error = math.exp(np.sqrt(np.mean(np.log(found(points[:, 0]) / points[:, 1]) ** 2)))
    except (MinitronError, OverflowError):      # there is no scipy, or what was measured follows no law
        return None
    if not (found.alpha > 0 and math.isfinite(error)):
        return None
    return {"E": rounded(found.E, 4), "A": rounded(found.A, 4), "alpha": rounded(found.alpha, 4), "error": rounded(error, 3),
            "known": E is not None and found.E == E}


def not_yet(records):
    """Settings at which no seed learnt it, or none beyond the lengths of training, with the cause that most seeds suggest"""
    learnt = [record for record in records if (phase.way(record) or 0) >= phase.LEARNT]
    found = []
    for panel in phase.panels(records):
        for (y, x), cell in sorted(panel.cells.items(), key=lambda item: tuple(map(phase.order, item[0]))):
            where = {panel.y: y} | ({panel.x: x} if panel.x else {}) | panel.fixed
            found.append(missing(where, cell.records, learnt))
    return [each for each in found if each]


def missing(where, records, learnt):
    """An entry of that list, None for a setting that does not belong there"""
    ways = [came for came in map(phase.way, records) if came is not None]
    causes = [cause(record, learnt) for record in records]
    name, count = Counter(each.name for each in causes).most_common(1)[0]
    beyond = name == "positions" and count == len(causes)
    if not ways or (max(ways) >= phase.LEARNT and not beyond):
        return None
    shown = next(i for i, each in enumerate(causes) if each.name == name)
    return {"where": ", ".join(f"{dial.replace('_', ' ')} {word(value)}" for dial, value in where.items()),
            "best": rounded(max(ways), 3), "seeds": len(records), "cause": name, "agree": count,
            "why": causes[shown].why, "turn": causes[shown].turn, "command": training_command(records[shown]["config"])}


def word(value):
    """A setting as page.html writes it"""
    return str(value).lower() if isinstance(value, bool) else "n/a" if value is None else str(value) or "(none)"
