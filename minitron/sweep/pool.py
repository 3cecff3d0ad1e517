"""Sweeps: many small trainings, one a core, each a line in a ledger from which everything else is told.

A cell is a configuration; its key names it.  What the ledger has is not run again, so a sweep that was stopped, by whatever
means, goes on where it was.  Only this process writes the ledger, one line a cell when it ends; workers (cell.py) are processes
of their own, so that one that dies takes nothing with it but its cell, which becomes a record too: failure is data.
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

from ..base.environment import ROOT
from ..base.errors import MinitronError
from ..data.config import config_from_dict
from ..measure import record
from .ledger import FINISHED

MINUTE, YEAR = 60, 365 * 24 * 3600
PATIENCE = 10                       # seconds for a scheduler to answer


def todo(cells, records, redo=False, retry=False):
    """Those cells that are still to be run.      cells [(key, Config)], records {key: record}"""
    def wanted(key):
        return redo or key not in records or retry and records[key]["status"] not in FINISHED

    return [cell for cell in cells if wanted(cell[0])]


class Worker:
    """A process that runs one cell after the other (cell.py)."""

    def __init__(self):
        self.process = None

    def run(self, config, model, timeout):
        """One cell -> its record, or one that says how it failed.      timeout: seconds, None for no limit"""
        started = time.monotonic()
        # It works in a folder of this process's, which is there to delete it however the other ends.
        with tempfile.TemporaryDirectory(prefix="minitron-", ignore_cleanup_errors=True) as folder:
            answer = self.ask({"config": dataclasses.asdict(config), "folder": folder, "model": model}, timeout)
        if "failed" not in answer:
            return answer
        status = "timeout" if answer.get("late") else "killed"
        return record.failed_record(config, status, answer["failed"], time.monotonic() - started)

    def step_seconds(self, config):
        """What one training step takes here, None where it cannot be found out"""
        return self.ask({"time": dataclasses.asdict(config)}, MINUTE).get("step_seconds")

    def ask(self, question, timeout):
        """A line of JSON to the process and one back -> it, or {"failed": why}, "late" where that was the timeout (seconds)."""
        if self.process is None:
            command = [sys.executable, str(ROOT / "train.py"), "--cells", str(os.getpid()), os.getcwd()]
            self.process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            start_new_session=True)
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
            alarm.join()            # one that goes off right now must not hit the next cell
        if line.endswith("\n") and late.is_set():
            self.process.wait()
            self.process = None
        if line.endswith("\n"):
            return json.loads(line)
        code, self.process = self.process.wait(), None
        if late.is_set():
            return {"failed": f"stopped after {timeout:g} seconds", "late": True}
        return {"failed": f"the worker ended with {'signal ' + str(-code) if code < 0 else code}"}

    def kill(self):
        process = self.process          # which the thread that asks may set to None meanwhile
        if process is not None:
            process.kill()

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()


def on_this_machine(cells, jobs, timeout, model_of):
    """Run cells on `jobs` processes: an iterator of records, as they come.  Closing it kills what still runs."""
    queue, results, workers = SimpleQueue(), SimpleQueue(), [Worker() for _ in range(min(jobs, len(cells)))]
    for cell in cells:
        queue.put(cell)

    def work(worker):
        while True:
            try:
                key, config = queue.get_nowait()
            except Empty:
                return worker.close()
            try:
                results.put(worker.run(config, model_of(key), timeout))
            except Exception as error:          # shown by the one who waits
                results.put(error)

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
        while not queue.empty():
            try:
                queue.get_nowait()
            except Empty:
                break
        while any(thread.is_alive() for thread in threads):     # again and again: one may be starting its process just now
            for worker in workers:
                worker.kill()
            threads[-1].join(0.05)


def on_cluster(cells, address, jobs, timeout, model_of):
    """Run cells on dask.distributed, at an address or, for "local", on workers that are started here: an iterator of records.

    Each cell is a Python process of its own on the machine that it lands on.  A worker that dies has its cells run again by
    others, by dask's own rule three times; then the cell counts as killed.
    """
    try:
        from dask.distributed import Client, KilledWorker, LocalCluster, as_completed
    except ImportError:
        raise MinitronError("--cluster needs dask: pip install distributed") from None
    cluster = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None) if address == "local" else None
    try:
        client = Client(cluster or address, timeout=PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise MinitronError(f"no dask scheduler answers at {address}: {error}") from None
    try:
        futures = {client.submit(run_one, dataclasses.asdict(config), model_of(key), timeout, key=f"minitron-{key}"): config
                   for key, config in cells}
        for future in as_completed(futures):
            try:
                yield future.result()
            except KilledWorker as error:
                yield record.failed_record(futures[future], "killed", str(error), 0.0)
            except Exception as error:          # dask's workers have no minitron, say, or the scheduler is gone
                reason = " ".join(str(error).split())
                raise MinitronError(f"dask could not run a cell: {type(error).__name__}: {reason}") from error
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def run_one(config, model, timeout):
    """One cell in a process of its own: what a dask worker is sent."""
    worker = Worker()
    try:
        return worker.run(config_from_dict(config).resolve(), model, timeout)
    finally:
        worker.kill()


def run(cells, ledger, shown, jobs, timeout=None, models=None, cluster=None):
    """Run cells and append each record as it comes -> how many of each status.  Raises MinitronError."""
    def model_of(key):
        return None if models is None else str(Path(models).resolve() / f"{key}.bin")

    if not cells:
        return {}
    records = on_this_machine(cells, jobs, timeout, model_of) if cluster is None else \
        on_cluster(cells, cluster, jobs, timeout, model_of)
    counts = {}
    with contextlib.closing(records):
        for result in records:
            record.append_record(ledger, result)
            counts[result["status"]] = counts.get(result["status"], 0) + 1
            shown.ended(result)
    return counts
