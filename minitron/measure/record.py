"""The record of a run: one JSON line in a ledger, and the text that is printed from it.

Next: run.py in training/, which makes records; sweep/ledger.py, which reads them.
"""
import dataclasses
import json
import math
import os
import platform
import subprocess
import textwrap
from functools import lru_cache

import numpy as np

from ..base import blas
from ..base.environment import ROOT
from ..base.errors import MinitronError
from ..base.files import append_line
from ..data.config import RECORD_VERSION
from . import learnt
from .learnt import LEARNT, PARTLY

EMERGED, PART, NOT = "Emerged.", "Partly emerged.", "Not emerged."
CURVE_POINTS = 20       # of a learning curve, at most, in a record


# ---- the record ----------------------------------------------------------------------------------


def make_record(config, task, status, parameters, progress, metrics, scored_by, threads):
    """The record of a run, a dict

    status: ok, diverged; progress: the checkpoint's; metrics: {length: metrics}, or {}
    """
    curve = finite_or_none(progress["curve"])
    return identity(config.key(task), config, status) | {
        "metrics": {str(length): at_length for length, at_length in metrics.items()},
        "curve": evenly_spaced(curve, CURVE_POINTS),
        "reached": first_steps_to(curve),
        "steps": progress["step"],
        "parameters": parameters,
        "flops": progress["flops"],
        "tokens": progress["tokens"],
        "seconds": round(progress["seconds"], 3),
        "scored_by": scored_by,
        "threads": threads,
        "numerics_before": progress["numerics"][:-1],
    } | software()


def failed_record(key, config, status, reason, seconds):
    """The record of a run that ended without one.      status: failed, timeout, killed"""
    failure = {"reason": reason, "metrics": {}, "curve": [], "seconds": round(seconds, 3)}
    # No run of this process: its own BLAS threads would say nothing about that one's.
    unknown = {"blas_threads": None}
    return identity(key, config, status) | failure | software() | unknown


def identity(key, config, status):
    """The first fields of a record: which run it is of, and how the run ended"""
    return {"key": key, "version": RECORD_VERSION, "status": status,
            "config": dataclasses.asdict(config), "seed": config.seed}


def finite_or_none(value):
    """A JSON value with None in place of each number that is not finite"""
    if isinstance(value, dict):
        return {name: finite_or_none(item) for name, item in value.items()}
    if isinstance(value, list):
        return [finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def nonfinite_names(values):
    """Names of the values, {name: JSON value}, in which a number is not finite"""
    return [name for name, value in values.items() if finite_or_none(value) != value]


def first_steps_to(curve):
    """{threshold: the first step of the learning curve that is past it, or None}"""
    def first(name, is_past):
        steps = (point["step"] for point in curve
                 if point[name] is not None and is_past(point[name]))
        return next(steps, None)

    return {
        "exact 0.5": first("exact", lambda exact: exact >= 0.5),
        "exact 0.99": first("exact", lambda exact: exact >= 0.99),
        "nll 1": first("nll", lambda nll: nll < 1),
        "nll 0.1": first("nll", lambda nll: nll < 0.1),
    }


def evenly_spaced(points, limit):
    """At most `limit` of the points, the first and the last among them"""
    if len(points) <= limit:
        return points
    return [points[round(i * (len(points) - 1) / (limit - 1))] for i in range(limit)]


def touch_ledger(ledger):
    """Raises MinitronError if no line can be appended."""
    try:            # a pipe that nobody reads would make other ways of opening it wait for ever
        no_wait = getattr(os, "O_NONBLOCK", 0)
        os.close(os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT | no_wait, 0o666))
    except OSError as error:
        raise MinitronError(f"ledger {ledger} cannot be written: {error.strerror}") from None


def append_record(ledger, record):
    append_line(ledger, json.dumps(record, allow_nan=False))


# ---- the software of a run -----------------------------------------------------------------------


def software():
    """The last fields of a record: the versions that its numbers may depend on"""
    return {"commit": source_commit(), "python": platform.python_version()} | blas.numerics()


@lru_cache(maxsize=1)
def source_commit():
    """The source's commit, with a + if files differ from it; None outside of a repository"""
    command = ["git", "-C", str(ROOT), "--git-dir=.git",        # not of a folder above
               "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None


# ---- its text ------------------------------------------------------------------------------------


def headline(config, task):
    """The lines that are printed before training"""
    c = config
    model = (f"{c.task} ({c.variant}), length {c.length}: dim {c.dim}, layers {c.layers}, "
             f"heads {c.heads} of width {c.head_dim}, ffn {c.ffn_dim}")
    training = (f"batch {c.batch}, at most {c.steps} steps, lr {c.lr:g}, seed {c.seed}; "
                f"run {c.key(task)}")
    return "\n".join([*wrapped(model), *wrapped(training)])


def result_text(record):
    """The text that is printed after training: metrics, costs, verdict"""
    r = record
    cost = (f"{r['parameters']:,} parameters, {r['steps']:,} steps, {r['tokens']:,} tokens, "
            f"{r['flops']:.3g} FLOPs, {r['seconds']:.1f} s; measured by {r['scored_by']}")
    return "\n".join([*metrics_lines(r["metrics"]), *wrapped(cost), *wrapped(verdict_sentence(r))])


def wrapped(text, first="", others=""):
    """Lines of at most 80 columns, which begin with `first`, and after it with `others`"""
    return textwrap.wrap(text, 80, initial_indent=first, subsequent_indent=others,
                         break_long_words=False, break_on_hyphens=False)


def metrics_lines(metrics):
    """{length: metrics} -> a header, a row per length, and below them the metrics of some tasks"""
    lines = ["length  problems  exact (95% interval)  chance p^length   token  chance     nll"]
    lines += [f"{length:>6} {metrics_row(r)}" for length, r in metrics.items()]
    for length, r in metrics.items():
        lines += [line for text in task_metrics_texts(r)
                  for line in wrapped(f"length {length}: {text}", others="  ")]
    return lines


def metrics_row(r):
    """The columns of one length"""
    if r["n"] == 0:
        return "        0  the test split has no problems of this length"
    interval = f"({100 * r['exact_low']:.1f}-{100 * r['exact_high']:.1f})"
    return (f"{r['n']:>9,}  {r['exact']:>7.2%} {interval:>12} {r['chance_exact']:>7.2%} "
            f"{r['p_length']:>8.2%} {r['token']:>7.2%} {r['chance_token']:>7.2%} {r['nll']:>7.4f}")


def task_metrics_texts(r):
    """A text for each metric that only some tasks have"""
    if r.get("reference"):
        references = ", ".join(f"{name} {nll:.4f}" for name, nll in r["reference"].items())
        yield f"nll {r['nll']:.4f}; {references}"
    if r.get("icl") is not None:
        yield ("in-context learning: nll of a row's last tenth less that of its first "
               f"{r['icl']:+.4f}")
    if r.get("groups"):
        yield "exact match by kind: " + ", ".join(
            f"{kind}: {group['exact']:.1%} of {group['n']}" for kind, group in r["groups"].items())
    if r.get("sampled"):
        closed = {t: f" (closed form {p:.2%})" for t, p in r["sampled_reference"].items()}
        yield "right when sampled at temperature " + ", ".join(
            f"{t}: {p:.2%}{closed.get(t, '')}" for t, p in r["sampled"].items())


def verdict_sentence(record):
    """Whether the ability emerged, by the least score at the trained lengths, or why not"""
    c, worst = record["config"], learnt.least(record)
    run = f"{c['task']} at dim {c['dim']}, length {c['length']}"
    if record["status"] != "ok":
        return f"No verdict: {run} ended as {record['status']}."
    if worst is None or not learnt.has_right_answers(c["task"], worst[1]):
        return f"No verdict: {run} {why_no_score(record)}"
    r = worst[1]
    word = emerged(*learnt.score_interval(c["task"], r))
    lengths = len(learnt.judged(record))
    share = f"at each of {lengths} lengths at least " * (lengths > 1) + f"{r['exact']:.1%}"
    problems = "training showed" if c["task"] == "memory" else "training never saw"
    again = "  Not yet?  Turn a dial: --dim, --steps, --lr, --layers." * (word == NOT)
    return (f"{word}  {run}: {share} of the problems that {problems} are solved "
            f"(chance {r['chance_exact']:.1%}).{again}")


def why_no_score(record):
    """The rest of a sentence that begins with the run"""
    tests = learnt.trained(record)
    if not tests:
        return "has no test problems; use a smaller --train-fraction."
    if not learnt.has_right_answers(record["config"]["task"], tests[max(tests)]):
        return distribution_text(tests[max(tests)])
    most = max(metrics["n"] for metrics in tests.values())
    return (f"has too few test problems to say ({most}); with {learnt.ENOUGH} or more of a "
            "length it could: use a smaller --train-fraction.")


def distribution_text(metrics):
    return (f"has no right answers, only a distribution: {metrics['nll'] / np.log(2):.2f} bits per "
            "token on the test problems.")


def emerged(low, high):
    """The words for a normalized score that lies in an interval"""
    words = [EMERGED if score >= LEARNT else PART if score >= PARTLY else NOT
             for score in (low, high)]
    if words[0] == words[1]:
        return words[0]
    return (f"{words[0][:-1]} or {words[1][:-1].lower()}: the interval of the score, {low:.2f} to "
            f"{high:.2f}, does not say.")
