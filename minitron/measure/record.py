"""What is kept of a run: one JSON line in a ledger, and the table that is printed of it."""
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

EMERGED, PARTLY = 0.9, 0.5      # share of the way from chance to perfect at which an ability counts as there, as half there


def make_record(config, task, status, parameters, progress, metrics, scored_by, threads):
    """The record of a run.      status: ok, diverged; progress: the checkpoint's; metrics: {length: numbers} or {}"""
    return head(config, task, status) | {
        "metrics": {str(length): numbers for length, numbers in metrics.items()},
        "curve": thin(progress["curve"], 20),
        "reached": reached(progress["curve"]),
        "steps": progress["step"],
        "parameters": parameters,
        "flops": progress["flops"],
        "tokens": progress["tokens"],
        "seconds": round(progress["seconds"], 3),
        "scored_by": scored_by,
        "threads": threads,
    } | here()


def failed(config, status, reason, seconds):
    """The record of a run that gave none itself.      status: timeout, killed"""
    nothing = {"metrics": {}, "curve": [], "seconds": round(seconds, 3)}
    return head(config, tasks.load(config), status) | {"reason": reason} | nothing | here()


def head(config, task, status):
    return {"key": config.key(task), "version": RECORD_VERSION, "status": status, "config": dataclasses.asdict(config),
            "seed": config.seed}


def here():
    """What ran it"""
    return {"commit": commit(), "python": platform.python_version(), "numpy": np.__version__, "blas": blas()}


def reached(curve):
    """The first step at which an evaluation of held-out problems found so much, None where none did."""
    def first(name, there):
        return next((point["step"] for point in curve if point[name] is not None and there(point[name])), None)

    return {"exact 0.5": first("exact", lambda x: x >= 0.5), "exact 0.99": first("exact", lambda x: x >= 0.99),
            "nll 1": first("nll", lambda x: x < 1), "nll 0.1": first("nll", lambda x: x < 0.1)}


def touch_ledger(ledger):
    """Raises MinitronError where no line could be appended."""
    try:
        open(ledger, "ab").close()
    except OSError as error:
        raise MinitronError(f"ledger {ledger} cannot be written: {error.strerror}") from None


def append_record(ledger, record):
    append_line(ledger, json.dumps(record, allow_nan=False))


def thin(curve, most):
    """At most `most` points, evenly spread, the last always among them."""
    if len(curve) <= most:
        return curve
    return [curve[round(i * (len(curve) - 1) / (most - 1))] for i in range(most)]


@lru_cache(maxsize=1)
def commit():
    """The source's commit, with a + where files differ from it; None outside a repository."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"],
                              capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


@lru_cache(maxsize=1)
def blas():
    """The matrix library and, for the OpenBLAS that comes with NumPy's wheels, the kernel it chose for this processor.

    Bits depend on it: one product through two kernels differs in its last digits.
    """
    try:
        about = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    except (TypeError, KeyError):           # builds of NumPy that do not say
        return None
    kernel = ""
    for path in Path(np.__file__).parent.parent.glob("numpy.libs/*openblas*"):
        name = getattr(CDLL(str(path)), "scipy_openblas_get_corename64_", None)
        if name is not None:
            name.restype = c_char_p
            kernel = " " + name().decode()
    return f"{about.get('name')} {about.get('version')}{kernel}"


def headline(config, task):
    """One line that says what is going to be trained."""
    c = config
    return (f"{c.task} ({c.variant}), length {c.length}: dim {c.dim}, layers {c.layers}, heads {c.heads} of width {c.head_dim}, "
            f"ffn {c.ffn_dim}; batch {c.batch}, at most {c.steps} steps, lr {c.lr:g}, seed {c.seed}; run {c.key(task)}")


def table(record):
    """The printed end of a run: the panel, what it cost, and whether the ability emerged."""
    lines = panel(record["metrics"])
    lines.append(f"{record['parameters']:,} parameters, {record['steps']:,} steps, {record['tokens']:,} tokens, "
                 f"{record['flops']:.3g} FLOPs, {record['seconds']:.1f} s; measured by {record['scored_by']}")
    return "\n".join(lines + [verdict(record)])


def panel(metrics):
    """Lines: one row a length, {length: numbers}, and below them what only some tasks have."""
    lines = ["length   exact (95% interval)   chance  p^length    token   chance     nll   brier    edit  problems"]
    for length, r in metrics.items():
        if r["n"] == 0:
            lines.append(f"{length:>6}   none of this length's problems is in the test split")
            continue
        edit = "" if r["edit"] is None else f"{r['edit']:.4f}"
        lines.append(f"{length:>6} {r['exact']:>7.2%} {interval(r):>14}  {r['chance_exact']:>6.2%}   {r['p_length']:>7.2%}  "
                     f"{r['token']:>7.2%}   {r['chance_token']:>6.2%}"
                     f"  {r['nll']:>6.4f}  {r['brier']:>6.4f}  {edit:>6}  {r['n']:>8,}")
    for length, r in metrics.items():
        lines += [f"length {length}: {line}" for line in more(r)]
    return lines


def interval(r):
    return f"({100 * r['exact_low']:.1f}-{100 * r['exact_high']:.1f})"


def more(r):
    """Lines for what only some tasks have."""
    if r.get("reference"):
        yield f"nll {r['nll']:.4f}; " + ", ".join(f"{name} {nats:.4f}" for name, nats in r["reference"].items())
    if r.get("icl") is not None:
        yield f"in-context learning: nll of a row's last tenth less that of its first {r['icl']:+.4f}"
    if r.get("groups"):
        yield "exact match by kind: " + ", ".join(f"{kind}: {of['exact']:.1%} of {of['n']}" for kind, of in r["groups"].items())
    if r.get("sampled"):
        closed = r["sampled_reference"]
        yield "right when sampled at temperature " + ", ".join(
            f"{t}: {share:.2%}" + (f" (closed form {closed[t]:.2%})" if t in closed else "") for t, share in r["sampled"].items())


def verdict(record):
    """One sentence: whether the ability emerged, by the exact match at the length of the dial, less what chance gives."""
    c = record["config"]
    at = f"at dim {c['dim']}, length {c['length']}"
    if record["status"] != "ok":
        return f"No verdict: {c['task']} {at} ended as {record['status']}."
    r = record["metrics"][str(c["length"])]
    if r["n"] == 0:
        return f"No verdict: {c['task']} {at} has no test problems; use a smaller --train-fraction."
    if not tasks.module(c["task"]).EXACT:
        bits = r["nll"] / np.log(2)
        return f"No verdict, for {c['task']} is to learn a distribution: {at}, {bits:.2f} bits per token on the test problems."
    exact, chance = r["exact"], r["chance_exact"]
    found = f"{c['task']} {at}: {exact:.1%} of the problems {asked(c['task'])} are solved (chance {chance:.1%})."
    if exact - chance >= EMERGED * (1 - chance):
        return f"Emerged.  {found}"
    if exact - chance >= PARTLY * (1 - chance):
        return f"Partly emerged.  {found}"
    return f"Not emerged.  {found}  Not yet?  Turn a dial: --dim, --steps, --lr, --layers."


def asked(task):
    return "that training showed" if task == "memory" else "that training never saw"
