"""The verdict on a sweep: cases by hand, thresholds on the edge, errors where truth is known."""
import importlib.util
import math
import sys

import numpy as np
import pytest

from minitron.base.environment import ROOT
from minitron.report import phase, text
from minitron.report.verdict import rule, verdict

NAN = math.nan
RESULTS = (ROOT / "results/bench/verdict.txt").read_text(encoding="utf-8")
DOCS = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8")


def load(folder, name):
    """A script as a module"""
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", ROOT / folder / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = load("bench", "verdict")


def below(x):
    """The next number under it"""
    return math.nextafter(x, 0)


def rows(values):
    """(n, 3), of n settings that are three equal seeds, or a tuple of three"""
    seeds = [value if isinstance(value, tuple) else (value,) * 3 for value in values]
    return np.array(seeds, float)


def pair(value):
    """Two seeds, whose mean is the very same number; that of three may be the next"""
    return value, NAN, value


def rule_of(exact, nll=None):
    """rule() of such rows.      nll: by default that of a plateau at 2"""
    exact = rows(exact)
    return rule(exact, 2 * (1 - exact) if nll is None else rows(nll))


BY_HAND = {
    "all learnt": ([1, 1, 1], None, "always", None),
    "exactly learnt": ([0.9, 0.9, 0.9, 0.9], None, "always", None),
    "a little below learnt": ([below(0.9)] * 4, None, "not yet", None),
    "learnt on average, none failed": ([1, (0.85, 1, 1), 1, 1], None, "always", None),
    "one setting is not": ([1, (0.85, 0.88, 0.91), 1, 1], None, "unclear", None),
    "one setting alone": ([1], None, "always", None),
    "one setting alone, not learnt": ([0], None, "not yet", None),
    "one setting alone, seeds disagree": ([(0, 1, 1)], None, "unclear", None),
    "learnt, and no nll": ([0, 1, 1, 1], [NAN] * 4, "unclear", None),
    "exact match below chance": ([-0.1, -0.02, -0.05, 0], None, "not yet", None),
    "all diverged": ([0, 0], [NAN, NAN], "not yet", None),
    "no run": ([NAN, NAN], [NAN, NAN], "unclear", None),

    "one step": ([0, 0, 1, 1], None, "jump", (1, 2)),
    "two steps": ([0, 0, 0.5, 1, 1], None, "jump", (1, 3)),
    "three steps": ([0, 0, 1 / 3, 2 / 3, 1], None, "gradual", (1, 4)),
    "from above 0, slowly": ([0.3, 0.5, 0.7, 0.95], None, "gradual", (0, 3)),
    "rises by exactly as much as a jump":
        ([0, 0, 0.4, pair(0.8), 0.85, 0.95], None, "jump", (1, 5)),
    "rises by a little less": ([0, 0, 0.4, pair(below(0.8)), 0.85, 0.95], None, "gradual", (1, 5)),
    "not quite near 0 any more": ([0, 0, pair(0.1), 1, 1], None, "jump", (1, 3)),
    "still near 0": ([0, 0, pair(below(0.1)), 1, 1], None, "jump", (2, 3)),
    "two steps, none of them far": ([0.3, 0.5, 0.95, 1], None, "unclear", (0, 2)),
    "three settings": ([0, 0, 1], None, "unclear", (1, 2)),
    "the first setting is the last near 0": ([0, 1, 1, 1], None, "unclear", (0, 1)),
    "no setting is near 0": ([0.5, 0.95, 1, 1], None, "unclear", (0, 1)),
    "learnt, and lost again": ([0, 0, 1, 1, 0.2], None, "unclear", None),
    "lost, but not below half": ([0, 0, 1, 1, 0.5], None, "jump", (1, 2)),
    "learnt at the first setting, not beyond": ([1, 1, 0.2, 0.1], None, "unclear", None),
    "learnt by one seed, at the last setting": ([0, 0, 0, (0, 0, 1)], None, "unclear", None),

    "half of nll's gain is hidden": ([0, 0, 0, 1], [2, 1.5, 1, 0], "mirage", (2, 3)),
    "less than half": ([0, 0, 0, 1], [2, 1.5, 1.01, 0], "jump", (2, 3)),
    "nll as fast as it must before": ([0, 0, 0, 1], [3, 1.75, 1.25, 0], "mirage", (2, 3)),
    "half as fast, for the rise takes two steps":
        ([0, 0, 0, 0.5, 1], [3, 1.3, 1, 0.5, 0], "mirage", (2, 4)),
    "a plateau before": ([0, 0, 0, 1], [3, 1.7, 1.25, 0], "jump", (2, 3)),
    "one step down before, slope or plateau": ([0, 0, 1, 1], [2, 0.9, 0, 0], "unclear", (1, 2)),
    "the same, a slow rise": ([0, 0, 0.4, 0.7, 0.95], [2, 0.6, 0.3, 0.1, 0], "mirage", (1, 4)),
    "nll is the same everywhere": ([0, 0, 1, 1], [1, 1, 1, 1], "unclear", (1, 2)),
    "the same, a slow rise of exact match":
        ([0, 0.25, 0.5, 0.75, 1], [1, 1, 1, 1, 1], "unclear", (0, 4)),
    "nll rises": ([0, 0, 1, 1], [1, 1.5, 2, 2], "unclear", (1, 2)),
    "nll rises from the best there is": ([0, 0, 0, 1, 1], [2, 0.5, 0.6, 1, 1], "unclear", (2, 3)),
    "nll was higher while training was memorised": ([0, 0, 1, 1], [2, 6, 0, 0], "jump", (1, 2)),

    "seeds disagree at two settings": ([0, (0, 0, 1), (0, 1, 1), 1], None, "luck", None),
    "at one, where it begins": ([0, 0, (0, 0, 1), 1, 1], None, "jump", (1, 3)),
    "at one, beyond where all have learnt it": ([0, 0, 1, (0, 1, 1), 1], None, "luck", None),
    "at one, below where none has": ([0, 0, 0, (0, 0, 1), 0], None, "luck", None),
    "at two, but exactly half is not a failure":
        ([0, (0.5, 0.5, 1), (0.5, 1, 1), 1], None, "unclear", (0, 3)),
    "at two, just below half":
        ([0, (below(0.5), 0.5, 1), (below(0.5), 1, 1), 1], None, "luck", None),

    "a run diverged beyond": ([0, 0, 1, (0, 1, 1), 1], [2, 2, 0, (NAN, 0, 0), 0], "jump", (1, 2)),
    "a run's nll is infinite":
        ([0, 0, 1, (0, 1, 1), 1], [2, 2, 0, (math.inf, 0, 0), 0], "jump", (1, 2)),
    "a run diverged where all others have learnt it":
        ([1, (0, 1, 1)], [0, (NAN, 0, 0)], "always", None),
    "a setting where all diverged, beside learnt ones": ([1, 1, 0], [0, 0, NAN], "unclear", None),
    "the first setting diverged": ([0, 0, 0, 1, 1], [NAN, 2, 2, 0, 0], "jump", (2, 3)),
    "a setting in between diverged": ([0, 0, 0, 1, 1], [2, 2, NAN, 0, 0], "jump", (1, 3)),
    "runs that are missing": ([(0, NAN, NAN), (0, 0, NAN), 1, (1, 1, NAN)], None, "jump", (1, 2)),
    "a run that has nll alone": ([0, 0, (NAN, 1, 1), 1], [2, 2, 0, 0], "jump", (1, 2)),
    "settings that are missing": ([0, NAN, 0, 1, NAN, 1], None, "jump", (2, 3)),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_rules_by_hand(case):
    exact, nll, name, window = BY_HAND[case]
    *name_and_window, hidden = rule_of(exact, nll)
    assert name_and_window == [name, window] and 0 <= hidden <= 1


def test_one_failure_among_many_seeds_is_luck_though_the_average_is_learnt():
    exact = np.array([[1.0] * 6, [1.0] * 5 + [0.49]])
    assert exact[1].mean() > 0.9 and rule(exact, 1 - exact)[0] == "luck"


def test_a_clear_case_is_sure_and_names_its_settings():
    exact = rows([0, 0, 1, 1])
    assert verdict([8, 16, 32, 64], exact, 2 - 1.5 * exact) == ("jump", 1.0, (16, 32), 0.0)
    exact = rows([0, 0, 0, 1])
    nll = rows([2, 1.5, 0.5, 0])
    assert verdict([8, 16, 32, 64], exact, nll) == ("mirage", 1.0, (32, 64), 0.75)
    assert verdict([8], rows([1]), rows([0])) == ("always", 1.0, None, 0.0)


def test_confidence_is_the_share_of_resampled_seeds_that_agree():
    exact = rows([0, 0, 1, (0, 1, 1), 1])
    luck = verdict(range(5), exact, 1 - exact)
    assert luck.name == "luck"
    assert luck.confidence == pytest.approx(2 / 3, abs=0.1)         # 1 - (1/3)**3 - (2/3)**3
    assert luck == verdict(range(5), exact, 1 - exact)
    assert verdict(range(5), exact[:, ::-1], 1 - exact[:, ::-1]).name == "luck"


def test_confidence_counts_only_runs_that_exist():
    exact = rows([(NAN, 0, NAN), (NAN, NAN, 0), (0, 1, NAN), (NAN, 1, 1)])
    # Of (0, 1), any draw leaves a jump.
    assert verdict(range(4), exact, 1 - exact)[:3] == ("jump", 1.0, (1, 3))
    exact[2, 2] = 1
    assert verdict(range(4), exact, 1 - exact).confidence == 1.0
    # Each is mixed in half of the draws; luck where both are, or one beyond or below a clear one.
    exact = rows([0, 0, (0, 1, NAN), (0, 1, NAN), 1])
    assert verdict(range(5), exact, 1 - exact).confidence == pytest.approx(1 / 2, abs=0.1)


def test_one_seed_has_no_confidence():
    exact = np.array([[0.0], [0.0], [1.0], [1.0]])
    assert verdict(range(4), exact, 1 - exact)[:3] == ("jump", None, (1, 2))
    missing = rows([(0, NAN, NAN), (NAN, 0, NAN), (1, NAN, NAN), (NAN, NAN, 1)])
    assert verdict(range(4), missing, 1 - missing)[:3] == ("jump", None, (1, 2))
    assert verdict([8], [[NAN]], [[NAN]]) == ("unclear", None, None, 0.0)


# ---- ledgers whose truth is known -----------------------------------------------------------


def documented(truth, shape):
    """Percent right and percent wrong, as results/bench/verdict.txt has them"""
    lines = RESULTS[RESULTS.index("**By shape**"):].splitlines()
    head, row = (next(line for line in lines if line.startswith(f"| {start} |")).split("|")
                 for start in ("truth", truth))
    return map(float, row[head.index(f" {bench.label(shape)} ")].split("/"))


@pytest.mark.parametrize("truth", bench.TRUTHS)
@pytest.mark.parametrize("shape", [(6, 3), (6, 5)], ids=bench.label)
def test_verdicts_are_as_right_as_the_documentation_says(truth, shape):
    right, wrong = documented(truth, shape)
    assert right >= 80 and wrong <= 10
    names = bench.verdict_names(truth, shape, bench.WORLDS["plain"], 200)
    mistakes = sum(name not in (truth, "unclear") for name in names)
    counts = {name: names.count(name) for name in set(names)}
    assert 100 * names.count(truth) / 200 >= right - 2 and 100 * mistakes / 200 <= wrong + 2, counts


def test_losses_of_runs_and_the_chance_level_come_from_the_records():
    r = np.random.default_rng(0)
    world = bench.WORLDS["lossy"]._replace(diverged=0.3, missing=0.3)
    settings, exact, nll = bench.column_scores(bench.ledger("always", r, 8, 5, world))
    assert settings == [8 * 2**i for i in range(8)]
    is_missing, has_no_nll = np.isnan(exact), np.isnan(nll)
    assert 0 < is_missing.sum() < has_no_nll.sum()
    assert (exact[has_no_nll & ~is_missing] == 0).all() and (exact[~has_no_nll] > 0.8).all()
    records = bench.ledger("not yet", r, 8, 5, bench.WORLDS["parity"])
    _, exact, nll = bench.column_scores(records)
    assert abs(exact[0].mean()) < 0.1 and nll[0].mean() == pytest.approx(math.log(2), abs=0.01)


def test_the_documentation_quotes_the_tables():
    command, _, tables = RESULTS.partition("\n\n")
    assert command == "python bench/verdict.py" and command in DOCS and tables.strip() in DOCS


def test_names_get_no_verdict():
    config, world = bench.config("addition"), bench.WORLDS["plain"]
    records = [bench.record(config | {"variant": variant}, world, 0.0, 1.0, 0.0, False)
               for variant in ("plain", "reversed")]
    [diagram] = phase.phase_diagrams(records)
    assert diagram.ys == ["plain", "reversed"]
    assert text.verdict_sentence(diagram, None) == "no verdict: variant has no order"
