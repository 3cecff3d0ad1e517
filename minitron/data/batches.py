"""Rows of a task become batches: inputs, targets one step ahead, position ids; and test problems.

Next: train.py, which learns from batches; measure/evaluate.py, which scores a model on problems.
"""
import numpy as np

from ..base.rng import CHANCE, GALLERY, POSITIONS, TRAIN, Random
from .positions import position_ids


def batch(task, rng, length, size, split="train"):
    """Draw a batch and shift it: inputs (B, T), targets (B, T) with -1 where nothing is scored.

    END follows an answer and is learnt too.
    """
    tokens, answer = task.draw(rng, length, size, split)
    return shift(task, tokens, answer, score_end=True)


def training_batch(task, config, step):
    """The batch of a step, all of one length: inputs, targets, positions.

    It depends on the seed and the step alone.  The length is the larger of two draws: longer
    problems are harder, and there are fewer short ones.
    """
    rng = Random(config.seed, TRAIN, step)
    length = task.lengths[rng.integers(0, len(task.lengths), 2).max()]
    inputs, targets = batch(task, rng, length, config.batch)
    stream = Random(config.seed, TRAIN, step, POSITIONS)
    return inputs, targets, position_ids(task, config, stream, length, inputs.shape)


def longest_batch(task, config):
    """A batch of the longest rows, to be timed or counted: inputs, targets, positions"""
    inputs, targets = batch(task, Random(GALLERY), config.length, config.batch)
    positions = position_ids(task, config, Random(GALLERY), config.length, inputs.shape)
    return inputs, targets, positions


def shift(task, tokens, answer, score_end):
    """tokens, answer (B, S) -> inputs (B, T), targets (B, T)

    The only place where inputs meet the targets one step ahead.
    """
    if answer.dtype != bool:
        return tokens, answer                   # labels stand at their tokens already
    if task.ends:
        end = np.full((len(tokens), 1), len(task.pieces) - 1)
        tokens = np.concatenate([tokens, end], axis=1)
        answer = np.concatenate([answer, np.full(end.shape, score_end)], axis=1)
    return tokens[:, :-1], scored(tokens, answer)[:, 1:]


def scored(tokens, answer):
    """(B, S), (B, S) -> (B, S): the tokens where answer is True, or the labels; -1 elsewhere"""
    return np.where(answer, tokens, -1) if answer.dtype == bool else answer


def problems(task, rng, length, limit, split="test"):
    """Up to `limit` different problems of a split, or all of them: tokens, answer.

    Just as drawn, repeats included, if the task is not DISTINCT: a mean over different problems
    would not be that of the stream, which is the task's reference.

    Draws until there are enough, or until 16 draws per problem bring no new one: if one were
    missing, and as likely as the others, the odds of that would be about e^-16.
    """
    tokens, answer = task.draw(rng, length, limit, split)
    if not task.module.DISTINCT:
        return tokens, answer
    distinct, drawn = 0, limit
    while True:
        _, first = np.unique(tokens, axis=0, return_index=True)
        first.sort()                            # in the order drawn, which is a random one
        tokens, answer = tokens[first], answer[first]
        if len(tokens) >= limit or len(tokens) == distinct and drawn >= 16 * distinct:
            return tokens[:limit], answer[:limit]
        drawn = 16 * distinct or limit          # at first the same again: large splits repeat few
        distinct = len(tokens)
        more_tokens, more_answer = task.draw(rng, length, drawn, split)
        tokens = np.concatenate([tokens, more_tokens])
        answer = np.concatenate([answer, more_answer])


def chance(task, length, size=2048):
    """(token accuracy, exact match) of a guesser that knows only the position, measured

    For the tokens it guesses the most frequent one at each place of the answer in a sample of
    training; for the exact match the most frequent whole answer, and the former where that has
    none.  Scored on as many other rows of training: a test may have few problems.
    """
    train, other = (shift(task, *task.draw(Random(CHANCE, length, *stream), length, size, "train"),
                          score_end=False)[1] for stream in ((), (1,)))         # (B, T) each

    # each place's most frequent token
    guess = np.array([most_frequent(column[column >= 0]) for column in train.T])        # (T,)
    token = ((other == guess) & (other >= 0)).sum() / (other >= 0).sum()

    # the most frequent whole answer
    whole, counts = np.unique(train, axis=0, return_counts=True)
    best = whole[counts.argmax()]                                       # (T,)
    exact = ((other == np.where(best < 0, guess, best)) | (other < 0)).all(axis=1).mean()
    return float(token), float(exact)


def most_frequent(tokens):
    """The most frequent of some token ids; -1 of none"""
    return np.bincount(tokens).argmax() if len(tokens) else -1


def spell(task, tokens):
    """The characters that a row of token ids spells."""
    return b"".join(task.pieces[token] for token in tokens).decode(errors="replace")


def example(task):
    """A prompt to try on a trained model, and the number of tokens that answer it.

    The prompt is a test problem up to its answer, or "" if the model needs none.  The number is
    None if the model itself ends the answer, or if there is no end.
    """
    if task.bos is not None:
        return "", None
    tokens, answer = task.draw(Random(GALLERY), task.length, 1, "test")
    if len(tokens) == 0:
        tokens, answer = task.draw(Random(GALLERY), task.length, 1, "train")
    is_scored = scored(tokens, answer)[0] >= 0
    first = is_scored.argmax()
    if answer.dtype != bool:
        return spell(task, tokens[0][:first + 1]), 1
    return spell(task, tokens[0][:first]), None if task.ends else int(is_scored.sum())
