"""The ledgers of results/ hold exactly the runs of their specs, and the documentation quotes them."""
import dataclasses
import re

import pytest

from minitron.base.environment import ROOT
from minitron.commands import law as law_command
from minitron.commands.report import print_tables
from minitron.measure.scaling import Law
from minitron.report import law, text
from minitron.report.table import settings_key
from minitron.sweep import grid, ledger
from minitron.sweep.spec import grids, ledger_of

SWEEPS = sorted((ROOT / "results").glob("*.toml"))
FAMILIES = sorted((ROOT / "results" / "gallery").glob("*.toml"))


def docs(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def name_of(path):
    return path.stem


@pytest.mark.parametrize("spec", SWEEPS + FAMILIES, ids=lambda spec: f"{spec.parent.name}-{spec.stem}")
def test_each_ledger_has_the_runs_of_its_spec_and_no_other(spec):
    """By settings and not by key: a key also holds the version of the record."""
    records, complaints = ledger.read_records(ledger_of(str(spec)))
    cells = {settings_key(dataclasses.asdict(config))
             for _, config in grid.cells(*grids(str(spec), {}, None))}
    assert {settings_key(record["config"]) for record in records.values()} == cells
    assert len(records) == len(cells) and not complaints


@pytest.mark.parametrize("spec", SWEEPS, ids=name_of)
def test_the_documentation_quotes_the_report_of_each_sweep(spec):
    records, _ = ledger.read_records(ledger_of(str(spec)))
    assert "\n".join(text.lines(records.values())).rstrip() in docs("sweeps.md")


@pytest.mark.parametrize("spec", FAMILIES, ids=name_of)
def test_the_documentation_quotes_the_table_of_each_family(spec, capsys):
    assert print_tables([str(spec)]) == 0
    assert capsys.readouterr().out.strip() in docs("gallery.md")


def test_the_documentation_quotes_the_scaling_laws(monkeypatch, capsys):
    """Except for the intervals, which take a while."""
    monkeypatch.setattr(law.scaling, "bootstrap", lambda x, nll, E: 2 * [Law(0, 0, 0)])
    ledgers = [str(ROOT / "results" / f"{name}.jsonl") for name in ("stories", "induction")]
    assert law_command.run({"ledgers": ledgers, "svg": None}) == 0
    quoted = re.sub(r"\([^()]*\)", "()", docs("sweeps.md"))
    assert re.sub(r"\([^()]*\)", "()", capsys.readouterr().out.strip()) in quoted


def test_the_documentation_quotes_the_overhead_of_a_sweep():
    command, _, table = (ROOT / "results/bench/overhead.txt").read_text().partition("\n\n")
    assert command == "python bench/sweep.py"
    assert command in docs("sweeps.md") and table.strip() in docs("sweeps.md")
