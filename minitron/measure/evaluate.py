"""How well a model does: the same panel of numbers for every task, per length.

    token       share of answer tokens that are the likeliest ones, each given the right answer before it
    exact       share of problems with every answer token right, which is what greedy generation gets right, END aside;
                exact_low and exact_high: its 95% interval (wilson)
    nll         mean of -log p(answer token), in nats
    brier       mean of sum over the vocabulary of (p - 1[right])^2 (Brier 1950): 0 is perfect, 2 sure of something wrong
    edit        edits (a token inserted, deleted, replaced) a token between the answer and what greedy generation writes
    p_length    token ** answer tokens: what exact would be if mistakes were independent of each other
    icl         nll of a row's last tenth less that of its first: below 0 where a model learns from context (Olsson et al. 2022)
    n           test problems; resolution = 1 / n is the smallest step that exact can show
    chance_token, chance_exact      what a guesser reaches (tasks.chance)

and, where the task has them: reference, the nll of the best predictors of some kind on the same problems; groups, the first
numbers for each kind of problem; sampled, how often the right answer is drawn at a temperature.

exact turns smooth progress into jumps, since all tokens have to be right at once; nll, brier and edit do not (Schaeffer et al.
2023, arXiv:2304.15004).  They are meant to be read side by side.
"""
import math
from typing import NamedTuple

import numpy as np

from ..base.rng import POSITIONS, TEST, VALID, Random
from ..data import batches
from ..data.positions import position_ids
from ..model.transformer import model_forward

PART = 2**12                        # tokens scored at a time: few enough for the caches, many enough for the engine
EDITED = 200                        # problems whose answers are generated for `edit`
TENTHS = 20                         # scored tokens of a row from which on it has a first and a last tenth
TEMPERATURES = (1.0, 0.5, 0.25)     # of `sampled`


class Problems(NamedTuple):
    """What a model is measured on: rows (B, S), and of them what it is given and is to say (B, T), -1 where nothing is scored."""

    tokens: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray
    positions: np.ndarray | None


def numpy_scorer(p, config):
    """score(inputs (B, T), wanted (B, T) bool, positions (B, T) or None) -> logits (M, V), by the NumPy model"""
    return lambda inputs, wanted, positions: model_forward(p, config, inputs, np.flatnonzero(wanted.ravel()), positions)[0]


def engine_scorer(engine):
    """The same by run.c"""
    return lambda inputs, wanted, positions: engine.logits(inputs, positions, wanted)


def problems(task, config, length, split, most):
    """Up to `most` different problems of a split"""
    stream = TEST if split == "test" else VALID
    tokens, answer = batches.problems(task, Random(config.seed, stream, length), length, most, split)
    inputs, targets = batches.shift(task, tokens, answer, score_end=False)
    return Problems(tokens, inputs, targets,
                    position_ids(task, config, Random(config.seed, stream, length, POSITIONS), length, inputs.shape))


def evaluate_all(score, task, config):
    """{length: panel} over the lengths that training drew from, and those beyond."""
    return {length: panel(score, task, length, problems(task, config, length, "test", config.test_items))
            for length in task.lengths + task.beyond}


def panel(score, task, length, problems):
    """All numbers of one length; None for those that no problem shows."""
    inputs, targets, module = problems.inputs, problems.targets, task.module
    if len(inputs) == 0:
        return {"n": 0} | dict.fromkeys(PANEL)
    chance_token, chance_exact = batches.chance(task, length, targets)
    tokens = compare(score, problems)
    numbers = summary(*tokens, targets)
    low, high = wilson(numbers["exact"], len(inputs))
    numbers |= {
        "edit": edit(score, problems, tokens[2]) if task.ends else None,
        "p_length": numbers["token"] ** ((targets >= 0).sum() / len(inputs)),
        "icl": in_context(tokens[0], targets),
        "resolution": 1 / len(inputs), "exact_low": low, "exact_high": high,
        "chance_token": chance_token, "chance_exact": chance_exact,
    }
    if hasattr(module, "reference"):
        numbers["reference"] = module.reference(problems.tokens, task.variant, **task.arguments)
    if hasattr(module, "group"):
        groups = module.group(problems.tokens, length, **task.arguments)
        numbers["groups"] = {int(g): summary(*(x[groups == g] for x in (*tokens, targets))) for g in np.unique(groups)}
    if hasattr(module, "sampled"):
        numbers["sampled"] = {f"{t:g}": sampled(score, problems, t) for t in TEMPERATURES}
        numbers["sampled_reference"] = sampled_reference(task, TEMPERATURES)
    return numbers


PANEL = ("token", "exact", "nll", "brier", "edit", "p_length", "icl", "resolution", "exact_low", "exact_high",
         "chance_token", "chance_exact")


def compare(score, problems, each=map):
    """nll, brier and right (B, T) of each token: how the model's prediction fits what is scored.  0, 0 and True elsewhere.

    each: map, or the map of a thread pool, which then scores several parts at once.
    """
    inputs, targets = problems.inputs, problems.targets
    nll, brier, right = np.zeros(targets.shape), np.zeros(targets.shape), np.ones(targets.shape, bool)
    rows = max(1, PART // inputs.shape[1])

    def part(start):
        there = slice(start, start + rows)
        positions = None if problems.positions is None else problems.positions[there]
        wanted = targets[there] >= 0
        logits, answers = score(inputs[there], wanted, positions).astype(np.float64), targets[there][wanted]
        logp = log_softmax(logits)
        hit = logp[np.arange(len(answers)), answers]
        nll[there][wanted] = -hit
        brier[there][wanted] = (np.exp(logp) ** 2).sum(axis=1) - 2 * np.exp(hit) + 1
        right[there][wanted] = logits.argmax(axis=1) == answers

    for _ in each(part, range(0, len(inputs), rows)):
        pass
    return nll, brier, right


def log_softmax(logits):
    z = logits - logits.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def summary(nll, brier, right, targets):
    """All (B, T) -> {n, token, exact, nll, brier}"""
    scored = targets >= 0
    return {"n": len(targets), "token": float(right[scored].mean()), "exact": float(right.all(axis=1).mean()),
            "nll": float(nll[scored].mean()), "brier": float(brier[scored].mean())}


def measure(score, problems, each=map):
    """The first numbers of the panel; None for what no problem shows."""
    if len(problems.inputs) == 0:
        return {"n": 0, "token": None, "exact": None, "nll": None, "brier": None}
    return summary(*compare(score, problems, each), problems.targets)


def wilson(share, n, z=1.96):
    """The interval of 95% for a probability of which `share` was seen in n trials (Wilson 1927): unlike share +- z * deviation it
    stays within 0..1 and has a width where share is 0 or 1.
    """
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def in_context(nll, targets):
    """nll (B, T) of the last tenth of each row's scored tokens less that of the first; None for rows of few"""
    scored = targets >= 0
    count, rank = scored.sum(axis=1, keepdims=True), scored.cumsum(axis=1)
    if count.min() < TENTHS:
        return None
    return float(nll[scored & (rank > count - count // 10)].mean() - nll[scored & (rank <= count // 10)].mean())


def sampled_reference(task, temperatures):
    """{temperature: what a perfect model of the task reaches}, empty for a task without a closed form"""
    if not hasattr(task.module, "sampled"):
        return {}
    return {f"{t:g}": task.module.sampled(t, task.length, task.variant, **task.arguments) for t in temperatures}


def sampled(score, problems, temperature):
    """The probability that sampling at a temperature gives the whole right answer, mean over the problems; 0: greedy"""
    divisor = max(temperature, 1e-9)
    nll, _, _ = compare(lambda *row: score(*row).astype(np.float64) / divisor, problems)
    return float(np.exp(-nll.sum(axis=1)).mean())


def edit(score, problems, right):
    """Levenshtein distance a token between answers and what the model writes in their place, of the first EDITED problems.

    right (B, T): compare's.  What is right token by token, given the tokens before, is written without an edit: it costs nothing.
    """
    wrong = np.flatnonzero(~right[:EDITED].all(axis=1))
    asked = Problems(*(None if x is None else x[wrong] for x in problems))
    scored = (problems.targets >= 0).all(axis=0)
    edits = levenshtein(greedy(score, asked)[:, scored], asked.targets[:, scored]) if len(wrong) else np.zeros(1)
    return float(edits.sum() / len(right[:EDITED]) / scored.sum())


def greedy(score, problems):
    """What the model says (B, T), where each of its answer tokens is given the ones that it has written before

    The answer is the same stretch of each row.  For each token the row up to it goes through the model anew: simple, and rows
    are few.
    """
    inputs, said = problems.inputs.copy(), np.full(problems.targets.shape, -1)
    for t in np.flatnonzero((problems.targets >= 0).all(axis=0)):
        upto = slice(0, t + 1)
        wanted = np.zeros((len(inputs), t + 1), bool)
        wanted[:, t] = True
        positions = None if problems.positions is None else problems.positions[:, upto]
        said[:, t] = score(inputs[:, upto], wanted, positions).argmax(axis=1)
        inputs[:, t + 1:t + 2] = said[:, t:t + 1]
    return said


def levenshtein(a, b):
    """The fewest insertions, deletions and replacements that turn each row of a (B, n) into that of b (B, m) -> (B,)

    d[i, j] of the first i and j tokens is the least of d[i-1, j] + 1, d[i, j-1] + 1 and d[i-1, j-1] + (a[i] != b[j]).
    """
    above = np.tile(np.arange(b.shape[1] + 1), (len(a), 1))
    for i in range(a.shape[1]):
        here = np.full_like(above, i + 1)
        for j in range(b.shape[1]):
            replaced = above[:, j] + (a[:, i] != b[:, j])
            here[:, j + 1] = np.minimum(replaced, np.minimum(above[:, j + 1], here[:, j]) + 1)
        above = here
    return above[:, -1]
