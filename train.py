#!/usr/bin/env python3
"""Train a transformer on a small task, write model.bin, and say what emerged.

    python train.py --dim 128                     about a minute: three-digit addition
    python train.py --dim 8                       the same, and it does not work (yet)
    python train.py --task text --data my.txt     a text of yours
    python train.py --resume                      go on where a run was stopped

Ctrl-C stops a run after the step it is in, and saves it.  A finished run leaves the model file (--out) and a line in the
ledger; on the way its checkpoint is the model file's name with .ckpt.
"""
import dataclasses
import shlex
import sys
import time
from pathlib import Path

from minitron import environment

environment.use()       # before anything that needs NumPy

import numpy as np

import tasks
from minitron import checkpoint, cli, evaluate, export, record
from minitron.config import Config
from minitron.engine import Engine, EngineMissing
from minitron.errors import MinitronError
from minitron.interrupt import Interrupted, StopOnSignal
from minitron.model import train_flops
from minitron.optim import adamw, clip, learning_rate
from minitron.parallel import Workers
from minitron.params import Params, decay_mask, init
from minitron.progress import Progress
from minitron.rng import TRAIN, Random

LOOK = 1000             # held-out problems at each evaluation on the way
SOLVED = 0.999          # exact match on them at which the task counts as solved, once two evaluations in a row find it,
ENOUGH = 50             # if they are at least so many: a handful can be right by luck


class Diverged(MinitronError):
    """The loss or the gradient is not a finite number any more."""


def train(config, out="model.bin", ledger=None, resume=False, quiet=False):
    """Train one configuration and return its record (record.py), which is also appended to `ledger` if that is a path.

    Writes the model to `out`, and every config.eval_every steps a checkpoint beside it, which is deleted at the end.
    Raises MinitronError; Diverged, with the record appended; Interrupted, with the step saved.
    """
    config = config.resolve()
    task = tasks.load(config)
    key, saved = config.key(task), Path(f"{out}.ckpt")
    check(task, out, ledger)
    p, m, v = init(config), Params(config), Params(config)
    decay = config.weight_decay * decay_mask(config)
    progress = {"step": 0, "solved": 0, "tokens": 0, "flops": 0.0, "seconds": 0.0, "curve": []}
    if resume:
        progress = checkpoint.load(saved, config, key, p, m, v)
    else:
        checkpoint.refuse_to_overwrite(saved)
    began = time.monotonic() - progress["seconds"]

    def save():
        progress["seconds"] = time.monotonic() - began
        checkpoint.save(saved, config, key, p, m, v, progress)

    save()              # a directory that cannot be written, or a full disk, shows now and not in an hour
    with Workers(config) as workers, StopOnSignal() as stop, Progress(progress["step"], config.steps, quiet) as shown:
        while progress["step"] < config.steps and progress["solved"] < 2:
            step = progress["step"] + 1
            inputs, targets = training_batch(task, config, step)
            loss, token, g = workers.gradient(p, inputs, targets)
            norm = clip(g.flat, config.clip)
            if np.isfinite(loss + norm):
                lr = learning_rate(step, config.steps, config.lr, config.warmup)
                adamw(p.flat, g.flat, m.flat, v.flat, decay, step, lr, config.beta1, config.beta2)
            if not np.isfinite(loss + norm + np.dot(p.flat, p.flat)):
                write_record(ledger, config, task, "diverged", p, progress, {}, None)
                culprit = p.first_nonfinite() or g.first_nonfinite() or "logits"
                raise Diverged(f"step {step}: loss {loss:g}, gradient {norm:g}, first tensor that is not finite: {culprit}; "
                               f"{saved} holds the last checkpoint: delete it and use an --lr below {config.lr:g}")

            progress["step"] = step
            progress["tokens"] += inputs.size
            progress["flops"] += train_flops(config, inputs, targets)
            shown.step(loss, token)
            if step % config.eval_every == 0 or step == config.steps:
                point = look(p, task, config, step, loss)
                progress["curve"].append(point)
                progress["solved"] = progress["solved"] + 1 if solved(task, point) else 0
                shown.evaluated(point)
                save()
            if stop.requested:
                save()
                raise Interrupted(f"stopped and saved after step {step} of {config.steps}")

    export_model(out, config, task, p)
    metrics, scored_by = measure(out, task, config, p)
    progress["seconds"] = time.monotonic() - began
    result = write_record(ledger, config, task, "ok", p, progress, metrics, scored_by)
    saved.unlink()      # only now: until the record is written, a kill loses nothing
    return result


def check(task, out, ledger):
    """Raises MinitronError for what would otherwise show only in the course of the training, or after it."""
    if Path(out).is_dir():
        raise MinitronError(f"{str(out)!r} is a directory: give --out the name of a file")
    if ledger is not None:
        record.touch_ledger(ledger)
    for length in task.lengths:
        tasks.batch(task, Random(0, TRAIN), length, 1)      # there is a problem of this length to train on


def training_batch(task, config, step):
    """The batch of a step, all of one length.  It depends on the seed and the step alone.

    The larger of two draws: longer problems are harder, and of short ones there are fewer.
    """
    rng = Random(config.seed, TRAIN, step)
    length = task.lengths[rng.integers(0, len(task.lengths), 2).max()]
    return tasks.batch(task, rng, length, config.batch)


def look(p, task, config, step, loss):
    """A point of the learning curve: the batch's loss, and how the held-out problems go that are not the test."""
    numbers = evaluate.evaluate(evaluate.numpy_scorer(p, config), task, config, config.length, "valid", most=LOOK)
    return {"step": step, "loss": loss} | {name: numbers[name] for name in ("n", "nll", "token", "exact")}


def solved(task, point):
    return task.ends and point["n"] >= ENOUGH and point["exact"] >= SOLVED


def export_model(out, config, task, p):
    eos = len(task.pieces) - 1 if task.ends else None
    vocabulary = export.Vocabulary(task.pieces, task.context, task.bos, eos, task.temperature)
    provenance = {"key": config.key(task), "task": task.version, "example": tasks.example(task),
                  "config": dataclasses.asdict(config)}
    export.write_model(out, config, p, vocabulary, provenance)


def measure(out, task, config, p):
    """-> {length: numbers} on the test problems, and what ran the model: run.c, or NumPy where the engine is not built"""
    try:
        with Engine(out) as engine:
            return evaluate.evaluate_all(evaluate.engine_scorer(engine), task, config), "run.c"
    except EngineMissing as missing:
        print(f"minitron: {missing}; measured with NumPy instead", file=sys.stderr)
        return evaluate.evaluate_all(evaluate.numpy_scorer(p, config), task, config), "NumPy"


def write_record(ledger, config, task, status, p, progress, metrics, scored_by):
    result = record.make_record(config, task, status, p.count(), progress, metrics, scored_by)
    if ledger is not None:
        record.append_record(ledger, result)
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
    example = tasks.example(task)
    print(record.table(result))
    print(f"Try: ./run {out}" + (f' -i "{example}"' if example else ""))
    return 0


if __name__ == "__main__":
    cli.run(main)
