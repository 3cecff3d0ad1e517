"""What attention heads do: how much of a head's attention follows a pattern that one can name.

    previous    a token looks at the one before it
    induction   a token looks at what followed an earlier token like itself (Olsson et al. 2022, arXiv:2209.11895)

A score is the sum of attention on the pattern over the sum of all attention, 0 to 1.  Together, one head of each kind in two
layers make an induction head proper: the first writes into each place what stood before it, the second looks for a place that
says so.
"""
import numpy as np

from ..model.ops import by_head, past
from ..model.transformer import model_forward

SIZE, TIMES, ROWS = 25, 4, 16       # the common probe: 25 random tokens, four times over
MOST = 2**22                        # attention weights of one head looked at, at the most


def attention_weights(p, config, tokens, positions=None):
    """tokens, positions (B, T) -> (L, B, H, T, T): row t is what token t looks at.  The NumPy twin of Engine.attention.

    With linear attention these are the scores, which need not add up to 1.
    """
    batch, time = tokens.shape
    _, (_, c_blocks, _) = model_forward(p, config, tokens, np.arange(tokens.size), positions)
    weights = []
    for c_block in c_blocks:
        q, k, *_ = c_block["attention"]
        scores = by_head(q, config.kv_heads) @ by_head(k, config.kv_heads).swapaxes(-1, -2)
        if config.attention == "softmax":
            scores = np.where(past(0, time, scores.dtype), scores, -np.inf)
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            scores /= scores.sum(axis=-1, keepdims=True)
        weights.append((scores * past(0, time, scores.dtype)).reshape(batch, config.heads, time, time))
    return np.array(weights)


def few(time):
    """Rows of so many tokens that are enough to look at"""
    return max(1, min(ROWS, MOST // time**2))


def previous_token_pattern(tokens):
    """(B, T) -> (B, T, T): 1 where a query (row) looks at the token before it"""
    return np.broadcast_to(np.eye(tokens.shape[1], k=-1), (*tokens.shape, tokens.shape[1]))


def induction_pattern(tokens):
    """(B, T) -> (B, T, T): 1 where a query looks at a token whose predecessor is like the query, and earlier than it"""
    pattern = np.zeros((*tokens.shape, tokens.shape[1]))
    pattern[:, :, 1:] = tokens[:, :, None] == tokens[:, None, :-1]
    return np.tril(pattern)


def score(weights, pattern):
    """sum(weights * pattern) / sum(weights), of sizes, since linear attention has a sign.   (..., B, T, T), (B, T, T) -> (...)"""
    size = np.abs(weights)
    return (size * pattern).sum(axis=(-3, -2, -1)) / size.sum(axis=(-3, -2, -1))


def head_scores(weights, tokens, asked=None):
    """weights (L, B, H, T, T), tokens (B, T), asked (B, T) bool -> {pattern: score (L, H)}

    Induction counts where the task asks for something alone, if that is told: a row of MQAR is filler for the most part, which
    comes again and again, so that a head that never looks anything up would score high.
    """
    heads = np.moveaxis(weights, 2, 1)
    asking = heads if asked is None else heads * asked[:, :, None]
    return {"previous": score(heads, previous_token_pattern(tokens)), "induction": score(asking, induction_pattern(tokens))}


def repeated(rng, vocab, size=SIZE, times=TIMES, rows=ROWS):
    """Random tokens and then the same again: what an induction head shows itself on.      -> (rows, size * times)"""
    return np.tile(rng.integers(0, vocab, (rows, size)), (1, times))
