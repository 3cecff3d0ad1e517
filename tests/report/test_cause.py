"""Why a setting was not learnt: causes of curves made by hand, and the list of such settings."""
import copy

import pytest
from synthetic import GUESSED, synthetic_ledger, synthetic_record

from minitron.report.cause import cause
from minitron.report.not_yet import not_yet


def unlearnt(nll, loss, **config):
    """A run that learnt nothing, with this curve"""
    points = [{"step": i, "nll": a, "loss": b, "exact": 0.0}
              for i, (a, b) in enumerate(zip(nll, loss))]
    return synthetic_record(GUESSED, **config) | {"curve": points}


STILL = [2.0] * 12
SPIKE = [2, 1, 0.8, 0.8, 1.9, 1.5, 1.2, 1, 1, 1, 1, 1]
RISING, FALLING = ([2, 2, 2, 2.5, 3, 4, 5, 6, 6, 6, 6, 6],
                   [2, 2, 2, 1.5, 1, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
SLOPE = [2 - 0.05 * i for i in range(12)]
CAUSES = {
    "error": synthetic_record(status="failed"),
    "unfinished": synthetic_record(status="killed"),
    "lr, diverged": synthetic_record(status="diverged"),
    "lr, a spike": unlearnt(SPIKE, SPIKE),
    "data": unlearnt(RISING, FALLING),
    "steps": unlearnt(SLOPE, SLOPE),
    "width": unlearnt(STILL, STILL, dim=8),
    "depth": unlearnt(STILL, STILL, dim=64, layers=1),
    "unknown": unlearnt(STILL, STILL, dim=96),
    "unknown, half of the loss being END's": unlearnt(STILL, [1.0] * 12, dim=96),
}


@pytest.mark.parametrize("name", CAUSES)
def test_causes_of_curves_made_by_hand(name):
    learnt = [synthetic_record(dim=64), synthetic_record(dim=128, length=1)]
    suspected = cause(CAUSES[name], learnt)
    assert suspected.name == name.split(",")[0] and suspected.evidence and suspected.remedy


def test_lengths_beyond_trainings_are_a_matter_of_positions():
    record = synthetic_record(length=2, test_length=4)
    record["metrics"]["4"] = copy.deepcopy(record["metrics"]["2"]) | {"exact": 0.02}
    assert cause(record).name == "positions" and "length 4" in cause(record).evidence
    record["metrics"]["4"]["exact"] = 1.0
    assert cause(record).name != "positions"


def test_not_yet_lists_the_settings_that_no_seed_learnt():
    entries = {entry["where"]: entry for entry in not_yet(synthetic_ledger())}
    never = [f"dim {dim}, length 3" for dim in (8, 32, 64)]
    assert set(entries) == {"dim 8, length 1", "dim 8, length 2", "dim 16, length 2", *never}
    assert entries["dim 8, length 2"]["cause"] == "width"
    assert entries["dim 64, length 3"]["cause"] in ("unknown", "lr")
    assert not_yet([synthetic_record()]) == []
