"""The ledgers of results/ have exactly the runs of their specs, and docs/ quotes them."""
import re
import sys

import pytest

from minitron.__main__ import main
from minitron.base.environment import ROOT
from minitron.data import config
from minitron.measure.scaling import Law
from minitron.report import law
from minitron.sweep import grid, ledger
from minitron.sweep.spec import grids, ledger_of

SWEEPS = sorted((ROOT / "results").glob("*.toml"))
FAMILIES = sorted((ROOT / "results" / "gallery").glob("*.toml"))


def docs(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def name_of(path):
    return path.stem


@pytest.mark.parametrize("spec", SWEEPS + FAMILIES, ids=lambda spec: "-".join(spec.parts[-2:]))
def test_each_ledger_has_the_runs_of_its_spec_and_no_other(spec, monkeypatch):
    """Once each, by keys with the version that records had then."""
    path = ledger_of(str(spec))
    records, complaints = ledger.read_records(path)
    [version] = {record["version"] for record in records.values()}
    monkeypatch.setattr(config, "RECORD_VERSION", version)
    keys = {key for key, _ in grid.cells(*grids(str(spec), {}, None))}
    if spec.stem == "text" and not any(is_this_python(record) for record in records.values()):
        pytest.skip("the text of the task comes with Python, and the runs are of another")
    assert set(records) == keys and not complaints
    assert sum(1 for _ in open(path, encoding="utf-8")) == len(records)


def is_this_python(record):
    return record["python"].split(".")[:2] == [str(number) for number in sys.version_info[:2]]


@pytest.mark.parametrize("spec", SWEEPS, ids=name_of)
def test_the_documentation_quotes_the_report_of_each_sweep(spec, capsys):
    assert main(["report", str(spec)]) == 0
    assert capsys.readouterr().out.strip() in docs("sweeps.md")


@pytest.mark.parametrize("spec", FAMILIES, ids=name_of)
def test_the_documentation_quotes_the_table_of_each_family(spec, capsys):
    assert main(["report", "--markdown", str(spec)]) == 0
    assert capsys.readouterr().out.strip() in docs("gallery.md")


def test_the_documentation_quotes_the_scaling_laws(monkeypatch, capsys):
    """Except for the intervals, which take a while."""
    monkeypatch.setattr(law.scaling, "bootstrap", lambda x, nll, E: 2 * [Law(0, 0, 0)])
    ledgers = [str(ROOT / "results" / f"{name}.jsonl") for name in ("stories", "induction")]
    assert main(["law", *ledgers]) == 0
    quoted = re.sub(r"\([^()]*\)", "()", docs("sweeps.md"))
    assert re.sub(r"\([^()]*\)", "()", capsys.readouterr().out.strip()) in quoted


def test_the_documentation_quotes_the_overhead_of_a_sweep():
    command, _, table = (ROOT / "results/bench/overhead.txt").read_text().partition("\n\n")
    assert command == "python bench/sweep.py"
    assert command in docs("sweeps.md") and table.strip() in docs("sweeps.md")
