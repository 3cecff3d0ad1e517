"""The record of a run: one JSON line in a ledger, and the text that is printed from it.

Next: run.py in training/, which makes records; sweep/ledger.py, which reads them.
"""
import dataclasses
import json
import platform
import subprocess
from ctypes import CDLL, c_char_p
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..base.environment import ROOT
from ..base.errors import MinitronError
from ..base.files import append_line
from ..data import tasks
from ..data.config import RECORD_VERSION
from .evaluate import LEARNT, normalized_score

PARTLY = 0.5            # normalized score from which on an ability has partly emerged
CURVE_POINTS = 20       # of a learning curve, at most, in a record


# ---- the record ----------------------------------------------------------------------------------


def make_record(config, task, status, parameters, progress, metrics, scored_by, threads):
    """The record of a run, a dict

    status: ok, diverged; progress: the checkpoint's; metrics: {length: metrics}, or {}
    """
    return identity(config.key(task), config, status) | {
        "metrics": {str(length): at_length for length, at_length in metrics.items()},
        "curve": evenly_spaced(progress["curve"], CURVE_POINTS),
        "reached": first_steps_to(progress["curve"]),
        "steps": progress["step"],
        "parameters": parameters,
        "flops": progress["flops"],
        "tokens": progress["tokens"],
        "seconds": round(progress["seconds"], 3),
        "scored_by": scored_by,
        "threads": threads,
    } | software()


def failed_record(key, config, status, reason, seconds):
    """The record of a run that ended without one.      status: failed, timeout, killed"""
    failure = {"reason": reason, "metrics": {}, "curve": [], "seconds": round(seconds, 3)}
    return identity(key, config, status) | failure | software()


def identity(key, config, status):
    """The first fields of a record: which run it is of, and how the run ended"""
    return {"key": key, "version": RECORD_VERSION, "status": status,
            "config": dataclasses.asdict(config), "seed": config.seed}


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
    try:
        open(ledger, "ab").close()
    except OSError as error:
        raise MinitronError(f"ledger {ledger} cannot be written: {error.strerror}") from None


def append_record(ledger, record):
    append_line(ledger, json.dumps(record, allow_nan=False))


# ---- the software of a run -----------------------------------------------------------------------


def software():
    """The last fields of a record: the versions that its numbers may depend on"""
    return {"commit": source_commit(), "python": platform.python_version(),
            "numpy": np.__version__, "blas": blas_name()}


@lru_cache(maxsize=1)
def source_commit():
    """The source's commit, with a + if files differ from it; None outside of a repository"""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None


@lru_cache(maxsize=1)
def blas_name():
    """Name and version of the matrix library; of NumPy's own OpenBLAS also the kernel; or None

    Bits depend on the kernel, which is chosen for the processor: the last digits of one matrix
    product differ between two of them.
    """
    try:
        library = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    except (TypeError, KeyError):           # a build of NumPy without these
        return None
    kernel = ""
    for path in Path(np.__file__).parent.parent.glob("numpy.libs/*openblas*"):
        name = getattr(CDLL(str(path)), "scipy_openblas_get_corename64_", None)
        if name is not None:
            name.restype = c_char_p
            kernel = " " + name().decode()
    return f"{library.get('name')} {library.get('version')}{kernel}"


# ---- its text ------------------------------------------------------------------------------------


def headline(config, task):
    """The line that is printed before training"""
    c = config
    return (f"{c.task} ({c.variant}), length {c.length}: "
            f"dim {c.dim}, layers {c.layers}, heads {c.heads} of width {c.head_dim}, "
            f"ffn {c.ffn_dim}; batch {c.batch}, at most {c.steps} steps, lr {c.lr:g}, "
            f"seed {c.seed}; run {c.key(task)}")


def result_text(record):
    """The text that is printed after training: metrics, costs, verdict"""
    r = record
    cost = (f"{r['parameters']:,} parameters, {r['steps']:,} steps, {r['tokens']:,} tokens, "
            f"{r['flops']:.3g} FLOPs, {r['seconds']:.1f} s; measured by {r['scored_by']}")
    return "\n".join([*metrics_lines(r["metrics"]), cost, verdict_sentence(r)])


def metrics_lines(metrics):
    """{length: metrics} -> a header, a row per length, and below them the metrics of some tasks"""
    lines = ["length   exact (95% interval)   chance  p^length    token   chance     nll   brier"
             "    edit  problems"]
    lines += [f"{length:>6} {metrics_row(r)}" for length, r in metrics.items()]
    for length, r in metrics.items():
        lines += [f"length {length}: {line}" for line in task_metrics_lines(r)]
    return lines


def metrics_row(r):
    """The columns of one length"""
    if r["n"] == 0:
        return "  the test split has no problems of this length"
    interval = f"({100 * r['exact_low']:.1f}-{100 * r['exact_high']:.1f})"
    edit = "" if r["edit"] is None else f"{r['edit']:.4f}"
    return (f"{r['exact']:>7.2%} {interval:>14}  {r['chance_exact']:>6.2%}   "
            f"{r['p_length']:>7.2%}  {r['token']:>7.2%}   {r['chance_token']:>6.2%}  "
            f"{r['nll']:>6.4f}  {r['brier']:>6.4f}  {edit:>6}  {r['n']:>8,}")


def task_metrics_lines(r):
    """A line for each metric that only some tasks have"""
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
    """Whether the ability emerged, by the normalized score at the length of the dial"""
    c = record["config"]
    dials = f"dim {c['dim']}, length {c['length']}"
    if record["status"] != "ok":
        return f"No verdict: {c['task']} at {dials} ended as {record['status']}."
    r = record["metrics"][str(c["length"])]
    if r["n"] == 0:
        return (f"No verdict: {c['task']} at {dials} has no test problems; "
                "use a smaller --train-fraction.")
    if not tasks.module(c["task"]).EXACT:
        return (f"No verdict: {c['task']} has no right answers, only a distribution.  At {dials}: "
                f"{r['nll'] / np.log(2):.2f} bits per token on the test problems.")
    problems = "that training showed" if c["task"] == "memory" else "that training never saw"
    result = (f"{c['task']} at {dials}: {r['exact']:.1%} of the problems {problems} are solved "
              f"(chance {r['chance_exact']:.1%}).")
    score = normalized_score(r["exact"], r["chance_exact"])
    if score >= LEARNT:
        return f"Emerged.  {result}"
    if score >= PARTLY:
        return f"Partly emerged.  {result}"
    return f"Not emerged.  {result}  Not yet?  Turn a dial: --dim, --steps, --lr, --layers."
