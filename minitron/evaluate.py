"""How well a model does: the same numbers for every task, per length.

    token   share of answer tokens that are the likeliest ones, each given the right answer before it
    exact   share of problems with every answer token right, which is what greedy generation gets right, END aside
    nll     mean of -log p(answer token), in nats
    brier   mean of sum over the vocabulary of (p - 1[right])^2 (Brier 1950): 0 is perfect, 2 sure of something wrong
    n       test problems; chance_token and chance_exact say what a guesser reaches (tasks.chance)

exact turns smooth progress into jumps, since all tokens have to be right at once; nll and brier do not (Schaeffer et al. 2023,
arXiv:2304.15004).  They are meant to be read side by side.
"""
import numpy as np

import tasks

from .model import model_forward
from .rng import TEST, VALID, Random

PART = 2**12        # tokens scored at a time: few enough for the caches, many enough for the engine


def numpy_scorer(p, config):
    """score(inputs (B, T), wanted (B, T) bool) -> logits (M, V), by the NumPy model"""
    return lambda inputs, wanted: model_forward(p, config, inputs, np.flatnonzero(wanted.ravel()))[0]


def engine_scorer(engine):
    """The same by run.c"""
    return lambda inputs, wanted: engine.logits(inputs, wanted=wanted)


def measure(score, inputs, targets, each=map):
    """inputs, targets (B, T), -1 where nothing is scored -> {n, token, exact, nll, brier}; None for what no problem shows

    each: map, or the map of a thread pool, which then scores several parts at once.
    """
    if len(inputs) == 0:
        return {"n": 0, "token": None, "exact": None, "nll": None, "brier": None}
    rows = max(1, PART // inputs.shape[1])
    parts = each(lambda i: compare(score, inputs[i:i + rows], targets[i:i + rows]), range(0, len(inputs), rows))
    nll, brier, right = (np.concatenate(values) for values in zip(*parts))
    return {
        "n": len(inputs),
        "token": float(right[targets >= 0].mean()),
        "exact": float(right.all(axis=1).mean()),
        "nll": float(nll.mean()),
        "brier": float(brier.mean()),
    }


def compare(score, inputs, targets):
    """nll (M,), brier (M,) of each scored token; right (B, T) bool, True also where nothing is scored"""
    wanted = targets >= 0
    logits, answers = score(inputs, wanted).astype(np.float64), targets[wanted]
    z = logits - logits.max(axis=1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    hit = logp[np.arange(len(answers)), answers]
    right = np.ones(wanted.shape, bool)
    right[wanted] = logits.argmax(axis=1) == answers
    return -hit, (np.exp(logp) ** 2).sum(axis=1) - 2 * np.exp(hit) + 1, right


def problems(task, config, length, split, most):
    """Up to `most` different problems of a split: inputs (B, T), targets (B, T) with -1 where nothing is scored"""
    stream = TEST if split == "test" else VALID
    tokens, answer = tasks.problems(task, Random(config.seed, stream, length), length, most, split)
    return tasks.shift(task, tokens, answer, score_end=False)


def evaluate_all(score, task, config):
    """{length: numbers} over the lengths that training drew from, with the chance level beside them."""
    table = {}
    for length in task.lengths:
        chance_token, chance_exact = tasks.chance(task, length)
        table[length] = measure(score, *problems(task, config, length, "test", config.test_items))
        table[length] |= {"chance_token": chance_token, "chance_exact": chance_exact}
    return table
