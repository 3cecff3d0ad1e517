"""Sweeps whose processes are killed (-9) at random moments, until all is done; then the ledger has every cell, once.

    make kills                      100 kills: of sweeps, of their workers and, where dask is installed, of dask's workers
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
CELLS = ["addition", "--dim", "2,3", "--length", "1,2", "--seeds", "2", "--steps", "20", "--eval-every", "10", "--batch", "16",
         "--test-items", "20", "--jobs", "2"]
TIMES = ("seconds", "commit")
LATEST = 1.5            # seconds after its start up to which a sweep is hit: it takes about three


def start(out, *flags, limits=None):
    """A sweep of CELLS as a process.      limits: {resource.RLIMIT_...: of it and of its workers}"""
    def limit():
        for kind, most in (limits or {}).items():
            resource.setrlimit(kind, (most, most))

    return subprocess.Popen([sys.executable, "-m", "minitron", "sweep", *CELLS, "--out", str(out), *flags], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit)


def run(out, *flags, limits=None):
    """A sweep to its end -> its exit code and what it said"""
    process = start(out, *flags, limits=limits)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def records(path):
    """Of a ledger that no kill has torn"""
    return [json.loads(line) for line in path.read_text().splitlines()]


def timeless(found):
    """What does not depend on when it ran, by key, the last of each"""
    return {record["key"]: {name: value for name, value in record.items() if name not in TIMES} for record in found}


def below(pid):
    """The processes that a process has started, and those that they have"""
    shown = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
    parents = dict(map(int, line.split()) for line in shown.splitlines())
    return [child for child, parent in parents.items() if parent == pid or parents.get(parent) == pid]


def hit(rng, sweep, others):
    """Kill the sweep, a worker of its or one of the other processes, whatever is there -> what it was"""
    of_dask = [pid for process in others for pid in below(process.pid)]
    kinds = {"sweep": [sweep.pid], "worker": below(sweep.pid), "dask worker": of_dask}
    kind = rng.choice([kind for kind, found in kinds.items() if found and (not others or kind != "worker")])
    with contextlib.suppress(ProcessLookupError):       # it has ended by itself
        os.kill(rng.choice(kinds[kind]), signal.SIGKILL)
    return kind


def survive(out, rng, kills, flags=(), others=()):
    """Start the sweep again and again, hit it `kills` times at the most, until it is done -> Counter of what was hit.

    Raises AssertionError where it does not come to its end.
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
    """The ledger has what an undisturbed sweep's has: each cell finished once, with the same numbers."""
    finished = [record for record in records(out) if record["status"] == "ok"]
    assert sorted(record["key"] for record in finished) == sorted(record["key"] for record in whole), "a cell is lost or doubled"
    assert timeless(finished) == timeless(whole), "a record differs"


@contextlib.contextmanager
def dask():
    """A scheduler and two workers under nannies, which start a killed worker again -> flags of the sweep, the nannies"""
    with tempfile.TemporaryDirectory() as folder:
        about, quiet = f"{folder}/scheduler.json", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT}
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--scheduler-file", about, "--port", "0",
                   "--no-dashboard"]
        processes = [subprocess.Popen(command, **quiet)]
        try:
            while not os.path.exists(about):
                time.sleep(0.1)
            command = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", about, "--nthreads", "1",
                       "--no-dashboard", "--local-directory", folder]
            processes += [subprocess.Popen(command, **quiet) for _ in range(2)]
            yield ["--cluster", json.loads(Path(about).read_text())["address"]], processes[1:]
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


def main(kills=100, seed=0):
    rng, hits = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        out = Path(folder, "whole.jsonl")
        code, said = run(out)
        assert code == 0, said
        whole, ways = records(out), [((), ())]
        try:
            import distributed  # noqa: F401
            ways.append(stack.enter_context(dask()))
        except ImportError:
            print("dask.distributed is not installed: its workers are left out")
        for number in range(10**6):
            if hits.total() >= kills:
                break
            out = Path(folder, f"{number}.jsonl")
            hits += survive(out, rng, 5, *ways[number % len(ways)])
            check(out, whole)
            print(f"{number + 1} sweeps, each cell there once; killed: {dict(hits)}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
