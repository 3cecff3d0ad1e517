"""The promises of tasks/__init__.py, checked for each file in tasks/ without trusting a line of it.

Here: rows, splits, batches, options.  tests/tasks/ has the answers, tests/commands/ the gallery.
Held-out problems are counted by enumerating whole problem spaces.  The golden hashes say that a
problem drawn today is drawn on every machine and in ten years: they may only change together with
a task's VERSION, since records of runs are compared across both.
"""
import hashlib
import inspect
import itertools
import re
import string

import numpy as np
import pytest
from task_helpers import CASES, load

from minitron.base.errors import MinitronError
from minitron.base.rng import Random
from minitron.data import batches, splits, tasks
from minitron.data.batches import training_batch
from minitron.data.config import Config
from minitron.measure import evaluate

# split by row_hash
HASHED = [(name, variant) for name, variant in CASES if not hasattr(tasks.module(name), "prepare")]

# (task, variant) -> the first 16 hex digits of the SHA-256 of 8 rows and their answers, at the
# default length
GOLDEN = {
    ("addition", "plain"): "3ebebcd83e8434d7",
    ("addition", "reversed"): "7be82707cbab05c7",
    ("addition", "scratchpad"): "bebd7b6fb2ce7f07",
    ("brackets", "plain"): "90f2409b542ce75d",
    ("experts", "independent"): "d88f2340a06b86e5",
    ("experts", "shared"): "e6111d246a327e79",
    ("expressions", "tree"): "559423de50465501",
    ("expressions", "chain"): "1d04e51158638d79",
    ("groups", "a5"): "4595470c8436b712",
    ("groups", "s5"): "7599970f563c033e",
    ("groups", "z60"): "c4438314f8087dfa",
    ("induction", "plain"): "e8982d3db2a79dd4",
    ("khop", "plain"): "fe3761938c6afeb1",
    ("markov", "plain"): "ba43c0134aa484fd",
    ("memory", "plain"): "b0960855d5dc21a8",
    ("modular", "plain"): "c8e8c41f6ed35b93",
    ("modular", "ordered"): "a114dbfa0376ba0d",
    ("mqar", "zeros"): "4a85b7e464e243d6",
    ("mqar", "random"): "7aec54cab6869384",
    ("multiplication", "plain"): "e277f40f81c8a9a8",
    ("multiplication", "reversed"): "3a27d2e646265c86",
    ("parity", "plain"): "1a1c47efa4d21060",
    ("parity", "scratchpad"): "bb0643421cb485c0",
    ("quanta", "plain"): "b8a0e830df8905ff",
    ("reorder", "reverse"): "96e3960f113eec7c",
    ("reorder", "copy"): "ba84de945aa23d98",
    ("reorder", "sort"): "bc1417135f79ee60",
    ("sparse_parity", "plain"): "a79cbc26903e3e13",
    ("stories", "plain"): "2a781c479364b55c",
    ("text", "chars"): "4f2b52b7f0085e51",
    ("text", "bytes"): "e9cfe2d871e37877",
}
VERSIONS = {"addition": 2, "markov": 2, "modular": 2, "mqar": 2, "quanta": 2, "stories": 2}

# Options at their edges, each with a length, by task.  FITS have problems, REFUSED have none; an
# edge of the length dial at which the default options leave no problem is among the latter.
FITS = {
    "sparse_parity": [("k=1", 1), ("k=3", 3), ("k=16", 16), ("k=16,world=2147483648", 64)],
    "quanta": [("tasks=1,k=1", 1), ("k=16,alpha=0", 16),
               ("tasks=512,k=16,alpha=4,world=2147483648", 64)],
    "induction": [("segment=2,symbols=4", 4), ("segment=2,symbols=4", 6),
                  ("segment=60,symbols=60", 120), ("symbols=94", 102)],
    "mqar": [("pairs=1,vocab=8", 4), ("pairs=1,vocab=8", 6),
             ("pairs=256,vocab=1026,power=1", 1024), ("vocab=8192", 16)],
    "khop": [("hops=0,letters=3", 2), ("hops=9,letters=20", 256), ("hops=9,letters=3", 32)],
    "brackets": [("kinds=1,depth=64", 256), ("kinds=4,depth=1", 1), ("kinds=2,depth=1", 256)],
    "experts": [("choices=2,percent=1", 2), ("choices=26,percent=100,world=2147483648", 4096)],
    "memory": [("world=2147483648", 8192)],
    "markov": [("states=2", 2), ("states=10", 512)],
    "stories": [("world=2147483648", 2)],
}
REFUSED = {
    "sparse_parity": [(None, 1), (None, 2), ("k=16", 15)],
    "quanta": [(None, 1), (None, 2), ("k=16", 15)],
    "induction": [(None, 4), (None, 5), (None, 15), (None, 73), (None, 120),
                  ("segment=2,symbols=4", 7), ("segment=60", 119)],
    "mqar": [(None, 4), (None, 5), (None, 14), (None, 17), (None, 128), (None, 514), (None, 1024),
             ("pairs=2,vocab=8", 8)],
}


def apply(operator, a, b):
    return {"+": a + b, "-": a - b, "*": a * b}[operator] % 5


def prefixes(n):
    """The parities of the bits of n up to each."""
    return sum((n >> i).bit_count() % 2 << i for i in range(8))


# Whole problem spaces, by name, variant and length, as rows of pieces.
SPACES = {
    ("addition", "plain", 1): [f"{a}+{b}={a + b:02}" for a in range(10) for b in range(10)],
    ("addition", "plain", 2): [f"{a:02}+{b:02}={a + b:03}" for a in range(100) for b in range(100)],
    ("multiplication", "plain", 1): [f"{a}*{b}={a * b:02}" for a in range(10) for b in range(10)],
    ("multiplication", "reversed", 1): [f"{a}*{b}={f'{a * b:02}'[::-1]}" for a in range(10)
                                        for b in range(10)],
    ("parity", "plain", 8): [f"{n:08b}={n.bit_count() % 2}" for n in range(256)],
    ("parity", "scratchpad", 8): [f"{n:08b}={prefixes(n):08b}" for n in range(256)],
    ("reorder", "sort", 2): [f"{a}{b}={min(a, b)}{max(a, b)}" for a in string.ascii_lowercase
                             for b in string.ascii_lowercase],
    ("expressions", "tree", 2): [f"{o}{a}{b}={apply(o, a, b)}" for o in "+-*" for a in range(5)
                                 for b in range(5)],
    ("expressions", "chain", 2): [f"{a}{o}{b}={apply(o, a, b)}" for o in "+-*" for a in range(5)
                                  for b in range(5)],
    ("modular", "plain", 23): [(str(a), "+", str(b), "=", str((a + b) % 23)) for a in range(23)
                               for b in range(23)],
    ("modular", "ordered", 23): [(str(a), "+", str(b), "=", str((a + b) % 23)) for a in range(23)
                                 for b in range(23)],
}
TWINS = {("addition", "plain", 2): "+", ("multiplication", "plain", 1): "*",
         ("modular", "plain", 23): "+"}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text long enough for a window of 4096 in each split."""
    path = tmp_path_factory.mktemp("text") / "squares.txt"
    path.write_text("".join(f"{i} times {i} is {i * i}.\n" for i in range(10000)))
    return str(path)


def load_with(text, name, variant=None, **options):
    return load(name, variant, data=text if name == "text" else None, **options)


def rows(tokens):
    """Token rows as a set"""
    return {row.tobytes() for row in np.asarray(tokens, np.int64)}


def space(name, variant, length):
    """All rows of a problem space as token ids.      -> tokens (N, S)"""
    ids = {piece.decode(): token
           for token, piece in enumerate(load(name, variant, length=length).pieces)}
    return np.array([[ids[piece] for piece in row] for row in SPACES[name, variant, length]])


def everything(task, length, split, limit=1000):
    """tokens (N, S): all problems of a split, of which there must be fewer than the limit"""
    tokens, _ = batches.problems(task, Random(7), length, limit, split)
    assert len(tokens) < limit
    return tokens


@pytest.mark.parametrize("name", tasks.names())
def test_docstring_tells_the_dial_the_source_and_the_result(name):
    doc = inspect.getdoc(tasks.module(name))
    for label in ("Length", "Source", "Expect"):
        line = re.search(rf"^{label}: \S", doc, re.MULTILINE)
        assert line, f"tasks/{name}.py lacks the line `{label}:`"


@pytest.mark.parametrize("name, variant", CASES)
def test_same_stream_gives_the_same_problems_for_ever(name, variant, text):
    task = load_with(text, name, variant)
    drawn = [task.draw(Random(1, 2, 3), task.length, 8, "train") for _ in range(2)]
    digests = [hashlib.sha256(tokens.astype("<i8").tobytes() + as_bytes(answer)).hexdigest()[:16]
               for tokens, answer in drawn]
    assert digests[0] == digests[1]
    golden = GOLDEN.get((name, variant))
    assert digests[0] == golden, "raise VERSION of the task, then put the new hash into GOLDEN"


def as_bytes(answer):
    return (answer if answer.dtype == bool else answer.astype("<i8")).tobytes()


def test_versions_tell_the_tasks_whose_problems_have_changed():
    assert {name: tasks.module(name).VERSION for name in tasks.names()
            if tasks.module(name).VERSION > 1} == VERSIONS


@pytest.mark.parametrize("name, variant", CASES)
def test_steps_and_seeds_differ(name, variant, text):
    task = load_with(text, name, variant)
    batches = [training_batch(task, Config(batch=8, seed=seed), step)[0] for seed in (0, 1)
               for step in (1, 2, 3)]
    for a, b in itertools.combinations(batches, 2):
        assert a.shape != b.shape or (a != b).any()


def check_contract(task, length):
    """A few rows keep the contract of tasks/__init__.py -> tokens of a row, END included"""
    tokens, answer = task.draw(Random(length), length, 5, "train")
    assert tokens.shape == answer.shape
    assert len(tokens) == (min(5, round(0.9 * length**2)) if task.name == "modular" else 5)
    assert tokens.dtype.kind == "i" and tokens.min() >= 0
    assert tokens.max() < len(task.pieces) - task.ends                  # END is never part of a row
    assert task.ends == (task.module.ENDS and answer.dtype == bool) == (task.pieces[-1] == b"")
    assert len(set(task.pieces)) == len(task.pieces) and b"" not in task.pieces[:-1]
    if answer.dtype == bool:
        assert not answer[:, 0].any(), "nothing comes before the first token that could tell it"
        assert answer.any(axis=1).all()
        # END comes after; where there is none, the last only is a target
        return tokens.shape[1] + (1 if task.ends else -1)
    assert answer.dtype == np.int64 and answer.min() >= -1 and answer.max() < len(task.pieces)
    assert (answer >= 0).any(axis=1).all()
    return tokens.shape[1]


@pytest.mark.parametrize("name, variant", CASES)
def test_contract_holds_at_every_length(name, variant, text):
    module, width, context = tasks.module(name), {}, {}
    low, high = module.LENGTHS
    refused = [length for options, length in REFUSED.get(name, ()) if options is None]
    lengths = {low, low + 1, module.LENGTH, (low + high) // 2, high}
    for length in sorted(lengths.difference(refused)):
        task = load_with(text, name, variant, length=length)
        width[length], context[length] = check_contract(task, length), task.context
        assert task.width == task.longest == width[length]
        assert task.lengths == (tuple(range(low, length + 1)) if module.MIXED else (length,))
        assert task.beyond == ()
    assert context == ({length: width[high] for length in width} if module.MIXED else width)


@pytest.mark.parametrize("name, options, length",
                         [(name, *edge) for name in FITS for edge in FITS[name]])
def test_contract_holds_at_the_edges_of_the_options(name, options, length):
    for variant in tasks.module(name).VARIANTS:
        task = load(name, variant, options=options, length=length)
        assert check_contract(task, length) == task.width == task.context
        assert all(task.options[key] == float(value)
                   for key, value in (part.split("=") for part in options.split(",")))


@pytest.mark.parametrize("name", sorted(FITS))
def test_edges_above_are_those_of_the_options(name):
    for option, (default, smallest, largest) in tasks.module(name).OPTIONS.items():
        tried = {default} | {float(value) for options, _ in FITS[name]
                             for value in re.findall(rf"\b{option}=([^,]+)", options)}
        assert {smallest, largest} <= tried, option


def test_every_task_with_options_has_its_edges_above():
    assert {name for name in tasks.names() if tasks.module(name).OPTIONS} == set(FITS)


@pytest.mark.parametrize("name, options, length",
                         [(name, *edge) for name in REFUSED for edge in REFUSED[name]])
def test_options_that_do_not_fit_the_length_are_refused_in_one_line(name, options, length):
    with pytest.raises(MinitronError) as error:
        load(name, options=options, length=length)
    assert "\n" not in str(error.value)
    assert re.search(rf"(length|only) {length}\b", str(error.value))


@pytest.mark.parametrize("task, options, told", [
    ("mqar", "pears=8", "pairs=4, vocab=128, power=0.01"),
    ("mqar", "8", "pairs=4"),
    ("mqar", "pairs", "is not a number: use 1 to 256"),
    ("mqar", "pairs=", "is not a number"),
    ("mqar", "pairs=two", "pairs 'two' is not a number"),
    ("mqar", "pairs=2.5", "is not a number"),
    ("mqar", "pairs=0", "out of range for task mqar: use 1 to 256"),
    ("mqar", "pairs=4,vocab=9999", "vocab 9999 is out of range"),
    ("mqar", "power=nan", "power nan is out of range"),
    ("quanta", "alpha=inf", "alpha inf is out of range"),
    ("parity", "k=3", "none"),
])
def test_options_that_are_none_are_refused_in_one_line(task, options, told):
    with pytest.raises(MinitronError, match=told) as error:
        load(task, options=options)
    assert "\n" not in str(error.value)


def test_options_are_read_with_their_defaults():
    default = {"pairs": 4, "vocab": 128, "power": 0.01}
    assert load("mqar").options == load("mqar", options="").options == default
    given = load("mqar", options="power=1,pairs=8").options
    assert given == {"pairs": 8, "vocab": 128, "power": 1.0}
    assert type(load("mqar", options="power=1").options["power"]) is float
    assert load("parity").options == {}


@pytest.mark.parametrize("name", tasks.names())
def test_a_resolved_configuration_resolves_to_itself(name):
    config = Config(task=name).resolve()
    assert config.resolve() == config
    assert config.options == ",".join(f"{key}={value[0]}"
                                      for key, value in tasks.module(name).OPTIONS.items())


@pytest.mark.parametrize("name, length, test_length, expected", [
    ("addition", 3, None, ()), ("addition", 3, 3, ()), ("addition", 3, 5, (4, 5)),
    ("addition", 3, 15, tuple(range(4, 16))), ("addition", 3, 64, None), ("groups", 8, 64, None),
    ("mqar", 64, 70, (66, 68, 70)), ("mqar", 64, 126, None),
])
def test_longer_test_lengths_are_a_dozen_at_most_and_reach_the_last(
        name, length, test_length, expected):
    task = load(name, length=length, test_length=test_length)
    if expected is not None:
        assert task.beyond == expected
        return
    assert len(task.beyond) == 12 and task.beyond[-1] == test_length
    gaps = np.diff((length, *task.beyond))
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= task.module.STEP, "evenly spread"
    assert (gaps % task.module.STEP == 0).all()


def test_a_longer_test_makes_room_for_its_rows():
    task = load("groups", length=8, test_length=20)
    assert (task.width, task.longest, task.context) == (8, 20, 20) and task.lengths == (8,)
    task = load("addition", length=3, test_length=5)
    assert (task.width, task.longest, task.context) == (13, 19, 3 * 64 + 4)
    assert task.lengths == (1, 2, 3)
    assert {len(task.draw(Random(1), length, 1, "test")[0][0])
            for length in task.beyond} == {15, 18}


@pytest.mark.parametrize("options, told", [
    ({"task": "addition", "length": 3, "test_length": 2},
     "test-length 2 is out of range .* use 3 to 64"),
    ({"task": "addition", "test_length": 65}, "test-length 65"),
    ({"task": "modular", "test_length": 64}, "test-length 64 has no use"),
    ({"task": "memory", "test_length": 300}, "test-length 300 has no use"),
    # of 24 bits others count than of 20
    ({"task": "sparse_parity", "test_length": 24}, "test-length 24 has no use"),
    ({"task": "quanta", "test_length": 20}, "test-length 20 has no use"),
    ({"task": "mqar", "test_length": 67}, "even"),
    ({"task": "induction", "test_length": 100}, "does not fit"),
])
def test_longer_test_lengths_that_cannot_be_are_refused_in_one_line(options, told):
    with pytest.raises(MinitronError, match=told) as error:
        Config(**options).resolve()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name, variant", CASES)
def test_answers_at_the_default_length_are_not_constant(name, variant, text):
    task = load_with(text, name, variant)
    assert len(rows(batches.scored(*task.draw(Random(1), task.length, 64, "train")))) > 1


@pytest.mark.parametrize("variant", ["chars", "bytes"])
def test_text_windows_are_stretches_of_the_file(variant, text):
    task = load("text", variant, data=text, length=50)
    content = open(text).read()
    for split in tasks.SPLITS:
        tokens, answer = task.draw(Random(3), 50, 20, split)
        assert all(batches.spell(task, row) in content for row in tokens)
        assert not answer[:, 0].any() and answer[:, 1:].all()


@pytest.mark.parametrize("name, variant", CASES)
def test_batch_puts_inputs_one_ahead_of_targets(name, variant, text):
    task = load_with(text, name, variant)
    tokens, answer = task.draw(Random(2), task.length, 4, "train")
    trained = batches.batch(task, Random(2), task.length, 4)
    measured = batches.shift(task, tokens, answer, score_end=False)
    for row, marked, *views in zip(tokens.tolist(), answer.tolist(), *trained, *measured):
        inputs, targets, inputs_measured, targets_measured = (view.tolist() for view in views)
        if answer.dtype != bool:
            assert inputs == inputs_measured == row
            assert targets == targets_measured == marked, "labels stand at their tokens"
            continue
        end = [len(task.pieces) - 1] if task.ends else []
        following = [token if mark else -1 for token, mark in zip(row, marked)][1:]
        assert inputs == inputs_measured == (row + end)[:-1]
        assert targets == following + end, "training learns where to stop"
        assert targets_measured == following + [-1] * len(end), "END is not scored"


@pytest.mark.parametrize("name", tasks.names())
def test_evaluation_scores_the_answer_and_nothing_else(name, text):
    task, config, asked = load_with(text, name), Config(), []

    def score(inputs, wanted, positions):
        assert positions is None
        asked.append((inputs, wanted))
        return np.zeros((wanted.sum(), len(task.pieces)))

    problems = evaluate.problems(task, config, task.length, "test", limit=10)
    numbers = evaluate.basic_metrics(score, problems)
    assert numbers["n"] == 10
    # all logits equal: uniform, in float64
    assert numbers["nll"] == pytest.approx(np.log(len(task.pieces)), rel=1e-12)
    inputs, wanted = (np.concatenate(part) for part in zip(*asked))
    assert (inputs == problems.inputs).all() and len(wanted) == 10
    for row, places in zip(inputs.tolist(), map(np.flatnonzero, wanted)):
        # from "=", which predicts the answer's first token; the answer's last would predict END
        if task.ends:
            assert places.tolist() == list(range(row.index(task.pieces.index(b"=")), len(row) - 1))
        elif name == "induction":   # at a symbol's second time, but for the last of the segment
            again = [i for i, symbol in enumerate(row) if symbol in row[:i]]
            assert places.tolist() == (again[:-1] if len(again) == 8 else again)
        elif name == "mqar":        # where a key of the four pairs comes again
            assert places.tolist() == [i for i in range(8, 64) if row[i] in row[:8:2]]
        elif name == "modular":     # at "="
            assert places.tolist() == [3]
        else:                       # everywhere, but for khop's number of hops
            assert places.tolist() == list(range(name == "khop", len(row)))


@pytest.mark.parametrize("name, variant, length", SPACES)
@pytest.mark.parametrize("fraction", [0.9, 0.4])
def test_splits_are_disjoint_cover_everything_and_have_their_shares(
        name, variant, length, fraction):
    task = load(name, variant, length=length, train_fraction=fraction)
    shares = dict(zip(tasks.SPLITS, (fraction, 0.2 * (1 - fraction), 0.8 * (1 - fraction))))
    every = rows(space(name, variant, length))
    limits = {split: int(1.5 * share * len(every)) + 30 for split, share in shares.items()}
    found = {split: rows(everything(task, length, split, limits[split])) for split in tasks.SPLITS}
    assert sum(map(len, found.values())) == len(every), "no problem is in two splits"
    assert set.union(*found.values()) == every
    for split, share in shares.items():
        deviation = (share * (1 - share) / len(every)) ** 0.5
        # drawn in pairs of twins
        deviation *= 2**0.5 if name in ("addition", "multiplication") else 1
        bound = 3 / len(every) if name == "modular" else 4 * deviation
        assert abs(len(found[split]) / len(every) - share) < bound, split


@pytest.mark.parametrize("name, variant, length", TWINS)
def test_a_problem_and_its_twin_are_in_one_split(name, variant, length):
    task = load(name, variant, length=length, train_fraction=0.5)
    sign = TWINS[name, variant, length]
    for split in tasks.SPLITS:
        problems = {tuple(batches.spell(task, row).split("=")[0].split(sign))
                    for row in everything(task, length, split, 10000)}
        assert problems == {(b, a) for a, b in problems} and len(problems) >= 5


def test_the_ordered_clock_holds_out_cells_without_regard_to_their_twins():
    task = load("modular", "ordered", length=23, train_fraction=0.5)
    cells = {(row[0], row[2]) for row in everything(task, 23, "train")}
    twins = sum((b, a) in cells for a, b in cells if a != b)
    # half of them by chance; all, were twins kept together
    assert abs(twins / len(cells) - 0.5) < 0.2


@pytest.mark.parametrize("variant", ["plain", "ordered"])
@pytest.mark.parametrize("fraction", [0.9, 0.4, 0.3])
def test_a_batch_as_large_as_the_share_of_the_clock_is_each_problem_once(variant, fraction):
    task = load("modular", variant, length=59, train_fraction=fraction)
    whole, _ = task.draw(Random(1), 59, 59**2, "train")
    assert len(whole) == len(rows(whole))
    assert abs(len(whole) - fraction * 59**2) <= (1.5 if variant == "plain" else 0.5)
    assert (task.draw(Random(2), 59, len(whole), "train")[0] == whole).all()
    assert len(task.draw(Random(1), 59, 100, "train")[0]) == 100


def test_the_hidden_parity_is_held_out_by_whole_problems():
    task = load("sparse_parity", length=8)
    found = [{row[:9].tobytes() for row in everything(task, 8, split)} for split in tasks.SPLITS]
    assert sum(map(len, found)) == len(set.union(*found)) == 256 and min(map(len, found)) > 0


# name -> a length and options with so few problems that thousands of rows repeat them
CROWDED = {
    "addition": (2, None), "multiplication": (2, None), "parity": (12, None),
    "sparse_parity": (12, None), "reorder": (3, None), "quanta": (8, "tasks=4"),
    "induction": (6, "segment=2,symbols=6"), "mqar": (6, "pairs=1,vocab=12"), "khop": (6, None),
    "brackets": (8, "kinds=2"), "groups": (2, None), "expressions": (3, None),
    "markov": (10, "states=2"), "stories": (2, None),
}


@pytest.mark.parametrize("name, variant", HASHED)
def test_no_row_of_one_split_is_drawn_from_another(name, variant):
    length, options = CROWDED[name]
    task = load(name, variant, length=length, options=options, train_fraction=0.5)
    drawn = [rows(task.draw(Random(1), length, 3000, split)[0]) for split in tasks.SPLITS]
    again = rows(task.draw(Random(2), length, 3000, "test")[0])
    assert all(drawn) and again & drawn[2], "crowded enough for rows to come again"
    assert sum(map(len, drawn)) == len(set.union(*drawn)) and not again & (drawn[0] | drawn[1])


@pytest.mark.parametrize("name, variant, length", SPACES)
def test_training_never_sees_a_held_out_problem(name, variant, length):
    task, config = load(name, variant, length=length), Config(batch=256)
    held_out = set()
    for each in task.lengths:
        held_out |= rows(everything(task, each, "valid")) | rows(everything(task, each, "test"))
    seen = set()
    for step in range(1, 100):
        # the whole problem: what the shift cuts off is END
        inputs, *_ = training_batch(task, config, step)
        seen |= rows(inputs)
    assert held_out and not seen & held_out
    assert len(seen) > 0.5 * len(SPACES[name, variant, length])


def test_problems_are_different_and_no_more_than_asked_for():
    task = load("addition", length=2)
    whole = rows(everything(task, 2, "test"))
    some, _ = batches.problems(task, Random(3), 2, limit=50)
    assert len(some) == len(rows(some)) == 50 and rows(some) < whole


def test_an_empty_split_gives_no_rows():
    task = load("parity", length=1)
    drawn = [task.draw(Random(1), 1, 10, split) for split in tasks.SPLITS]
    # three splits, but two problems: 0=0 and 1=1
    assert {len(tokens) for tokens, answer in drawn} == {0, 10}
    assert all(tokens.shape == answer.shape == (len(tokens), 3) for tokens, answer in drawn)
    assert sum(len(everything(task, 1, split)) for split in tasks.SPLITS) == 2


@pytest.mark.parametrize("fraction", [0.9, 0.5])
def test_text_windows_of_different_splits_share_no_character(tmp_path, fraction):
    path = tmp_path / "different.txt"
    # a character's id is its place in the text
    path.write_text("".join(map(chr, range(256, 1256))), encoding="utf-8")
    task = load("text", data=str(path), length=4, train_fraction=fraction)
    places = {split: set(task.draw(Random(1), 4, 20000, split)[0].ravel().tolist())
              for split in tasks.SPLITS}
    # the last place is reached too
    assert sum(map(len, places.values())) == len(set.union(*places.values())) == 1000
    assert max(places["train"]) < min(places["valid"])
    assert max(places["valid"]) < min(places["test"])
    assert len(places["train"]) == 1000 * fraction


def test_row_hash_is_the_same_on_every_machine():
    golden = [0.0, 0.4815585823555033, 0.28176129772258496, 0.7565402598884902]
    tokens = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [9, 8, 7]])
    assert splits.row_hash(tokens).tolist() == golden


@pytest.mark.parametrize("name, variant, length", SPACES)
def test_row_hash_is_uniform(name, variant, length):
    h = np.sort(splits.row_hash(space(name, variant, length)))
    assert h[0] >= 0 and h[-1] < 1
    distance = np.abs(h - (np.arange(len(h)) + 0.5) / len(h)).max()
    assert distance < 1.95 * len(h) ** -0.5         # Kolmogorov-Smirnov at 0.1%, for sixteen spaces
