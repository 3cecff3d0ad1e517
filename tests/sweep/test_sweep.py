"""Sweeps: which cells run, which records stay, and that no kill loses or doubles one.

The cells are trainings of twenty steps.
"""
import dataclasses
import itertools
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest
from kills import check, descendants, records, run, start, survive, timeless

import train
from minitron.base.environment import ROOT
from minitron.base.errors import MinitronError
from minitron.data.command_line import training_command
from minitron.data.config import Config
from minitron.sweep import ledger, pool
from minitron.training import cells as cells_module

DIVERGING = ["--length", "1", "--dim", "2", "--seeds", "1", "--lr", "0.01,1e6", "--warmup", "0",
             "--weight-decay", "100"]


def keys(path):
    return sorted(record["key"] for record in records(path)) if path.exists() else []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The ledger of the whole sweep."""
    out = tmp_path_factory.mktemp("sweep") / "whole.jsonl"
    assert run(out)[0] == 0
    return out


def test_sweep_has_every_cell_once(whole):
    configs = [record["config"] for record in records(whole)]
    cells = sorted((c["dim"], c["length"], c["seed"]) for c in configs)
    assert cells == list(itertools.product((2, 3), (1, 2), (0, 1)))
    assert {record["status"] for record in records(whole)} == {"ok"}
    assert {record["threads"] for record in records(whole)} == {1}


def test_a_cell_runs_on_one_thread_however_many_shards_it_has(tmp_path):
    config = Config(dim=4, length=1, steps=2, batch=16, shards=2, test_items=5).resolve()
    record = cells_module.run_cell(train.train, dataclasses.asdict(config), tmp_path, None)
    assert record["threads"] == 1


def test_finished_cells_are_not_run_again(whole, tmp_path):
    """A torn last line is not a record: its cell is run, and the line is named."""
    lines, out = whole.read_text().splitlines(keepends=True), tmp_path / "some.jsonl"
    out.write_text("".join(lines[:5]) + lines[5][:100])
    code, stderr = run(out)
    assert code == 0 and "line 6: not a record, skipped" in stderr
    assert timeless(ledger.read_records(out)[0].values()) == timeless(records(whole))
    before = out.read_text()
    assert run(out)[0] == 0 and out.read_text() == before


def test_redo_runs_all_again(whole, tmp_path):
    out = tmp_path / "again.jsonl"
    out.write_text(whole.read_text())
    assert run(out, "--redo")[0] == 0
    assert keys(out) == sorted(2 * keys(whole))
    assert timeless(records(out)) == timeless(records(whole))


def test_shards_together_are_the_whole(whole, tmp_path):
    parts = [tmp_path / f"{i}.jsonl" for i in range(2)]
    for i, part in enumerate(parts):
        assert run(part, "--shard", f"{i}/2")[0] == 0
    both = tmp_path / "both.jsonl"
    both.write_text("".join(part.read_text() for part in parts))
    assert not set(keys(parts[0])) & set(keys(parts[1]))
    assert timeless(records(both)) == timeless(records(whole))


def test_the_script_for_slurm(tmp_path):
    """The documentation's, with the variables of one task of the array."""
    page = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    [script] = re.findall(r"^```bash\n(#!/bin/bash\n#SBATCH.*?)^```$", page, re.M | re.S)
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "sums.toml").write_text(
        'task = "addition"\ndim = "2-19"\nlength = 1\nseeds = 1\nsteps = 2\ntest_items = 5\n')
    variables = {"PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}:{os.environ['PATH']}",
                 "SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "1"}
    shown = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=os.environ | variables,
                           check=True, capture_output=True, text=True).stdout
    assert "2 cells, 0 of them in sums.1-of-16.jsonl" in shown and "with 1 at a time" in shown
    dims = [record["config"]["dim"] for record in records(tmp_path / "sums.1-of-16.jsonl")]
    assert dims == [3, 19], "every sixteenth cell of eighteen, from the second on"


def test_a_cell_is_what_train_py_trains(whole, tmp_path):
    """The same numbers as by the command that the report gives for it."""
    record = records(whole)[-1]
    words = training_command(record["config"]).split()[1:]
    paths = ["--out", tmp_path / "m.bin", "--ledger", tmp_path / "l.jsonl"]
    subprocess.run([sys.executable, *words, *paths], cwd=ROOT, check=True, capture_output=True)
    [alone] = records(tmp_path / "l.jsonl")
    assert alone["key"] == record["key"] and alone["metrics"] == record["metrics"]


def test_kills_lose_and_double_nothing(whole, tmp_path):
    """Of the sweep or of a worker.  A killed worker's cell is a record, and --retry reruns it."""
    out = tmp_path / "killed.jsonl"
    survive(out, random.Random(3), kills=4)
    check(out, records(whole))


def test_a_killed_worker_is_a_record(tmp_path):
    """... and the other cells are run."""
    out = tmp_path / "killed.jsonl"
    process = start(out, "--steps", "3000", "--dim", "2", "--length", "1", "--seeds", "1")
    while "to run" not in process.stdout.readline():
        pass
    while not descendants(process.pid):
        time.sleep(0.05)
    os.kill(descendants(process.pid)[0], signal.SIGKILL)
    stderr = process.communicate(timeout=60)[1]
    [record] = records(out)
    assert process.returncode == 1 and record["status"] == "killed", stderr
    assert record["reason"] == "the worker ended with signal 9"
    assert record["metrics"] == {} and record["curve"] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_finished_cells(tmp_path, number):
    out = tmp_path / "stopped.jsonl"
    process = start(out, "--length", "1", "--dim", "2,64", "--steps", "20,100000", "--seeds", "1")
    while not keys(out):
        time.sleep(0.05)
    started = descendants(process.pid)
    process.send_signal(number)
    stderr = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and "Traceback" not in stderr
    remedy = f"{out} has the finished cells: run the same command to resume"
    assert remedy in stderr.splitlines()[-1]
    assert keys(out) and not set(started) & set(descendants(1)), "no worker is left"


def test_a_cell_that_takes_too_long_is_a_record_and_can_be_rerun(tmp_path):
    out = tmp_path / "late.jsonl"
    flags = ["--length", "1", "--dim", "2", "--seeds", "1"]
    code, _ = run(out, *flags, "--timeout", "0.01s")
    assert code == 1 and [record["status"] for record in records(out)] == ["timeout"]
    assert run(out, *flags)[0] == 0 and len(records(out)) == 1, "failure is data"
    assert run(out, *flags, "--retry", "failed")[0] == 0
    assert [record["status"] for record in records(out)] == ["timeout", "ok"]


def test_a_cell_that_diverges_is_a_record(tmp_path):
    out = tmp_path / "diverged.jsonl"
    code, _ = run(out, *DIVERGING)
    assert code == 0 and sorted(record["status"] for record in records(out)) == ["diverged", "ok"]


def test_a_worker_out_of_memory_is_a_record_and_the_others_are_run(tmp_path):
    """A model of 20,000 dimensions needs more than 4 GB."""
    out, limits = tmp_path / "memory.jsonl", {resource.RLIMIT_AS: 4 << 30}
    code, _ = run(out, "--dim", "2,20000", "--length", "1", "--seeds", "1", limits=limits)
    small, large = sorted(records(out), key=lambda record: record["config"]["dim"])
    assert code == 1 and small["status"] == "ok"
    assert (large["status"], large["reason"]) == ("killed", "out of memory")


def test_a_failed_cell_leaves_no_files_and_can_be_rerun(tmp_path, monkeypatch):
    """Neither temporary ones nor among the models, where a checkpoint would stop --redo."""
    out, models, temporary = tmp_path / "l.jsonl", tmp_path / "models", tmp_path / "temporary"
    models.mkdir(), temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    flags = [*DIVERGING, "--models", str(models)]
    for _ in range(2):
        run(out, *flags, "--redo")
    statuses = sorted(record["status"] for record in records(out))
    assert statuses == ["diverged", "diverged", "ok", "ok"]
    run(out, *flags, "--lr", "0.02", "--steps", "100000", "--timeout", "2s")
    assert records(out)[-1]["status"] == "timeout" and not list(temporary.iterdir())
    finished = [record["key"] for record in records(out)[:2] if record["status"] == "ok"]
    assert [file.name for file in models.iterdir()] == [f"{key}.bin" for key in finished]


def test_a_relative_path_is_of_the_directory_that_the_sweep_runs_in(tmp_path):
    (tmp_path / "a text.txt").write_text("the cat sat on the mat. " * 400)
    flags = ["--data", "a text.txt", "--length", "8", "--dim", "2", "--seeds", "1", "--steps", "2",
             "--out", "l.jsonl"]
    subprocess.run([sys.executable, "-m", "minitron", "sweep", "text", *flags], cwd=tmp_path,
                   env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    assert [record["status"] for record in records(tmp_path / "l.jsonl")] == ["ok"]


def test_a_worker_whose_sweep_is_gone_leaves_at_once():
    """... even where it was killed before the worker could look who that was."""
    command = [sys.executable, "train.py", "--cells", "1", "."]
    worker = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
    assert worker.wait(timeout=20) == 1


def test_an_alarm_that_comes_with_the_answer_does_not_hit_the_next_cell(monkeypatch):
    """It goes off between the two, here."""
    class Late(threading.Timer):
        def cancel(self):
            self.function()
            super().cancel()

    config = Config(dim=2, length=1, steps=2, batch=4, test_items=5).resolve()
    worker = pool.Worker()
    monkeypatch.setattr(pool.threading, "Timer", Late)
    first = worker.run("key", config, None, 100)
    monkeypatch.undo()
    assert (first["status"], worker.run("key", config, None, 100)["status"]) == ("ok", "ok")
    worker.close()


def test_a_full_disk_ends_the_sweep_and_the_same_command_resumes_it(whole, tmp_path):
    """A limit on the size of files, to which the ledger is filled with spaces."""
    out, most = tmp_path / "full.jsonl", 100_000
    out.write_text(" " * (most - 10_000) + "\n")
    code, stderr = run(out, limits={resource.RLIMIT_FSIZE: most})
    assert code == 2 and f"{out} cannot be written: File too large" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr and run(out)[0] == 0
    assert timeless(ledger.read_records(out)[0].values()) == timeless(records(whole))


def test_two_sweeps_do_not_share_a_ledger(whole, tmp_path):
    """The second is refused by a line that says what to do."""
    out = tmp_path / "one.jsonl"
    with ledger.locked(out):
        code, stderr = run(out)
        assert code == 2 and "another sweep is writing" in stderr and "--shard" in stderr
        assert out.read_text() == ""
    code, stderr = run(out)
    assert code == 0, stderr
    with pytest.raises(MinitronError, match="cannot be written"), ledger.locked(tmp_path):
        pass
