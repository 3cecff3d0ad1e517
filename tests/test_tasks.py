"""What every task promises (tasks/__init__.py), checked for each file in tasks/ without a line of that file being trusted.

The answers are worked out a second time here, slowly, from the characters of the problem.  Held-out problems are counted by
enumerating whole problem spaces.  The golden hashes say that a problem drawn today is drawn on every machine and in ten years:
they may only change together with a task's VERSION, since records of runs are compared across both.
"""
import dataclasses
import hashlib
import inspect
import itertools
import re

import numpy as np
import pytest

import tasks
from minitron import evaluate, gallery
from minitron.config import Config
from minitron.rng import Random
from train import training_batch

CASES = [(name, variant) for name in tasks.names() for variant in tasks.module(name).VARIANTS]
PROBLEMS = [(name, variant) for name, variant in CASES if not hasattr(tasks.module(name), "prepare")]   # not running text

# (task, variant) -> what the characters before the answer make of it, for a value of the length dial
ORACLES = {
    ("addition", "plain"): lambda problem, length: add(problem, length),
    ("addition", "reversed"): lambda problem, length: add(problem, length)[::-1],
    ("modular", "plain"): lambda problem, length: str(sum(map(int, problem[:-1].split("+"))) % length),
    ("parity", "plain"): lambda problem, length: "01"[problem.count("1") & 1],
    ("reverse", "plain"): lambda problem, length: "".join(reversed(problem[:-1])),
}

# (task, variant) -> the first 16 hex digits of the SHA-256 of 8 rows at the default length and of what is scored in them
GOLDEN = {
    ("addition", "plain"): "66646c9282a0184b",
    ("addition", "reversed"): "8326d263f7ae9c48",
    ("modular", "plain"): "eb68a3b54cdef60e",
    ("parity", "plain"): "1a1c47efa4d21060",
    ("reverse", "plain"): "7a0178e3a52b102b",
    ("text", "chars"): "4f2b52b7f0085e51",
    ("text", "bytes"): "e9cfe2d871e37877",
}

# Whole problem spaces, by name and length, as rows of pieces.
SPACES = {
    ("addition", 1): [f"{a}+{b}={a + b:02}" for a in range(10) for b in range(10)],
    ("addition", 2): [f"{a:02}+{b:02}={a + b:03}" for a in range(100) for b in range(100)],
    ("parity", 8): [f"{n:08b}={n.bit_count() % 2}" for n in range(256)],
    ("modular", 23): [(str(a), "+", str(b), "=", str((a + b) % 23)) for a in range(23) for b in range(23)],
}


def add(problem, length):
    a, b = problem[:-1].split("+")
    return f"{int(a) + int(b):0{length + 1}}"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text long enough for a window of 4096 in each split."""
    path = tmp_path_factory.mktemp("text") / "squares.txt"
    path.write_text("".join(f"{i} times {i} is {i * i}.\n" for i in range(10000)))
    return str(path)


def load(name, variant=None, text=None, **options):
    data = text if hasattr(tasks.module(name), "prepare") else None
    return tasks.load(Config(task=name, variant=variant, data=data, **options))


def rows(tokens):
    """Token rows as things that a set can hold."""
    return {row.tobytes() for row in np.asarray(tokens, np.int64)}


def space(name, length):
    """All rows of a problem space as token ids.      -> tokens (N, S)"""
    ids = {piece.decode(): token for token, piece in enumerate(load(name, length=length).pieces)}
    return np.array([[ids[piece] for piece in row] for row in SPACES[name, length]])


def everything(task, length, split, limit=1000):
    """All problems of a split, of which there must be fewer than the limit.      -> tokens (N, S)"""
    tokens, _ = tasks.problems(task, Random(7), length, limit, split)
    assert len(tokens) < limit
    return tokens


@pytest.mark.parametrize("name", tasks.names())
def test_docstring_tells_the_dial_the_source_and_the_result(name):
    doc = inspect.getdoc(tasks.module(name))
    for label in ("Length", "Source", "Expect"):
        assert re.search(rf"^{label}: \S", doc, re.MULTILINE), f"tasks/{name}.py lacks the line `{label}:`"


@pytest.mark.parametrize("name", [name for name, variant in ORACLES if variant == "plain"])
def test_worked_example_in_the_docstring_is_right_and_has_its_carets_under_the_answer(name):
    module = tasks.module(name)
    lines = inspect.getdoc(module).splitlines()
    shown = next(line for line in lines if "=" in line)
    problem, equals, answer = shown.split()[0].partition("=")
    assert answer == ORACLES[name, "plain"](problem + equals, module.LENGTH)
    start = shown.index("=") + 1
    carets = lines[lines.index(shown) + 1]
    assert carets[:start + len(answer) + 1].rstrip() == " " * start + "^" * len(answer)


@pytest.mark.parametrize("name, variant", CASES)
def test_same_stream_gives_the_same_problems_for_ever(name, variant, text):
    task = load(name, variant, text)
    drawn = [task.draw(Random(1, 2, 3), task.length, 8, "train") for _ in range(2)]
    digests = [hashlib.sha256(tokens.astype("<i8").tobytes() + answer.tobytes()).hexdigest()[:16] for tokens, answer in drawn]
    assert digests[0] == digests[1]
    assert digests[0] == GOLDEN.get((name, variant)), "raise VERSION of the task, then put the new hash into GOLDEN"


@pytest.mark.parametrize("name, variant", CASES)
def test_steps_and_seeds_differ(name, variant, text):
    task = load(name, variant, text)
    batches = [training_batch(task, Config(batch=8, seed=seed), step)[0] for seed in (0, 1) for step in (1, 2, 3)]
    for a, b in itertools.combinations(batches, 2):
        assert a.shape != b.shape or (a != b).any()


@pytest.mark.parametrize("name, variant", CASES)
def test_contract_holds_at_every_length(name, variant, text):
    module, longest, context = tasks.module(name), {}, {}
    low, high = module.LENGTHS
    for length in sorted({low, low + 1, module.LENGTH, (low + high) // 2, high}):
        task = load(name, variant, text, length=length)
        tokens, answer = task.draw(Random(length), length, 5, "train")
        assert tokens.shape == answer.shape and len(tokens) == 5 and answer.dtype == bool
        assert tokens.min() >= 0 and tokens.max() < len(task.pieces) - task.ends       # END is never part of a row
        assert not answer[:, 0].any(), "nothing comes before the first token that could tell it"
        assert answer.any(axis=1).all()
        assert task.lengths == (tuple(range(low, length + 1)) if module.MIXED else (length,))
        longest[length] = tokens.shape[1] + (1 if task.ends else -1)    # END comes after; running text's last only is a target
        context[length] = task.context
    assert context == ({length: longest[high] for length in longest} if module.MIXED else longest)


@pytest.mark.parametrize("name, variant", CASES)
def test_answers_at_the_default_length_are_not_constant(name, variant, text):
    task = load(name, variant, text)
    tokens, answer = task.draw(Random(1), task.length, 64, "train")
    assert len(rows(np.where(answer, tokens, -1))) > 1


@pytest.mark.parametrize("name, variant", PROBLEMS)
def test_answer_is_what_a_slow_oracle_says(name, variant):
    assert (name, variant) in ORACLES, "give this task an oracle"
    low, high = tasks.module(name).LENGTHS
    for length in sorted({low, tasks.module(name).LENGTH, high}):
        task = load(name, variant, length=length)
        for row, scored in zip(*task.draw(Random(5, length), length, 1000, "train")):
            first = scored.argmax()
            assert scored[first:].all(), "the answer is the rest of the row"
            problem = tasks.spell(task, row[:first])
            assert tasks.spell(task, row[first:]) == ORACLES[name, variant](problem, length), problem


@pytest.mark.parametrize("variant", ["chars", "bytes"])
def test_text_windows_are_stretches_of_the_file(variant, text):
    task = load("text", variant, text, length=50)
    content = open(text).read()
    for split in tasks.SPLITS:
        tokens, answer = task.draw(Random(3), 50, 20, split)
        assert all(tasks.spell(task, row) in content for row in tokens)
        assert not answer[:, 0].any() and answer[:, 1:].all()


@pytest.mark.parametrize("name, variant", CASES)
def test_batch_puts_inputs_one_ahead_of_targets(name, variant, text):
    task = load(name, variant, text)
    tokens, answer = task.draw(Random(2), task.length, 4, "train")
    trained = tasks.batch(task, Random(2), task.length, 4)
    measured = tasks.shift(task, tokens, answer, score_end=False)
    for row, scored, *views in zip(tokens.tolist(), answer.tolist(), *trained, *measured):
        end = [len(task.pieces) - 1] if task.ends else []
        following = [token if marked else -1 for token, marked in zip(row, scored)][1:]
        inputs, targets, inputs_measured, targets_measured = (view.tolist() for view in views)
        assert inputs == inputs_measured == (row + end)[:-1]
        assert targets == following + end, "training learns where to stop"
        assert targets_measured == following + [-1] * len(end), "END is no part of an answer's score"


@pytest.mark.parametrize("name", tasks.names())
def test_evaluation_scores_the_answer_and_nothing_else(name, text):
    task, config, asked = load(name, text=text), Config(), []

    def score(inputs, wanted):
        asked.append((inputs, wanted))
        return np.zeros((wanted.sum(), len(task.pieces)))

    numbers = evaluate.measure(score, *evaluate.problems(task, config, task.length, "test", most=10))
    assert numbers["n"] == 10
    assert numbers["nll"] == pytest.approx(np.log(len(task.pieces)), rel=1e-12)     # all logits equal: uniform, in float64
    for inputs, wanted in asked:
        for row, scored in zip(inputs, wanted):
            first = row.tolist().index(task.pieces.index(b"=")) if task.ends else 0     # it predicts the answer's first token
            last = len(row) - 2 if task.ends else len(row) - 1                          # the answer's last would predict END
            assert np.flatnonzero(scored).tolist() == list(range(first, last + 1))


@pytest.mark.parametrize("name, length", SPACES)
@pytest.mark.parametrize("fraction", [0.9, 0.4])
def test_splits_are_disjoint_cover_everything_and_have_their_shares(name, length, fraction):
    task = load(name, length=length, train_fraction=fraction)
    shares = dict(zip(tasks.SPLITS, (fraction, 0.2 * (1 - fraction), 0.8 * (1 - fraction))))
    every = rows(space(name, length))
    limits = {split: int(1.5 * share * len(every)) + 20 for split, share in shares.items()}
    found = {split: rows(everything(task, length, split, limits[split])) for split in tasks.SPLITS}
    assert sum(map(len, found.values())) == len(every), "no problem is in two splits"
    assert set.union(*found.values()) == every
    for split, share in shares.items():
        deviation = (share * (1 - share) / len(every)) ** 0.5
        assert abs(len(found[split]) / len(every) - share) < 4 * deviation, split


@pytest.mark.parametrize("name, length", SPACES)
def test_training_never_sees_a_held_out_problem(name, length):
    task, config = load(name, length=length), Config(batch=256)
    held_out = set()
    for each in task.lengths:
        held_out |= rows(everything(task, each, "valid")) | rows(everything(task, each, "test"))
    seen = set()
    for step in range(1, 200):
        inputs, _ = training_batch(task, config, step)      # the whole problem: what the shift cuts off is END
        seen |= rows(inputs)
    assert held_out and not seen & held_out
    assert len(seen) > 0.5 * len(SPACES[name, length])


def test_problems_are_different_and_no_more_than_asked_for():
    task = load("addition", length=2)
    whole = rows(everything(task, 2, "test"))
    some, _ = tasks.problems(task, Random(3), 2, limit=50)
    assert len(some) == len(rows(some)) == 50 and rows(some) < whole


def test_an_empty_split_gives_no_rows():
    task = load("parity", length=1)
    drawn = [task.draw(Random(1), 1, 10, split) for split in tasks.SPLITS]
    assert {len(tokens) for tokens, answer in drawn} == {0, 10}         # three splits, but two problems: 0=0 and 1=1
    assert all(tokens.shape == answer.shape == (len(tokens), 3) for tokens, answer in drawn)
    assert sum(len(everything(task, 1, split)) for split in tasks.SPLITS) == 2


@pytest.mark.parametrize("fraction", [0.9, 0.5])
def test_text_windows_of_different_splits_share_no_character(tmp_path, fraction):
    path = tmp_path / "different.txt"
    path.write_text("".join(map(chr, range(256, 1256))), encoding="utf-8")      # a character's id is its place in the text
    task = load("text", text=str(path), length=4, train_fraction=fraction)
    places = {split: set(task.draw(Random(1), 4, 20000, split)[0].ravel().tolist()) for split in tasks.SPLITS}
    assert sum(map(len, places.values())) == len(set.union(*places.values())) == 1000     # the last place is reached too
    assert max(places["train"]) < min(places["valid"]) and max(places["valid"]) < min(places["test"])
    assert len(places["train"]) == 1000 * fraction


def test_row_hash_is_the_same_on_every_machine():
    golden = [0.31715975027542964, 0.06460053057976944, 0.5576373745569086, 0.7265712962579441]
    assert tasks.row_hash(np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [9, 8, 7]])).tolist() == golden


@pytest.mark.parametrize("name, length", SPACES)
def test_row_hash_is_uniform(name, length):
    h = np.sort(tasks.row_hash(space(name, length)))
    assert h[0] >= 0 and h[-1] < 1
    distance = np.abs(h - (np.arange(len(h)) + 0.5) / len(h)).max()
    assert distance < 1.63 * len(h) ** -0.5         # Kolmogorov-Smirnov at 1%


# The share of each digit of a sum of two n-digit numbers that is the likeliest one: the leading one is 0 for 10^n + 1 of
# 2 * 10^n sums, the others are uniform.
@pytest.mark.parametrize("name, length, token, exact", [
    ("addition", 2, (0.505 + 2 * 0.1) / 3, 0.01),
    ("addition", 3, (0.5005 + 3 * 0.1) / 4, 0.001),
    ("parity", 16, 0.5, 0.5),
    ("modular", 59, 1 / 59, 1 / 59),
    ("reverse", 8, 1 / 26, 26**-8),
])
def test_measured_chance_is_near_the_exact_one(name, length, token, exact):
    measured_token, measured_exact = tasks.chance(load(name, length=length), length)
    deviation = 2048**-0.5      # of a share, over the half of the sample that is asked, at the most 0.5 of this
    assert abs(measured_token - token) < 4 * deviation * (token * (1 - token)) ** 0.5
    assert abs(measured_exact - exact) < 4 * deviation * max(exact * (1 - exact), 1 / 2048) ** 0.5


def test_chance_knows_the_position_and_nothing_more():
    def draw(rng, length, batch, split):
        tokens = rng.integers(0, 2, (batch, 4))
        tokens[:, 2] = 1                            # scored and always the same; the last one is a coin
        return tokens, np.tile([False, False, True, True], (batch, 1))

    token, exact = tasks.chance(dataclasses.replace(load("parity"), draw=draw), 3)
    assert abs(token - 0.75) < 0.04 and abs(exact - 0.5) < 0.05     # 4 deviations of 2048 coins


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
def test_gallery_has_carets_under_what_is_scored_and_nowhere_else(name):
    lines = gallery.show(name).splitlines()
    variants = tasks.module(name).VARIANTS
    starts = [i for i, line in enumerate(lines) if line.startswith("variant ")]
    assert [lines[i].split()[1].rstrip(",") for i in starts] == list(variants)
    for i in starts:
        for shown, carets in zip(lines[i + 1:i + 7:2], lines[i + 2:i + 8:2]):
            # Four spaces before each; of running text all is scored but the first character.
            first = shown.index("=") + 1 if (name, variants[0]) in PROBLEMS else 5
            assert carets == " " * first + "^" * (len(shown) - first)


def test_running_text_has_no_example(text):
    assert tasks.example(load("text", text=text)) == ""


@pytest.mark.parametrize("name, variant", PROBLEMS)
def test_example_is_a_held_out_problem_that_ends_before_its_answer(name, variant):
    task = load(name, variant)
    prompt = tasks.example(task)
    assert prompt.endswith("=") and prompt.count("=") == 1
    tokens, answer = task.draw(Random(0), task.length, 20000, "train")
    starts = {tasks.spell(task, row[:scored.argmax()]) for row, scored in zip(tokens, answer)}
    assert prompt not in starts
