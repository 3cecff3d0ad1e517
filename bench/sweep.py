#!/usr/bin/env python3
"""The overhead of a sweep: the same cells by `minitron sweep` and by train() alone.

    python bench/sweep.py           a table; 7 minutes

Cells of about five seconds, as many at a time as there are cores, and one at a time.  The sweep is
timed from its command line to its end: Python's start, the trial steps of its estimate, the
workers, the ledger.  Alone are processes that call train() on their share of the cells, and only
these calls are timed.  Rounds alternate; the medians are compared.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from minitron.base import cli
from minitron.base.environment import available_cpus
from minitron.data.config import Config
from minitron.training.cells import step_seconds

CELL_SECONDS = 5.0
SHARED = {"dim": 16, "length": 2, "lr": 1e-5}       # so low a rate that no run stops early
ALONE = """
import json, sys, time
from minitron.base import environment
environment.ensure_packages()
from train import train
from minitron.data.config import Config
start = time.monotonic()
for seed in json.loads(sys.argv[2]):
    train(Config(**json.loads(sys.argv[1]), seed=seed), sys.argv[3], quiet=True, threads=1)
print(time.monotonic() - start)
"""


def alone_seconds(settings, cells, jobs, folder):
    """Seconds of the trainings in `jobs` processes, of the slowest"""
    processes = []
    for i in range(jobs):
        seeds = json.dumps(list(range(i, cells, jobs)))
        command = [sys.executable, "-c", ALONE, json.dumps(settings), seeds, f"{folder}/{i}.bin"]
        processes.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    return max(float(process.communicate()[0]) for process in processes)


def sweep_seconds(settings, cells, jobs, folder):
    """Seconds from the command line of the sweep to its end"""
    flags = [word for name, value in settings.items() for word in (cli.flag(name), str(value))]
    start = time.monotonic()
    command = [sys.executable, "-m", "minitron", "sweep", "addition", *flags, "--seeds", str(cells),
               "--jobs", str(jobs), "--out", f"{folder}/{start}.jsonl"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cells", type=int, default=8, help="per core")
    flags = parser.parse_args()
    steps = round(CELL_SECONDS / step_seconds(Config(**SHARED).resolve()))
    settings = SHARED | {"steps": steps, "eval_every": steps // 5}
    print("| cells at a time | cells | alone, s | sweep, s | overhead |")
    print("|---:|---:|---:|---:|---:|")
    for jobs in sorted({1, available_cpus()}):
        cells, times = jobs * flags.cells, []
        for _ in range(flags.rounds):
            with tempfile.TemporaryDirectory() as folder:
                times.append((alone_seconds(settings, cells, jobs, folder),
                              sweep_seconds(settings, cells, jobs, folder)))
        alone, sweep = (statistics.median(column) for column in zip(*times))
        overhead = f"{sweep / alone - 1:+.1%}"
        print(f"| {jobs} | {cells} | {alone:.1f} | {sweep:.1f} | {overhead} |", flush=True)


if __name__ == "__main__":
    main()
