"""The table of a sweep in Markdown: a row per cell of its spec, a column per rate and seed.

    python -m minitron report --markdown results/gallery/induction.toml
"""
import dataclasses
import json
from itertools import product

from ..base.errors import MinitronError
from ..data.command_line import flag_words
from ..data.config import Config
from ..sweep.spec import dial_lines, first_seeds, parsed
from . import phase
from .page import CURVES, HEADS, highest

COLUMNS = ("lr", "seed")        # dials of the columns; others with several values make rows


# ---- metrics: a record, and its test metrics at the dial's length -> a text -----------------


def exact(record, metrics):
    return f"{metrics['exact']:.1%}"


def exact_by_length(record, metrics):
    longest = record["config"]["length"]
    return ", ".join(f"{length}: {at['exact']:.0%}" for length, at in record["metrics"].items()
                     if int(length) >= longest)


def nll(record, metrics):
    return f"{metrics['nll']:.4f}"


def nll_above_reference(record, metrics):
    nats = next(iter(metrics["reference"].values()))
    return f"{metrics['nll'] - nats:+.4f}"


def sampled(record, metrics):
    reference = metrics["sampled_reference"]
    return ", ".join(f"{share:.1%} ({reference[temperature]:.1%})"
                     for temperature, share in metrics["sampled"].items())


def token_by_group(record, metrics):
    return ", ".join(f"{group}: {at['token']:.0%}" for group, at in metrics["groups"].items())


def steps_to_grok(record, metrics):
    steps = record["reached"]["nll 0.1"] or f"not in {record['steps']}"
    return f"{steps}, exact {metrics['exact']:.1%}"


METRICS = {                     # that `show` can name, each with its heading
    "exact": (exact, "exact match"),
    "exact_by_length": (exact_by_length, "exact match by length, from the longest trained on"),
    "nll": (nll, "nll"),
    "nll_above_reference": (nll_above_reference, "nll above the best there can be"),
    "sampled": (sampled, "right answers sampled at temperatures 1, 0.5, 0.25 (closed form)"),
    "token_by_group": (token_by_group, "token accuracy by kind"),
    "steps_to_grok": (steps_to_grok, "steps until the held-out nll is below 0.1"),
}


# ---- the table ------------------------------------------------------------------------------


def markdown_lines(name, spec, records):
    """The table of a spec, {name: value}, and the learning curve that it names

    Rows whose runs are all missing are left out.  records: of its ledger, in any order.  Raises
    MinitronError.
    """
    metric, heading = metric_named(spec.get("show", "exact"))
    fixed, rows, columns = settings_of(spec)
    by_settings = {settings_key(record["config"]): record for record in records}

    def run_at(row, column):
        return by_settings.get(settings_key(resolved(fixed | row | column)))

    yield f"`python train.py {flags_text(fixed)}` and: {heading}"
    yield ""
    heads = [name, "parameters", "steps", "minutes"]
    heads += [flags_text(column).removeprefix("--") for column in columns]
    yield from table_head(heads)
    for row in rows:
        runs = [run_at(row, column) for column in columns]
        if any(runs):
            yield table_row([flags_text(row), *cell_texts(runs, metric)])
    if "curve" in spec:
        row = curve_row(spec, rows)
        run = run_at(row, columns[0])
        if run and run["curve"]:
            yield from ["", *curve_lines(flags_text(row | columns[0]), run["curve"])]


def metric_named(show):
    """-> function, heading.  Raises MinitronError."""
    if show not in METRICS:
        raise MinitronError(f"show {show!r} is unknown: use {', '.join(METRICS)}")
    return METRICS[show]


def table_head(heads):
    yield table_row(heads)
    yield "|" + "---|" * len(heads)


def table_row(texts):
    return f"| {' | '.join(texts)} |"


def cell_texts(runs, metric):
    """Parameters, steps and minutes of a row, then its metric in each column"""
    finished = [run for run in runs if run and "steps" in run]
    texts = ["", "", ""]
    if finished:
        texts = [f"{finished[0]['parameters']:,}",
                 span([run["steps"] for run in finished], ","),
                 span([run["seconds"] / 60 for run in finished], ".1f")]
    return texts + ["" if run is None else run_text(run, metric) for run in runs]


def run_text(run, metric):
    """The metric of a run, or the status of one that failed.  Raises MinitronError."""
    metrics = phase.test_metrics(run)
    if metrics is None:
        return run["status"] if run["status"] != "ok" else "n/a"
    try:
        return metric(run, metrics)
    except (KeyError, TypeError):           # not measured on this task
        raise MinitronError(f"show {metric.__name__!r} is not a metric of task "
                            f"{run['config']['task']}") from None


def span(values, form):
    low, high = (format(value, form) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def curve_lines(title, points):
    """A row per point of a learning curve; of heads, the highest score of each layer"""
    of_heads = "; of the heads of each layer, the highest score" if "induction" in points[0] else ""
    yield f"`{title}` over training{of_heads}:"
    yield ""
    names = [name for name in ("step", *CURVES, *HEADS) if name in points[0]]
    yield from table_head(names)
    for point in points:
        yield table_row([point_text(point[name]) for name in names])


def point_text(value):
    if isinstance(value, list):
        return ", ".join(number_text(highest(heads), ".2f") for heads in value)
    return number_text(value, "" if isinstance(value, int) else ".3g")


def number_text(value, form):
    return format(value, form) if isinstance(value, (int, float)) else ""


# ---- from a spec to settings, and from settings to records ----------------------------------


def settings_of(spec):
    """-> {dial: value} that all cells have, [that of each row], [that of each column]

    The table of a row may replace dials of the first.
    """
    dials = parsed({"seed": first_seeds(spec.get("seeds", 3))} | dial_lines(spec))
    tables = [parsed(table) for table in spec.get("cells", [{}])]
    listed = {name for table in tables for name in table}
    fixed = {name: values[0] for name, values in dials.items()
             if len(values) == 1 and name != "seed"}
    columns = {name: dials[name] for name in COLUMNS
               if name in dials and name not in fixed and name not in listed}
    rows = {name: values for name, values in dials.items() if name not in fixed | columns}
    return (fixed, [row for table in tables for row in combinations(rows | table)],
            combinations(columns))


def combinations(dials):
    """{dial: values} -> [{dial: value}]"""
    return [dict(zip(dials, values)) for values in product(*dials.values())]


def curve_row(spec, rows):
    """The row that `curve` names.  Raises MinitronError."""
    [row] = combinations({name: values[:1] for name, values in parsed(spec["curve"]).items()})
    if row not in rows:
        raise MinitronError(f"curve {flags_text(row)!r} is not a row of the table: "
                            "name the dials of one row")
    return row


def resolved(settings):
    return dataclasses.asdict(Config(**settings).resolve())


def settings_key(config):
    """A text that is equal for equal configurations: fields that a record lacks are at defaults

    A record's own key will not do: it depends on the version of records, too.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    given = {name: value for name, value in config.items() if value is not None}
    return json.dumps(defaults | given, sort_keys=True)


def flags_text(settings):
    """{dial: value} as flags of train.py, 1.0 as 1"""
    texts = {name: int(value) if isinstance(value, float) and value.is_integer() else value
             for name, value in settings.items()}
    return " ".join(word for name, value in texts.items() for word in flag_words(name, value))
