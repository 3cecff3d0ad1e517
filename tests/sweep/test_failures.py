"""Whatever happens in a cell is a record, and the sweep goes on; other software is refused.

The worker is the real one around a train() with faults planted by seed.
"""
import dataclasses
import json
import subprocess
import sys

import pytest
from helpers import refused

from minitron.__main__ import main
from minitron.base.environment import ROOT, minitron_command
from minitron.commands import sweep
from minitron.data import tasks
from minitron.data.config import Config
from minitron.report.cause import cause
from minitron.sweep import ledger, pool
from minitron.training import cells

SMALL = ["--dim", "2", "--length", "1", "--steps", "2", "--batch", "4", "--test-items", "5"]
CONFIG = Config(dim=2, length=1, steps=2, batch=4, test_items=5).resolve()
WORKER = """
import os, sys
import train
from minitron.training import cells

def planted(config, out, **options):
    os.write(1, b"noise from C\\n")
    if config.seed == 0:
        raise ZeroDivisionError("planted\\nhere")
    record = train.train(config, out, **options)
    if config.seed == 1:
        record["metrics"]["1"]["nll"] = float("nan")
    if config.seed == 2:
        sys.exit(3)
    if config.seed == 3:
        del record["curve"]
    if config.seed == 4:
        record["curve"] = {1, 2}
    if config.seed == 5:
        record["key"] = "another"
    return record

sys.exit(cells.serve(planted, *sys.argv[1:]))
"""
REASONS = {
    0: "ZeroDivisionError: planted here",
    1: "ValueError: Out of range float values are not JSON compliant",
    2: "SystemExit: 3",
    3: "its record: a field is missing or of another kind",
    4: "TypeError: Object of type set is not JSON serializable",
}


@pytest.fixture
def planted(monkeypatch):
    """Workers have the faults of WORKER."""
    popen = subprocess.Popen

    def start(command, **options):
        if "--cells" in command:
            command = [sys.executable, "-c", WORKER, *command[-2:]]
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", start)


def statuses(out):
    return {record["seed"]: record["status"] for record in ledger.read_records(out)[0].values()}


def test_any_exception_in_a_cell_is_a_record_and_the_sweep_goes_on(planted, tmp_path, capfd):
    """... with its reason, printed too; the same command finds nothing left to run."""
    out = tmp_path / "l 2.jsonl"
    command = ["sweep", "addition", *SMALL, "--seed", "0-4,6", "--jobs", "2", "--out", str(out)]
    assert main(command) == 1
    assert statuses(out) == dict.fromkeys(REASONS, "failed") | {6: "ok"}
    output, error = capfd.readouterr()
    assert f"1 ok; report: {minitron_command()} report '{out}'\n" in output, "quoted for a shell"
    for record in map(json.loads, out.read_text().splitlines()):
        if record["status"] == "failed":
            reason = REASONS[record["seed"]]
            assert record["reason"].startswith(reason) and f"{record['key']}: {reason}" in error
            assert cause(record).evidence == record["reason"] and "time" not in cause(record).remedy
    before = out.read_text()
    assert main(command) == 0 and out.read_text() == before, "nothing is run again"
    assert "6 cells, 6 of them" in capfd.readouterr().out


def test_a_record_of_another_key_is_refused(planted, tmp_path):
    out = tmp_path / "l.jsonl"
    command = ["sweep", "addition", *SMALL, "--seed", "5", "--out", str(out)]
    refused("cell .* came back as another: the data or the file of task addition", main, command)
    assert out.read_text() == ""


@pytest.mark.parametrize("thing", cells.software())
def test_a_worker_with_other_software_is_refused(monkeypatch, thing):
    """The sweep that asks pretends to be another."""
    software = cells.software()
    monkeypatch.setattr(pool, "software", lambda: software | {thing: "other"})
    worker = pool.Worker()
    refused(f"on .*, {thing} is {software[thing]}; in the sweep, it is other: make them the same",
            worker.run, "key", CONFIG, None, 100)
    worker.close()


def test_a_machine_with_another_task_or_without_the_data_is_refused():
    config = dataclasses.asdict(CONFIG)
    version = tasks.load(CONFIG).version
    assert cells.check_tasks([(config, version)]) == {"ok": True}
    with pytest.raises(cells.Refused, match=r"task addition is '.*'; in the sweep, it is 'old'"):
        cells.check_tasks([(config, "old")])
    text = {"task": "text", "data": "/nowhere.txt"}
    refused("data '/nowhere.txt' cannot be read", cells.check_tasks, [(text, "")])


def test_the_source_is_all_that_a_run_depends_on():
    hashed = set(cells.source_files().values())
    assert hashed >= {ROOT / name for name in ("train.py", "run.c", "tasks/text.py")}
    assert hashed >= set((ROOT / "minitron").glob("*/*.py"))


def test_a_ledger_does_not_say_which_files_are_opened(tmp_path, capsys):
    """A record's key names its configuration, whatever the record has for it."""
    out, config = tmp_path / "l.jsonl", dataclasses.asdict(CONFIG)
    key = CONFIG.key(tasks.load(CONFIG))
    for hostile in ({"data": "/dev/zero", "task": "text"}, {"task": "/nowhere/evil.py"}):
        record = {"key": key, "status": "killed", "config": config | hostile, "seed": 0,
                  "metrics": {}, "curve": [], "seconds": 1.0}
        out.write_text(json.dumps(record) + "\n")
        [known] = sweep.known_records(str(out), {key: CONFIG}).values()
        assert known["config"] == config
