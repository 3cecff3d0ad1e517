#!/usr/bin/env python3
"""Train a transformer on a small task, write model.bin, and say what emerged.

    python train.py --dim 128                     half a minute: three-digit addition
    python train.py --dim 8                       the same, and it does not work (yet)
    python train.py --task text --data my.txt     a text of yours
    python train.py --task path/to/mine.py        a task of yours
    python train.py --resume                      resume a run that was stopped

Ctrl-C stops a run after the step it is in, and saves it.  A finished run leaves the model file
(--out) and a line in the ledger; until then its checkpoint is the model file's name with .ckpt.
"""
import shlex
import sys
from pathlib import Path

from minitron.base import environment

environment.use()       # before anything that needs NumPy

import numpy as np

from minitron.base import cli
from minitron.base.terminal import Interrupted, Progress, StopOnSignal
from minitron.data import batches, tasks
from minitron.data.config import Config
from minitron.measure import record
from minitron.model.flops import train_flops
from minitron.model.optim import adamw, clip, learning_rate
from minitron.training import cells, checkpoint
from minitron.training.parallel import Workers
from minitron.training.run import diverged, evaluate_held_out, finish, save, start


def train(config, out="model.bin", ledger=None, resume=False, quiet=False, threads=None):
    """Train one configuration and return its record, which is appended to `ledger`, a path, if given.

    Writes the model to `out`, and every config.eval_every steps a checkpoint beside it, which is
    deleted at the end.  threads: None for one per core, at most one per shard.
    Raises MinitronError; Diverged, with the record appended; Interrupted, with the step saved.
    """
    run = start(config.resolve(), out, ledger, resume, threads)
    progress, steps = run.progress, run.config.steps
    bar = Progress(progress["step"], steps, quiet)
    quiet_numpy = np.errstate(over="ignore", invalid="ignore")      # train_step checks for itself
    with Workers(run.config, run.threads) as workers, StopOnSignal() as stop, bar, quiet_numpy:
        while progress["step"] < steps and progress["solved"] < 2:
            loss, token = train_step(run, workers)
            bar.step(loss, token)
            if progress["step"] % run.config.eval_every == 0 or progress["step"] == steps:
                bar.evaluated(evaluate_held_out(run, workers, loss))
                save(run)
            if stop.requested:
                save(run)
                raise Interrupted(f"stopped and saved after step {progress['step']} of {steps}")
    return finish(run)


def train_step(run, workers):
    """One step of AdamW -> loss of the batch, share of its answer tokens predicted right

    Raises Diverged.
    """
    c, step = run.config, run.progress["step"] + 1
    inputs, targets, positions = batches.training_batch(run.task, c, step)      # (B, T) each

    # forward and backward, then one step against the gradient
    loss, token, g = workers.gradient(run.p, inputs, targets, positions)
    norm = clip(g.flat, c.clip)
    if np.isfinite(loss + norm):
        lr = learning_rate(step, c.steps, c.lr, c.warmup, c.lr_floor)
        adamw(run.p.flat, g.flat, run.m.flat, run.v.flat, run.decay, step, lr, c.beta1, c.beta2)

    # one number that is not finite makes the squared norm of all weights not finite
    if not np.isfinite(loss + norm + np.dot(run.p.flat, run.p.flat)):
        raise diverged(run, step, loss, norm, g)
    run.progress["step"] = step
    run.progress["tokens"] += inputs.size
    run.progress["flops"] += train_flops(c, inputs, targets)
    return loss, token


def main(argv):
    parser = cli.Parser(prog="train.py", usage="python train.py [flags]", description=__doc__)
    cli.add_fields(parser, Config)
    parser.add_argument("--out", default="model.bin", metavar="FILE",
                        help="the model file to write (default model.bin)")
    parser.add_argument("--ledger", metavar="FILE",
                        help="append the run's record here (default: runs.jsonl beside --out)")
    parser.add_argument("--resume", action="store_true",
                        help="resume from the checkpoint of --out, with its configuration")
    parser.add_argument("--cells", nargs=2, help=cli.HIDDEN)        # how a sweep starts a worker
    flags = vars(parser.parse_args(argv))
    worker = flags.pop("cells")
    if worker:
        return cells.serve(train, *worker)
    return train_and_print(flags, flags.pop("out"), flags.pop("ledger"), flags.pop("resume"))


def train_and_print(flags, out, ledger, resume):
    """Train what the flags, {field: value}, say; print the table and a command to try next."""
    saved = checkpoint.saved_config(f"{out}.ckpt", flags) if resume else Config(**flags)
    config = saved.resolve()
    task = tasks.load(config)
    print(record.headline(config, task))
    try:
        result = train(config, out, ledger or Path(out).parent / "runs.jsonl", resume)
    except Interrupted as stopped:
        options = ["--resume"] + ["--out", out] * (out != "model.bin")
        options += ["--ledger", str(ledger)] * (ledger is not None)
        print(f"{stopped}; resume with: python train.py {shlex.join(options)}", file=sys.stderr)
        return 130
    print(record.table(result))
    print(f"Try: {next_command(config, task, out)}")
    return 0


def next_command(config, task, out):
    """A command that shows the model at work.  ./run counts positions 0, 1, 2, ..."""
    if config.positions != "plain":
        return f"python -m minitron eval {shlex.quote(out)}"
    example, tokens = batches.example(task)
    prompt = f" -i {shlex.quote(example)}" if example else ""
    return f"./run {shlex.quote(out)}{prompt}" + (f" -n {tokens}" if tokens else "")


if __name__ == "__main__":
    cli.run(main)
