#!/usr/bin/env python3
"""Train a transformer on a small task, write model.bin, and say what emerged.

    python train.py --dim 128                     three-digit addition, in half a minute
    python train.py --dim 4                       the same, and it does not work (yet)
    python train.py --task text --data my.txt     your own text
    python train.py --task path/to/mine.py        your own task
    python train.py --resume                      resume a run that was stopped
    python train.py --init model.bin --out b.bin  train a finished model on

Ctrl-C stops a run after the current step and saves it.  A finished run leaves the model file
(--out) and a line in the ledger; until then it has a checkpoint, the model file's name with .ckpt.
"""
import shlex
import sys
from pathlib import Path

from minitron.base import environment

if __name__ == "__main__":
    environment.ensure_packages()   # before the imports that need NumPy

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
from minitron.training.run import diverged, evaluate_held_out, finish_run, save_run, start_run


def train(config, out="model.bin", ledger=None, resume=False, quiet=False, threads=None,
          anyway=False):
    """Train one configuration -> its record, which is also appended to `ledger`, a path, if given

    Writes the model to `out`, and every config.eval_every steps a checkpoint beside it, which is
    deleted at the end.  threads: None for one per core, at most one per shard; anyway: resume
    also where NumPy's results may have other bits than in the steps before.
    Raises MinitronError; Diverged, after appending the record; Interrupted, after a checkpoint.
    """
    with start_run(config.resolve(), out, ledger, resume, anyway, quiet, threads) as run:
        train_steps(run, quiet)
        return finish_run(run)


def train_steps(run, quiet):
    """The training loop, to the last step or until the task is solved"""
    progress, steps = run.progress, run.config.steps
    bar = Progress(progress["step"], steps, quiet)
    with Workers(run.config, run.threads) as workers, StopOnSignal() as stop, bar:
        while progress["step"] < steps and progress["solved"] < 2:
            loss, token = train_step(run, workers)
            bar.show_step(loss, token)
            if progress["step"] % run.config.eval_every == 0 or progress["step"] == steps:
                bar.show_evaluation(evaluate_held_out(run, workers, loss))
                save_run(run)
            if stop.requested:
                save_run(run)
                raise Interrupted(f"stopped and saved after step {progress['step']} of {steps}")


def train_step(run, workers):
    """One step of AdamW -> loss in nats per scored token, share of these predicted right

    Raises Diverged.
    """
    c, step = run.config, run.progress["step"] + 1

    # the batch: token ids, and the tokens that should follow them
    inputs, targets, positions = batches.training_batch(run.task, c, step)      # (B, T) each

    # forward and backward: the gradient of the mean loss, one number per weight
    loss, token, g = workers.gradient(run.p, inputs, targets, positions)
    norm = clip(g.flat, c.clip)

    # a small step against the gradient
    if np.isfinite(loss + norm):
        lr = learning_rate(step, c.steps, c.lr, c.warmup, c.lr_floor)
        adamw(run.p.flat, g.flat, run.m.flat, run.v.flat, run.decay, step, lr, c.beta1, c.beta2)

    # one weight that is not finite makes the squared norm of all weights not finite
    if not np.isfinite(loss + norm + np.dot(run.p.flat, run.p.flat)):
        raise diverged(run, f"step {step}: loss {loss:g}, gradient norm {norm:g}", g)
    run.progress["step"] = step
    run.progress["tokens"] += inputs.size
    run.progress["flops"] += train_flops(c, inputs, targets)
    return loss, token


def main(argv):
    """The command line -> exit status"""
    parser = cli.Parser(prog="train.py", usage="python train.py [flags]", description=__doc__)
    cli.add_fields(parser, Config)
    parser.add_argument("--out", default="model.bin", metavar="FILE",
                        help="the model file to write (default model.bin)")
    parser.add_argument("--ledger", metavar="FILE",
                        help="append the run's record here (default: runs.jsonl beside --out)")
    parser.add_argument("--resume", action="store_true",
                        help="resume from the checkpoint of --out, with its configuration")
    parser.add_argument("--anyway", action="store_true",
                        help="with --resume: also on another NumPy, BLAS or processor")
    parser.add_argument("--cells", nargs=2, help=cli.HIDDEN)        # how a sweep starts a worker
    flags = vars(parser.parse_args(argv))
    worker, *options = (flags.pop(name) for name in ("cells", "out", "ledger", "resume", "anyway"))
    if worker:
        return cells.serve(train, *worker)
    return train_and_print(flags, *options)


def train_and_print(flags, out, ledger, resume, anyway):
    """Train the configuration of flags, {field: value}; print the result and a command to try."""
    config = checkpoint.saved_config(f"{out}.ckpt", flags) if resume else Config(**flags)
    config = config.resolve()
    task = tasks.load(config)
    print(record.headline(config, task))
    try:
        result = train(config, out, ledger or Path(out).parent / "runs.jsonl", resume,
                       anyway=anyway)
    except Interrupted as stop:
        print(f"{stop}; resume with: {resume_command(out, ledger)}", file=sys.stderr)
        return 130
    print(record.result_text(result))
    print(f"Try: {next_command(config, task, out)}")
    return 0


def resume_command(out, ledger):
    """The command that resumes a stopped run: its checkpoint does not hold these two paths."""
    options = ["--out", out] * (out != "model.bin") + ["--ledger", ledger] * (ledger is not None)
    return f"{environment.train_command()} {shlex.join(['--resume', *map(str, options)])}"


def next_command(config, task, out):
    """A command that shows the model at work"""
    run = environment.run_command()
    if config.positions != "plain" or not run:      # run.c counts positions 0, 1, 2, ...
        return f"{environment.minitron_command()} eval {shlex.quote(out)}"
    example, tokens = batches.example(task)
    prompt = f" -i {shlex.quote(example)}" if example else ""
    return f"{run} {shlex.quote(out)}{prompt}" + (f" -n {tokens}" if tokens else "")


if __name__ == "__main__":
    cli.run(main)
