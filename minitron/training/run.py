"""A run from start to finish, around the loop in train.py: what is loaded, watched, saved, exported.

Next: train.py, the loop; measure/evaluate.py, the metrics.
"""
import dataclasses
import os
import sys
import time
from pathlib import Path

import numpy as np

from ..base.environment import available_cpus
from ..base.errors import MinitronError
from ..data import batches, tasks
from ..data.config import Config
from ..engine import model_file
from ..engine.engine import Engine, EngineMissing
from ..measure import evaluate, heads, hidden, record
from ..model.params import Params, decay_mask, init
from . import checkpoint

HELD_OUT_TOKENS = 2**13     # scored at each evaluation during training: about the work of two steps
SOLVED = 0.999              # exact match at which a task counts as solved, if two evaluations in a
ENOUGH = 50                 # row reach it on at least this many problems: a few can be right by luck


class Diverged(MinitronError):
    """The loss or the gradient is no longer a finite number.      record: the run's"""

    def __init__(self, reason, record):
        super().__init__(reason)
        self.record = record


@dataclasses.dataclass
class Run:
    """A training run in progress."""

    config: Config
    task: tasks.Task
    out: str
    ledger: object          # a path, or None
    threads: int            # that work on a step
    p: Params               # weights
    m: Params               # AdamW's two moments
    v: Params
    decay: np.ndarray       # weight decay of each entry of p.flat
    held_out: evaluate.Problems     # validation problems, which decide when the task is solved
    first: np.ndarray       # weights before training, flat
    progress: dict          # kept in the checkpoint beside p, m and v
    began: float = 0.0      # monotonic clock, moved back by the time before a resume

    @property
    def checkpoint(self):
        return Path(f"{self.out}.ckpt")


def start(config, out, ledger, resume, threads):
    """A Run at its first step, or at its checkpoint.  Raises MinitronError for all that can be known to fail."""
    task = tasks.load(config)
    check_paths(out, ledger)
    record.commit()         # read now: the source may be edited during the run
    rows = max(1, HELD_OUT_TOKENS // task.width)
    p = init(config)
    run = Run(
        config, task, out, ledger, min(config.shards, threads or available_cpus()),
        p, Params(config), Params(config), config.weight_decay * decay_mask(config),
        evaluate.problems(task, config, config.length, "valid", rows), p.flat.copy(),
        checkpoint.new_progress())
    if resume:
        run.progress = checkpoint.load(run.checkpoint, config, config.key(task), run.p, run.m, run.v)
    else:
        checkpoint.refuse_to_overwrite(run.checkpoint)
    run.began = time.monotonic() - run.progress["seconds"]
    save(run)               # a full disk or a read-only directory shows now, not in an hour
    return run


def check_paths(out, ledger):
    """Raises MinitronError if the model or the record could not be written."""
    if os.path.isdir(out) or not str(out):
        raise MinitronError(f"{str(out)!r} is a directory: give --out the name of a file")
    if not os.path.isdir(Path(out).parent):
        raise MinitronError(f"{str(Path(out).parent)!r} is not a directory: make it, "
                            "or give --out another place")
    if ledger is not None:
        if Path(ledger).resolve() == Path(out).resolve():
            raise MinitronError(f"{out} cannot be both --out and --ledger: rename one of them")
        record.touch_ledger(ledger)


def save(run):
    """Write the checkpoint."""
    run.progress["seconds"] = time.monotonic() - run.began
    key = run.config.key(run.task)
    checkpoint.save(run.checkpoint, run.config, key, run.p, run.m, run.v, run.progress)


def diverged(run, step, loss, norm, g):
    """The Diverged of a step whose loss, gradient norm or weights are not finite; appends its record."""
    result = write_record(run, "diverged", {}, None)
    culprit = run.p.first_nonfinite() or g.first_nonfinite() or "logits"
    return Diverged(f"step {step}: loss {loss:g}, gradient {norm:g}, first tensor that is not finite: "
                    f"{culprit}; {run.checkpoint} holds the last checkpoint: delete it and use an --lr "
                    f"below {run.config.lr:g}", result)


def evaluate_held_out(run, workers, loss):
    """Append a point to the learning curve and return it: the batch's loss, the validation metrics."""
    score = evaluate.numpy_scorer(run.p, run.config)
    metrics = evaluate.measure(score, run.held_out, each=workers.map)
    point = {"step": run.progress["step"], "loss": loss}
    point |= {name: metrics[name] for name in ("n", "nll", "token", "exact")}
    point |= {"norm": hidden.norm(run.p), "distance": hidden.distance(run.p, run.first)}
    point |= instruments(run)
    run.progress["curve"].append(point)
    solved = run.task.exact and point["n"] >= ENOUGH and point["exact"] >= SOLVED
    run.progress["solved"] = run.progress["solved"] + 1 if solved else 0
    return point


def instruments(run):
    """Readings of the task's instruments: of the embedding, or of each head, layer by layer"""
    readings, watch = {}, run.task.module.WATCH
    if "fourier" in watch:
        readings["fourier"] = hidden.fourier(run.p.embed[:run.task.length])
    if "heads" in watch and len(run.held_out.inputs):
        rows = slice(heads.few(run.held_out.inputs.shape[1]))
        inputs, positions = run.held_out.inputs[rows], run.held_out.positions
        positions = None if positions is None else positions[rows]
        weights = heads.attention_weights(run.p, run.config, inputs, positions)
        scores = heads.head_scores(weights, inputs, run.held_out.targets[rows] >= 0)
        readings |= {name: score.round(4).tolist() for name, score in scores.items()}
    return readings


def finish(run):
    """Export the model, measure it, append the record; only then delete the checkpoint.

    In this order a kill at any moment loses nothing.
    """
    export_model(run)
    metrics, scored_by = measure(run)
    result = write_record(run, "ok", metrics, scored_by)
    run.checkpoint.unlink()
    return result


def export_model(run):
    """Write the model file."""
    task, eos = run.task, len(run.task.pieces) - 1 if run.task.ends else None
    vocabulary = model_file.Vocabulary(task.pieces, task.context, task.bos, eos, task.temperature)
    provenance = {"key": run.config.key(task), "task": task.version,
                  "example": batches.example(task)[0], "config": dataclasses.asdict(run.config)}
    model_file.write_model(run.out, run.config, run.p, vocabulary, provenance)


def measure(run):
    """-> {length: metrics} on the test problems, and what ran the model: run.c, or NumPy without it"""
    try:
        with Engine(run.out, run.threads) as engine:
            score = evaluate.engine_scorer(engine)
            return evaluate.evaluate_all(score, run.task, run.config), "run.c"
    except EngineMissing as missing:
        print(f"minitron: {missing}; measured with NumPy instead", file=sys.stderr)
        score = evaluate.numpy_scorer(run.p, run.config)
        return evaluate.evaluate_all(score, run.task, run.config), "NumPy"


def write_record(run, status, metrics, scored_by):
    """The run's record, appended to its ledger.      status: ok, diverged"""
    run.progress["seconds"] = time.monotonic() - run.began
    result = record.make_record(run.config, run.task, status, run.p.count(), run.progress, metrics,
                                scored_by, run.threads)
    if run.ledger is not None:
        record.append_record(run.ledger, result)
    return result
