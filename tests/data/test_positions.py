"""Position ids: what coupled ones couple, and what random ones are drawn from."""
import itertools

import numpy as np
import pytest
from task_helpers import CASES, load

from minitron.base.errors import MinitronError
from minitron.base.rng import Random
from minitron.data import batches, tasks
from minitron.data.batches import training_batch
from minitron.data.config import Config
from minitron.data.positions import position_ids
from minitron.measure import evaluate

COUPLED = [(name, variant) for name, variant in CASES if hasattr(tasks.module(name), "positions")]
ADDITION = [case for case in COUPLED if case[0] == "addition"]


def row_and_ids(name, variant, length):
    """The text of one row and its coupled ids."""
    task = load(name, variant, length=length)
    row = task.draw(Random(1), length, 1, "train")[0][0]
    return batches.spell(task, row), task.module.positions(length, variant).tolist()


def drawn(positions="random", position_range=40, shape=(4000, 10), seed=0):
    config = Config(positions=positions, position_range=position_range)
    return position_ids(None, config, Random(seed), 3, shape)


def test_the_tasks_with_coupled_positions_are_those_whose_rows_are_written_in_columns():
    assert {name for name, variant in COUPLED} == {"addition", "parity", "reorder"}


@pytest.mark.parametrize("name, variant", COUPLED)
def test_coupled_positions_are_one_id_a_token(name, variant):
    module = tasks.module(name)
    for length in {module.LENGTHS[0], module.LENGTHS[0] + 1, module.LENGTH, module.LENGTHS[1]}:
        text, ids = row_and_ids(name, variant, length)
        assert len(ids) == len(text) and all(isinstance(i, int) and i >= 0 for i in ids)


def places_of_addition(text, variant):
    """The places of a row's digits: (part, weight) -> place

    Weight 1 is the ones.  The parts are a, b, sum, and in the scratchpad digit and carry, which is
    that out of the column.
    """
    equals, plus = text.index("="), text.index("+")
    colon, places = text.find(":"), {}
    for weight in range(1, plus + 1):
        places["a", weight], places["b", weight] = plus - weight, equals - weight
        if variant == "scratchpad":
            places["digit", weight] = equals + 2 * weight - 1
            places["carry", weight] = equals + 2 * weight
    for weight in range(1, plus + 2):
        places["sum", weight] = equals + weight if variant == "reversed" else len(text) - weight
    assert colon == (equals + 2 * plus + 1 if variant == "scratchpad" else -1)
    return places


@pytest.mark.parametrize("name, variant", ADDITION)
@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_digits_of_equal_weight_share_an_id(name, variant, length):
    text, ids = row_and_ids(name, variant, length)
    places = places_of_addition(text, variant)
    by_weight = {weight: {ids[place] for (_, other), place in places.items() if other == weight}
                 for weight in range(1, length + 2)}
    assert all(len(shared) == 1 for shared in by_weight.values())
    assert len(set.union(*by_weight.values())) == length + 1, "and those of different weight do not"


@pytest.mark.parametrize("name, variant", ADDITION)
def test_what_a_digit_needs_is_equally_far_away_however_long_the_numbers_are(name, variant):
    """From the token that writes (the one before) to the token it reads: one distance for each kind
    of both
    """
    distances = {}
    for length in (1, 2, 3, 10, 64):
        text, ids = row_and_ids(name, variant, length)
        places = places_of_addition(text, variant)
        of_sum = ("digit", "carry") if variant == "scratchpad" else ("a", "b")
        reads = {"sum": of_sum, "digit": ("a", "b"), "carry": ("a", "b")}
        for (part, weight), place in places.items():
            for read in reads.get(part, ()):
                if (read, weight) in places:        # above the highest digit of a sum is the carry
                    distance = ids[place - 1] - ids[places[read, weight]]
                    distances.setdefault((part, read), set()).add(distance)
        leading = places["sum", length + 1] - 1     # to write it takes the column below
        if variant != "scratchpad":
            distances.setdefault("leading", set()).add(ids[leading] - ids[places["a", length]])
    assert distances and all(len(found) == 1 for found in distances.values()), distances


@pytest.mark.parametrize("name, variant", ADDITION)
@pytest.mark.parametrize("length", [1, 2, 64])
def test_the_sum_is_written_in_single_steps_and_the_first_is_from_the_token_before_it(
        name, variant, length):
    text, ids = row_and_ids(name, variant, length)
    first = max(text.index("="), text.find(":"))
    assert set(np.diff(ids[first:])) == {1 if variant == "reversed" else -1}


@pytest.mark.parametrize("name, variant, read", [
    ("parity", "scratchpad", lambda length: range(length)),
    ("reorder", "copy", lambda length: range(length)),
    ("reorder", "reverse", lambda length: range(length)[::-1]),
])
def test_each_token_of_the_answer_shares_an_id_with_what_it_is_made_from(name, variant, read):
    steps = set()
    for length in (1, 2, 9, 64):
        text, ids = row_and_ids(name, variant, length)
        first = text.index("=") + 1
        made_from = [ids[place] for place in read(length)]
        assert len(set(made_from)) == length and ids[first:] == made_from
        steps |= {b - a for a, b in itertools.pairwise(ids[first - 1:])}
    assert len(steps) == 1, "the token that writes is one step away, = too"


def test_sorting_counts_on():
    assert row_and_ids("reorder", "sort", 5)[1] == list(range(11))


def test_plain_positions_are_none_at_all():
    assert drawn("plain") is None
    config = Config(task="addition", batch=8).resolve()
    assert training_batch(load("addition"), config, 1)[2] is None


def test_random_positions_increase_and_stay_below_their_range():
    ids = drawn()
    assert ids.shape == (4000, 10) and ids.dtype.kind == "i"
    assert ids.min() == 0 and ids.max() == 39 and (np.diff(ids, axis=1) > 0).all()
    assert (drawn(position_range=10) == np.arange(10)).all(), "no choice"
    assert drawn(shape=(5, 1)).shape == (5, 1)


def test_random_positions_are_uniform_and_differ_from_row_to_row():
    """Each of 40 ids is in a quarter of 4000 rows, 1000 times with a deviation of 27; two ids, in
    10 * 9 / (40 * 39) of them.
    """
    ids = drawn()
    counts = np.bincount(ids.ravel(), minlength=40)
    assert np.abs(counts - 1000).max() < 4 * (4000 * 0.25 * 0.75) ** 0.5
    together = ((ids == 3).any(axis=1) & (ids == 4).any(axis=1)).mean()
    p = 90 / 1560
    assert abs(together - p) < 4 * (p * (1 - p) / 4000) ** 0.5
    assert len(np.unique(ids, axis=0)) == 4000      # of 847,660,528 sets: equal ones are rare


def test_random_positions_follow_from_the_stream():
    assert (drawn() == drawn()).all() and (drawn() != drawn(seed=1)).any()
    task = load("addition")
    configs = [Config(task="addition", batch=16, positions="random", seed=seed).resolve()
               for seed in (0, 1)]
    batches = [training_batch(task, config, step)[2] for config in configs for step in (1, 2, 3)]
    assert (batches[0] == training_batch(task, configs[0], 1)[2]).all()
    for a, b in itertools.combinations(batches, 2):
        assert a.shape != b.shape or (a != b).any()


@pytest.mark.parametrize("name, variant", COUPLED)
def test_training_and_evaluation_have_the_ids_of_their_length(name, variant):
    config = Config(task=name, variant=variant, length=5, positions="coupled", batch=8).resolve()
    task = tasks.load(config)
    ids = (task.module.positions(length, variant) for length in task.lengths)
    ids = {len(row): row for row in ids}
    for step in range(1, 8):
        inputs, targets, positions = training_batch(task, config, step)
        assert positions.shape == inputs.shape == targets.shape
        assert (positions == ids[inputs.shape[1]]).all()
    problems = evaluate.problems(task, config, 5, "test", 10)
    assert problems.positions.shape == problems.inputs.shape
    assert (problems.positions == task.module.positions(5, variant)).all()


def test_evaluation_draws_its_own_random_positions():
    task, config = load("addition"), Config(task="addition", positions="random").resolve()
    valid, test, again = (evaluate.problems(task, config, 3, split, 20).positions
                          for split in ("valid", "test", "test"))
    assert valid.shape == test.shape == (20, 12) and (valid != test).any()
    assert (again == test).all()


def test_the_range_of_random_positions_is_four_times_the_longest_row_tested():
    def resolved(**options):
        return Config(task="addition", **options).resolve().position_range

    assert resolved(positions="random") == 4 * 13               # 007+005=0012 and END
    assert resolved(positions="random", test_length=5) == 4 * 19
    assert resolved(position_range=7) is None
    assert resolved(positions="random", position_range=13) == 13


@pytest.mark.parametrize("options, told", [
    ({"positions": "sideways"}, "plain, random, coupled"),
    ({"positions": "coupled", "task": "multiplication"}, "multiplication"),
    ({"positions": "random", "position_range": 12}, "position-range 12"),
    ({"positions": "random", "position_range": 18, "test_length": 5}, "position-range 18"),
    ({"positions": "random", "rope_theta": 0.0}, "--rope-theta"),
    ({"positions": "coupled", "rope_theta": 0.0}, "--rope-theta"),
])
def test_positions_that_cannot_be_are_refused_in_one_line(options, told):
    with pytest.raises(MinitronError, match=told) as error:
        Config(**options).resolve()
    assert "\n" not in str(error.value)
