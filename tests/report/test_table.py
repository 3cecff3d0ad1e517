"""Markdown tables of specs: rows in order, metrics by hand, and a sweep from spec to table."""
import json
import subprocess
import sys

import pytest
from helpers import refused
from synthetic import GUESSED, SOLVED, synthetic_record

from minitron.__main__ import main
from minitron.base.environment import ROOT
from minitron.base.files import append_line
from minitron.report import table

SPEC = {"task": "addition", "length": 2, "dim": [16, 8], "variant": ["reversed", "plain"],
        "seeds": 2}


def lines(spec, records):
    return list(table.markdown_lines("sums", spec, records))


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def runs(**changes):
    """Records of SPEC: dim 16 learns it"""
    return [synthetic_record(exact, dim=dim, variant=variant, seed=seed, **changes)
            for dim, exact in ((8, GUESSED), (16, SOLVED)) for variant in ("plain", "reversed")
            for seed in (0, 1)]


def test_rows_are_cells_and_columns_are_seeds():
    first, empty, head, rule, *rows = lines(SPEC, runs())
    assert first == "`python train.py --task addition --length 2` and: exact match" and empty == ""
    assert cells(head) == ["sums", "parameters", "steps", "minutes", "seed 0", "seed 1"]
    assert rule == "|" + "---|" * 6
    assert [cells(row) for row in rows] == [
        [f"--dim {dim} --variant {variant}", f"{24 * dim**2:,}", "2,500", "0.2", exact, exact]
        for dim, exact in ((16, "99.0%"), (8, "1.0%")) for variant in ("reversed", "plain")]


def test_rows_of_tables_name_their_own_dials():
    """In the order of the spec; learning rates of all cells are columns."""
    spec = {"task": "addition", "length": 2, "tied": False, "lr": [0.5, 0.001], "seed": 3,
            "cells": [{"dim": 16}, {"dim": [4, 8], "tied": True}]}
    records = [synthetic_record(dim=dim, tied=dim != 16, lr=lr, seed=3) for dim in (4, 8, 16)
               for lr in (0.5, 0.001)]
    first, _, head, _, *rows = lines(spec, records)
    assert "--no-tied" in first and "--lr" not in first
    assert cells(head)[4:] == ["lr 0.5 --seed 3", "lr 0.001 --seed 3"]
    assert [cells(row)[0] for row in rows] == ["--dim 16", "--dim 4 --tied", "--dim 8 --tied"]
    assert all(cells(row)[4:] == ["99.0%", "99.0%"] for row in rows)


def test_runs_that_are_missing_or_failed():
    """A row without runs is left out; the parameters of a failed run are not known."""
    records = [synthetic_record(status=status, dim=dim, variant="plain", seed=seed)
               for status, dim, seed in (("ok", 16, 1), ("killed", 8, 0), ("diverged", 8, 1))]
    _, _, _, _, *rows = lines(SPEC, records)
    assert [cells(row) for row in rows] == [
        ["--dim 16 --variant plain", "6,144", "2,500", "0.2", "", "99.0%"],
        ["--dim 8 --variant plain", "", "", "", "killed", "diverged"]]


def test_a_row_spans_the_steps_and_minutes_of_its_runs():
    records = runs()
    for i, record in enumerate(records):
        record |= {"steps": 1000 + i % 2, "seconds": 60.0 * (1 + i % 2)}
    assert {tuple(cells(row)[2:4]) for row in lines(SPEC, records)[4:]} == {
        ("1,000 to 1,001", "1.0 to 2.0")}


def test_records_from_before_a_field_was_added_are_recognized():
    """By the ledger they lack it; read by this version they have None."""
    expected = lines(SPEC, runs())
    changes = (lambda config: config.pop("qk_norm"), lambda config: config.update(qk_norm=None))
    for change in changes:
        records = runs()
        for record in records:
            change(record["config"])
        assert lines(SPEC, records) == expected
    assert len(lines(SPEC, runs(qk_norm=False))) == 4, "and another value is another run"


METRICS = {"exact": 0.5, "nll": 1.25, "reference": {"bigram": 1.0, "unigram": 1.1},
           "sampled": {"1": 0.5, "0.5": 0.75}, "sampled_reference": {"1": 0.51, "0.5": 0.76},
           "groups": {"0": {"token": 0.25}, "1": {"token": 1.0}}}
RECORD = {"config": {"length": 2}, "steps": 400,
          "metrics": {"1": {"exact": 1.0}, "2": METRICS, "3": {"exact": 0.0}},
          "reached": {"nll 0.1": None}}


@pytest.mark.parametrize("name, text", [
    ("exact", "50.0%"), ("exact_by_length", "2: 50%, 3: 0%"), ("nll", "1.2500"),
    ("nll_above_reference", "+0.2500"), ("sampled", "50.0% (51.0%), 75.0% (76.0%)"),
    ("token_by_group", "0: 25%, 1: 100%"), ("steps_to_grok", "not in 400, exact 50.0%"),
])
def test_metrics_by_hand(name, text):
    metric, _ = table.METRICS[name]
    assert metric(RECORD, METRICS) == text
    assert metric is getattr(table, name)


def test_a_run_that_grokked_shows_the_step():
    record = RECORD | {"reached": {"nll 0.1": 180}}
    assert table.steps_to_grok(record, METRICS) == "180, exact 50.0%"


def test_the_curve_of_a_row_is_below_the_table():
    records = runs()
    *_, empty, title, _, head, _, first, _ = lines(
        SPEC | {"curve": {"variant": "plain", "dim": 8}},
        [record | {"curve": record["curve"][:2]} for record in records])
    point = records[0]["curve"][0]
    assert empty == "" and title == ("`--variant plain --dim 8 --seed 0` over training; "
                                     "of the heads of each layer, the highest score:")
    assert cells(head) == [name for name in point if name not in ("n", "token")]
    assert cells(first)[:3] == ["125", f"{point['loss']:.3g}", f"{point['nll']:.3g}"]
    assert cells(first)[-1] == f"0.10, {max(point['induction'][1]):.2f}"


@pytest.mark.parametrize("change, words", [
    ({"show": "beauty"}, "show 'beauty' is unknown: use exact, exact_by_length"),
    ({"show": "sampled"}, "show 'sampled' is not a metric of task addition"),
    ({"curve": {"dim": 8}}, "curve '--dim 8' is not a row of the table"),
])
def test_wrong_lines_are_refused(change, words):
    refused(words, lines, SPEC | change, runs())


# ---- the commands ---------------------------------------------------------------------------


TINY = """
task = "induction"
length = 12
options = "segment=4,symbols=16"
dim = 8
steps = 4
eval_every = 2
test_items = 20
seeds = 1
cells = [{layers = 2}, {layers = 1}]
curve = {layers = 2}
"""


def minitron(*arguments):
    done = subprocess.run([sys.executable, "-m", "minitron", *map(str, arguments)], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_spec_is_swept_once_and_shown(tmp_path):
    spec, ledger = tmp_path / "tiny.toml", tmp_path / "tiny.jsonl"
    spec.write_text(TINY)
    assert "2 ok" in minitron("sweep", spec, "--jobs", "1", "--out", ledger)
    records = ledger.read_text()
    assert records.count("\n") == 2
    assert "2 cells, 2 of them" in minitron("sweep", spec, "--out", ledger)
    assert ledger.read_text() == records
    printed = minitron("report", spec, "--markdown")
    assert printed.index("| --layers 2 |") < printed.index("| --layers 1 |")
    assert printed.count("\n| 2 |") == printed.count("\n| 4 |") == 1           # points of the curve
    assert minitron("report", spec) == minitron("report", ledger)


def test_tables_are_printed_with_an_empty_line_between(tmp_path, capsys):
    specs = [tmp_path / "a_b.toml", tmp_path / "c.toml"]
    for spec in specs:
        spec.write_text('task = "addition"\nlength = 2\ndim = 8\nseeds = 1\n')
        append_line(spec.with_suffix(".jsonl"), json.dumps(synthetic_record()))
    assert main(["report", "--markdown", *map(str, specs)]) == 0
    tables = capsys.readouterr().out.split("\n\n`")
    assert len(tables) == 2
    assert "| a b | parameters" in tables[0] and "| c | parameters" in tables[1]


@pytest.mark.parametrize("arguments, words", [
    (["a.jsonl"], "a.jsonl is not a spec file"),
    (["a.toml"], "spec a.toml cannot be read"),
    (["a.toml", "--html", "x.html"], "--markdown and --html cannot both be given"),
])
def test_tables_need_specs_alone(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    refused(words, main, ["report", "--markdown", *arguments])
