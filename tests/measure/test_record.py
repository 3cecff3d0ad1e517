"""The text that is printed of a run fits a terminal of 80 columns."""
import pytest

from minitron.data import tasks
from minitron.data.config import Config
from minitron.measure import record

# The widest numbers that can be: all right on 100,000 problems, and a large nll.
WIDEST = {"n": 100_000, "exact": 1.0, "exact_low": 0.995, "exact_high": 1.0, "chance_exact": 1.0,
          "p_length": 1.0, "token": 1.0, "chance_token": 1.0, "nll": 99.99994, "icl": -0.5,
          "reference": {f"best predictor number {i}": 1.23456 for i in range(6)},
          "groups": {kind: {"exact": 1.0, "n": 2000} for kind in range(20)},
          "sampled": {"1": 0.5, "0.5": 0.9, "0.25": 1.0}, "sampled_reference": {"1": 0.5}}


@pytest.mark.parametrize("name", tasks.names())
def test_headline_and_result_fit_80_columns(name):
    config = Config(task=name, dim=1024, heads=64, layers=12, batch=4096, steps=1_000_000,
                    lr=1.23456e-05, seed=2**32 - 1).resolve()
    task = tasks.load(config)
    progress = {"curve": [], "step": 10**6, "flops": 1.23456e18, "tokens": 10**10, "seconds": 1e5,
                "numerics": [None]}
    run = record.make_record(config, task, "ok", 10**9, progress, {2: {"n": 0}, 999: WIDEST},
                             "run.c", 2)
    lines = f"{record.headline(config, task)}\n{record.result_text(run)}".splitlines()
    assert max(map(len, lines)) <= 80, max(lines, key=len)
    header, none, widest = lines[lines.index(record.metrics_lines({})[0]):][:3]
    assert len(header) == len(widest), "the columns stand below their names"
    assert none.split()[:2] == ["2", "0"]
