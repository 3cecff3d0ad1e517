"""A sweep's worker: a process that reads configurations and writes records, one JSON line each.

The sweep starts it as `python train.py --cells PID DIRECTORY`, with the sweep's process id and the
directory to which paths are relative.  The worker answers

    {"config": ..., "folder": to work in, "model": path or null}    with the record of the run,
    {"time": config}                                                with {"step_seconds": ...},
    {"check": [[config, version of its task], ...]}                 with {"ok": true},

and an exception with {"failed": reason}.  Each question also has the sweep's "software"; a worker
that differs in it, or in the version of a task, answers {"refused": reason}, since its records
would be of other runs.  One process runs many cells, because starting Python for each would cost a
tenth of a cell of five seconds.
"""
import hashlib
import json
import os
import platform
import statistics
import sys
import threading
import time
from functools import cache
from pathlib import Path

import numpy as np

from ..base.environment import PACKAGE, ROOT, SHIPPED
from ..base.errors import MinitronError
from ..base.files import write_atomically
from ..base.terminal import Interrupted
from ..data import batches, tasks
from ..data.config import RECORD_VERSION, config_from_dict
from ..data.own_file import error_text
from ..model.optim import adamw
from ..model.params import Params, init
from .parallel import Workers
from .run import Diverged

SOURCE = ("*.py", "tasks/*.py", "run.c")
TIMED_SECONDS = 0.3         # spent on timing the steps of one configuration


def serve(train, parent, directory):
    """Answer the lines of standard input until it ends -> exit status      train: of train.py"""
    exit_with(int(parent))
    os.chdir(directory)
    software()                                              # as it is now, before it is edited
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                                           # nothing else goes to standard output
    for line in sys.stdin:
        try:
            # NaN is not JSON: a record that has one fails here, and not when the sweep writes it
            answer = json.dumps(answer_to(json.loads(line), train), allow_nan=False)
        except Interrupted:
            return 130
        except MemoryError:
            answer = json.dumps({"killed": "out of memory"})
        except Refused as error:
            answer = json.dumps({"refused": str(error)})
        except (Exception, SystemExit) as error:            # a failed cell must not end the sweep
            answer = json.dumps({"failed": failure_text(error)})
        answers.write(answer + "\n")
        answers.flush()
    return 0


class Refused(Exception):
    """This process would not run the cells that the sweep means."""


def failure_text(error):
    return str(error) if isinstance(error, MinitronError) else error_text(error)


def source_files():
    """{name: path} of all source files; an installed minitron has the names of a clone"""
    files = {path.relative_to(ROOT).as_posix(): path
             for pattern in SOURCE for path in ROOT.glob(pattern)}
    return files | {path.relative_to(PACKAGE.parent).as_posix(): path
                    for path in PACKAGE.rglob("*.py") if not path.is_relative_to(SHIPPED)}


@cache
def software():
    """{thing: value} that a sweep and its workers have to share"""
    digest = hashlib.sha256()
    for name, path in sorted(source_files().items()):
        digest.update(name.encode() + path.read_bytes())
    return {"source": digest.hexdigest()[:12], "record version": RECORD_VERSION,
            "NumPy": np.__version__}


def refuse_difference(thing, here, there):
    if here != there:
        raise Refused(f"on {platform.node()}, {thing} is {here}; in the sweep, it is {there}: "
                      "make them the same")


def exit_with(parent):
    """End this process when its parent, a process id, is gone."""
    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def answer_to(question, train):
    for thing, value in question.pop("software").items():
        refuse_difference(thing, software()[thing], value)
    if "time" in question:
        return {"step_seconds": step_seconds(config_from_dict(question["time"]).resolve())}
    if "check" in question:
        return check_tasks(question["check"])
    return run_cell(train, **question)


def check_tasks(versions):
    """Whether this machine has the sweep's tasks and their data.  Raises Refused, MinitronError."""
    for values, version in versions:
        config = config_from_dict(values)
        refuse_difference(f"task {config.task}", repr(tasks.load(config).version), repr(version))
    return {"ok": True}


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
