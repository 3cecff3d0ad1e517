"""python -m minitron.cell PID DIRECTORY: a worker of the sweep with that process id, which runs in that directory.

A line of JSON comes in, {"config": ..., "folder": to work in, "model": path or null}, and its record goes out as another, until
the input ends; or {"time": config}, and what a training step takes goes out.  One cell after the other in one process: starting
Python anew for each would cost a tenth of a cell of five seconds.
"""
import json
import os
import sys
import threading
import time
from pathlib import Path

from . import environment

environment.use()

from train import Diverged, train

from . import grid
from .config import restored
from .files import write_atomically
from .interrupt import Interrupted


def run(config, folder, model):
    """Train and measure one cell on one thread -> its record.      config: a resolved one, as a dict; model: where to keep it"""
    trained = Path(folder) / "model.bin"
    try:
        record = train(restored(config), trained, quiet=True, threads=1)
    except Diverged as diverged:
        return diverged.record
    if model is not None:
        write_atomically(model, trained.read_bytes())       # only now, so that a cell that fails leaves nothing there
    return record


def answer_to(question):
    if "time" in question:
        return {"step_seconds": grid.step_seconds(restored(question["time"]).resolve())}
    return run(**question)


def leave_with(parent):
    """A sweep that was killed is nobody's to train for.      parent: its process id; it may be gone already"""
    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(parent, directory):
    leave_with(int(parent))
    os.chdir(directory)         # where a relative --data is
    answers, sys.stdout = sys.stdout, sys.stderr            # nothing but records goes out
    for line in sys.stdin:
        try:
            answer = answer_to(json.loads(line))
        except Interrupted:
            return
        except MemoryError:
            answer = {"failed": "out of memory"}
        except Exception as error:                          # a cell that fails must not take the sweep with it
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
