"""What a record says of its run: learnt, not learnt, or too few problems to say."""
import pytest
from task_helpers import load

from minitron.data import batches
from minitron.measure import learnt, record


def run(lengths, mixed=True, status="ok", task="addition", **metrics):
    """A record with {length: (exact, n)}; the last length is the dial's."""
    tests = {str(length): {"exact": exact, "n": n, "chance_exact": 0.0, "nll": 1.0} | metrics
             for length, (exact, n) in lengths.items()}
    config = {"task": task, "length": max(lengths, default=3), "mixed": mixed, "dim": 8}
    return {"status": status, "config": config, "metrics": tests}


@pytest.mark.parametrize("lengths, score, has_learnt", [
    ({1: (0.0, 7), 2: (1.0, 800), 3: (1.0, 2000)}, 1.0, True),      # seven problems say nothing
    ({1: (1.0, 7), 2: (0.1, 800), 3: (1.0, 2000)}, 0.1, False),     # a shorter length is part of it
    ({3: (1.0, 2)}, None, None),
    ({3: (1.0, 50)}, 1.0, True),                # the interval is 0.929 to 1
    ({3: (0.91, 2000)}, 0.91, None),            # 0.897 to 0.922
    ({3: (0.89, 2000)}, 0.89, None),
    ({3: (0.92, 2000)}, 0.92, True),
    ({3: (0.88, 2000)}, 0.88, False),
    ({3: (None, 0)}, None, None),
])
def test_a_run_has_learnt_its_task_at_all_lengths_or_not(lengths, score, has_learnt):
    assert learnt.score(run(lengths)) == score and learnt.has_learnt(run(lengths)) is has_learnt


def test_lengths_that_training_did_not_draw_are_not_judged():
    one = run({2: (0.0, 800), 3: (1.0, 2000), 5: (0.0, 2000)}, mixed=False)
    one["config"]["length"] = 3
    assert learnt.has_learnt(one) is True
    assert learnt.has_learnt(learnt.at_length(one, 5)) is False


def test_runs_without_a_test():
    assert learnt.has_learnt(run({}, status="diverged")) is False
    assert learnt.score(run({}, status="diverged")) == 0
    for status in ("killed", "timeout", "failed"):
        assert learnt.has_learnt(run({}, status=status)) is None
        assert learnt.score(run({}, status=status)) is None


@pytest.mark.parametrize("nll, has_learnt", [(1.04, True), (1.06, False)])
def test_a_distribution_is_learnt_by_its_nll(nll, has_learnt):
    of_task = run({3: (0.2, 500)}, task="stories", nll=nll, reference={"entropy": 1.0})
    assert learnt.has_learnt(of_task) is has_learnt
    own_file = run({3: (0.2, 500)}, task="nowhere/mine.py", nll=nll, reference={"entropy": 1.0})
    assert learnt.has_learnt(own_file) is has_learnt, "and its file is not opened"


@pytest.mark.parametrize("lengths, words", [
    ({3: (1.0, 2)}, "No verdict: addition at dim 8, length 3 has too few test problems to say (2)"),
    ({}, "No verdict: addition at dim 8, length 3 has no test problems"),
    ({2: (0.95, 800), 3: (1.0, 800)},
     "Emerged.  addition at dim 8, length 3: at each of 2 lengths at least 95.0% of the problems"),
    ({3: (0.91, 2000)},
     "Partly emerged or emerged: the interval of the score, 0.90 to 0.92, does not say."),
    ({3: (0.6, 2000)}, "Partly emerged."),
    ({3: (0.1, 2000)}, "Not emerged."),
])
def test_the_verdict_on_one_run(lengths, words):
    assert record.verdict_sentence(run(lengths)).startswith(words)


def test_a_distribution_has_no_verdict():
    sentence = record.verdict_sentence(run({3: (0.2, 500)}, task="text"))
    assert "has no right answers, only a distribution: 1.44 bits per token" in sentence


@pytest.mark.parametrize("length", [5, 6, 8])
def test_chance_is_measured_on_enough_problems(length):
    """Five bits have 32 problems, of which the test has about three."""
    task = load("parity", length=length)
    assert batches.chance(task, length)[1] == pytest.approx(0.5, abs=0.08)
