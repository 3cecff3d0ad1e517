#!/usr/bin/env python3
"""Train a transformer on a small task, write model.bin, and say what emerged.

    python train.py --dim 128                     half a minute: three-digit addition
    python train.py --dim 8                       the same, and it does not work (yet)
    python train.py --task text --data my.txt     a text of yours
    python train.py --resume                      go on where a run was stopped

Ctrl-C stops a run after the step it is in, and saves it.  A finished run leaves the model file (--out) and a line in the
ledger; on the way its checkpoint is the model file's name with .ckpt.
"""
import dataclasses
import os
import shlex
import sys
import time
from pathlib import Path

from minitron import environment

environment.use()       # before anything that needs NumPy

import numpy as np

import tasks
from minitron import checkpoint, cli, evaluate, export, heads, hidden, record
from minitron.config import Config
from minitron.engine import Engine, EngineMissing
from minitron.environment import available_cpus
from minitron.errors import MinitronError
from minitron.flops import train_flops
from minitron.interrupt import Interrupted, StopOnSignal
from minitron.optim import adamw, clip, learning_rate
from minitron.parallel import Workers
from minitron.params import Params, decay_mask, init
from minitron.positions import position_ids
from minitron.progress import Progress
from minitron.rng import POSITIONS, TRAIN, Random

LOOK = 2**13            # tokens of held-out problems at each evaluation on the way: about the work of two steps
SOLVED = 0.999          # exact match on them at which the task counts as solved, once two evaluations in a row find it,
ENOUGH = 50             # if they are at least so many: a handful can be right by luck


class Diverged(MinitronError):
    """The loss or the gradient is not a finite number any more.      record: what is kept of the run"""

    def __init__(self, complaint, record):
        super().__init__(complaint)
        self.record = record


@dataclasses.dataclass
class Run:
    """A training on its way."""

    config: Config
    task: tasks.Task
    out: str
    ledger: object          # a path, or None
    threads: int            # to work with
    p: Params               # weights
    m: Params               # AdamW's two moments
    v: Params
    decay: np.ndarray       # weight decay of each entry of p.flat
    held_out: evaluate.Problems     # those that decide when the task is solved
    first: np.ndarray       # weights before training, flat
    progress: dict          # what a checkpoint keeps beside p, m and v
    began: float = 0.0      # on the monotonic clock, so that `seconds` goes on over interruptions

    @property
    def saved(self):
        return Path(f"{self.out}.ckpt")


def train(config, out="model.bin", ledger=None, resume=False, quiet=False, threads=None):
    """Train one configuration and return its record (record.py), which is also appended to `ledger` if that is a path.

    Writes the model to `out`, and every config.eval_every steps a checkpoint beside it, which is deleted at the end.  `threads`
    are as many as there are cores, or shards, unless told.
    Raises MinitronError; Diverged, with the record appended; Interrupted, with the step saved.
    """
    run = start(config.resolve(), out, ledger, resume, threads)
    steps, progress = run.config.steps, run.progress
    quiet_numpy = np.errstate(over="ignore", invalid="ignore")       # train_step looks for what is not finite itself
    shown = Progress(progress["step"], steps, quiet)
    with Workers(run.config, run.threads) as workers, StopOnSignal() as stop, shown, quiet_numpy:
        while progress["step"] < steps and progress["solved"] < 2:
            loss, token = train_step(run, workers)
            shown.step(loss, token)
            if progress["step"] % run.config.eval_every == 0 or progress["step"] == steps:
                shown.evaluated(look(run, workers, loss))
                save(run)
            if stop.requested:
                save(run)
                raise Interrupted(f"stopped and saved after step {progress['step']} of {steps}")
    return finish(run)


def start(config, out, ledger, resume, threads):
    """A run at its first step, or where its checkpoint is.  Raises MinitronError for all that can be known to go wrong."""
    task = tasks.load(config)
    if os.path.isdir(out) or not str(out):
        raise MinitronError(f"{str(out)!r} is a directory: give --out the name of a file")
    if not os.path.isdir(Path(out).parent):
        raise MinitronError(f"{str(Path(out).parent)!r} is no directory: make it, or give --out another place")
    if ledger is not None:
        if Path(ledger).resolve() == Path(out).resolve():
            raise MinitronError(f"{out} cannot be both --out and --ledger: give one of them another name")
        record.touch_ledger(ledger)
    record.commit()         # remembered now: the source may be edited while the run goes on
    decay = config.weight_decay * decay_mask(config)
    held_out = evaluate.problems(task, config, config.length, "valid", max(1, LOOK // task.width))
    p = init(config)
    threads = min(config.shards, threads or available_cpus())
    run = Run(config, task, out, ledger, threads, p, Params(config), Params(config), decay, held_out, p.flat.copy(),
              checkpoint.new_progress())
    if resume:
        run.progress = checkpoint.load(run.saved, config, config.key(task), run.p, run.m, run.v)
    else:
        checkpoint.refuse_to_overwrite(run.saved)
    run.began = time.monotonic() - run.progress["seconds"]
    save(run)               # a directory that cannot be written, or a full disk, shows now and not in an hour
    return run


def save(run):
    run.progress["seconds"] = time.monotonic() - run.began
    checkpoint.save(run.saved, run.config, run.config.key(run.task), run.p, run.m, run.v, run.progress)


def train_step(run, workers):
    """One step of AdamW -> loss of the batch, share of its answer tokens that were right.  Raises Diverged."""
    c, step = run.config, run.progress["step"] + 1
    inputs, targets, positions = training_batch(run.task, c, step)
    loss, token, g = workers.gradient(run.p, inputs, targets, positions)
    norm = clip(g.flat, c.clip)
    if np.isfinite(loss + norm):
        lr = learning_rate(step, c.steps, c.lr, c.warmup, c.lr_floor)
        adamw(run.p.flat, g.flat, run.m.flat, run.v.flat, run.decay, step, lr, c.beta1, c.beta2)
    if not np.isfinite(loss + norm + np.dot(run.p.flat, run.p.flat)):
        result = write_record(run, "diverged", {}, None)
        culprit = run.p.first_nonfinite() or g.first_nonfinite() or "logits"
        raise Diverged(f"step {step}: loss {loss:g}, gradient {norm:g}, first tensor that is not finite: {culprit}; "
                       f"{run.saved} holds the last checkpoint: delete it and use an --lr below {c.lr:g}", result)
    run.progress["step"] = step
    run.progress["tokens"] += inputs.size
    run.progress["flops"] += train_flops(c, inputs, targets)
    return loss, token


def training_batch(task, config, step):
    """The batch of a step, all of one length: inputs, targets, positions.  It depends on the seed and the step alone.

    The larger of two draws: longer problems are harder, and of short ones there are fewer.
    """
    rng = Random(config.seed, TRAIN, step)
    length = task.lengths[rng.integers(0, len(task.lengths), 2).max()]
    inputs, targets = tasks.batch(task, rng, length, config.batch)
    return inputs, targets, position_ids(task, config, Random(config.seed, TRAIN, step, POSITIONS), length, inputs.shape)


def look(run, workers, loss):
    """Add a point to the learning curve: the batch's loss, and how the held-out problems go that are not the test."""
    score = evaluate.numpy_scorer(run.p, run.config)
    numbers = evaluate.measure(score, run.held_out, each=workers.map)
    point = {"step": run.progress["step"], "loss": loss} | {name: numbers[name] for name in ("n", "nll", "token", "exact")}
    point |= {"norm": hidden.norm(run.p), "distance": hidden.distance(run.p, run.first)} | watch(run)
    run.progress["curve"].append(point)
    solved = run.task.exact and point["n"] >= ENOUGH and point["exact"] >= SOLVED
    run.progress["solved"] = run.progress["solved"] + 1 if solved else 0
    return point


def watch(run):
    """What the task's instruments show: of each head, layer by layer, or of the embedding."""
    seen, watched = {}, run.task.module.WATCH
    if "fourier" in watched:
        seen["fourier"] = hidden.fourier(run.p.embed[:run.task.length])
    if "heads" in watched and len(run.held_out.inputs):
        rows = slice(heads.few(run.held_out.inputs.shape[1]))
        inputs, positions = run.held_out.inputs[rows], run.held_out.positions
        weights = heads.attention_weights(run.p, run.config, inputs, None if positions is None else positions[rows])
        scores = heads.head_scores(weights, inputs, run.held_out.targets[rows] >= 0)
        seen |= {name: score.round(4).tolist() for name, score in scores.items()}
    return seen


def finish(run):
    """Export the model, measure it, append the record, and only then, when a kill can lose nothing, delete the checkpoint."""
    export_model(run)
    metrics, scored_by = measure(run)
    result = write_record(run, "ok", metrics, scored_by)
    run.saved.unlink()
    return result


def export_model(run):
    task, eos = run.task, len(run.task.pieces) - 1 if run.task.ends else None
    vocabulary = export.Vocabulary(task.pieces, task.context, task.bos, eos, task.temperature)
    provenance = {"key": run.config.key(task), "task": task.version, "example": tasks.example(task)[0],
                  "config": dataclasses.asdict(run.config)}
    export.write_model(run.out, run.config, run.p, vocabulary, provenance)


def measure(run):
    """-> {length: numbers} on the test problems, and what ran the model: run.c, or NumPy where the engine is not built"""
    try:
        with Engine(run.out, run.threads) as engine:
            return evaluate.evaluate_all(evaluate.engine_scorer(engine), run.task, run.config), "run.c"
    except EngineMissing as missing:
        print(f"minitron: {missing}; measured with NumPy instead", file=sys.stderr)
        return evaluate.evaluate_all(evaluate.numpy_scorer(run.p, run.config), run.task, run.config), "NumPy"


def write_record(run, status, metrics, scored_by):
    run.progress["seconds"] = time.monotonic() - run.began
    result = record.make_record(run.config, run.task, status, run.p.count(), run.progress, metrics, scored_by, run.threads)
    if run.ledger is not None:
        record.append_record(run.ledger, result)
    return result


def main(argv):
    parser = cli.Parser(prog="train.py", usage="python train.py [flags]", description=__doc__)
    cli.add_fields(parser, Config)
    parser.add_argument("--out", default="model.bin", metavar="FILE", help="the model file to write (default model.bin)")
    parser.add_argument("--ledger", metavar="FILE", help="append the run's record here (default: runs.jsonl beside --out)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint of --out, with its configuration")
    flags = vars(parser.parse_args(argv))
    out, ledger, resume = flags.pop("out"), flags.pop("ledger"), flags.pop("resume")
    config = checkpoint.saved_config(f"{out}.ckpt", flags) if resume else Config(**flags)
    config = config.resolve()
    task = tasks.load(config)
    print(record.headline(config, task))
    try:
        result = train(config, out, ledger or Path(out).parent / "runs.jsonl", resume)
    except Interrupted as stopped:
        options = ["--resume"] + ["--out", out] * (out != "model.bin") + ["--ledger", str(ledger)] * (ledger is not None)
        print(f"{stopped}; go on with: python train.py {shlex.join(options)}", file=sys.stderr)
        return 130
    print(record.table(result))
    print(f"Try: {hint(config, task, out)}")
    return 0


def hint(config, task, out):
    """A command that shows what was learnt.  run.c's program counts positions 0, 1, 2, ..."""
    if config.positions != "plain":
        return f"python -m minitron eval {shlex.quote(out)}"
    example, tokens = tasks.example(task)
    return f"./run {shlex.quote(out)}" + (f" -i {shlex.quote(example)}" if example else "") + (f" -n {tokens}" if tokens else "")


if __name__ == "__main__":
    cli.run(main)
