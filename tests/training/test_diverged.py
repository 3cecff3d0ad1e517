"""A number that is not finite, wherever it comes up, ends a run as a record with null for it."""
import dataclasses

import numpy as np
import pytest
from training_helpers import TINY, records, run

import train
from minitron.base.errors import MinitronError
from minitron.measure import evaluate, hidden
from minitron.training import run as run_module
from minitron.training.cells import run_cell

HOPELESS = ["--dim", "16", "--length", "3", "--batch", "16", "--test-items", "50", "--lr", "30000",
            "--steps", "1", "--warmup", "0"]
BASIC = {"n": 90, "nll": 1.0, "token": 0.5, "exact": 0.5}


def diverged_record(folder):
    """The one record of a ledger, which JSON can hold and whose run diverged"""
    [record] = records(folder)
    assert record["status"] == "diverged" and record["metrics"] == {}
    return record


def test_logits_that_overflow_at_the_last_evaluation(tmp_path):
    """The loss and the weights are finite, the next logits are not."""
    text = r"^step 1: no finite held-out nll or token or exact, .* --lr below 30000"
    with pytest.raises(MinitronError, match=text):
        train.main([*HOPELESS, "--out", str(tmp_path / "model.bin")])
    [point] = diverged_record(tmp_path)["curve"]
    assert (point["nll"], point["token"], point["exact"]) == (None, None, None)
    assert point["step"] == 1 and np.isfinite(point["loss"])
    assert not (tmp_path / "model.bin").exists()


@pytest.mark.parametrize("name", ["nll", "loss", "norm", "induction"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_point_of_the_curve(tmp_path, monkeypatch, name, bad):
    """Also between two evaluations that are finite, and in a list of readings"""
    if name == "norm":
        monkeypatch.setattr(hidden, "norm", lambda p: bad)
    elif name == "induction":
        readings = {"induction": [[0.5, bad]]}
        monkeypatch.setattr(run_module, "instrument_readings", lambda run: readings)
    else:
        point = BASIC | {name: bad}
        monkeypatch.setattr(evaluate, "basic_metrics", lambda *arguments: dict(point))
        monkeypatch.setattr(run_module, "instrument_readings", lambda run: {name: bad})
    with pytest.raises(run_module.Diverged, match=f"^step 5: no finite held-out {name}, "):
        run(tmp_path)
    [point] = diverged_record(tmp_path)["curve"]
    assert point[name] == ([[0.5, None]] if name == "induction" else None)


@pytest.mark.parametrize("place", [("nll",), ("reference", "best"), ("groups", 1, "brier")])
def test_a_metric_of_the_test(tmp_path, monkeypatch, place):
    """At a length beyond training, say, or in what a task computes for comparison"""
    original = evaluate.metrics_by_length

    def metrics_by_length(*arguments):
        metrics = original(*arguments)
        at_length = metrics[2]
        for name in place[:-1]:
            at_length = at_length.setdefault(name, {})
        at_length[place[-1]] = np.inf
        return metrics

    monkeypatch.setattr(evaluate, "metrics_by_length", metrics_by_length)
    with pytest.raises(run_module.Diverged, match="model.bin: no finite metrics at length 2, "):
        run(tmp_path, dataclasses.replace(TINY, test_length=2))
    diverged_record(tmp_path)


def test_a_cell_of_a_sweep_is_a_record(tmp_path):
    config = dataclasses.replace(TINY, dim=16, length=3, steps=1, lr=30000.0, warmup=0).resolve()
    record = run_cell(train.train, dataclasses.asdict(config), str(tmp_path), None)
    assert record["status"] == "diverged" and record["key"]
