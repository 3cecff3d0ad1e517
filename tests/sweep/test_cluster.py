"""Sweeps on dask.distributed: the same ledger; wrong workers get no cells; no wait is without end.

Most run on a scheduler and workers that are threads of the test.
"""
import socket
import sys
import threading
import time

import pytest
from helpers import refused
from kills import dask, records, run, timeless

from minitron.__main__ import main
from minitron.base.errors import MinitronError
from minitron.data import tasks
from minitron.data.config import Config
from minitron.sweep import cluster, ledger
from minitron.training import cells as cells_module

CONFIGS = [Config(dim=2, length=1, steps=2, seed=seed).resolve() for seed in range(4)]
CELLS = [(config.key(tasks.load(config)), config) for config in CONFIGS]


@pytest.fixture
def client(monkeypatch):
    """A client of a scheduler without workers; what would take a minute takes half a second."""
    distributed = pytest.importorskip("distributed")
    for name in ("JOINING", "STARTING"):
        monkeypatch.setattr(cluster, name, 0.5)
    monkeypatch.setattr(cluster, "check_machine", lambda *arguments: None)
    monkeypatch.setattr(cluster, "run_on_worker", answer)
    with (distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as local,
          distributed.Client(local, set_as_default=False) as client):
        client.scale = local.scale
        yield client


def answer(key, config, software, model, timeout):
    return {"key": key, "model": model}


def call_planted(*arguments):
    """dask sends functions by their names: this one stands for those that the tests plant."""
    return PLANTED[0](*arguments)


PLANTED = [None]


@pytest.fixture
def plant(monkeypatch):
    """plant(function): workers run this in place of each cell"""
    def plant(function):
        PLANTED[0] = function
        monkeypatch.setattr(cluster, "run_on_worker", call_planted)

    return plant


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def run_all(client, most=None, timeout=None):
    """-> {key: record} of CELLS, how many were to run at a time"""
    machines = cluster.Cluster(client, CELLS)
    threads = machines.wait_for_workers()
    results = machines.run(most, CELLS, timeout, lambda key: f"{key}.bin")
    return {key: record for (key, _), record in results}, threads


def test_the_same_ledger_as_on_one_machine(tmp_path):
    """... by a real scheduler and two workers."""
    pytest.importorskip("distributed")
    ledgers = tmp_path / "here.jsonl", tmp_path / "dask.jsonl"
    few = ["--length", "1"]
    with dask() as (flags, _):
        assert run(ledgers[0], *few)[0] == 0
        process = run(ledgers[1], *few, *flags, "--jobs", "3")
    assert process[0] == 0, process[1]
    here, there = (timeless(records(path)) for path in ledgers)
    assert here == there and len(here) == 4


def test_every_cell_is_run_on_all_threads(client):
    client.scale(2)
    results, threads = run_all(client)
    assert threads == sum(client.nthreads().values()) >= 2
    assert results == {key: {"key": key, "model": f"{key}.bin"} for key, _ in CELLS}


def test_jobs_limits_the_cells_in_flight(client, plant):
    running, most = [], []

    def counted(*arguments):
        running.append(0)
        most.append(len(running))
        threading.Event().wait(0.02)
        running.pop()
        return answer(*arguments)

    plant(counted)
    client.scale(2)
    assert len(run_all(client, most=1)[0]) == 4 and max(most) == 1


def test_a_cluster_without_workers_is_one_line(client, capsys):
    refused("no worker that can run cells came in 0.5 seconds: start one", run_all, client)
    assert capsys.readouterr().err == "waiting for a worker to join, 0.5 seconds at most\n"


def test_a_scheduler_that_ends_during_a_sweep_is_one_line(client, monkeypatch):
    client.scale(1)
    machines = cluster.Cluster(client, CELLS)
    machines.wait_for_workers()
    client.close()
    refused("scheduler does not answer any more .*: run the same", machines.update)


@pytest.mark.parametrize("check, complaint", [
    (lambda *arguments: "on node7, NumPy is 1; in the sweep, it is 2", "on node7, NumPy is 1"),
    (lambda *arguments: 1 / 0, "ZeroDivisionError: division by zero: the scheduler and each"),
    (lambda *arguments: threading.Event().wait(1), "no answer for 0.5 seconds"),
])
def test_a_worker_that_fails_its_check_gets_no_cell(client, monkeypatch, capsys, check, complaint):
    monkeypatch.setattr(cluster, "check_machine", check)
    client.scale(1)
    refused("no worker that can run cells came", run_all, client)
    [worker] = client.nthreads()
    assert f"worker {worker} gets no cells: {complaint}" in capsys.readouterr().err


def test_other_software_on_a_worker_is_named(monkeypatch):
    other = cells_module.software() | {"NumPy": "0.1"}
    versions = cluster.task_versions(CELLS)
    assert len(versions) == 1, "one question for each task"
    assert cluster.check_machine(None, versions, cells_module.software()) is None
    assert "NumPy is" in cluster.check_machine(None, versions, other)
    text = [({"task": "text", "data": "/nowhere.txt"}, "")]
    found = cluster.check_machine(None, text, cells_module.software())
    assert found.startswith("on ") and "data '/nowhere.txt' cannot be read" in found


def test_a_worker_that_is_stopped_does_not_outlast_the_timeout(client, plant, capsys):
    """The sweep keeps the time too, and gives the other cells to other workers."""
    wait, stopped = threading.Event(), []

    def stop_first(*arguments):
        if not stopped:
            stopped.append(arguments[0])
            wait.wait(20)
        return answer(*arguments)

    plant(stop_first)
    client.scale(2)
    wait_until(lambda: len(client.nthreads()) == 2)
    results, _ = run_all(client, timeout=0.2)
    wait.set()
    late = results.pop(stopped[0])
    assert (late["status"], late["key"]) == ("timeout", stopped[0])
    assert "no answer from" in late["reason"]
    assert "gets no cells: no answer" in capsys.readouterr().err
    assert results == {key: {"key": key, "model": f"{key}.bin"} for key in results} and results


def test_a_cell_whose_workers_are_lost_is_run_again_and_then_a_record(client, plant, monkeypatch):
    """A worker that is killed cancels or loses its futures, which is an exception for the sweep."""
    lost = []

    def fail(key, *arguments):
        if key == CELLS[0][0] or len(lost) == 0:
            lost.append(key)
            raise OSError("gone")
        return answer(key, *arguments)

    plant(fail)
    monkeypatch.setattr(cluster.Cluster, "drop", lambda self, address, complaint:
                        self.free.update({address: self.free[address] + 1}))
    client.scale(1)
    results, _ = run_all(client)
    record = results.pop(CELLS[0][0])
    assert (record["status"], record["reason"]) == ("killed", "3 workers were lost with this cell")
    assert results == {key: {"key": key, "model": f"{key}.bin"} for key in results}
    assert len(results) == 3 and lost.count(CELLS[0][0]) == 3


def test_workers_may_leave_and_join_during_a_sweep(client, plant, monkeypatch):
    """With a single one that leaves, the cell in flight goes to the next."""
    runs, wait = [], threading.Event()

    def leave(*arguments):
        runs.append(arguments[0])
        if len(runs) == 1:
            wait.wait(20)
        return answer(*arguments)

    def replace():
        wait_until(lambda: runs)
        [first] = client.nthreads()
        client.scale(2)
        wait_until(lambda: len(client.nthreads()) == 2)
        client.retire_workers([first], close_workers=True)

    plant(leave)
    monkeypatch.setattr(cluster, "JOINING", 20)
    client.scale(1)
    replacing = threading.Thread(target=replace)
    replacing.start()
    results, _ = run_all(client)
    wait.set()
    replacing.join()
    assert len(results) == 4 and all(record["model"] for record in results.values())


def test_a_scheduler_that_says_nothing_is_one_line(monkeypatch):
    """It accepts connections, as one that is stopped does."""
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(MinitronError, match=f"no dask scheduler answers at {address}: it acc"):
            cluster.connected(address).__enter__()


def test_no_scheduler_is_one_line(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "PATIENCE", 0.2)
    with pytest.raises(MinitronError, match="no dask scheduler answers at tcp://127.0.0.1:9"):
        cluster.connected("tcp://127.0.0.1:9").__enter__()


def test_tls_without_certificates_is_one_line():
    pytest.importorskip("distributed")
    with pytest.raises(MinitronError, match="tls://host:8786 needs certificates in dask's config"):
        cluster.connected("tls://host:8786").__enter__()


def test_dask_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(MinitronError, match="pip install"):
        cluster.connected("tcp://127.0.0.1:9").__enter__()


def test_a_local_cluster_is_refused(tmp_path):
    """dask's scheduler would run whatever any user of the machine sends it."""
    out = tmp_path / "l.jsonl"
    command = ["sweep", "addition", "--steps", "1", "--out", str(out), "--cluster", "local"]
    refused("--cluster local has no use: without --cluster", main, command)
    assert ledger.read_records(out) == ({}, [])
