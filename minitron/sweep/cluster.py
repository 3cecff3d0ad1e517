"""A sweep's cells on the machines of a dask.distributed cluster.

Each thread of a dask worker is given one cell at a time, and runs it in a Python process of its own
(pool.Worker).  A worker gets none before it has shown that it has the sweep's software, tasks and
data.  Each wait has a limit: the cells of a worker that leaves go to others, and one that does not
answer gets no more.
"""
import asyncio
import contextlib
import dataclasses
import importlib
import logging
import math
import platform
import sys
import threading
import time
from collections import Counter, deque
from queue import Empty, SimpleQueue
from typing import NamedTuple

from ..base.environment import pip_command
from ..base.errors import MinitronError
from ..data import tasks
from ..data.config import Config
from ..measure.record import failed_record
from ..training.cells import failure_text, software
from .pool import Worker

PATIENCE = 10           # seconds that a scheduler has to answer
JOINING = 60            # seconds for a first worker to come, and for another after the last
STARTING = 60           # seconds that a worker has for its check, and for a cell beyond --timeout
LOSSES = 3              # workers that a cell may take with it before it counts as killed


class Job(NamedTuple):
    """A cell in flight."""

    key: str
    config: Config
    address: str        # of its worker
    start: float        # on the monotonic clock, as is the deadline
    deadline: float     # infinity without --timeout


@contextlib.contextmanager
def connected(address):
    """A dask client.      address: of the scheduler.  Raises MinitronError."""
    try:
        from dask import config
        from dask.distributed import Client
    except ImportError:
        raise MinitronError(f"--cluster needs dask: {pip_command('distributed')}") from None
    if address.startswith("tls:") and not config.get("distributed.comm.tls.ca-file", None):
        raise MinitronError(f"{address} needs certificates in dask's configuration: docs/sweeps.md "
                            "shows how to make them")
    for name in ("distributed", "distributed.client"):              # errors here are one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    answers = SimpleQueue()

    def connect():
        try:
            answers.put(Client(address, timeout=PATIENCE, set_as_default=False))
        except Exception as error:
            answers.put(error)

    # In a thread, since a scheduler that accepts and then says nothing escapes dask's timeout.
    threading.Thread(target=connect, daemon=True).start()
    try:
        client = answers.get(timeout=1.5 * PATIENCE)
    except Empty:
        client = TimeoutError(f"it accepts connections, but said nothing for {PATIENCE} seconds")
    if isinstance(client, Exception):
        raise MinitronError(f"no dask scheduler answers at {address}: {client}")
    try:
        yield client
    finally:
        client.close(timeout=PATIENCE)


class Cluster:
    """Those workers of a dask scheduler that can run the cells [(key, Config)]."""

    def __init__(self, client, cells):
        self.client = client
        self.versions = task_versions(cells)
        self.present = set()        # addresses of all workers that the scheduler has
        self.checks = {}            # address of a worker -> future of its check, deadline
        self.free = {}              # address of one that has passed -> threads without a cell
        self.last_passed = time.monotonic()     # when there was one that has passed
        self.wake = threading.Event()           # set when a cell has ended

    def wait_for_workers(self):
        """Check all workers of the scheduler -> how many cells they run at a time

        Raises MinitronError where none can run cells.
        """
        self.update()
        if not self.present:
            print(f"waiting for a worker to join, {JOINING} seconds at most", file=sys.stderr)
        while self.checks or not self.free:
            time.sleep(0.1)
            self.update()
        return sum(self.free.values())

    def run(self, most, cells, timeout, model_path):
        """Run cells: an iterator of (cell, record), as they come.  Raises MinitronError.

        most: cells at a time, or None; timeout: seconds per cell, or None; model_path: key -> path
        on the worker's machine, or None
        """
        queue, jobs, losses = deque(cells), {}, Counter()
        while queue or jobs:
            self.start_cells(queue, jobs, most or math.inf, timeout, model_path)
            self.wake.wait(1)
            self.wake.clear()
            self.update()
            for future in [future for future, job in jobs.items() if self.has_ended(future, job)]:
                job = jobs.pop(future)
                cell, record = (job.key, job.config), self.record_of(future, job)
                losses[job.key] += record is None
                if record is not None:
                    yield cell, record
                elif losses[job.key] < LOSSES:
                    queue.append(cell)
                else:
                    yield cell, failed(job, "killed", f"{LOSSES} workers were lost with this cell")

    def update(self):
        """Check workers that have joined, forget those that have left.  Raises MinitronError."""
        try:
            threads = self.client.nthreads(callback_timeout=PATIENCE)
        except (Exception, asyncio.CancelledError) as error:    # dask closes a client by itself too
            raise MinitronError("the dask scheduler does not answer any more "
                                f"({failure_text(error)}): run the same command again") from None
        now = time.monotonic()
        for address in threads.keys() - self.present:
            # A function that cannot be found there would end the worker: so the import comes first.
            module = self.submit(address, importlib.import_module, __name__)
            check = self.submit(address, check_machine, module, self.versions, software())
            self.checks[address] = check, now + STARTING
        for address in self.present - threads.keys():
            self.checks.pop(address, None)
            self.free.pop(address, None)
        self.present = set(threads)
        for address, (future, deadline) in list(self.checks.items()):
            if future.done() or now > deadline:
                del self.checks[address]
                self.admit(address, future, threads[address])
        if self.free or self.checks:
            self.last_passed = now
        elif now > self.last_passed + JOINING:
            raise MinitronError(f"no worker that can run cells came in {JOINING} seconds: start "
                                "one (dask worker ADDRESS), and run the same command again")

    def submit(self, address, function, *arguments):
        """A future of a call on one worker"""
        return self.client.submit(function, *arguments, workers=[address], pure=False)

    def admit(self, address, check, threads):
        """Give a worker cells if its check, a future, has found nothing wrong; else say what."""
        try:
            complaint = f"no answer for {STARTING} seconds"
            if check.done():
                complaint = check.result(timeout=PATIENCE)
        except Exception as error:
            complaint = (f"{failure_text(error)}: the scheduler and each worker have to be able to "
                         "import minitron")
        if complaint is None:
            self.free[address] = threads
        else:
            self.drop(address, complaint)

    def drop(self, address, complaint):
        """Give a worker no more cells."""
        self.free.pop(address, None)
        print(f"minitron: worker {address} gets no cells: {complaint}", file=sys.stderr)

    def start_cells(self, queue, jobs, most, timeout, model_path):
        """Move cells from the queue to `jobs`, {future: Job}, until no thread is free."""
        for address in self.free:
            while queue and self.free[address] and len(jobs) < most:
                key, config = queue.popleft()
                future = self.submit(address, run_on_worker, key, config, software(),
                                     model_path(key), timeout)
                future.add_done_callback(lambda _: self.wake.set())
                start = time.monotonic()
                jobs[future] = Job(key, config, address, start, start + (timeout or math.inf)
                                   + STARTING)
                self.free[address] -= 1

    def has_ended(self, future, job):
        return future.done() or job.address not in self.present or time.monotonic() > job.deadline

    def record_of(self, future, job):
        """The record of a job that has ended, None if it was lost with its worker"""
        try:
            if future.done():
                result = future.result(timeout=PATIENCE)
                if job.address in self.free:
                    self.free[job.address] += 1
                return result
        except Exception as error:          # its worker was killed, say, or has other software now
            self.drop(job.address, failure_text(error))
            return None
        future.release()
        if job.address not in self.present:
            return None
        # A process that is stopped, or a machine that is gone, cannot keep the time itself.
        reason = f"no answer from {job.address} for {time.monotonic() - job.start:.0f} seconds"
        self.drop(job.address, reason)
        return failed(job, "timeout", reason)


def failed(job, status, reason):
    return failed_record(job.key, job.config, status, reason, time.monotonic() - job.start)


def task_versions(cells):
    """[(Config as a dict, version of its task)]: one for each task and file of data"""
    configs = {(config.task, config.data): config for _, config in cells}
    return [(dataclasses.asdict(config), tasks.load(config).version)
            for config in configs.values()]


# ---- what dask sends to its workers --------------------------------------------------------------


def check_machine(module, versions, sweep_software):
    """Why this machine cannot run the sweep's cells, None if it can      module: this one"""
    with contextlib.closing(Worker(sweep_software)) as worker:
        try:
            answer = worker.ask({"check": versions}, STARTING)
        except MinitronError as error:
            return str(error)
    return None if "ok" in answer else f"on {platform.node()}, {next(iter(answer.values()))}"


def run_on_worker(key, config, sweep_software, model, timeout):
    """One cell -> its record"""
    worker = Worker(sweep_software)
    try:
        return worker.run(key, config, model, timeout)
    finally:
        worker.kill()
