"""Sweeps: many small trainings, one per core, each a line in a ledger.

A cell is a configuration; its key names it.  Cells that the ledger has are not run again, so a
sweep that was stopped, by whatever means, resumes where it was.  Only the sweep writes the ledger,
one line per cell when it ends.  Workers (minitron/training/cells.py) are processes of their own:
one that dies loses nothing but its cell, and that becomes a record too.

Next: cluster.py, the same on other machines.
"""
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from queue import Empty, SimpleQueue

from ..base import blas
from ..base.environment import ROOT
from ..base.errors import MinitronError
from ..measure import record
from ..training.cells import software
from .ledger import is_finished

MINUTE, YEAR = 60, 365 * 24 * 3600


def cells_to_run(cells, records, redo=False, retry=False):
    """Cells without a record, or to be rerun.      cells [(key, Config)], records {key: record}"""
    def is_due(key):
        return redo or key not in records or retry and not is_finished(records[key])

    return [cell for cell in cells if is_due(cell[0])]


# ---- one process ----------------------------------------------------------------------------


class Worker:
    """A process that runs one cell after the other (minitron/training/cells.py)."""

    def __init__(self, sweep_software=None):
        self.software = sweep_software or software()        # that the process has to have
        self.process = None

    def run(self, key, config, model, timeout):
        """One cell -> its record, or one that says how it failed

        config: resolved; model: a path to keep the model at, or None; timeout: seconds, or None.
        Raises MinitronError where the process has other software than this one.
        """
        start = time.monotonic()
        # The worker's folder belongs to this process, which deletes it however the worker ends.
        with tempfile.TemporaryDirectory(prefix="minitron-", ignore_cleanup_errors=True) as folder:
            question = {"config": dataclasses.asdict(config), "folder": folder, "model": model}
            answer = self.ask(question, timeout)
        if "key" in answer:
            return answer
        [(status, reason)] = answer.items()
        return record.failed_record(key, config, status, reason, time.monotonic() - start)

    def step_seconds(self, config):
        """Seconds per training step on this machine, None where it cannot be measured"""
        return self.ask({"time": dataclasses.asdict(config)}, MINUTE).get("step_seconds")

    def ask(self, question, timeout):
        """Send a line of JSON to the process -> its answer

        Or {status: reason}: {"killed": ...} if it ended, {"timeout": ...} if that took too long
        (seconds, None for no limit).  Raises MinitronError.
        """
        self.start()
        late = threading.Event()
        alarm = threading.Timer(timeout or YEAR, lambda: (late.set(), self.kill()))
        alarm.daemon = True
        alarm.start()
        try:
            self.process.stdin.write(json.dumps(question | {"software": self.software}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            alarm.cancel()
            alarm.join()            # an alarm that is going off now must not hit the next cell
        answered = line.endswith("\n")
        code = self.wait() if late.is_set() or not answered else None
        if answered:
            answer = json.loads(line)
            if "refused" in answer:
                raise MinitronError(answer["refused"])
            return answer
        if late.is_set():
            return {"timeout": f"stopped after {timeout:g} seconds"}
        signal_or_code = f"signal {-code}" if code < 0 else code
        return {"killed": f"the worker ended with {signal_or_code}"}

    def start(self):
        """Start the process, if there is none."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "train.py"), "--cells", str(os.getpid()), os.getcwd()],
                cwd=ROOT, env=os.environ | blas.ONE_THREAD, text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, start_new_session=True)

    def wait(self):
        """Wait until the process has ended -> its exit code; the next question starts another."""
        code, self.process = self.process.wait(), None
        return code

    def kill(self):
        process = self.process          # the thread that asks may set it to None meanwhile
        if process is not None:
            process.kill()

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()


# ---- many processes -------------------------------------------------------------------------


def run_locally(jobs, cells, timeout, model_path):
    """Run cells in `jobs` processes: an iterator of (cell, record), as they come

    timeout: seconds per cell, or None; model_path: key -> path or None.  Closing the iterator kills
    the processes.  Raises MinitronError.
    """
    queue, results = SimpleQueue(), SimpleQueue()
    for cell in cells:
        queue.put(cell)

    def work(worker):
        while (cell := next_or_none(queue)) is not None:
            key, config = cell
            try:
                results.put((cell, worker.run(key, config, model_path(key), timeout)))
            except Exception as error:          # raised below, in the thread that waits
                results.put((cell, error))
        worker.close()

    workers = [Worker() for _ in range(min(jobs, len(cells)))]
    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        for _ in cells:
            cell, result = results.get()
            if isinstance(result, Exception):
                raise MinitronError(f"a worker could not be run: {result}") from result
            yield cell, result
    finally:
        while next_or_none(queue) is not None:
            pass
        # Kill until all have ended: a thread may be starting its process just now.
        while any(thread.is_alive() for thread in threads):
            for worker in workers:
                worker.kill()
            threads[-1].join(0.05)


def next_or_none(queue):
    try:
        return queue.get_nowait()
    except Empty:
        return None
