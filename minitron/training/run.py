"""A training run from start to finish, around the loop in train.py: load, evaluate, save, export.

Next: train.py, the loop; measure/evaluate.py, the metrics.
"""
import contextlib
import dataclasses
import os
import re
import sys
import time
from pathlib import Path

import numpy as np

from ..base import blas
from ..base.cli import dashed
from ..base.environment import available_cpus
from ..base.errors import MinitronError
from ..base.files import locked
from ..base.rng import GALLERY, Random
from ..base.terminal import bar_of_lengths
from ..data import batches, tasks
from ..data.config import Config, split_hash, with_hash
from ..engine import model_file
from ..engine.engine import Engine, EngineMissing
from ..measure import evaluate, heads, hidden, record
from ..measure.learnt import ENOUGH
from ..model.params import Params, decay_mask, init
from . import checkpoint

HELD_OUT_TOKENS = 2**13     # scored at each evaluation during training: the work of about two steps
SOLVED_EXACT = 0.999        # exact match that solves a task, at two evaluations in a row
SAMPLE = 64                 # rows of each length that tell what prompts look like


class Diverged(MinitronError):
    """The loss, the gradient or a metric is not a finite number.      record: the run's"""

    def __init__(self, reason, record):
        super().__init__(reason)
        self.record = record


@dataclasses.dataclass
class Run:
    """A training run in progress."""

    config: Config
    task: tasks.Task
    out: str                # path of the model file
    ledger: object          # path, or None
    threads: int            # that work on a step
    quiet: bool             # shows nothing
    p: Params               # weights
    m: Params               # AdamW's two moments
    v: Params
    decay: np.ndarray       # weight decay of each entry of p.flat
    initial: np.ndarray     # p.flat before training
    held_out: evaluate.Problems     # validation problems, which decide when the task is solved
    progress: dict          # kept in the checkpoint beside p, m and v
    start_time: float = 0.0 # on the monotonic clock, earlier by the time before a resume

    @property
    def checkpoint(self):
        return Path(f"{self.out}.ckpt")

    @property
    def key(self):
        return self.config.key(self.task)


# ---- start ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def start_run(config, out, ledger, resume, anyway, quiet, threads):
    """A context manager: a Run at its first step or at its checkpoint, saved.   config: resolved

    While entered, BLAS has one thread and no other process writes to `out`.  Raises MinitronError
    for all that can be known to fail later.
    """
    check_paths(out, ledger, config.init)
    record.source_commit()          # now: the source may be edited during the run
    no_warnings = np.errstate(over="ignore", invalid="ignore")              # Diverged tells
    with locked(out), blas.one_thread(), no_warnings:
        threads = min(config.shards, threads or available_cpus())
        run = new_run(config, out, ledger, threads, quiet)
        if resume:
            run.progress = checkpoint.restore(run.checkpoint, config, run.key, run.p, run.m, run.v,
                                              anyway)
        else:
            checkpoint.refuse_to_overwrite(run.checkpoint, config, run.key)
            checkpoint.set_numerics(run.progress)
        if not quiet:
            for line in notes(run, resume):
                print(line, file=sys.stderr)
        run.start_time = time.monotonic() - run.progress["seconds"]
        save_run(run)               # a full disk or a read-only folder shows now, not in an hour
        yield run


def new_run(config, out, ledger, threads, quiet=False):
    """A Run before its first step"""
    task = tasks.load(config)
    p = init(config) if config.init is None else weights_of(config, task)
    rows = max(1, HELD_OUT_TOKENS // task.width)
    return Run(
        config, task, out, ledger, threads, quiet,
        p=p, m=Params(config), v=Params(config),
        decay=config.weight_decay * decay_mask(config),
        initial=p.flat.copy(),
        held_out=evaluate.problems(task, config, config.length, "valid", rows),
        progress=checkpoint.new_progress())


def notes(run, resume):
    """Lines that tell the user about this run's bits, and about the file that it will replace"""
    if blas.thread_count() != 1:
        yield (f"minitron: {blas.name() or 'this BLAS'} cannot be set to one thread, or does not "
               "say so: the bits of this run may depend on how many it uses")
    if not resume and os.path.isfile(run.out):
        before, name = model_in(run.out)
        if before != run.key:
            yield f"{name} will be replaced"


def model_in(path):
    """(key, "model.bin of run abdf727252e0 (addition, dim 128)"), or (None, path) for others"""
    try:
        model, _, _, about = model_file.read_model(path)
        name = f"{path} of run {about['key']} ({about['config']['task']}, dim {model.dim})"
        return (about["key"], name) if name.isprintable() else (None, path)
    except (MinitronError, KeyError, TypeError):
        return None, path


def weights_of(config, task):
    """The Params of the model file that config.init names.  Raises MinitronError if it differs."""
    path, content = split_hash(config.init)
    if with_hash(path) != config.init:
        raise MinitronError(f"init {path} is not the file that it was, of hash {content}")
    model, p, vocabulary, _ = model_file.read_model(path)
    if vocabulary.pieces != task.pieces:
        raise MinitronError(f"init {path} has another vocabulary than task {task.name}")
    for name, value in dataclasses.asdict(model).items():
        if name != "plain" and value != getattr(config, name):
            raise MinitronError(f"init {path} has {dashed(name)} {value}, "
                                f"not {getattr(config, name)}: give the flags of its training")
    return p


def check_paths(out, ledger, init):
    """Raises MinitronError if the model or the record could not be written."""
    folder = Path(out).parent
    if not str(out):
        raise MinitronError("--out is empty: give the name of a file")
    if os.path.isdir(out):
        raise MinitronError(f"{str(out)!r} is a directory: give --out the name of a file")
    if not os.path.isdir(folder):
        raise MinitronError(f"{str(folder)!r} is not a directory: make it, or change --out")
    if init and Path(split_hash(init)[0]).resolve() == Path(out).resolve():
        raise MinitronError(f"{out} is both --init and --out: change --out")
    if ledger is None:
        return
    if Path(ledger).resolve() == Path(out).resolve():
        raise MinitronError(f"{out} is both --out and --ledger: rename one of them")
    record.touch_ledger(ledger)


# ---- during training -----------------------------------------------------------------------------


def save_run(run):
    """Write the checkpoint."""
    run.progress["seconds"] = time.monotonic() - run.start_time
    checkpoint.save(run.checkpoint, run.config, run.key, run.p, run.m, run.v, run.progress)


def evaluate_held_out(run, workers, loss):
    """Append a point to the learning curve and return it: the batch's loss, validation metrics.

    Raises Diverged.
    """
    score = evaluate.numpy_scorer(run.p, run.config)
    metrics = evaluate.basic_metrics(score, run.held_out, workers.map)
    point = {"step": run.progress["step"], "loss": loss}
    point |= {name: metrics[name] for name in ("n", "nll", "token", "exact")}
    point |= {"norm": hidden.norm(run.p), "distance": hidden.distance(run.p, run.initial)}
    point |= instrument_readings(run)
    run.progress["curve"].append(point)
    if bad := record.nonfinite_names(point):
        raise diverged(run, f"step {point['step']}: no finite held-out {' or '.join(bad)}")
    run.progress["solved"] = run.progress["solved"] + 1 if is_solved(run.task, point) else 0
    return point


def is_solved(task, point):
    return task.exact and point["n"] >= ENOUGH and point["exact"] >= SOLVED_EXACT


def instrument_readings(run):
    """{name: reading} of the instruments in the task's WATCH: of the embedding, or of each head"""
    readings, watch = {}, run.task.module.WATCH
    if "fourier" in watch:
        readings["fourier"] = hidden.fourier(run.p.embed[:run.task.length])
    if "heads" in watch and len(run.held_out.inputs):
        rows = run.held_out.subset(slice(heads.rows_to_sample(run.held_out.inputs.shape[1])))
        weights = heads.attention_weights(run.p, run.config, rows.inputs, rows.positions)
        scores = heads.head_scores(weights, rows.inputs, rows.targets >= 0)
        readings |= {name: score.round(4).tolist() for name, score in scores.items()}
    return readings


def diverged(run, event, g=None):
    """The Diverged of an event: a number that is not finite; appends the record.    g: gradient"""
    result = write_record(run, "diverged", {}, None)
    culprit = run.p.first_nonfinite() or g and g.first_nonfinite() or "logits"
    return Diverged(f"{event}, first tensor that is not finite: {culprit}; {run.checkpoint} holds "
                    f"the last checkpoint: delete it and use an --lr below {run.config.lr:g}",
                    result)


# ---- finish --------------------------------------------------------------------------------------


def finish_run(run):
    """Export the model, measure it, append the record, delete the checkpoint -> the record

    In this order a kill at any moment loses nothing.  Raises Diverged.
    """
    export_model(run)
    metrics, scored_by = final_metrics(run)
    if bad := record.nonfinite_names(metrics):
        raise diverged(run, f"{run.out}: no finite metrics at length {' or '.join(map(str, bad))}")
    result = write_record(run, "ok", metrics, scored_by)
    run.checkpoint.unlink()
    return result


def export_model(run):
    """Write the model file."""
    provenance = {"key": run.key, "task": run.task.version,
                  "config": dataclasses.asdict(run.config)}
    example = batches.example(run.task)[0]
    if re.fullmatch(r"[ !#-&(-\[\]-~]+", example):         # can be typed between any quotes
        provenance["example"] = example
    model_file.write_model(run.out, run.config, run.p, vocabulary(run.config, run.task),
                           provenance)


def vocabulary(config, task):
    """The part of a model file that says how the model must be asked"""
    begins, sizes = training_prompts(task)
    return model_file.Vocabulary(
        task.pieces, task.context, task.bos, len(task.pieces) - 1 if task.ends else None,
        task.temperature, begins_with_bos=begins, own_positions=config.positions != "plain",
        prompt_min=min(sizes), prompt_max=max(sizes))


def training_prompts(task):
    """Whether all rows of training begin with bos; {tokens of a prompt} in them, {0} if any will do

    A prompt ends where an answer begins, or at a label; any beginning of a text is one.  As SAMPLE
    rows of each length show.
    """
    begins, sizes = task.bos is not None, set()
    for length in task.lengths:
        tokens, answer = task.draw(Random(GALLERY), length, SAMPLE, "train")
        inputs, targets = batches.shift(task, tokens, answer, score_end=False)
        ends = targets >= 0                                                         # (B, T)
        if answer.dtype == bool:
            ends[:, 1:] &= targets[:, :-1] < 0
            if ends[:, 0].any():
                sizes.add(0)
        sizes |= {int(t) + 1 for t in np.flatnonzero(ends.any(axis=0))}
        begins &= bool((inputs[:, 0] == task.bos).all())
    return begins, {0} if 0 in sizes else sizes


def final_metrics(run):
    """-> {length: metrics} on the test problems, and the scorer's name: run.c, or else NumPy"""
    each = iter if run.quiet else bar_of_lengths
    try:
        with Engine(run.out, run.threads) as engine:
            score = evaluate.engine_scorer(engine)
            return evaluate.metrics_by_length(score, run.task, run.config, each), "run.c"
    except EngineMissing as missing:
        print(f"minitron: {missing}; measured with NumPy instead", file=sys.stderr)
        score = evaluate.numpy_scorer(run.p, run.config)
        return evaluate.metrics_by_length(score, run.task, run.config, each), "NumPy"


def write_record(run, status, metrics, scored_by):
    """The run's record, appended to its ledger.      status: ok, diverged"""
    run.progress["seconds"] = time.monotonic() - run.start_time
    result = record.make_record(run.config, run.task, status, run.p.count(), run.progress,
                                metrics, scored_by, run.threads)
    if run.ledger is not None:
        record.append_record(run.ledger, result)
    return result
