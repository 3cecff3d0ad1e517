"""results/gallery.py: the experiments are runs that exist, each is run once, and the documentation quotes what they gave."""
import importlib.util
import json
import re
import sys

import pytest

from minitron import config, grid, ledger, report, sweep_command
from minitron.environment import ROOT
from minitron.scaling import Law


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("results_gallery", ROOT / "results" / "gallery.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_experiment_names_its_runs_and_no_run_twice(gallery):
    keys = [key for experiment in gallery.EXPERIMENTS.values() for *_, key in gallery.runs_of(experiment)]
    assert len(keys) == len(set(keys))
    for experiment in gallery.EXPERIMENTS.values():
        assert experiment.shown in gallery.SHOWN and (not experiment.curve or experiment.curve in experiment.cells)


def test_an_experiment_is_run_once_and_shown(gallery, tmp_path, monkeypatch, capsys):
    shared = "--task induction --length 12 --options segment=4,symbols=16 --dim 8 --steps 4 --eval-every 2 --test-items 20"
    tiny = gallery.Experiment(shared, ("--layers 1", "--layers 2"), "exact match", ("--seed 0",), curve="--layers 2")
    monkeypatch.setattr(gallery, "EXPERIMENTS", {"tiny": tiny})
    ledger = tmp_path / "ledger.jsonl"

    def main(*flags):
        assert gallery.main(["--ledger", str(ledger), *flags]) == 0
        return capsys.readouterr().out

    assert main("--list").count("python train.py") == 2
    assert main("--jobs", "1").count("Not emerged") == 2
    first = ledger.read_text()
    assert main() == "" and main("--list").strip() == "" and ledger.read_text() == first
    records = [json.loads(line) for line in first.splitlines()]
    assert [r["config"]["layers"] for r in records] == [1, 2] and {r["threads"] for r in records} == {1}
    printed = main("--table")
    for record in records:
        assert f"| --layers {record['config']['layers']} | {record['parameters']:,} | 4 | " in printed
    assert printed.count("\n| 2 |") == printed.count("\n| 4 |") == 1                # the points of the curve


def test_the_documentation_quotes_the_tables(gallery):
    text, records = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8"), gallery.read(ROOT / "results" / "gallery.jsonl")
    for name, experiment in gallery.EXPERIMENTS.items():
        assert "\n".join(gallery.table(name, experiment, records)) in text, name
        if experiment.curve:
            assert "\n".join(gallery.curve(experiment, records)) in text, name


@pytest.mark.parametrize("spec", sorted((ROOT / "sweeps").glob("*.toml")), ids=lambda spec: spec.stem)
def test_the_documentation_quotes_the_report_of_each_sweep(monkeypatch, spec):
    """... all of whose cells are in its ledger, and none beside them, with the keys of the one version that they have."""
    turned, _ = sweep_command.axes(str(spec), {}, None)
    path = ROOT / "results" / f"{spec.stem}.jsonl"
    records, complaints = ledger.read(path)
    [version] = {record["version"] for record in records.values()}
    monkeypatch.setattr(config, "RECORD_VERSION", version)
    assert set(records) == {key for key, _ in grid.cells(turned)} and not complaints
    assert len(path.read_text().splitlines()) == len(records)
    text = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    assert "\n".join(report.lines(records.values())).rstrip() in text


def test_the_documentation_quotes_the_scaling_laws(monkeypatch):
    """But for the intervals, which take a while."""
    spec = importlib.util.spec_from_file_location("results_scaling", ROOT / "results" / "scaling.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.scaling, "bootstrap", lambda x, nll, E: 2 * [Law(0, 0, 0)])
    quoted = re.sub(r"\([^()]*\)", "()", (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8"))
    laws = {(task, size): module.law(ROOT / path, size) for task, path in module.LEDGERS.items() for size in module.SIZES}
    assert re.sub(r"\([^()]*\)", "()", "\n".join(module.table(laws))) in quoted


def test_the_documentation_quotes_what_a_sweep_costs():
    command, _, text = (ROOT / "results" / "overhead.txt").read_text().partition("\n\n")
    docs = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    assert command == "python bench/sweep.py" and command in docs and text.strip() in docs
