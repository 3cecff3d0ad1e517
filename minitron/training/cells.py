"""A sweep's worker: a process that reads configurations and writes records, one JSON line each.

The sweep starts it as `python train.py --cells PID DIRECTORY`, with the sweep's process id and the
directory to which paths are relative.  The worker answers

    {"config": ..., "folder": to work in, "model": path or null}    with the record of the run,
    {"time": config}                                                with {"step_seconds": ...}

and after an error with {"failed": reason}.  One process runs many cells, because starting Python
for each would cost a tenth of a cell of five seconds.
"""
import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path

from ..base.files import write_atomically
from ..base.terminal import Interrupted
from ..data import batches, tasks
from ..data.config import config_from_dict
from ..model.optim import adamw
from ..model.params import Params, init
from .parallel import Workers
from .run import Diverged

TIMED_SECONDS = 0.3         # spent on timing the steps of one configuration


def serve(train, parent, directory):
    """Answer the lines of standard input until it ends -> exit status      train: of train.py"""
    exit_with(int(parent))
    os.chdir(directory)
    answers, sys.stdout = sys.stdout, sys.stderr            # only answers go to standard output
    for line in sys.stdin:
        try:
            answer = answer_to(json.loads(line), train)
        except Interrupted:
            return 130
        except MemoryError:
            answer = {"failed": "out of memory"}
        except Exception as error:                          # a failed cell must not end the sweep
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


def exit_with(parent):
    """End this process when its parent, a process id, is gone."""
    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def answer_to(question, train):
    if "time" in question:
        return {"step_seconds": step_seconds(config_from_dict(question["time"]).resolve())}
    return run_cell(train, **question)


def run_cell(train, config, folder, model):
    """Train and measure one cell on one thread -> its record

    config: a resolved Config as a dict; model: a path for the model file, or None
    """
    out = Path(folder) / "model.bin"
    try:
        record = train(config_from_dict(config), out, quiet=True, threads=1)
    except Diverged as error:
        return error.record
    if model is not None:
        write_atomically(model, out.read_bytes())
    return record


def step_seconds(config):
    """Seconds per training step on one thread: the median over TIMED_SECONDS, the first left out"""
    batch = batches.longest_batch(tasks.load(config), config)
    p, m, v = init(config), Params(config), Params(config)
    times, end = [], time.monotonic() + TIMED_SECONDS
    with Workers(config, threads=1) as workers:
        while len(times) < 3 or time.monotonic() < end:
            start = time.monotonic()
            _, _, g = workers.gradient(p, *batch)
            adamw(p.flat, g.flat, m.flat, v.flat, 0.0, 1, 0.0, 0.9, 0.99)
            times.append(time.monotonic() - start)
    return statistics.median(times[1:])
