"""The verdict on a sweep: cases by hand, thresholds on the edge, errors where truth is known."""
import importlib.util
import json
import math
import sys

import numpy as np
import pytest

from minitron.base.environment import ROOT
from minitron.report import phase, text
from minitron.report.verdict import doublings, rule, verdict

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


def rule_of(exact, nll=None, widest=np.inf):
    """rule() of such rows, of settings that double.      nll: by default that of a plateau at 2"""
    exact = rows(exact)
    return rule(np.arange(len(exact)), exact, 2 * (1 - exact) if nll is None else rows(nll), widest)


BY_HAND = {
    "all learnt": ([1, 1, 1], None, "always", None),
    "exactly learnt": ([0.9, 0.9, 0.9, 0.9], None, "always", None),
    "a little below learnt": ([below(0.9)] * 4, None, "not yet", None),
    "learnt on average, none failed": ([1, (0.85, 1, 1), 1, 1], None, "always", None),
    "one setting is not": ([1, (0.85, 0.88, 0.91), 1, 1], None, "unclear", None),
    "one setting alone, seeds disagree": ([(0, 1, 1)], None, "unclear", None),
    "learnt, and no nll": ([0, 1, 1, 1], [NAN] * 4, "unclear", None),
    "exact match below chance": ([-0.1, -0.02, -0.05, 0], None, "not yet", None),
    "all diverged": ([0, 0], [NAN, NAN], "not yet", None),

    "one doubling": ([0, 0, 1, 1], None, "jump", (1, 2)),
    "two doublings": ([0, 0, 0.5, 1, 1], None, "jump", (1, 3)),
    "three doublings": ([0, 0, 1 / 3, 2 / 3, 1], None, "gradual", (1, 4)),
    "rises by exactly as much as a jump":
        ([0, 0, 0.4, pair(0.8), 0.85, 0.95], None, "jump", (1, 5)),
    "rises by a little less":
        ([0, 0, 0.4, pair(below(0.8)), 0.85, 0.95], None, "unclear", (1, 5)),
    "almost gradual": ([0, 0, 0.35, pair(0.7), 0.85, 0.95], None, "unclear", (1, 5)),
    "just gradual": ([0, 0, 0.35, pair(below(0.7)), 0.85, 0.95], None, "gradual", (1, 5)),
    "not quite near 0 any more": ([0, 0, pair(0.1), 1, 1], None, "jump", (1, 3)),
    "still near 0": ([0, 0, pair(below(0.1)), 1, 1], None, "jump", (2, 3)),
    "the first setting is the last near 0": ([0, 1, 1, 1], None, "unclear", None),
    "no setting is near 0": ([0.5, 0.95, 1, 1], None, "unclear", None),
    "slowly, and none is near 0": ([0.3, 0.5, 0.7, 0.95], None, "unclear", None),
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
    "most of the fall in the last step": ([0, 0, 0, 1], [2, 1.9, 0.5, 0], "unclear", (2, 3)),
    "nll is the same everywhere": ([0, 0, 1, 1], [1, 1, 1, 1], "unclear", None),
    "nll rises": ([0, 0, 1, 1], [1, 1.5, 2, 2], "unclear", None),
    "nll rises from the best there is": ([0, 0, 0, 1, 1], [2, 0.5, 0.6, 1, 1], "unclear", None),
    "nll was higher while training was memorised": ([0, 0, 1, 1], [2, 6, 0, 0], "jump", (1, 2)),

    "seeds disagree at two settings": ([0, (0, 0, 1), (0, 1, 1), 1], None, "luck", None),
    "at one, where it begins": ([0, 0, (0, 0, 1), 1, 1], None, "jump", (1, 3)),
    "at one, beyond where all have learnt it": ([0, 0, 1, (0, 1, 1), 1], None, "luck", None),
    "at one, below where none has": ([0, 0, 0, (0, 0, 1), 0], None, "luck", None),
    "at two, but exactly half is not a failure":
        ([0, (0.5, 0.5, 1), (0.5, 1, 1), 1], None, "unclear", None),
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
}


@pytest.mark.parametrize("case", BY_HAND)
def test_rules_by_hand(case):
    exact, nll, name, window = BY_HAND[case]
    *name_and_window, hidden, missing = rule_of(exact, nll)
    assert name_and_window == [name, window] and 0 <= hidden <= 1
    assert bool(missing) == (name == "unclear")


def test_one_failure_among_many_seeds_is_luck_though_the_average_is_learnt():
    exact = np.array([[1.0] * 6, [1.0] * 5 + [0.49]])
    assert exact[1].mean() > 0.9 and rule(np.arange(2), exact, 1 - exact)[0] == "luck"


# ---- the grid ------------------------------------------------------------------------------------

STEP = rows([0, 0, 0, 1, 1, 1])


def test_a_word_is_the_same_on_any_grid_of_the_dial():
    places = np.arange(0, 6, 0.25)
    exact = np.clip((places - 2) / 3, 0, 1)[:, None] + np.zeros(3)      # over three doublings
    for step in (1, 2, 4):
        assert rule(places[::step], exact[::step], 2 - 2 * exact[::step])[0] == "gradual"


def test_a_change_over_a_gap_of_more_than_a_factor_two_is_unclear():
    assert verdict([4, 8, 16, 32, 64, 128], STEP, 2 - STEP).name == "jump"
    assert verdict([3, 6, 12, 24, 48, 96], STEP, 2 - STEP).name == "jump"
    for settings in ([4, 8, 16, 33, 64, 128], [2, 4, 16, 32, 48, 64]):
        assert verdict(settings, STEP, 2 - STEP, "dim").name == "unclear"
    missing = verdict([4, 8, 16, 33, 64, 128], STEP, 2 - STEP, "dim").missing
    assert missing == "settings between dim 16 and 33"
    # Beyond the rise, and well before it, a gap hides nothing that the word is about.
    assert verdict([1, 8, 16, 32, 64, 1024], STEP, 2 - STEP).name == "jump"


def test_a_gap_that_diverged_runs_leave_counts():
    exact = rows([0, 0, 0, 0, 1, 1, 1])
    nll = rows([2, 2, 2, NAN, 0, 0, 0])
    result = verdict([4, 8, 16, 32, 64, 128, 256], exact, nll, "dim")
    assert (result.name, result.missing) == ("unclear", "settings between dim 16 and 64")


def test_from_zero_to_one_nothing_is_missing_but_from_zero_to_more_is():
    assert list(doublings([0, 1, 2, 4])) == [-1, 0, 1, 2]
    assert np.diff(doublings([0, 2]))[0] > 1 and np.diff(doublings([0.0, 0.1]))[0] > 1
    exact = rows([0, 0, 0, 1, 1, 1])
    assert verdict([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0], exact, 2 - exact).name == "unclear"


def thinned(name, dims, length=None):
    """The verdict on a published ledger's column, of some of its dims"""
    lines = (ROOT / f"results/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if record["config"]["dim"] in dims
               and length in (None, record["config"]["length"])]
    [diagram] = phase.phase_diagrams(records, y="dim")
    return verdict(*phase.column_scores(diagram, diagram.xs[0]), "dim")


def test_published_ledgers_thinned_get_no_other_word():
    # Without a look at the grid they were jumps.
    assert thinned("sort", (2, 3, 4, 64)).missing == "settings between dim 4 and 64"
    assert thinned("addition", (2, 4, 8, 128), 3).missing == "settings between dim 8 and 128"
    r, dims = np.random.default_rng(0), np.array([2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])
    for _ in range(12):
        kept = dims[r.random(len(dims)) < 0.75]
        assert thinned("sort", kept).name in ("mirage", "unclear", "not yet")


# ---- resampling ----------------------------------------------------------------------------------


def test_a_clear_case_is_sure_and_names_its_settings():
    dims = [4, 8, 16, 32, 64, 128]
    assert verdict(dims, STEP, 2 - 1.5 * STEP) == ("jump", 1.0, (16, 32), 0.0, "")
    exact, nll = rows([0, 0, 0, 0, 0, 1]), rows([2.5, 2, 1.5, 1, 0.5, 0])
    assert verdict(dims, exact, nll) == ("mirage", 1.0, (64, 128), 0.8, "")
    assert verdict(dims, STEP + 1, 0 * STEP) == ("always", 1.0, None, 0.0, "")
    assert verdict(dims, 0 * STEP, STEP) == ("not yet", 1.0, None, 0.0, "")


def test_a_word_that_one_run_decides_is_unclear():
    exact = rows([0, 0, 0, 1, (0, 1, 1), 1, 1])         # luck, unless that run is not drawn
    result = verdict([1, 2, 4, 8, 16, 32, 64], exact, 2 - exact)
    assert rule(np.arange(7), exact, 2 - exact)[0] == "luck"
    assert result == ("unclear", None, None, 0.0, "more seeds")


def test_a_word_that_one_setting_decides_is_unclear():
    exact = rows([0, 0, 1, 1])                          # without 2, nll may have been falling
    result = verdict([1, 2, 4, 8], exact, 2 - exact, "dim")
    assert result == ("unclear", None, None, 0.0, "more settings near dim 2")


def test_the_same_runs_get_the_same_verdict():
    r = np.random.default_rng(0)
    exact = np.where(r.random((7, 4)) < 0.5, 0.0, 1.0)
    first, second = (verdict(range(1, 8), exact.copy(), 1 - exact) for _ in range(2))
    assert first == second and first.name == "luck" and 0.9 <= first.confidence <= 1


def test_runs_that_are_missing_are_never_drawn():
    exact = rows([(NAN, 0, 0), (0, 0, NAN), (0, 0, 0), (1, 1, 1), (1, 1, 1), (1, 1, 1)])
    assert verdict([4, 8, 16, 32, 64, 128], exact, 2 - exact)[:3] == ("jump", 1.0, (16, 32))


# ---- too little to say anything ------------------------------------------------------------------


def test_without_enough_runs_the_verdict_says_what_is_missing():
    dims = [4, 8, 16, 32, 64, 128]
    for seeds in (1, 2):
        one = verdict(dims, STEP[:, :seeds], 2 - STEP[:, :seeds])
        assert one == ("unclear", None, None, 0.0, "more seeds, at least 3")
    assert verdict([8, 16, 32], STEP[2:5], 2 - STEP[2:5]).missing == "more settings, at least 4"
    assert verdict([8], [[NAN]], [[NAN]]).missing == "more test problems"
    assert verdict([], np.zeros((0, 3)), np.zeros((0, 3))).missing == "more test problems"
    assert verdict(dims, STEP, NAN * STEP).missing == "a finite nll"
    assert verdict(dims, STEP[::-1], 2 - STEP[::-1], "dim").missing == "settings below dim 4"
    rising = rows([0, 0.1, 0.2, 0.3, 0.5, (0.85, 0.85, 0.9)])
    assert verdict(dims, rising, 2 - rising, "dim").missing == "settings above dim 128"


def test_settings_without_a_run_are_left_out():
    exact = np.insert(STEP, 2, NAN, axis=0)
    assert verdict([4, 8, 12, 16, 32, 64, 128], exact, 2 - exact)[:3] == ("jump", 1.0, (16, 32))


def test_a_constant_column_is_always_or_not_yet():
    for score, name in ((1.0, "always"), (0.6, "not yet"), (0.0, "not yet")):
        exact = np.full((5, 3), score)
        assert verdict(range(1, 6), exact, 0 * exact + 1)[:2] == (name, 1.0)


# ---- ledgers whose truth is known ----------------------------------------------------------------


def test_no_documented_word_is_wrong_in_more_than_5_percent():
    table = RESULTS[RESULTS.index("| word |"):].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert [row[0] for row in cells] == list(bench.KINDS)
    assert all(100 * int(wrong) <= 5 * int(given.replace(",", "")) for _, given, wrong, *_ in cells)
    assert all(int(given.replace(",", "")) >= 100 for _, given, *_ in cells)


def test_verdicts_are_as_right_as_the_documentation_says():
    pairs = bench.judged(12)
    words = [(one.truth, name) for one, name in pairs if name != "unclear"]
    assert len(pairs) > 60 and len(words) > 15
    assert sum(truth != name for truth, name in words) <= 1


def test_losses_of_runs_and_the_chance_level_come_from_the_records():
    world = bench.World(tokens=1, problems=500, noise=0.2, is_lossy=True)
    r, scores = np.random.default_rng(0), np.full((13, 8), 1e-6)
    diagram, = phase.phase_diagrams(bench.records_of(scores, r, bench.DIMS, world), y="dim")
    settings, exact, nll = phase.column_scores(diagram, diagram.xs[0])
    assert settings == list(bench.DIMS)
    is_missing, has_no_nll = np.isnan(exact), np.isnan(nll)
    assert 0 < is_missing.sum() < has_no_nll.sum() and (exact[has_no_nll & ~is_missing] == 0).all()
    assert abs(np.nanmean(exact)) < 0.05 and np.nanmean(nll) == pytest.approx(math.log(2), abs=0.01)


def test_the_documentation_quotes_the_tables():
    command, _, tables = RESULTS.partition("\n\n")
    assert command == "python bench/verdict.py" and command in DOCS and tables.strip() in DOCS


def test_names_get_no_verdict():
    world = bench.World(8, 1000, 0.2, False)
    records = [bench.record(8, 0, world, 0.0, 1.0, 0.0, False) for _ in range(2)]
    records = [record | {"config": record["config"] | {"variant": variant}}
               for record, variant in zip(records, ("plain", "reversed"))]
    [diagram] = phase.phase_diagrams(records)
    assert diagram.ys == ["plain", "reversed"]
    assert text.verdict_sentence(diagram, None) == "no verdict: variant has no order"
