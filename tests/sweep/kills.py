"""Sweeps whose processes are killed (-9) at random moments: the ledger has each cell once.

    make kills                            100 kills: of sweeps, their workers and dask's workers
    python tests/sweep/kills.py 30 1      30 kills, from seed 1

tests/sweep/test_sweep.py has a few of these kills in every run of the tests.
"""
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CELLS = ["addition", "--dim", "2,3", "--length", "1,2", "--seeds", "2", "--steps", "20",
         "--eval-every", "10", "--batch", "16", "--test-items", "20", "--jobs", "2"]
CHANGING = ("seconds", "commit")        # in a record: they depend on when it ran
LATEST = 1.5            # seconds after its start up to which a sweep is hit: it takes about three
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT}


def start(out, *flags, limits=None):
    """A sweep of CELLS as a process.      limits: {resource.RLIMIT_...: value}, for workers too"""
    def limit():
        for kind, most in (limits or {}).items():
            resource.setrlimit(kind, (most, most))

    command = [sys.executable, "-m", "minitron", "sweep", *CELLS, "--out", str(out), *flags]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, preexec_fn=limit)


def run(out, *flags, limits=None):
    """A sweep to its end -> its exit code and standard error"""
    process = start(out, *flags, limits=limits)
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr


def records(path):
    """Of a ledger that no kill has torn"""
    return [json.loads(line) for line in path.read_text().splitlines()]


def timeless(records):
    """{key: the last record of it, without CHANGING}"""
    return {record["key"]: {name: value for name, value in record.items() if name not in CHANGING}
            for record in records}


def process_parents():
    """{process id: its parent's}: from Linux's /proc, as not every machine has ps"""
    if not Path("/proc/self/stat").exists():
        ps = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
        return dict(map(int, line.split()) for line in ps.splitlines())
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):          # it has ended meanwhile
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return parents


def descendants(pid):
    """The processes that a process has started, and those that these have started"""
    parents = process_parents()
    return [child for child, parent in parents.items() if pid in (parent, parents.get(parent))]


def hit(rng, sweep, others):
    """Kill the sweep, a worker of it or one of the other processes -> its kind"""
    of_dask = [pid for process in others for pid in descendants(process.pid)]
    kinds = {"sweep": [sweep.pid], "worker": descendants(sweep.pid), "dask worker": of_dask}
    kind = rng.choice([kind for kind, pids in kinds.items()
                       if pids and (not others or kind != "worker")])
    with contextlib.suppress(ProcessLookupError):       # it has ended by itself
        os.kill(rng.choice(kinds[kind]), signal.SIGKILL)
    return kind


def survive(out, rng, kills, flags=(), others=()):
    """Start the sweep again and again until it is done, hitting it up to `kills` times

    -> Counter of the kinds that were hit.  Raises AssertionError if the sweep does not end.
    """
    hits = Counter()
    for _ in range(20 + 2 * kills):
        sweep = start(out, "--retry", "failed", *flags)
        time.sleep(rng.uniform(0.2, LATEST))
        if sweep.poll() is None and hits.total() < kills:
            hits[hit(rng, sweep, others)] += 1
        sweep.communicate(timeout=120)
        if sweep.returncode == 0 and hits.total() >= min(kills, 1):
            return hits
    raise AssertionError(f"the sweep did not end: {hits}")


def check(out, whole):
    """The ledger is an undisturbed sweep's: each cell finished once, with the same numbers."""
    finished = [record for record in records(out) if record["status"] == "ok"]
    keys, whole_keys = (sorted(record["key"] for record in each) for each in (finished, whole))
    assert keys == whole_keys, "a cell is lost or doubled"
    assert timeless(finished) == timeless(whole), "a record differs"


@contextlib.contextmanager
def dask():
    """A scheduler and two workers -> flags of the sweep, the workers' nannies

    A nanny starts a killed worker again.
    """
    with tempfile.TemporaryDirectory() as folder:
        about = f"{folder}/scheduler.json"
        shared = ["--scheduler-file", about, "--no-dashboard"]
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *shared, "--port", "0"]
        processes = [subprocess.Popen(command, **QUIET)]
        try:
            while not os.path.exists(about):
                time.sleep(0.1)
            command = [sys.executable, "-m", "distributed.cli.dask_worker", *shared,
                       "--nthreads", "1", "--local-directory", folder]
            processes += [subprocess.Popen(command, **QUIET) for _ in range(2)]
            yield ["--cluster", json.loads(Path(about).read_text())["address"]], processes[1:]
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


def main(kills=100, seed=0):
    rng, hits = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        out = Path(folder, "whole.jsonl")
        code, stderr = run(out)
        assert code == 0, stderr
        whole, setups = records(out), [((), ())]            # flags, other processes
        try:
            import distributed  # noqa: F401
            setups.append(stack.enter_context(dask()))
        except ImportError:
            print("dask.distributed is not installed: its workers are left out")
        for number in range(10**6):
            if hits.total() >= kills:
                break
            out = Path(folder, f"{number}.jsonl")
            hits += survive(out, rng, 5, *setups[number % len(setups)])
            check(out, whole)
            print(f"{number + 1} sweeps, each cell once; killed: {dict(hits)}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
