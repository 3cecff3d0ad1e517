"""Sweeps: many small trainings, one per core, each a line in a ledger.

A cell is a configuration; its key names it.  Cells that the ledger has are not run again, so a
sweep that was stopped, by whatever means, resumes where it was.  Only this process writes the
ledger, one line per cell when it ends.  Workers (minitron/training/cells.py) are processes of
their own: one that dies loses nothing but its cell, and that becomes a record too.
"""
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

from ..base import blas
from ..base.environment import ROOT
from ..base.errors import MinitronError
from ..data.config import config_from_dict
from ..measure import record
from .ledger import is_finished

MINUTE, YEAR = 60, 365 * 24 * 3600
PATIENCE = 10                       # seconds that a scheduler has to answer


def cells_to_run(cells, records, redo=False, retry=False):
    """Cells without a record, or to be rerun.      cells [(key, Config)], records {key: record}"""
    def is_due(key):
        return redo or key not in records or retry and not is_finished(records[key])

    return [cell for cell in cells if is_due(cell[0])]


def run_cells(cells, ledger, board, jobs, timeout=None, models=None, cluster=None):
    """Run cells, append each record to the ledger as it comes -> {status: how many}

    timeout: seconds per cell; models: a folder that keeps them; cluster: a dask address.  Raises
    MinitronError.
    """
    def model_path(key):
        return None if models is None else str(Path(models).resolve() / f"{key}.bin")

    if not cells:
        return {}
    if cluster is None:
        records = run_locally(cells, jobs, timeout, model_path)
    else:
        records = run_on_cluster(cells, cluster, jobs, timeout, model_path)
    counts = {}
    with contextlib.closing(records):
        for result in records:
            record.append_record(ledger, result)
            counts[result["status"]] = counts.get(result["status"], 0) + 1
            board.ended(result)
    return counts


# ---- one process ----------------------------------------------------------------------------


class Worker:
    """A process that runs one cell after the other (minitron/training/cells.py)."""

    def __init__(self):
        self.process = None

    def run(self, config, model, timeout):
        """One cell -> its record, or one that says how it failed

        model: a path to keep the model at, or None; timeout: seconds, or None
        """
        start = time.monotonic()
        # The worker's folder belongs to this process, which deletes it however the worker ends.
        with tempfile.TemporaryDirectory(prefix="minitron-", ignore_cleanup_errors=True) as folder:
            question = {"config": dataclasses.asdict(config), "folder": folder, "model": model}
            answer = self.ask(question, timeout)
        if "failed" not in answer:
            return answer
        status = "timeout" if answer.get("late") else "killed"
        return record.failed_record(config, status, answer["failed"], time.monotonic() - start)

    def step_seconds(self, config):
        """Seconds per training step on this machine, None where it cannot be measured"""
        return self.ask({"time": dataclasses.asdict(config)}, MINUTE).get("step_seconds")

    def ask(self, question, timeout):
        """Send a line of JSON to the process -> its answer

        Or {"failed": reason}, with "late" if that was the timeout (seconds, None for no limit).
        """
        self.start()
        late = threading.Event()
        alarm = threading.Timer(timeout or YEAR, lambda: (late.set(), self.kill()))
        alarm.daemon = True
        alarm.start()
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
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
            return json.loads(line)
        if late.is_set():
            return {"failed": f"stopped after {timeout:g} seconds", "late": True}
        signal_or_code = f"signal {-code}" if code < 0 else code
        return {"failed": f"the worker ended with {signal_or_code}"}

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


def run_locally(cells, jobs, timeout, model_path):
    """Run cells in `jobs` processes: an iterator of records, as they come.  Closing it kills them.

    model_path: key -> path or None
    """
    queue, results = SimpleQueue(), SimpleQueue()
    for cell in cells:
        queue.put(cell)

    def work(worker):
        while (cell := next_or_none(queue)) is not None:
            key, config = cell
            try:
                results.put(worker.run(config, model_path(key), timeout))
            except Exception as error:          # raised below, in the thread that waits
                results.put(error)
        worker.close()

    workers = [Worker() for _ in range(min(jobs, len(cells)))]
    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        for _ in cells:
            result = results.get()
            if isinstance(result, Exception):
                raise MinitronError(f"a worker could not be run: {result}") from result
            yield result
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


def run_on_cluster(cells, address, jobs, timeout, model_path):
    """Run cells on dask.distributed: an iterator of records, as they come

    address: of a scheduler, or "local" for `jobs` workers on this machine.  Each cell is a Python
    process of its own on the machine that runs it.  dask runs the cells of a worker that dies
    again, three times; then the cell counts as killed.
    """
    try:
        from dask.distributed import Client, KilledWorker, LocalCluster, as_completed
    except ImportError:
        raise MinitronError("--cluster needs dask: pip install distributed") from None
    cluster = None
    if address == "local":
        cluster = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
    try:
        client = Client(cluster or address, timeout=PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise MinitronError(f"no dask scheduler answers at {address}: {error}") from None
    try:
        futures = {client.submit(run_in_own_process, dataclasses.asdict(config), model_path(key),
                                 timeout, key=f"minitron-{key}"): config
                   for key, config in cells}
        for future in as_completed(futures):
            try:
                yield future.result()
            except KilledWorker as error:
                yield record.failed_record(futures[future], "killed", str(error), 0.0)
            except Exception as error:          # no minitron on the workers, say, or no scheduler
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise MinitronError(f"dask could not run a cell: {reason}") from error
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def run_in_own_process(config, model, timeout):
    """One cell -> its record: the function that dask sends to its workers"""
    worker = Worker()
    try:
        return worker.run(config_from_dict(config).resolve(), model, timeout)
    finally:
        worker.kill()
