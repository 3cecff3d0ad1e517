"""The answers of every task, worked out a second time in slow plain Python from its characters.

Nothing is taken from the task files but the rows they draw and their pieces.  test_worlds.py has
the tasks whose answers follow from something hidden, or from chance.
"""
import itertools
import re
from collections import Counter

import numpy as np
import pytest
from task_helpers import CASES, draw, lines_with, load, near, spelled

from minitron.data import batches, tasks


def add(problem):
    """-> a + b with one digit more, and for each column from the right its digit and its carry"""
    a, b = problem[:-1].split("+")
    columns = ""
    for i in range(1, len(a) + 1):
        low = str(int(a[-i:]) + int(b[-i:])).zfill(i + 1)
        # the sum of the last i columns begins with the carry out of them
        columns += low[-i] + low[0]
    return str(int(a) + int(b)).zfill(len(a) + 1), columns


def multiply(problem):
    a, b = problem[:-1].split("*")
    total = sum(int(x) * 10**i * int(b) for i, x in enumerate(reversed(a)))
    return str(total).zfill(2 * len(a))


def polish(text):
    """The value of the expression that a text begins with, and the rest of the text"""
    if text[0].isdigit():
        return int(text[0]), text[1:]
    a, rest = polish(text[1:])
    b, rest = polish(rest)
    return {"+": a + b, "-": a - b, "*": a * b}[text[0]] % 5, rest


def tree(problem):
    value, rest = polish(problem)
    assert rest == "=", "one expression, and no more"
    return str(value)


def chain(problem):
    value = int(problem[0])
    for operator, x in zip(problem[1:-1:2], problem[2:-1:2]):
        value = {"+": value + int(x), "-": value - int(x), "*": value * int(x)}[operator]
    return str(value % 5)


def parities(problem):
    return "".join("01"[problem[:i].count("1") & 1] for i in range(1, len(problem)))


def clock(problem, length):
    return str(sum(map(int, problem[:-1].split("+"))) % length)


# (task, variant) -> the answer, from the row before it and the length dial
ANSWERS = {
    ("addition", "plain"): lambda problem, length: add(problem)[0],
    ("addition", "reversed"): lambda problem, length: add(problem)[0][::-1],
    ("addition", "scratchpad"): lambda problem, length: ":".join(reversed(add(problem))),
    ("multiplication", "plain"): lambda problem, length: multiply(problem),
    ("multiplication", "reversed"): lambda problem, length: multiply(problem)[::-1],
    ("modular", "plain"): clock,
    ("modular", "ordered"): clock,
    ("parity", "plain"): lambda problem, length: parities(problem)[-1],
    ("parity", "scratchpad"): lambda problem, length: parities(problem),
    ("expressions", "tree"): lambda problem, length: tree(problem),
    ("expressions", "chain"): lambda problem, length: chain(problem),
    ("reorder", "reverse"): lambda problem, length: "".join(reversed(problem[:-1])),
    ("reorder", "copy"): lambda problem, length: problem[:-1],
    ("reorder", "sort"): lambda problem, length: "".join(sorted(problem[:-1])),
}


def innermost(row):
    """The bracket that would close the innermost open one, after each."""
    stack, labels = [], []
    for bracket in row:
        if bracket in "([{<":
            stack.append(dict(zip("([{<", ")]}>"))[bracket])
        else:
            assert stack.pop() == bracket
        labels.append(stack[-1] if stack else ".")
    return labels


def rearranged(row):
    """The product up to each permutation, which names the places that five things come from"""
    things, labels = "12345", []
    for order in row:
        things = "".join(things[int(place) - 1] for place in order)
        labels.append(things)
    return labels


def hours(row):
    return [f"{sum(map(int, row[:i])) % 60:02}" for i in range(1, len(row) + 1)]


def hops(row):
    """Sanford et al.: find_1(i) is the largest j <= i with X[j-1] == X[i], and find_k(i) is
    find_1(find_k-1(i)).
    """
    k, row = int(row[0]), row[1:]

    def find(i):
        return max((j for j in range(1, i + 1) if row[j - 1] == row[i]), default=None)

    labels = [None]
    for i in range(len(row)):
        for _ in range(k):
            i = None if i is None else find(i)
        labels.append("~" if i is None else row[i])
    return labels


# (task, variant) -> the label of each token, None if it has none
LABELS = {
    ("brackets", "plain"): innermost,
    ("groups", "a5"): rearranged,
    ("groups", "s5"): rearranged,
    ("groups", "z60"): hours,
    ("khop", "plain"): hops,
}
# their own tests below
ELSEWHERE = {"sparse_parity", "quanta", "induction", "mqar", "experts", "memory", "markov",
             "stories"}


@pytest.mark.parametrize("name, variant", CASES)
def test_every_task_has_an_oracle(name, variant):
    # text: test_tasks.py
    known = [(name, variant) in ANSWERS, (name, variant) in LABELS, name in ELSEWHERE,
             name == "text"]
    assert sum(known) == 1, "give this task an oracle"


@pytest.mark.parametrize("name, variant", ANSWERS)
def test_answer_is_that_of_a_slow_oracle(name, variant):
    low, high = tasks.module(name).LENGTHS
    for length in sorted({low, tasks.module(name).LENGTH, high}):
        task = load(name, variant, length=length)
        for row, scored in zip(*draw(task, 300)):
            first = (scored >= 0).argmax()
            assert (scored[first:] >= 0).all(), "the answer is the rest of the row"
            problem = batches.spell(task, row[:first])
            assert problem.endswith("=")
            answer = ANSWERS[name, variant](problem, length)
            assert batches.spell(task, row[first:]) == answer, problem


@pytest.mark.parametrize("name, variant, length, options", [
    *((name, variant, None, None) for name, variant in LABELS),
    *((name, variant, tasks.module(name).LENGTHS[0], None) for name, variant in LABELS),
    *((name, variant, tasks.module(name).LENGTHS[1], None) for name, variant in LABELS),
    ("brackets", "plain", 40, "kinds=1,depth=64"), ("brackets", "plain", 8, "kinds=4,depth=1"),
    ("khop", "plain", 20, "hops=0,letters=3"), ("khop", "plain", 60, "hops=9,letters=3"),
    ("khop", "plain", 60, "hops=9,letters=20"),
])
def test_labels_are_those_of_a_slow_oracle(name, variant, length, options):
    task = load(name, variant, length=length, options=options)
    for row, labels in zip(*draw(task, 40)):
        texts = [None if label < 0 else task.pieces[label].decode().strip() for label in labels]
        assert texts == LABELS[name, variant](spelled(task, row)), batches.spell(task, row)


# Worked examples of the docstrings

@pytest.mark.parametrize("name", sorted({name for name, variant in ANSWERS}))
def test_worked_examples_are_right_and_have_their_carets_under_the_answer(name):
    shown, carets = lines_with(name, "=")
    variants = [variant for task, variant in ANSWERS if task == name]
    found = list(re.finditer(r"\S+=\S+", shown))
    examples = 1 if name == "modular" else len(variants)       # the clock's variants look the same
    assert len(found) == examples
    for variant, match in zip(variants, found):
        start = shown.index("=", match.start()) + 1
        answer = shown[start:match.end()]
        assert answer == ANSWERS[name, variant](shown[match.start():start],
                                                tasks.module(name).LENGTH)
        below = carets.ljust(len(shown))[match.start():match.end() + 1].rstrip()
        assert below == " " * (start - match.start()) + "^" * len(answer)
    assert carets.count("^") == sum(len(match[0].partition("=")[2]) for match in found)


@pytest.mark.parametrize("name, row, start", [
    ("sparse_parity", "0110101101=1", 11), ("quanta", "t2 0110101101=1", 14),
    ("experts", "q17=D", 4), ("memory", "k17=v203", 4),
    ("markov", "abacbacbacacbab", 1), ("text", "To be, or not to b", 1),
])
def test_worked_examples_have_their_carets_under_the_scored_tokens(name, row, start):
    shown, carets = lines_with(name, row)
    start += shown.index(row)
    assert carets == " " * start + "^" * (shown.index(row) + len(row) - start)


def test_worked_example_of_induction_is_right():
    shown, carets = lines_with("induction", "comes again")
    row = shown.split()[0]
    segment, scored = recurring(row)
    assert segment == "wmkz" == shown.split()[1]
    assert carets == " " * 4 + "".join("^" if mark else " " for mark in scored).rstrip()


def test_worked_example_of_mqar_is_right():
    row, labels = lines_with("mqar", "labels:")[0].split("labels:")
    at = {key: value for value, key in re.findall(r"(v\d+) at the second (k\d+)", labels)}
    assert at == answers_of_pairs(row.split(), 2)


def test_worked_example_of_khop_is_right():
    shown, labels = lines_with("khop", "labels:")
    assert labels == "    " + "".join(label or " " for label in hops(list(shown.split()[0])))


def test_worked_example_of_brackets_is_right():
    row, labels = (part.split()[0]
                   for part in lines_with("brackets", "labels:")[0].split("labels:"))
    assert labels == "".join(innermost(row))


def test_worked_example_of_groups_is_right():
    row, labels = (re.findall(r"\d{5}", part)
                   for part in lines_with("groups", "labels:")[0].split("labels:"))
    assert labels == rearranged(row)


def test_worked_example_of_markov_is_right():
    row, says = lines_with("markov", "after c came")[0].split(maxsplit=1)
    came = ", ".join(row[i + 1] for i, symbol in enumerate(row[:-1]) if symbol == "c")
    assert says.startswith(f"after c came {came}:")


# Recall

def recurring(row):
    """The one segment that comes twice in a row, and the scored tokens: all but its first again"""
    first, second = {}, {}
    for i, symbol in enumerate(row):
        (second if symbol in first else first)[symbol] = i
    places = sorted(second.values())
    assert places == list(range(places[0], places[0] + len(places))), "one stretch"
    before = [first[row[i]] for i in places]
    assert before == list(range(before[0], before[0] + len(before))), "in the same order"
    return "".join(row[places[0]:places[-1] + 1]), [i in places[1:] for i in range(len(row))]


@pytest.mark.parametrize("length, options", [
    (48, None), (4, "segment=2,symbols=4"), (40, "segment=20"), (120, "segment=60,symbols=60"),
])
def test_induction_repeats_the_symbol_that_came_next_before(length, options):
    task = load("induction", length=length, options=options)
    for row, scored in zip(*draw(task, 200)):
        text = batches.spell(task, row)
        segment, expected = recurring(text)
        assert len(segment) == task.options["segment"]
        assert ((scored >= 0) == expected).all() and (scored[expected] == row[expected]).all()


def test_induction_cannot_be_solved_by_position():
    """Of 33 places each, none is preferred, and no distance is that of a fifth of the rows."""
    task, starts = load("induction"), []
    for row in draw(task, 10000)[0]:
        seen, row = {}, row.tolist()
        second = next(i for i, symbol in enumerate(row) if seen.setdefault(symbol, i) != i)
        starts.append((seen[row[second]], second))
    first, second = (Counter(places) for places in zip(*starts))
    assert set(first) == set(range(33)) and set(second) == set(range(8, 41))
    assert all(near(count / 10000, 1 / 33, 10000) for count in first.values())
    distances = Counter(b - a for a, b in starts)
    assert len(distances) == 33 and max(distances.values()) < 2000


def answers_of_pairs(row, pairs):
    """{key: value}, ordered by the keys' second places, of a row that begins with the pairs"""
    keys, values = row[:2 * pairs:2], row[1:2 * pairs:2]
    assert len(set(keys)) == len(set(values)) == pairs and not set(keys) & set(values)
    asked = [i for i in range(2 * pairs, len(row)) if row[i] in keys]
    assert sorted(row[i] for i in asked) == sorted(keys)
    assert all((i - 2 * pairs) % 2 == 0 for i in asked)
    return {row[i]: values[keys.index(row[i])] for i in asked}


@pytest.mark.parametrize("length, options",
                         [(64, None), (4, "pairs=1,vocab=8"), (256, "pairs=64,vocab=512,power=1")])
def test_mqar_asks_for_the_value_of_each_key_once(length, options):
    task = load("mqar", "zeros", length=length, options=options)
    half, pairs = task.options["vocab"] // 2, task.options["pairs"]
    for row, labels in zip(*draw(task, 100)):
        assert ((0 < row[:2 * pairs:2]) & (row[:2 * pairs:2] < half)).all()
        assert (row[1:2 * pairs:2] >= half).all()
        expected = answers_of_pairs(spelled(task, row), pairs)
        assert {spelled(task, [row[i]])[0]: spelled(task, [labels[i]])[0]
                for i in np.flatnonzero(labels >= 0)} == expected
        assert len(set(row[2 * pairs:])) == pairs + 1, "nothing else but filler"
        initials = ["_" if token == 0 else "k" if token < half else "v" for token in row]
        assert [text[0] for text in spelled(task, row)] == initials


def test_mqar_has_random_filler_between_the_same_questions():
    task, filler = load("mqar", "random"), []
    for row, labels in zip(*draw(task, 2000)):
        pairs = dict(zip(row[:8:2], row[1:8:2]))
        asked = np.flatnonzero(labels >= 0)
        assert sorted(row[asked]) == sorted(pairs)
        assert all(labels[i] == pairs[row[i]] for i in asked)
        assert (asked >= 8).all() and (asked % 2 == 0).all()
        filler += row[8:][labels[8:] < 0].tolist()
    counts = np.bincount(filler, minlength=128)
    assert len(filler) == 2000 * 52
    assert all(near(count / len(filler), 1 / 128, len(filler)) for count in counts)


@pytest.mark.parametrize("power", [0.01, 0.5, 1])
def test_mqar_places_follow_the_power_law(power):
    """Places of the questions, and of the first key, against NumPy's draws without replacement"""
    task, n = load("mqar", options=f"power={power}"), 4000
    tokens, labels = draw(task, n)
    # 28 places after four pairs, two tokens each
    p, other = np.arange(1, 29) ** (power - 1.0), np.random.default_rng(0)
    p /= p.sum()
    simulated = np.zeros(28)
    for _ in range(n):
        simulated[other.choice(28, 4, replace=False, p=p)] += 1 / n
    used = (labels[:, 8::2] >= 0).mean(axis=0)
    assert used.sum() == pytest.approx(4)
    share = (used + simulated) / 2
    # two shares of n trials each
    assert (np.abs(used - simulated) < 4 * np.sqrt(2 * share * (1 - share) / n)).all()
    first = (tokens[:, 8::2] == tokens[:, :1]).mean(axis=0)
    assert all(near(a, b, n) for a, b in zip(first, p))
    if power == 1:
        assert all(near(a, 1 / 7, n) for a in used)


def test_khop_draws_every_number_of_hops_and_no_letter_twice_in_a_row():
    task = load("khop")
    tokens, _ = draw(task, 5000)
    texts = [batches.spell(task, row) for row in tokens]
    counts = Counter(text[0] for text in texts)
    assert set(counts) == set("01234")
    assert all(near(count / 5000, 0.2, 5000) for count in counts.values())
    assert not any(a == b for text in texts for a, b in itertools.pairwise(text))
    # far apart: nearly independent of each other
    letters = Counter(letter for text in texts for letter in text[1::8])
    assert set(letters) == set("abcd")
    assert all(abs(count / 20000 - 0.25) < 0.02 for count in letters.values())
    groups = task.module.group(tokens, task.length, **task.options)
    assert groups.tolist() == [int(text[0]) for text in texts]


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_brackets_reach_their_depth_and_no_deeper(depth):
    task, deepest = load("brackets", options=f"depth={depth}"), []
    for row in draw(task, 500)[0]:
        text = batches.spell(task, row)
        deepest.append(max(itertools.accumulate(1 if bracket in "([{<" else -1
                                                for bracket in text)))
    assert max(deepest) == depth and (min(deepest) < depth or depth == 1)


@pytest.mark.parametrize("variant, order", [("a5", 60), ("s5", 120), ("z60", 60)])
def test_groups_have_all_their_elements_equally_often(variant, order):
    task, expected = load("groups", variant), {"".join(p) for p in itertools.permutations("12345")}
    if variant == "a5":
        # even: determinant 1
        expected = {p for p in expected if np.linalg.det(np.eye(5)[[int(x) - 1 for x in p]]) > 0}
    if variant == "z60":
        expected = {f"{hour:02}" for hour in range(60)}
    assert {piece.decode().strip() for piece in task.pieces} == expected and len(expected) == order
    for column in (*draw(task, 20000)[0][:, :2].T, draw(task, 20000)[1][:, -1]):
        assert all(near(count / 20000, 1 / order, 20000)
                   for count in np.bincount(column, minlength=order))


def test_all_shapes_of_tree_are_equally_likely():
    """Five trees have four leaves.  The sum of squares is chi-square's with 4 degrees of freedom,
    above 23.5 once in 10,000 times.
    """
    task = load("expressions", length=4)
    texts = [batches.spell(task, row)[:7] for row in draw(task, 5000)[0]]
    shapes = Counter(re.sub(r"\d", "x", re.sub(r"[-+*]", "o", text)) for text in texts)
    assert len(shapes) == 5
    assert sum((count - 1000) ** 2 / 1000 for count in shapes.values()) < 23.5
    signs = Counter(sign for text in texts for sign in text)
    assert all(near(signs[sign] / 15000, 1 / 3, 15000) for sign in "+-*")
    assert all(near(signs[digit] / 20000, 1 / 5, 20000) for digit in "01234")
