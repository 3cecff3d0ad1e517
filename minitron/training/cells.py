"""A sweep's worker: a process that takes configurations and gives records, one JSON line each.

The sweep starts it as `python train.py --cells PID DIRECTORY`: its own process id, and the
directory that relative paths are meant in.  A line {"config": ..., "folder": to work in, "model":
path or null} comes in, and the record goes out; or {"time": config}, and the seconds of a training
step go out.  One process runs many cells: starting Python for each would cost a tenth of a cell of
five seconds.
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
from ..data.config import restored
from ..model.optim import adamw
from ..model.params import Params, init
from .parallel import Workers
from .run import Diverged

TIMED_SECONDS = 0.3         # spent on timing steps of one configuration


def serve(train, parent, directory):
    """Answer questions from standard input until it ends.      train: train.py's function"""
    stop_with(int(parent))
    os.chdir(directory)
    answers, sys.stdout = sys.stdout, sys.stderr            # nothing but records goes out
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


def stop_with(parent):
    """End this process when the sweep that started it is gone.      parent: the sweep's process id"""
    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def answer_to(question, train):
    if "time" in question:
        return {"step_seconds": step_seconds(restored(question["time"]).resolve())}
    return run_cell(train, **question)


def run_cell(train, config, folder, model):
    """Train and measure one cell on one thread -> its record

    config: a resolved Config as a dict; model: a path to keep the model file at, or None
    """
    trained = Path(folder) / "model.bin"
    try:
        record = train(restored(config), trained, quiet=True, threads=1)
    except Diverged as diverged:
        return diverged.record
    if model is not None:
        write_atomically(model, trained.read_bytes())       # only now: a failed cell leaves nothing
    return record


def step_seconds(config):
    """Seconds per training step on one thread: the median of as many as fit into TIMED_SECONDS"""
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
