"""How well a model does: the same metrics for every task, at each length.

    token       share of answer tokens that are the most likely ones, each given the right answer
                before it
    exact       share of problems with every answer token right: the accuracy of greedy generation,
                END ignored; exact_low and exact_high: its 95% interval (wilson)
    nll         mean of -log p(answer token), in nats per token; / log 2: bits per token
    brier       mean of sum over the vocabulary of (p - 1[right])^2 (Brier 1950): 0 for a perfect
                prediction, 2 for certainty of a wrong token
    edit        Levenshtein distance per answer token between the answer and greedy generation
    p_length    token ** (answer tokens): exact, if mistakes were independent of each other
    icl         nll of a row's last tenth minus that of its first: below 0 if a model learns from
                its context (Olsson et al. 2022, arXiv:2209.11895)
    n           test problems; resolution = 1 / n is the smallest step that exact can show
    chance_token, chance_exact      accuracy of a guesser (batches.chance)

and for some tasks: reference, the nll of the best predictors of some kind on the same problems;
groups, the basic metrics of each kind of problem; sampled, the probability of the right answer when
sampling at some temperatures.

exact turns smooth progress into jumps, since all tokens must be right at once; nll, brier and edit
do not (Schaeffer et al. 2023, arXiv:2304.15004).  Read them side by side.

    normalized score = (exact - chance) / (1 - chance)      0 at chance, 1 at perfect

compares tasks with each other; verdicts and phase diagrams use it.
"""
import math
from typing import NamedTuple

import numpy as np

from ..base.rng import POSITIONS, TEST, VALID, Random
from ..data import batches
from ..data.positions import position_ids
from ..model.transformer import model_forward

CHUNK_TOKENS = 2**12                # scored at once: fits the caches, and keeps the engine busy
EDIT_PROBLEMS = 200                 # answers that are generated for `edit`
ICL_TOKENS = 20                     # scored tokens that each row needs for `icl`
TEMPERATURES = (1.0, 0.5, 0.25)     # of `sampled`
BASIC = ("token", "exact", "nll", "brier")
METRICS = (*BASIC, "edit", "p_length", "icl", "resolution", "exact_low", "exact_high",
           "chance_token", "chance_exact")


class Problems(NamedTuple):
    """Problems that a model is measured on."""

    tokens: np.ndarray              # (B, S) rows of the task
    inputs: np.ndarray              # (B, T) of them the model's input
    targets: np.ndarray             # (B, T) the answer, -1 where nothing is scored
    positions: np.ndarray | None    # (B, T) position ids, None for 0, 1, 2, ...

    def subset(self, rows):
        """Those rows.      rows: a slice, a mask or indices"""
        return Problems(*(None if array is None else array[rows] for array in self))


def problems(task, config, length, split, limit):
    """Up to `limit` different problems of the split "valid" or "test"."""
    stream = TEST if split == "test" else VALID
    tokens, answer = batches.problems(
        task, Random(config.seed, stream, length), length, limit, split)
    inputs, targets = batches.shift(task, tokens, answer, score_end=False)
    rng = Random(config.seed, stream, length, POSITIONS)
    positions = position_ids(task, config, rng, length, inputs.shape)
    return Problems(tokens, inputs, targets, positions)


# ---- scorers -------------------------------------------------------------------------------------
#
# score(inputs (B, T), scored (B, T) bool, positions (B, T) or None)
#     -> logits (M, V) of the M scored tokens, row by row


def numpy_scorer(p, config):
    """A scorer that runs the NumPy model"""
    def score(inputs, scored, positions):
        return model_forward(p, config, inputs, np.flatnonzero(scored), positions)[0]

    return score


def engine_scorer(engine):
    """A scorer that runs run.c"""
    return lambda inputs, scored, positions: engine.logits(inputs, positions, scored)


# ---- metrics -------------------------------------------------------------------------------------


def metrics_by_length(score, task, config, each=iter):
    """{length: metrics} on the test problems, at the lengths of training and beyond

    each: goes through the lengths, perhaps with a progress bar
    """
    def metrics(length):
        rows = problems(task, config, length, "test", config.test_items)
        return metrics_at_length(score, task, length, rows)

    return {length: metrics(length) for length in each(task.lengths + task.beyond)}


def metrics_at_length(score, task, length, problems):
    """All metrics at one length, each of them None if there are no problems

    Each is NaN if a logit is not finite.  Raises MinitronError where a function of a user's own
    task fails.
    """
    targets, module, n = problems.targets, task.module, len(problems.targets)
    if n == 0:
        return {"n": 0} | dict.fromkeys(METRICS)
    scores = nll, _, right = token_scores(score, problems)          # (B, T) each
    metrics = mean_scores(*scores, targets)
    if math.isnan(metrics["nll"]):
        return {"n": n} | dict.fromkeys(METRICS, math.nan)
    low, high = wilson(metrics["exact"], n)
    chance_token, chance_exact = batches.chance(task, length)
    metrics |= {
        "edit": edit_distance(score, problems, right) if task.ends else None,
        "p_length": metrics["token"] ** ((targets >= 0).sum() / n),
        "icl": in_context_gain(nll, targets),
        "resolution": 1 / n, "exact_low": low, "exact_high": high,
        "chance_token": chance_token, "chance_exact": chance_exact,
    }
    if hasattr(module, "reference"):
        metrics["reference"] = module.reference(problems.tokens, task.variant, **task.arguments)
    if hasattr(module, "group"):
        groups = module.group(problems.tokens, length, **task.arguments)            # (B,)
        metrics["groups"] = {int(g): mean_scores(*(x[groups == g] for x in (*scores, targets)))
                             for g in np.unique(groups)}
    if hasattr(module, "sampled"):
        metrics |= sampling_metrics(score, task, length, problems, TEMPERATURES)
    return metrics


def basic_metrics(score, problems, map_chunks=map):
    """n and the BASIC metrics; each is None if there are no problems."""
    if len(problems.inputs) == 0:
        return {"n": 0} | dict.fromkeys(BASIC)
    return mean_scores(*token_scores(score, problems, map_chunks), problems.targets)


def token_scores(score, problems, map_chunks=map):
    """nll, brier and right (bool) of each scored token, (B, T) each; 0, 0 and True elsewhere

    nll and brier are NaN where a logit is not finite: then the largest one is not an answer.

    map_chunks: map, or the map of a thread pool, which scores several chunks of rows at once
    """
    nll, brier = np.zeros((2, *problems.targets.shape))
    right = np.ones(problems.targets.shape, bool)
    rows = max(1, CHUNK_TOKENS // problems.inputs.shape[1])

    def score_chunk(start):
        chunk = slice(start, start + rows)
        _, inputs, targets, positions = problems.subset(chunk)
        scored = targets >= 0
        logits, answers = score(inputs, scored, positions).astype(np.float64), targets[scored]
        logits[~np.isfinite(logits).all(axis=1)] = np.nan
        logp = log_softmax(logits)                                                  # (M, V)
        hit = logp[np.arange(len(answers)), answers]                                # (M,)
        nll[chunk][scored] = -hit
        brier[chunk][scored] = (np.exp(logp) ** 2).sum(axis=1) - 2 * np.exp(hit) + 1
        right[chunk][scored] = logits.argmax(axis=1) == answers

    for _ in map_chunks(score_chunk, range(0, len(right), rows)):
        pass
    return nll, brier, right


def log_softmax(logits):
    z = logits - logits.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def mean_scores(nll, brier, right, targets):
    """(B, T) each -> n and the BASIC metrics, NaN if nll is"""
    scored = targets >= 0
    if np.isnan(nll[scored]).any():
        return {"n": len(targets)} | dict.fromkeys(BASIC, math.nan)
    return {"n": len(targets), "token": float(right[scored].mean()),
            "exact": float(right.all(axis=1).mean()),
            "nll": float(nll[scored].mean()), "brier": float(brier[scored].mean())}


def wilson(share, n, z=1.96):
    """(low, high): the 95% interval of a probability whose estimate from n trials is `share`

    Wilson 1927.  Unlike share +- z * deviation it stays within 0..1, and has a width at 0 and 1.
    """
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def normalized_score(exact, chance):
    """(exact - chance) / (1 - chance); 0 if chance is 1, where nothing can be learnt"""
    return (exact - chance) / (1 - chance) if chance < 1 else 0.0


def in_context_gain(nll, targets):
    """nll (B, T) of the last tenth of each row's scored tokens minus that of the first

    None if a row has fewer than ICL_TOKENS.
    """
    scored = targets >= 0
    count, rank = scored.sum(axis=1, keepdims=True), scored.cumsum(axis=1)      # (B, 1), (B, T)
    if count.min() < ICL_TOKENS:
        return None
    first, last = scored & (rank <= count // 10), scored & (rank > count - count // 10)
    return float(nll[last].mean() - nll[first].mean())


# ---- sampling ------------------------------------------------------------------------------------


def sampling_metrics(score, task, length, problems, temperatures):
    """sampled: {temperature: sampling_accuracy}; sampled_reference: that of a perfect model

    sampled_reference is empty if the task has no closed form for it.
    """
    def at_each(accuracy):
        return {f"{t:g}": accuracy(t) for t in temperatures}

    def reference(temperature):
        return task.module.sampled(temperature, length, task.variant, **task.arguments)

    return {"sampled": at_each(lambda t: sampling_accuracy(score, problems, t)),
            "sampled_reference": at_each(reference) if hasattr(task.module, "sampled") else {}}


def sampling_accuracy(score, problems, temperature):
    """The probability that sampling at a temperature gives the whole right answer; 0: greedy

    The mean over the problems.
    """
    def scaled(*row):
        return score(*row).astype(np.float64) / max(temperature, 1e-9)

    nll, _, _ = token_scores(scaled, problems)
    return float(np.exp(-nll.sum(axis=1)).mean())


# ---- generation ----------------------------------------------------------------------------------


def edit_distance(score, problems, right):
    """Levenshtein distance per answer token between answers and greedy generation

    Over the first EDIT_PROBLEMS problems.  right (B, T): of token_scores.  If every token is right
    given the ones before it, greedy generation is right too, and nothing needs to be generated.
    None unless the answer is the same columns in each row.
    """
    scored = problems.targets >= 0
    right, answer = right[:EDIT_PROBLEMS].all(axis=1), scored[0]                    # (B,), (T,)
    if (scored != answer).any():
        return None
    wrong = problems.subset(np.flatnonzero(~right))
    if len(wrong.targets) == 0:
        return 0.0
    edits = levenshtein(greedy_answers(score, wrong)[:, answer], wrong.targets[:, answer])
    return float(edits.sum() / len(right) / answer.sum())


def greedy_answers(score, problems):
    """The most likely answer tokens (B, T), each given the model's own before it; -1 elsewhere

    The answer is the same columns in each row.  Each of its tokens takes a new pass over the row up
    to it: simple, and rows are few.
    """
    inputs, answers = problems.inputs.copy(), np.full(problems.targets.shape, -1)
    for t in np.flatnonzero((problems.targets >= 0).all(axis=0)):
        past = slice(0, t + 1)
        scored = np.zeros((len(inputs), t + 1), bool)
        scored[:, t] = True
        positions = None if problems.positions is None else problems.positions[:, past]
        answers[:, t] = score(inputs[:, past], scored, positions).argmax(axis=1)
        inputs[:, t + 1:t + 2] = answers[:, t:t + 1]            # nothing after the last column
    return answers


def levenshtein(a, b):
    """The fewest insertions, deletions and replacements from a row of a to that of b -> (B,)

    a (B, n), b (B, m).  With d[i, j] for the first i and j tokens:
    d[i, j] = min(d[i-1, j] + 1, d[i, j-1] + 1, d[i-1, j-1] + (a[i] != b[j]))
    """
    previous = np.tile(np.arange(b.shape[1] + 1), (len(a), 1))      # d[i-1], (B, m + 1)
    for i in range(a.shape[1]):
        d = np.full_like(previous, i + 1)
        for j in range(b.shape[1]):
            replace = previous[:, j] + (a[:, i] != b[:, j])
            d[:, j + 1] = np.minimum(replace, np.minimum(previous[:, j + 1], d[:, j]) + 1)
        previous = d
    return previous[:, -1]
