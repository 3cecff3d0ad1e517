"""The chance level, the example to try, the gallery; and the random numbers behind all of them."""
import dataclasses
import itertools

import numpy as np
import pytest
from task_helpers import CASES, load

from minitron.base.rng import GALLERY, Random
from minitron.commands import tasks as gallery
from minitron.data import batches, tasks


def likeliest_bracket(length, kinds, depth):
    """The share of labels that the best guess per place gets right, from the walk's heights"""
    at, total = [1.0] + depth * [0.0], 0
    for _ in range(length):
        after = [0.0] * (depth + 1)
        for height, p in enumerate(at):
            up = 1 if height == 0 else 0 if height == depth else 0.5
            if height < depth:
                after[height + 1] += p * up
            if height:
                after[height - 1] += p * (1 - up)
        at = after
        # all are closed, or the innermost is one of several kinds
        total += max(at[0], (1 - at[0]) / kinds)
    return total / length


# The most likely digit at each place of a sum of two n-digit numbers: the leading one is 0 for
# 10^n + 1 of 2 * 10^n sums, the others are uniform.
@pytest.mark.parametrize("name, variant, length, token, exact", [
    ("addition", "plain", 2, (0.505 + 2 * 0.1) / 3, 0.01),
    ("addition", "plain", 3, (0.5005 + 3 * 0.1) / 4, 0.001),
    ("parity", "plain", 16, 0.5, 0.5),
    ("parity", "scratchpad", 8, 0.5, 1 / 256),
    ("sparse_parity", "plain", 20, 0.5, 0.5),
    ("quanta", "plain", 16, 0.5, 0.5),
    ("modular", "plain", 59, 1 / 59, 1 / 59),
    ("reorder", "reverse", 8, 1 / 26, 26**-8),
    ("reorder", "copy", 1, 1 / 26, 1 / 26),
    ("groups", "a5", 8, 1 / 60, 60**-8),
    ("groups", "s5", 2, 1 / 120, 120**-2),
    ("groups", "z60", 1, 1 / 60, 1 / 60),
    ("brackets", "plain", 32, likeliest_bracket(32, 4, 6), 0),
    ("brackets", "plain", 1, 1 / 4, 1 / 4),
    ("memory", "plain", 256, 1 / 256, 1 / 256),
    ("mqar", "zeros", 64, 1 / 64, 0),
    ("mqar", "random", 64, 1 / 64, 0),
    ("induction", "plain", 48, 1 / 64, 0),
    ("markov", "plain", 100, 1 / 3, 0),
])
def test_measured_chance_is_near_the_exact_one(name, variant, length, token, exact):
    task = load(name, variant, length=length, train_fraction=0.9)
    measured_token, measured_exact = batches.chance(task, length)
    for measured, p in ((measured_token, token), (measured_exact, exact)):
        # Of 2048 problems, by Bernstein's inequality: as unlikely to fail as 4 deviations, which
        # it becomes where many answers are right.
        assert abs(measured - p) < (8 / 3 + (64 / 9 + 16 * 2048 * p * (1 - p)) ** 0.5) / 2048


def test_chance_knows_the_position_and_nothing_more():
    def draw(rng, length, batch, split):
        tokens = rng.integers(0, 2, (batch, 4))
        tokens[:, 2] = 1        # scored and always the same; the last one is a coin
        return tokens, np.tile([False, False, True, True], (batch, 1))

    token, exact = batches.chance(dataclasses.replace(load("parity"), draw=draw), 3)
    assert abs(token - 0.75) < 0.04 and abs(exact - 0.5) < 0.05     # 4 deviations of 2048 coins


def scattered(say, places=10):
    """Chance where one token per row is scored, not the first: say(rng, places) gives the token"""
    def draw(rng, length, batch, split):
        place = rng.integers(1, places, batch)
        tokens = np.zeros((batch, places), np.int64)
        tokens[np.arange(batch), place] = say(rng, place)
        return tokens, np.arange(places) == place[:, None]

    return batches.chance(dataclasses.replace(load("parity"), draw=draw), 3)


def test_chance_of_scattered_answers_is_that_of_the_tokens_and_not_of_the_places():
    """A guess that is right wherever it is asked is right, though the place is not known."""
    assert scattered(lambda rng, place: 1) == (1, 1)
    by_place = scattered(lambda rng, place: place % 3)
    assert by_place == (1, 1), "another token at each place is no harder"
    token, exact = scattered(lambda rng, place: rng.integers(0, 2, len(place)))
    assert token == exact and abs(token - 0.5) < 0.05           # 4 deviations of 2048 coins


@pytest.mark.parametrize("length, train_fraction", [(2, 0.3), (3, 0.1)])
def test_chance_of_the_only_problem_there_is_is_certainty(length, train_fraction):
    task = load("modular", length=length, train_fraction=train_fraction)
    assert len(task.draw(Random(1), length, 100, "train")[0]) == 1
    assert batches.chance(task, length) == (1, 1)


def test_chance_does_not_ask_where_nothing_is_said():
    def draw(rng, length, batch, split):     # labels: the first token has none, the second a coin's
        labels = np.stack([np.full(batch, -1), rng.integers(0, 2, batch)], axis=1)
        return np.zeros((batch, 2), np.int64), labels

    token, exact = batches.chance(dataclasses.replace(load("parity"), draw=draw), 3)
    assert token == exact and abs(token - 0.5) < 0.05


def test_random_words_are_the_same_on_every_numpy():
    golden = [15315076757634509236, 11876280279043480806, 3019869609462719111]
    assert Random(1, 2, 3).words(3).tolist() == golden
    assert Random(1, 2, 3).uniform(3).tolist() == [(word >> 11) / 2**53 for word in golden]
    assert Random(1, 2, 3).integers(-5, 100, 3).tolist() == [-5 + word % 105 for word in golden]


@pytest.mark.parametrize("low, high", [(0, 2), (-3, 4), (5, 6), (0, 10)])
def test_integers_are_uniform_in_their_range(low, high):
    numbers = Random(9).integers(low, high, (100, 100))
    assert numbers.shape == (100, 100) and numbers.min() >= low and numbers.max() < high
    counts = np.bincount(numbers.ravel() - low, minlength=high - low)
    expected = 10000 / (high - low)
    assert np.abs(counts - expected).max() < 4 * expected**0.5


def test_integers_reach_as_far_as_the_longest_addition():
    numbers = Random(9).integers(0, 10**18, 1000)
    assert numbers.dtype == np.int64 and 0 <= numbers.min() and 0.99e18 < numbers.max() < 10**18


def test_permutations_are_permutations_and_each_is_drawn():
    orders = Random(9).permutations(600, 3)
    assert (np.sort(orders, axis=1) == np.arange(3)).all()
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6 and np.abs(counts - 100).max() < 40         # 4 deviations


@pytest.mark.parametrize("name", tasks.names())
def test_gallery_shows_each_variant_with_carets_or_labels_under_scored_tokens_alone(name):
    lines = gallery.describe(name).splitlines()
    module = tasks.module(name)
    starts = [i for i, line in enumerate(lines) if line.startswith("variant ")]
    assert [lines[i].split()[1].rstrip(",") for i in starts] == list(module.VARIANTS)
    for i, variant in zip(starts, module.VARIANTS):
        assert all(f"{option}={default}" in lines[i]
                   for option, (default, *_) in module.OPTIONS.items())
        task = load(name, variant)
        drawn = zip(*task.draw(Random(GALLERY), task.length, 3, "train"))
        pairs = lines[i + 1:i + 7:2], lines[i + 2:i + 8:2]
        for shown, below, (row, answer) in itertools.zip_longest(*pairs, drawn):
            expected, marks = "    ", "    "
            for token, scored in zip(row, answer):
                text = task.pieces[token].decode().replace("\n", " ")
                if answer.dtype == bool:
                    mark = "^" * len(text) if scored else ""
                else:
                    mark = task.pieces[scored].decode() if scored >= 0 else ""
                width = max(len(text), len(mark))
                expected, marks = expected + text.ljust(width), marks + mark.ljust(width)
            # 72 characters after the four spaces
            assert shown == expected[:76].rstrip() and below == marks[:76].rstrip()
            assert below.strip()


def test_carets_of_a_label_task_are_the_labels_themselves():
    shown, labels = (line.split() for line in gallery.describe("groups").splitlines()[-2:])
    assert len(shown) == len(labels) == 8 and shown[0] == labels[0]
    assert [int(hour) for hour in labels] == [sum(map(int, shown[:i])) % 60 for i in range(1, 9)]


@pytest.mark.parametrize("name", ["text", "stories"])
def test_a_task_that_begins_by_itself_has_no_example(name):
    assert batches.example(load(name)) == ("", None)


@pytest.mark.parametrize("name, variant",
                         [case for case in CASES if tasks.module(case[0]).BOS is None])
def test_example_is_the_beginning_of_a_held_out_problem(name, variant):
    """The prompt ends before the first scored token, or at the token of the first label.

    With the number of tokens that answer it: None up to END, else the scored ones, 1 for a label.
"""
    task = load(name, variant)
    (prompt, steps), starts = batches.example(task), {}
    if task.ends:
        assert steps is None
    else:
        scored = {"experts": 1, "memory": 1, "modular": 1, "induction": 7, "markov": 99}
        assert steps == scored.get(name, 1)
    for split in ("train", "test"):
        tokens, answer = task.draw(Random(0), task.length, 5000, split)
        ends = batches.scored(tokens, answer) >= 0
        starts[split] = {batches.spell(task, row[:end.argmax() + (answer.dtype != bool)])
                         for row, end in zip(tokens, ends)}
    assert prompt and len(prompt) == len(prompt.encode())
    if task.ends:
        assert prompt.endswith("=") and prompt.count("=") == 1
    row, _ = task.draw(Random(GALLERY), task.length, 1, "test")
    assert batches.spell(task, row[0]).startswith(prompt)
    if name in {"memory", "experts"}:   # whose tests repeat training
        assert prompt in starts["train"]
    elif name not in {"groups", "brackets", "khop", "mqar", "markov"}:      # short prompts recur
        assert prompt not in starts["train"]


def test_where_nothing_is_held_out_the_example_is_a_problem_of_training():
    task = load("parity", length=1)
    assert batches.example(task)[0] in ("0=", "1=")


@pytest.mark.parametrize("size, count", [(5, 2), (4, 4), (1, 1)])
def test_different_numbers_are_so_and_each_order_is_as_likely(size, count):
    drawn = Random(11).different(6000, size, count)
    assert drawn.shape == (6000, count) and 0 <= drawn.min() <= drawn.max() < size
    assert (np.diff(np.sort(drawn, axis=1)) > 0).all()
    orders, counts = np.unique(drawn, axis=0, return_counts=True)
    expected = 6000 / len(list(itertools.permutations(range(size), count)))
    assert len(orders) * expected == 6000 and np.abs(counts - expected).max() < 4 * expected**0.5


def test_a_test_has_problems_as_often_as_training_where_they_are_not_equally_likely():
    """Quanta's first skill is asked in 1 / sum(i^-1.4) of all rows; without repeats, in 8 of 64."""
    task = load("quanta", length=3, options="tasks=8,k=2")
    tokens, _ = batches.problems(task, Random(2), 3, 2000, "train")
    share = np.mean(task.module.group(tokens, 3) == 1)
    expected = 1 / sum(i**-1.4 for i in range(1, 9))
    assert len(tokens) == 2000 and abs(share - expected) < 0.15      # the split of 64 rows moves it
    assert share > 2 / 8
