"""The work of attention heads: the share of a head's attention that follows a named pattern.

    previous    a token looks at the one before it
    induction   a token looks at the one after an earlier token like itself
                (Olsson et al. 2022, arXiv:2209.11895)

A score, 0 to 1, is the sum of attention on the pattern over the sum of all attention.  One head of
each kind, in two layers, make an induction head proper: the first writes into each place which
token came before it, the second looks for a place that says so.
"""
import dataclasses

import numpy as np

from ..model.transformer import model_forward

SIZE, TIMES, ROWS = 25, 4, 16       # the common probe: 25 random tokens, four times over
MOST = 2**22                        # attention weights of one head to look at


def attention_weights(p, config, tokens, positions=None):
    """tokens, positions (B, T) -> (L, B, H, T, T): row t is where token t looks

    The NumPy twin of Engine.attention.  With linear attention these are the scores, which need not
    add up to 1.
    """
    B, T = tokens.shape
    plain = dataclasses.replace(config, plain=True)     # plain attention keeps them in its cache
    _, (_, c_blocks, *_) = model_forward(p, plain, tokens, np.arange(B * T), positions)
    weights = [c_block["attention"][-1] for c_block in c_blocks]            # (B, G, R, T, T) each
    return np.array(weights).reshape(config.layers, B, config.heads, T, T)


def rows_to_sample(time):
    """Number of rows of this many tokens that are enough to look at"""
    return max(1, min(ROWS, MOST // time**2))


def previous_token_pattern(tokens):
    """(B, T) -> (B, T, T): 1 where a query (row) looks at the token before it"""
    return np.broadcast_to(np.eye(tokens.shape[1], k=-1), (*tokens.shape, tokens.shape[1]))


def induction_pattern(tokens):
    """(B, T) -> (B, T, T): 1 where the token before the key equals the query, and is earlier"""
    pattern = np.zeros((*tokens.shape, tokens.shape[1]))
    pattern[:, :, 1:] = tokens[:, :, None] == tokens[:, None, :-1]
    return np.tril(pattern)


def score(weights, pattern):
    """sum(|weights| * pattern) / sum(|weights|), or 0 without weights; linear attention has a sign

    weights (..., B, T, T), pattern (B, T, T) -> (...)
    """
    size = np.abs(weights)
    part, total = ((size * share).sum(axis=(-3, -2, -1)) for share in (pattern, 1))
    return part / np.where(total == 0, 1, total)


def head_scores(weights, tokens, queries=None):
    """{pattern: score (L, H)}      weights (L, B, H, T, T), tokens (B, T), queries (B, T) bool

    If `queries` is given, induction is scored at these tokens alone.  A row of MQAR, for one, is
    mostly filler, which repeats: a head that never looks anything up would score high.
    """
    heads = np.moveaxis(weights, 2, 1)                                      # (L, H, B, T, T)
    masked = heads if queries is None else heads * queries[:, :, None]
    return {
        "previous": score(heads, previous_token_pattern(tokens)),
        "induction": score(masked, induction_pattern(tokens)),
    }


def repeated(rng, vocab, size=SIZE, times=TIMES, rows=ROWS):
    """Random tokens, `times` over, on which an induction head shows      -> (rows, size * times)"""
    return np.tile(rng.integers(0, vocab, (rows, size)), (1, times))
