"""Tasks whose answers follow from something hidden, or from chance.

The hidden part is found from rows alone; the chances have the frequencies they should have.  Of
the task files, only the rows are believed, and for stories the tables of facts.  Statistical bounds
are four deviations, which chance exceeds once in 16,000 times; the streams are fixed, so a test
that passes always passes.
"""
import itertools
import math
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from task_helpers import draw, lines_with, load, near

from minitron.base.rng import Random
from minitron.data import batches, tasks

# Hidden parities

def subsets_that_explain(bits, answers, k):
    """All sets of k places whose parity is the answer in every row, found by trying each."""
    found = []
    for subset in itertools.combinations(range(bits.shape[1]), k):
        few = bits[:20, subset].sum(axis=1) % 2                     # 20 rows rule nearly all out
        if (few == answers[:20]).all() and (bits[:, subset].sum(axis=1) % 2 == answers).all():
            found.append(subset)
    return found


def bits_and_answers(task, tokens):
    text = [batches.spell(task, row).split()[-1].split("=") for row in tokens]
    bits = np.array([list(map(int, bits)) for bits, _ in text])
    return bits, np.array([int(answer) for _, answer in text])


@pytest.mark.parametrize("length, k", [(20, 3), (10, 4), (8, 1), (18, 16)])
def test_sparse_parity_is_that_of_one_hidden_choice(length, k):
    task = load("sparse_parity", length=length, options=f"k={k}", train_fraction=0.5)
    found = [subsets_that_explain(*bits_and_answers(task, draw(task, 500, split)[0]), k)
             for split in tasks.SPLITS]
    assert len(found[0]) == 1 and found[0] == found[1] == found[2]


def test_worlds_hide_different_choices():
    found = []
    for world in range(4):
        task = load("sparse_parity", options=f"world={world}")
        found += subsets_that_explain(*bits_and_answers(task, draw(task, 500)[0]), 3)
    assert len(found) == 4 and len(set(found)) > 1


def by_task(task, tokens):
    """Rows of quanta by the number of their task."""
    rows = defaultdict(list)
    for row in tokens:
        rows[int(re.match(r"t(\d+) ", batches.spell(task, row))[1])].append(row)
    return rows


def test_quanta_are_a_parity_for_each_task_and_the_same_in_all_splits():
    task, found = load("quanta", options="tasks=6,alpha=0.5", length=12, train_fraction=0.5), []
    for split in tasks.SPLITS:
        rows = by_task(task, draw(task, 1200, split)[0])
        assert sorted(rows) == [1, 2, 3, 4, 5, 6]
        found.append([subsets_that_explain(*bits_and_answers(task, rows[i]), 3)
                      for i in sorted(rows)])
    assert all(len(subsets) == 1 for subsets in found[0]) and found[0] == found[1] == found[2]
    assert len({subsets[0] for subsets in found[0]}) > 1


def test_quanta_are_asked_in_proportion_to_a_power_of_their_rank():
    task = load("quanta")
    tokens, _ = draw(task, 20000)
    rows, weights = by_task(task, tokens), [i**-1.4 for i in range(1, 17)]
    for i, weight in enumerate(weights, 1):
        assert near(len(rows[i]) / 20000, weight / sum(weights), 20000)
    groups = task.module.group(tokens, task.length, **task.options)
    assert all((batches.spell(task, row).split()[0] == f"t{group}")
               for row, group in zip(tokens[:100], groups))


# Facts to memorise

def said(task, batch, split, stream=5):
    """(question, answer) of rows"""
    return [tuple(batches.spell(task, row).split("="))
            for row in draw(task, batch, split, stream)[0]]


@pytest.mark.parametrize("options", ["percent=50", "percent=80,choices=4,world=3",
                                     "percent=1,choices=2", "percent=100"])
def test_independent_experts_err_as_often_as_they_should_and_each_in_his_own_way(options):
    task, n = load("experts", length=64, options=options), 20000
    p, choices = task.options["percent"] / 100, task.options["choices"]
    right, letters = dict(said(task, 64, "test")), "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:choices]
    rows = said(task, n, "train")
    hits = [answer == right[question] for question, answer in rows]
    assert near(np.mean(hits), p, n) or np.mean(hits) == p == 1
    wrong = Counter((letters.index(answer) - letters.index(right[question])) % choices
                    for question, answer in rows)
    errors = sum(wrong[i] for i in range(1, choices))
    assert errors == n - sum(hits)
    for i in range(1, choices if errors else 1):
        assert near(wrong[i] / errors, 1 / (choices - 1), errors) or choices == 2
    # Of two answers to one question, drawn apart, both are right with probability p * p.
    by_question = defaultdict(list)
    for (question, _), hit in zip(rows, hits):
        by_question[question].append(hit)
    both = [a and b for answers in by_question.values()
            for a, b in zip(answers[::2], answers[1::2])]
    assert near(np.mean(both), p * p, len(both)) or np.mean(both) == p == 1


@pytest.mark.parametrize("variant", ["independent", "shared"])
def test_experts_are_tested_on_all_questions_with_the_right_answers(variant):
    task = load("experts", variant)
    tested = {split: set(said(task, 600, split)) for split in ("valid", "test")}
    assert tested["valid"] == tested["test"]
    assert len(tested["test"]) == len(dict(tested["test"])) == 256
    assert len({answer for _, answer in tested["test"]}) == 10
    rows, _ = batches.problems(task, Random(1), 256, 1000, "test")
    assert len(rows) == 256
    # most answers of the experts: at 78 a question and 50%, far ahead of any wrong one
    if variant == "independent":
        answers = defaultdict(Counter)
        for question, answer in said(task, 20000, "train"):
            answers[question][answer] += 1
        assert {(question, counts.most_common(1)[0][0])
                for question, counts in answers.items()} == tested["test"]


@pytest.mark.parametrize("percent, length", [(50, 256), (10, 64), (99, 200)])
def test_shared_bias_gives_one_answer_a_question_and_is_right_on_its_percentage(percent, length):
    task = load("experts", "shared", length=length, options=f"percent={percent}")
    taught = set(said(task, 40 * length, "train"))
    assert len(taught) == len(dict(taught)) == length, "each question is asked and has one answer"
    assert len(taught & set(said(task, length, "test"))) == round(length * percent / 100)


@pytest.mark.parametrize("percent, choices", [(50, 10), (30, 3), (100, 5), (1, 26)])
def test_closed_form_of_sampling_experts_is_the_softmax_of_their_votes(percent, choices):
    sampled = tasks.module("experts").sampled
    votes = [percent / 100] + (choices - 1) * [(100 - percent) / 100 / (choices - 1)]
    for temperature in (1.0, 0.5, 0.25, 2.0):
        powers = [math.exp(math.log(vote) / temperature) if vote else 0 for vote in votes]
        expected = pytest.approx(powers[0] / sum(powers), rel=1e-12)
        assert sampled(temperature, 100, "independent", choices, percent, 0) == expected
    assert sampled(1.0, 100, "independent", choices, percent, 0) == pytest.approx(percent / 100)
    assert sampled(0, 100, "independent", choices, percent, 0) == (votes[0] > votes[1])
    assert sampled(0.25, 100, "shared", choices, percent, 0) == percent / 100
    assert sampled(0.25, 7, "shared", 10, 50, 0) == 4 / 7     # seven questions cannot be half right


def test_memory_is_a_one_to_one_table_that_all_splits_ask_for():
    tables = []
    for options in (None, "world=1"):
        task = load("memory", options=options)
        # 256 e^-23 facts are missing on average
        splits = [set(said(task, 6000, split)) for split in tasks.SPLITS]
        assert splits[0] == splits[1] == splits[2]
        keys, values = zip(*sorted(splits[0]))
        assert sorted(keys) == sorted(f"k{i}" for i in range(256))
        assert sorted(values) == sorted(f"v{i}" for i in range(256))
        tables.append(splits[0])
    assert len(tables[0] & tables[1]) < 10          # one on average, Poisson


# Known distributions

@pytest.mark.parametrize("states", [2, 3, 10])
def test_markov_rows_have_uniform_tables(states):
    """If a row of a table is uniform among all distributions, m steps from a state to itself have
    probability 1 / C(m + states - 1, m), the m-th moment of Beta(1, states - 1); and two rows of
    the table are independent.
    """
    task, n = load("markov", length=8, options=f"states={states}", train_fraction=0.9), 20000
    # Straight from sample: there are few of the shortest rows, and training's share of them is not
    # a fair sample.
    tokens, _ = task.module.sample(Random(6), 8, n, "plain", states)
    same = tokens == tokens[:, :1]
    for m in range(1, 7):
        assert near(same[:, :m + 1].all(axis=1).mean(), 1 / math.comb(m + states - 1, m), n)
    # a b a b a with a != b: two steps a -> b and two b -> a, each pair 2 / (states (states + 1)),
    # and states - 1 choices of b
    swings = (tokens[:, 1] != tokens[:, 0]) & (tokens[:, 3] == tokens[:, 1])
    swings &= (tokens[:, 2:5:2] == tokens[:, :1]).all(axis=1)
    assert near(swings.mean(), (states - 1) * (2 / (states * (states + 1))) ** 2, n)
    assert all(near((tokens[:, 0] == state).mean(), 1 / states, n) for state in range(states))


@pytest.mark.parametrize("states", [2, 3, 10])
def test_markov_reference_is_that_of_counting(states):
    task = load("markov", options=f"states={states}")
    tokens, _ = draw(task, 20)
    bigram = unigram = 0
    for row in tokens.tolist():
        for t in range(1, len(row)):
            after = [b for a, b in itertools.pairwise(row[:t]) if a == row[t - 1]]
            bigram -= math.log((after.count(row[t]) + 1) / (len(after) + states))
            unigram -= math.log((row[:t].count(row[t]) + 1) / (t + states))
    nats = task.module.reference(tokens, "plain", states)
    expected = {"Bayes bigram": bigram / 20 / 99, "unigram": unigram / 20 / 99,
                "uniform": math.log(states)}
    assert nats == pytest.approx(expected, rel=1e-12)


def test_markov_predictors_stand_in_the_order_in_which_a_model_learns_them():
    task = load("markov")
    nats = task.module.reference(draw(task, 2000)[0], "plain", 3)
    assert nats["Bayes bigram"] < nats["unigram"] < nats["uniform"]


class Story:
    """A story, read word by word: AssertionError if it breaks the grammar or contradicts itself"""

    def __init__(self, words):
        module = tasks.module("stories")
        # (table, row, choice); kinds of sentence
        self.choices, self.kinds = [], []
        assert words[0] == "." and len(words) % 8 == 1
        opening, *sentences = [words[i:i + 8] for i in range(1, len(words), 8)]
        hero, friend, place = opening[0], opening[2], opening[6]
        assert opening == [hero, "and", friend, "live", "near", "the", place, "."]
        assert hero != friend
        self.hero, names = hero, module.SHE + module.HE
        self.choose("friend", names, hero, names, friend)
        self.choose("place", names, hero, module.PLACES, place)
        thing = colour = None
        for sentence in sentences:
            if sentence[1] == "gives":
                colour, thing = sentence[4], sentence[5]
                expected = [hero, "gives", friend, "a", colour, thing, "today", "."]
                self.choose("thing", names, hero, module.THINGS, thing)
                self.choose("colour", module.THINGS, thing, module.COLOURS, colour)
            elif sentence[1] == "thanks":
                expected = [friend, "thanks", hero, "and", "takes", "the", thing, "."]
            elif sentence[1] == "tells":
                expected = [hero, "tells", friend, "about", "the", colour, thing, "."]
            else:
                expected = ["she" if hero in module.SHE else "he", sentence[1], "the", thing,
                            "near", "the", place, "."]
                self.choose("verb", module.THINGS, thing, module.VERBS, sentence[1])
            assert sentence == expected, " ".join(sentence)
            self.kinds.append(sentence[1] if sentence[1] in ("gives", "thanks", "tells")
                              else "does")
        assert self.kinds[0] == "gives", "a thing is given before it is spoken of"

    def choose(self, table, rows, row, choices, chosen):
        self.choices.append((table, rows.index(row), choices.index(chosen)))

    def nats(self, facts):
        """-log p: 32 heroes, Zipf's choices, and four equal kinds from the third sentence"""
        total = math.log(32) + (len(self.kinds) - 1) * math.log(4)
        for table, row, chosen in self.choices:
            ranks = facts[table][row].tolist()
            total += math.log((1 + ranks.index(chosen))
                              * sum(1 / i for i in range(1, len(ranks) + 1)))
        return total


def entropy_of_stories(length):
    """The mean of -log p under the grammar, in nats per word: the sum over all choices"""
    def zipf(size):
        odds = [1 / i for i in range(1, size + 1)]
        return -sum(x / sum(odds) * math.log(x / sum(odds)) for x in odds)

    opening, gift, kind = math.log(32) + zipf(31) + zipf(16), zipf(32) + zipf(12), math.log(4)
    return (opening + gift + (length - 2) * (kind + (gift + zipf(16)) / 4)) / (8 * length)


def test_worked_example_of_stories_is_a_story():
    shown, carets = lines_with("stories", ". Mia")
    Story(shown.split())
    words = [match.span() for match in re.finditer(r"\S+", shown)][1:]
    marked = [match.span() for match in re.finditer(r"\^+", carets)]
    assert marked == words[:len(marked)] and carets.endswith(" ...")


@pytest.mark.parametrize("length", [2, 6])
@pytest.mark.parametrize("world", [0, 7])
def test_stories_keep_to_the_grammar_and_their_entropy_is_the_one_claimed(length, world):
    task, n = load("stories", length=length, options=f"world={world}"), 4000
    open_world = tasks.open_world({"world": world})
    # Straight from sample: a split's share of the different stories is not one of the likely ones.
    tokens, answer = task.module.sample(Random(8, length), length, n, "plain", open_world)
    assert not answer[:, 0].any() and answer[:, 1:].all()
    stories = [Story(batches.spell(task, row).split(" ")) for row in tokens]
    facts = task.module.facts(open_world)
    nats = np.array([story.nats(facts) for story in stories]) / (8 * length)
    for some in (slice(None), slice(1)):
        reference = task.module.reference(tokens[some], "plain", open_world)
        assert reference == pytest.approx({"the grammar": nats[some].mean()}, rel=1e-12)
    assert abs(nats.mean() - entropy_of_stories(length)) < 4 * nats.std() / n**0.5
    heroes = Counter(story.hero for story in stories)
    assert len(heroes) == 32 and all(near(count / n, 1 / 32, n) for count in heroes.values())
    kinds = Counter(kind for story in stories for kind in story.kinds[1:])
    total = n * (length - 2)
    assert set(kinds) <= {"gives", "thanks", "does", "tells"}
    assert all(near(kinds[kind] / total, 1 / 4, total) for kind in kinds)
    assert len(kinds) == 4 or length == 2


def test_choices_of_stories_are_zipfs():
    task, n = load("stories"), 4000
    tokens, _ = task.module.sample(Random(9), 6, n, "plain", tasks.open_world({"world": 0}))
    ranks, facts = defaultdict(Counter), task.module.facts(tasks.open_world({"world": 0}))
    for row in tokens:
        for table, i, chosen in Story(batches.spell(task, row).split(" ")).choices:
            ranks[table][facts[table][i].tolist().index(chosen)] += 1
    for table, size in {"friend": 31, "place": 16, "thing": 32, "colour": 12, "verb": 16}.items():
        total, odds = sum(ranks[table].values()), sum(1 / i for i in range(1, size + 1))
        assert facts[table].shape[1] == size
        assert all(near(ranks[table][i] / total, 1 / (i + 1) / odds, total) for i in range(size))


def test_facts_of_stories_are_orders_of_all_choices_and_differ_between_worlds():
    module = tasks.module("stories")
    facts, other = (module.facts(tasks.open_world({"world": world})) for world in (0, 1))
    for table, size in {"place": 16, "thing": 32, "colour": 12, "verb": 16}.items():
        assert (np.sort(facts[table], axis=1) == np.arange(size)).all()
        assert (facts[table] != other[table]).any()
    for hero, friends in enumerate(facts["friend"]):
        assert sorted(friends) == [name for name in range(32) if name != hero]
