"""Whether a run has learnt its task, judged from its record, and whether the test can tell.

A run up to length L is asked for the ability up to L.  So it is judged at each length that it was
trained on, if the test has at least ENOUGH problems of it: a few can be right, or wrong, by luck.

    score       the least of the normalized scores (evaluate.py) at these lengths
    has learnt  if at each of them the 95% interval of the score lies at LEARNT or above
    has not     if at one of them it lies below LEARNT
    unknown     otherwise, and if no length has ENOUGH problems

Where a distribution is to be learnt, a length scores 1 if its nll is within LEARNT_NATS of the
lowest possible, else 0; nll has no interval in a record.

Next: record.py, which prints the judgement of one run; report/phase.py, which counts many.
"""
from ..data import tasks
from .evaluate import normalized_score, wilson

LEARNT = 0.9            # normalized score from which on a task counts as learnt
PARTLY = 0.5            # ... from which on the ability has partly emerged
LEARNT_NATS = 0.05      # distance from the lowest possible nll, in nats per token
ENOUGH = 50             # test problems: fewer than 35 could not show LEARNT, were all of them right


def judged(record):
    """{length: metrics} of the trained lengths with ENOUGH test problems"""
    c = record["config"]
    return {length: metrics for length, metrics in trained(record).items()
            if metrics["n"] >= ENOUGH and score_at(c["task"], metrics) is not None}


def trained(record):
    """{length: metrics} of the lengths that training drew from, without those that have no test"""
    c = record["config"]
    lengths = {int(length): metrics for length, metrics in record["metrics"].items()}
    return {length: metrics for length, metrics in sorted(lengths.items())
            if metrics["n"] and (length == c["length"] or c["mixed"] and length < c["length"])}


def at_length(record, length):
    """The record as if one of the lengths that were tested had been the only one of training"""
    return record | {"config": record["config"] | {"length": length, "mixed": False}}


def least(record):
    """The judged length of the least score -> length, its metrics.  None if no length is judged."""
    task = record["config"]["task"]
    return min(judged(record).items(), key=lambda item: score_at(task, item[1]), default=None)


def score(record):
    """The least normalized score at the judged lengths; None where it is unknown

    A run that diverged scores 0.  One that was killed or timed out has no score: that says nothing
    about the model.
    """
    worst = least(record)
    if worst is None:
        return 0.0 if record["status"] == "diverged" else None
    return score_at(record["config"]["task"], worst[1])


def has_learnt(record):
    """Whether a run has learnt its task; None where its test cannot tell"""
    task, metrics = record["config"]["task"], judged(record).values()
    if not metrics:
        return False if record["status"] == "diverged" else None
    intervals = [score_interval(task, at_length) for at_length in metrics]
    if any(high < LEARNT for _, high in intervals):
        return False
    return True if all(low >= LEARNT for low, _ in intervals) else None


def score_at(task, metrics):
    """The normalized score at one length, 0 at chance and 1 at perfect; None where undefined"""
    if has_right_answers(task, metrics):
        return normalized_score(metrics["exact"], metrics["chance_exact"])
    if metrics.get("reference"):
        return float(metrics["nll"] - min(metrics["reference"].values()) <= LEARNT_NATS)
    return None


def score_interval(task, metrics):
    """(low, high): the 95% interval of score_at, where that is not None"""
    if not has_right_answers(task, metrics):
        return 2 * (score_at(task, metrics),)
    return tuple(normalized_score(end, metrics["chance_exact"])
                 for end in wilson(metrics["exact"], metrics["n"]))


def has_right_answers(task, metrics):
    """Whether the score is exact match, not nll

    A user's own file is not opened for this, since a ledger may come from someone else: a task that
    knows the lowest possible nll learns a distribution.
    """
    if metrics.get("sampled"):
        return True
    return not metrics.get("reference") if tasks.is_file(task) else tasks.module(task).EXACT
