#!/usr/bin/env python3
"""What a sweep costs beside the trainings themselves: the same cells by `minitron sweep` and by train() alone.

    python bench/sweep.py           a table; 7 minutes

Cells of about five seconds, as many at a time as there are cores, and one at a time.  The sweep is timed from its command line to
its end: Python's start, the trial steps from which it says how long it will take, the workers, the ledger.  Alone are processes
that call train() on their share of the cells, and only these calls are timed.  Rounds alternate; the medians are compared.
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
from minitron.sweep import grid

CELL = 5.0              # seconds
SHARED = {"dim": 16, "length": 2, "lr": 1e-5}       # so small a rate that none stops early
ALONE = """
import json, sys, time
from minitron.base import environment
environment.ensure_packages()
from train import train
from minitron.data.config import Config
begun = time.monotonic()
for seed in json.loads(sys.argv[2]):
    train(Config(**json.loads(sys.argv[1]), seed=seed), sys.argv[3], quiet=True, threads=1)
print(time.monotonic() - begun)
"""


def alone(settings, cells, jobs, folder):
    """Seconds that the trainings take in `jobs` processes, the slowest's"""
    processes = [subprocess.Popen([sys.executable, "-c", ALONE, json.dumps(settings), json.dumps(list(range(i, cells, jobs))),
                                   f"{folder}/{i}.bin"], cwd=ROOT, stdout=subprocess.PIPE, text=True) for i in range(jobs)]
    return max(float(process.communicate()[0]) for process in processes)


def sweep(settings, cells, jobs, folder):
    """Seconds from the command line to its end"""
    flags = [word for name, value in settings.items() for word in (cli.flag(name), str(value))]
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "minitron", "sweep", "addition", *flags, "--seeds", str(cells), "--jobs", str(jobs),
                    "--out", f"{folder}/{begun}.jsonl"], cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cells", type=int, default=8, help="of each core")
    flags = parser.parse_args()
    steps = round(CELL / grid.step_seconds(Config(**SHARED).resolve()))
    settings = SHARED | {"steps": steps, "eval-every": steps // 5}
    print("| cells at a time | cells | alone, s | sweep, s | overhead |\n|---:|---:|---:|---:|---:|")
    for jobs in sorted({1, available_cpus()}):
        cells, times = jobs * flags.cells, []
        for _ in range(flags.rounds):
            with tempfile.TemporaryDirectory() as folder:
                names = {name.replace("-", "_"): value for name, value in settings.items()}
                times.append((alone(names, cells, jobs, folder), sweep(settings, cells, jobs, folder)))
        bare, swept = (statistics.median(column) for column in zip(*times))
        print(f"| {jobs} | {cells} | {bare:.1f} | {swept:.1f} | {swept / bare - 1:+.1%} |", flush=True)


if __name__ == "__main__":
    main()
