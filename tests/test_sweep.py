"""Sweeps: what is run, what is kept, and that nothing is lost or doubled whoever is killed.

The cells here are trainings of twenty steps; kills come at random moments, from seeds.
"""
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from minitron import ledger
from minitron.environment import ROOT

CELLS = ["addition", "--dim", "2,3", "--length", "1,2", "--seeds", "2", "--steps", "20", "--eval-every", "10", "--batch", "16",
         "--test-items", "20", "--jobs", "2"]
TIMES = ("seconds", "commit")


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def keys(path):
    return sorted(record["key"] for record in records(path)) if path.exists() else []


def timeless(path):
    return {record["key"]: {name: value for name, value in record.items() if name not in TIMES} for record in records(path)}


def start(out, *flags):
    return subprocess.Popen([sys.executable, "-m", "minitron", "sweep", *CELLS, "--out", str(out), *flags], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(out, *flags):
    """A sweep to its end -> its exit code"""
    process = start(out, *flags)
    process.communicate(timeout=120)
    return process.returncode


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The ledger of the whole sweep."""
    out = tmp_path_factory.mktemp("sweep") / "whole.jsonl"
    assert run(out) == 0
    return out


def test_sweep_has_every_cell_once(whole):
    found = [(r["config"]["dim"], r["config"]["length"], r["config"]["seed"]) for r in records(whole)]
    assert sorted(found) == [(dim, length, seed) for dim in (2, 3) for length in (1, 2) for seed in (0, 1)]
    assert {r["status"] for r in records(whole)} == {"ok"} and {r["threads"] for r in records(whole)} == {1}


def test_what_is_there_is_not_run_again(whole, tmp_path):
    out = tmp_path / "some.jsonl"
    out.write_text("".join(whole.read_text().splitlines(keepends=True)[:5]))
    assert run(out) == 0 and keys(out) == keys(whole)
    before = out.read_text()
    assert run(out) == 0 and out.read_text() == before
    assert run(out, "--redo") == 0 and len(records(out)) == 16 and set(keys(out)) == set(keys(whole))


def test_shards_together_are_the_whole(whole, tmp_path):
    parts = [tmp_path / f"{i}.jsonl" for i in range(2)]
    for i, part in enumerate(parts):
        assert run(part, "--shard", f"{i}/2") == 0
    both = tmp_path / "both.jsonl"
    both.write_text("".join(part.read_text() for part in parts))
    assert not set(keys(parts[0])) & set(keys(parts[1])) and timeless(both) == timeless(whole)


def test_a_cell_is_what_train_py_trains(whole, tmp_path):
    """The same numbers as by the command that the report gives for it."""
    record = records(whole)[-1]
    from minitron.phase import command
    words = command(record["config"]).split()[1:]
    subprocess.run([sys.executable, *words, "--out", tmp_path / "m.bin", "--ledger", tmp_path / "l.jsonl"], cwd=ROOT, check=True,
                   capture_output=True)
    [alone] = records(tmp_path / "l.jsonl")
    assert alone["key"] == record["key"] and alone["metrics"] == record["metrics"]


@pytest.mark.parametrize("seed", range(4))
def test_kills_lose_and_double_nothing(whole, tmp_path, seed):
    """Of the sweep or of a worker, until all is done.  A killed worker's cell is a record that says so, and --retry runs it."""
    out, r, killed = tmp_path / "killed.jsonl", random.Random(seed), 0
    for _ in range(40):
        process = start(out, "--retry", "failed")
        time.sleep(r.uniform(0.3, 1.5))
        if process.poll() is None and killed < 4:
            victims = workers(process.pid)
            os.kill(r.choice(victims) if victims and r.random() < 0.5 else process.pid, signal.SIGKILL)
            killed += 1
        process.communicate(timeout=60)
        last = ledger.read(out)[0] if out.exists() else {}
        if sorted(last) == keys(whole) and {record["status"] for record in last.values()} == {"ok"}:
            break
    finished = [record["key"] for record in records(out) if record["status"] == "ok"]
    assert sorted(finished) == keys(whole), "each cell finished once"
    assert {key: {name: value for name, value in record.items() if name not in TIMES} for key, record in last.items()} == timeless(whole)


def workers(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(word) for word in found]
