"""Sweeps: what is run, what is kept, and that nothing is lost or doubled whoever is killed.

The cells are trainings of twenty steps.
"""
import dataclasses
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest
from kills import below, check, records, run, start, survive, timeless

import train
from minitron.base.environment import ROOT
from minitron.base.errors import MinitronError
from minitron.data.config import Config
from minitron.sweep import ledger, pool
from minitron.training import cells as cells_module


def keys(path):
    return sorted(record["key"] for record in records(path)) if path.exists() else []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The ledger of the whole sweep."""
    out = tmp_path_factory.mktemp("sweep") / "whole.jsonl"
    assert run(out)[0] == 0
    return out


def test_sweep_has_every_cell_once(whole):
    found = [(r["config"]["dim"], r["config"]["length"], r["config"]["seed"]) for r in records(whole)]
    assert sorted(found) == [(dim, length, seed) for dim in (2, 3) for length in (1, 2) for seed in (0, 1)]
    assert {r["status"] for r in records(whole)} == {"ok"} and {r["threads"] for r in records(whole)} == {1}


def test_a_cell_runs_on_one_thread_however_many_shards_it_has(tmp_path):
    config = Config(dim=4, length=1, steps=2, batch=16, shards=2, test_items=5).resolve()
    assert cells_module.run_cell(train.train, dataclasses.asdict(config), tmp_path, None)["threads"] == 1


def test_what_is_there_is_not_run_again(whole, tmp_path):
    """A torn last line is no record: its cell is run, and the line is named."""
    lines, out = whole.read_text().splitlines(keepends=True), tmp_path / "some.jsonl"
    out.write_text("".join(lines[:5]) + lines[5][:100])
    code, said = run(out)
    assert code == 0 and "line 6: not a record, skipped" in said
    assert timeless(ledger.read_records(out)[0].values()) == timeless(records(whole))
    before = out.read_text()
    assert run(out)[0] == 0 and out.read_text() == before


def test_redo_runs_all_again(whole, tmp_path):
    out = tmp_path / "again.jsonl"
    out.write_text(whole.read_text())
    assert run(out, "--redo")[0] == 0
    assert keys(out) == sorted(2 * keys(whole)) and timeless(records(out)) == timeless(records(whole))


def test_shards_together_are_the_whole(whole, tmp_path):
    parts = [tmp_path / f"{i}.jsonl" for i in range(2)]
    for i, part in enumerate(parts):
        assert run(part, "--shard", f"{i}/2")[0] == 0
    both = tmp_path / "both.jsonl"
    both.write_text("".join(part.read_text() for part in parts))
    assert not set(keys(parts[0])) & set(keys(parts[1])) and timeless(records(both)) == timeless(records(whole))


def test_a_cell_is_what_train_py_trains(whole, tmp_path):
    """The same numbers as by the command that the report gives for it."""
    record = records(whole)[-1]
    from minitron.data.command_line import training_command
    words = training_command(record["config"]).split()[1:]
    subprocess.run([sys.executable, *words, "--out", tmp_path / "m.bin", "--ledger", tmp_path / "l.jsonl"], cwd=ROOT, check=True,
                   capture_output=True)
    [alone] = records(tmp_path / "l.jsonl")
    assert alone["key"] == record["key"] and alone["metrics"] == record["metrics"]


def test_kills_lose_and_double_nothing(whole, tmp_path):
    """Of the sweep or of a worker, until all is done.  A killed worker's cell is a record that says so, and --retry runs it."""
    out = tmp_path / "killed.jsonl"
    survive(out, random.Random(3), kills=4)
    check(out, records(whole))


def test_a_killed_worker_is_a_record(tmp_path):
    """... and the others go on."""
    out = tmp_path / "killed.jsonl"
    process = start(out, "--steps", "3000", "--dim", "2", "--length", "1", "--seeds", "1")
    while "to run" not in process.stdout.readline():
        pass
    while not below(process.pid):
        time.sleep(0.05)
    os.kill(below(process.pid)[0], signal.SIGKILL)
    said = process.communicate(timeout=60)[1]
    [record] = records(out)
    assert process.returncode == 1 and record["status"] == "killed" and record["reason"] == "the worker ended with signal 9", said
    assert record["metrics"] == {} and record["curve"] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_is_finished(tmp_path, number):
    out = tmp_path / "stopped.jsonl"
    process = start(out, "--length", "1", "--dim", "2,64", "--steps", "20,100000", "--seeds", "1")
    while not keys(out):
        time.sleep(0.05)
    started = below(process.pid)
    process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and "Traceback" not in said and f"{out} has the finished cells: run the same command to resume" in said.splitlines()[-1]
    assert keys(out) and not set(started) & set(below(1)), "no worker stays behind"


def test_a_cell_that_takes_too_long_is_a_record_and_is_run_again_when_asked(tmp_path):
    out = tmp_path / "late.jsonl"
    flags = ["--length", "1", "--dim", "2", "--seeds", "1"]
    code, _ = run(out, *flags, "--timeout", "0.01s")
    assert code == 1 and [record["status"] for record in records(out)] == ["timeout"]
    assert run(out, *flags)[0] == 0 and len(records(out)) == 1, "failure is data"
    assert run(out, *flags, "--retry", "failed")[0] == 0 and [record["status"] for record in records(out)] == ["timeout", "ok"]


def test_a_cell_that_diverges_is_a_record(tmp_path):
    out = tmp_path / "diverged.jsonl"
    code, _ = run(out, "--length", "1", "--dim", "2", "--seeds", "1", "--lr", "0.01,1e6", "--warmup", "0",
                  "--weight-decay", "100")
    assert code == 0 and sorted(record["status"] for record in records(out)) == ["diverged", "ok"]


def test_a_worker_out_of_memory_is_a_record_and_the_others_go_on(tmp_path):
    """Of 4 GB, a model of 20,000 dimensions asks for more."""
    out = tmp_path / "memory.jsonl"
    code, _ = run(out, "--dim", "2,20000", "--length", "1", "--seeds", "1", limits={resource.RLIMIT_AS: 4 << 30})
    small, large = sorted(records(out), key=lambda record: record["config"]["dim"])
    assert code == 1 and small["status"] == "ok" and (large["status"], large["reason"]) == ("killed", "out of memory")


def test_what_fails_leaves_nothing_behind_and_can_be_run_again(tmp_path, monkeypatch):
    """Neither in the folder of temporary files nor among the models, where a checkpoint would be in the way of --redo."""
    out, models, temporary = tmp_path / "l.jsonl", tmp_path / "models", tmp_path / "temporary"
    models.mkdir(), temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    flags = ["--length", "1", "--dim", "2", "--seeds", "1", "--warmup", "0", "--weight-decay", "100", "--models", str(models)]
    for _ in range(2):
        run(out, *flags, "--lr", "0.01,1e6", "--redo")
    assert sorted(record["status"] for record in records(out)) == ["diverged", "diverged", "ok", "ok"]
    run(out, *flags, "--lr", "0.02", "--steps", "100000", "--timeout", "2s")
    assert records(out)[-1]["status"] == "timeout" and not list(temporary.iterdir())
    assert [file.name for file in models.iterdir()] == [f"{r['key']}.bin" for r in records(out)[:2] if r["status"] == "ok"]


def test_a_relative_path_is_of_the_directory_that_the_sweep_runs_in(tmp_path):
    (tmp_path / "a text.txt").write_text("the cat sat on the mat. " * 400)
    command = [sys.executable, "-m", "minitron", "sweep", "text", "--data", "a text.txt", "--length", "8", "--dim", "2",
               "--seeds", "1", "--steps", "2", "--out", "l.jsonl"]
    subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    assert [record["status"] for record in records(tmp_path / "l.jsonl")] == ["ok"]


def test_a_worker_whose_sweep_is_gone_leaves_at_once():
    """... even where it was killed before the worker could look who that was."""
    worker = subprocess.Popen([sys.executable, "train.py", "--cells", "1", "."], cwd=ROOT, stdin=subprocess.PIPE)
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
    first = worker.run(config, None, 100)
    monkeypatch.undo()
    assert (first["status"], worker.run(config, None, 100)["status"]) == ("ok", "ok")
    worker.close()


def test_a_full_disk_ends_the_sweep_and_the_same_command_goes_on(whole, tmp_path):
    """A file may not have more bytes than this, and the ledger has almost as many, all of them spaces."""
    out, most = tmp_path / "full.jsonl", 100_000
    out.write_text(" " * (most - 10_000) + "\n")
    code, said = run(out, limits={resource.RLIMIT_FSIZE: most})
    assert code == 2 and f"{out} cannot be written: File too large" in said.splitlines()[-1] and "Traceback" not in said
    assert run(out)[0] == 0 and timeless(ledger.read_records(out)[0].values()) == timeless(records(whole))


def test_two_sweeps_do_not_share_a_ledger(whole, tmp_path):
    """The second is refused by a line that says what to do; what the first writes is whole."""
    out = tmp_path / "one.jsonl"
    with ledger.locked(out):
        code, said = run(out)
        assert code == 2 and "another sweep is writing" in said and "--shard" in said and out.read_text() == ""
    code, said = run(out)
    assert code == 0, said
    with pytest.raises(MinitronError, match="cannot be written"), ledger.locked(tmp_path):
        pass


# ---- dask ------------------------------------------------------------------------------------------------------------


def test_the_same_on_dask(whole, tmp_path):
    pytest.importorskip("distributed")
    out = tmp_path / "dask.jsonl"
    code, said = run(out, "--cluster", "local")
    assert code == 0 and keys(out) == keys(whole) and timeless(records(out)) == timeless(records(whole)), said


def test_a_worker_of_dask_that_cannot_run_a_cell_is_one_line(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(pool, "run_in_own_process", lambda *arguments: 1 / 0)
    cells = [("x", Config(dim=2, length=1).resolve())]
    with pytest.raises(MinitronError, match="dask could not run a cell: ZeroDivisionError"):
        list(pool.run_on_cluster(cells, "local", 1, None, lambda key: None))


def test_no_scheduler_is_one_line(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(pool, "PATIENCE", 0.2)
    with pytest.raises(MinitronError, match="no dask scheduler answers at tcp://127.0.0.1:9"):
        next(pool.run_on_cluster([], "tcp://127.0.0.1:9", 1, None, None))


def test_dask_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(MinitronError, match="pip install"):
        next(pool.run_on_cluster([], "local", 1, None, None))
