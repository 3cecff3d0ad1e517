"""The table of an experiment in Markdown: a row per cell of its spec, a column per rate and seed.

    python -m minitron report --markdown results/gallery/induction.toml
"""
import dataclasses
import itertools
import json

from ..data.command_line import flag_words
from ..data.config import Config
from ..sweep import grid
from ..sweep.spec import OTHER_LINES, parsed

COLUMNS = ("lr", "seed")        # dials of the columns; other dials of several values make rows


# ---- metrics of a cell: functions of a record and of its metrics at the dial's length -----------


def exact(record, metrics):
    return f"{metrics['exact']:.1%}"


def exact_by_length(record, metrics):
    longest = record["config"]["length"]
    return ", ".join(f"{length}: {at['exact']:.0%}" for length, at in record["metrics"].items()
                     if int(length) >= longest)


def nll_above_reference(record, metrics):
    nats = next(iter(metrics["reference"].values()))
    return f"{metrics['nll'] - nats:+.4f}"


def nll(record, metrics):
    return f"{metrics['nll']:.4f}"


def sampled(record, metrics):
    reference = metrics["sampled_reference"]
    return ", ".join(f"{share:.1%} ({reference[temperature]:.1%})"
                     for temperature, share in metrics["sampled"].items())


def token_by_group(record, metrics):
    return ", ".join(f"{group}: {at['token']:.0%}" for group, at in metrics["groups"].items())


def steps_to_grok(record, metrics):
    steps = record["reached"]["nll 0.1"] or f"not in {record['steps']}"
    return f"{steps}, exact {metrics['exact']:.1%}"


METRICS = {                     # the `show` of a spec -> its text in a cell
    "exact match": exact,
    "exact match by length, from the longest trained on": exact_by_length,
    "nll": nll,
    "nll above the best there can be": nll_above_reference,
    "right answers sampled at temperatures 1, 0.5, 0.25 (closed form)": sampled,
    "token accuracy by kind": token_by_group,
    "steps until the held-out nll is below 0.1": steps_to_grok,
}


# ---- the table ------------------------------------------------------------------------------


def markdown_lines(name, spec, records):
    """The table of a spec, {name: value}, and the learning curve that it names

    records: those of its ledger, in any order
    """
    by_settings = {settings_key(record["config"]): record for record in records}
    show = spec.get("show", "exact match")
    columns = settings_of(spec, COLUMNS)
    yield f"`python train.py {flags_text(common_settings(spec))}` and: {show}"
    yield ""
    heads = [name, "parameters", "steps", "minutes"]
    heads += [flags_text(column).lstrip("-") for column in columns]
    yield table_row(heads)
    yield "|" + "---|" * len(heads)
    for cell in row_settings(spec):
        runs = [record_of(spec, cell | column, by_settings) for column in columns]
        if any(runs):
            yield table_row([flags_text(cell), *cell_texts(runs, METRICS[show])])
    if "curve" in spec:
        run = record_of(spec, spec["curve"] | columns[0], by_settings)
        if run:
            yield from ["", *curve_lines(f"{flags_text(spec['curve'] | columns[0])}", run["curve"])]


def table_row(texts):
    return f"| {' | '.join(texts)} |"


def cell_texts(runs, text_of):
    """Parameters, steps and minutes of a row, then its metric in each column"""
    known = [run for run in runs if run]
    steps, minutes = ([run["steps"] for run in known], [run["seconds"] / 60 for run in known])
    texts = [f"{known[0]['parameters']:,}", span(steps, ","), span(minutes, ".1f")]
    for run in runs:
        if run is None or run["status"] != "ok":
            texts.append("" if run is None else run["status"])
        else:
            texts.append(text_of(run, run["metrics"][str(run["config"]["length"])]))
    return texts


def span(values, form):
    low, high = (format(value, form) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def curve_lines(title, points):
    """A row per point of a learning curve; of heads, the highest score of each layer"""
    of_heads = "; of the heads of each layer, the highest score" if "induction" in points[0] else ""
    yield f"`{title}` over training{of_heads}:"
    yield ""
    names = [name for name in points[0] if name not in ("n", "token")]
    yield table_row(names)
    yield "|" + "---|" * len(names)
    for point in points:
        yield table_row([point_text(point[name]) for name in names])


def point_text(value):
    if isinstance(value, list):
        return ", ".join(f"{max(heads):.2f}" for heads in value)
    return str(value) if isinstance(value, int) else f"{value:.3g}"


# ---- from a spec to settings, and from settings to records -----------------------------------


def common_settings(spec):
    """The dials of one value that all cells have"""
    return {name: value for name, value in spec.items()
            if name not in OTHER_LINES and len(grid.dial_values(name, value)) == 1}


def row_settings(spec):
    """[{dial: value}] of each row"""
    names = [name for name in spec if name not in (*OTHER_LINES, *COLUMNS)
             and len(grid.dial_values(name, spec[name])) > 1]
    tables = spec.get("cells", [{}])
    return [settings | cell for cell in tables for settings in settings_of(spec, names)]


def settings_of(spec, names):
    """[{dial: value}]: every combination of the values of these dials"""
    spec = {"seed": list(range(spec.get("seeds", 3)))} | spec
    several = {name: values for name in names if name in spec
               and (len(values := grid.dial_values(name, spec[name])) > 1 or name == "seed")}
    return [dict(zip(several, values)) for values in itertools.product(*several.values())]


def record_of(spec, settings, by_settings):
    """The record of a run, or None"""
    lines = parsed(common_settings(spec) | settings)
    config = Config(**{name: values[0] for name, values in lines.items()}).resolve()
    return by_settings.get(settings_key(dataclasses.asdict(config)))


def settings_key(config):
    """A text equal for equal configurations, fields that an older version lacks at their defaults"""
    default = {field.name: field.default for field in dataclasses.fields(Config)}
    return json.dumps(default | config, sort_keys=True)


def flags_text(settings):
    """{dial: value} as flags of train.py"""
    return " ".join(word for name, value in settings.items() for word in flag_words(name, value))
