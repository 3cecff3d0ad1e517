"""Scaling laws of ledgers: a known law is recovered and drawn, and other ledgers are refused."""
import functools
import json
import xml.dom.minidom

import pytest
from helpers import refused
from synthetic import synthetic_record

from minitron.__main__ import main
from minitron.report import law

DIMS = (4, 8, 16, 32)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    pytest.importorskip("scipy")
    monkeypatch.setattr(law.scaling, "bootstrap", functools.partial(law.scaling.bootstrap, times=3))


def runs(floor, reference=None, seeds=2, **config):
    """Records whose nll is floor + 8 parameters^-0.5"""
    records = [synthetic_record(dim=dim, seed=seed, **config)
               for dim in DIMS for seed in range(seeds)]
    for record in records:
        metrics = {"nll": floor + 8 * record["parameters"] ** -0.5, "reference": reference}
        record["metrics"] = {"2": record["metrics"]["2"] | metrics}
    return records


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_the_law_of_the_records_is_recovered(tmp_path, capsys):
    """FLOPs and parameters both grow as dim^2 here: the same exponent."""
    known = write(tmp_path / "known.jsonl", runs(0.5, {"best": 0.5, "worse": 0.9}))
    free = write(tmp_path / "free.jsonl", runs(0.25))
    assert main(["law", known, free]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [[name, size] for name in ("known", "free")
                                         for size in ("parameters", "training FLOPs")]
    for name, _, floor, alpha, off in rows:
        assert floor == ("0.5000, known" if name == "known" else "0.2500 (0.2500 to 0.2500)")
        assert alpha == "0.50 (0.50 to 0.50)" and off == "1.00"


def test_the_laws_are_drawn(tmp_path, capsys):
    path, svg = write(tmp_path / "a.jsonl", runs(0.5, {"best": 0.5})), tmp_path / "a.svg"
    (tmp_path / "a.toml").write_text('task = "addition"\n')
    assert main(["law", path, "--svg", str(svg)]) == 0
    assert xml.dom.minidom.parse(str(svg)).documentElement.tagName == "svg"
    assert capsys.readouterr().out.endswith(f"{svg}: the laws\n")
    drawn = svg.read_bytes()
    assert main(["law", str(tmp_path / "a.toml"), "--svg", str(svg)]) == 0
    assert svg.read_bytes() == drawn, "a spec stands for the ledger beside it"


@pytest.mark.parametrize("records, words", [
    (runs(0.5)[:-1], "different numbers of finished runs"),
    ([synthetic_record(status="killed", dim=4)], "no run has finished"),
    (runs(0.5) + runs(0.5, task="parity"), "tasks addition, parity are in one ledger"),
    (runs(0.5, lr=0.1) + runs(0.5, lr=0.2), "runs of 384 parameters differ in lr"),
])
def test_ledgers_without_a_law_are_refused(tmp_path, records, words):
    refused(words, main, ["law", write(tmp_path / "a.jsonl", records)])
