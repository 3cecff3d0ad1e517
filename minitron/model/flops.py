"""FLOPs counted from the configuration: matrix products alone, 2 for a multiply-add.

Two counts.  What the model asks for is the one that scaling laws are drawn over, and depends on nothing but the model.  What
model.py really multiplies is less in the first and the last layer, and more in attention; tests count both product by product.
"""
import numpy as np

from .ops import query_blocks


def forward_flops(config, batch, time, scored, past=0):
    """FLOPs that the model asks for, for `time` new tokens in each of `batch` sequences behind `past` that are kept, `scored` of
    all of which need logits.  Attention counts as causal.  Generating one token is time 1, scored 1.
    """
    c = config
    q_width, kv_width = c.heads * c.head_dim, c.kv_heads * c.head_dim
    pairs = time * past + time * (time + 1) // 2            # of a query and a key that it may look at
    layer = batch * (time * c.dim * (2 * q_width + 2 * kv_width + 3 * c.ffn_dim) + 2 * q_width * pairs)
    return 2 * (c.layers * layer + scored * c.vocab * c.dim)


def train_flops(config, inputs, targets):
    """FLOPs that a training step asks for: the backward has two products for each of the forward's.    inputs, targets (B, T)"""
    return 3 * forward_flops(config, *inputs.shape, np.count_nonzero(targets >= 0))


def executed_flops(config, batch, time, scored):
    """FLOPs of the products in one loss_and_gradients, those left out that only sum or repeat.

    Less than what the model asks for: q, k and v of the first layer once a token of the vocabulary, the last layer behind
    attention only where it is scored.  More: attention's blocks reach to their ends, and its backward has one more column
    (ops.py).
    """
    c, N = config, batch * time
    q_width, kv_width = c.heads * c.head_dim, c.kv_heads * c.head_dim
    rows_in = [N] * c.layers
    rows_out = [N] * c.layers
    rows_in[0] = min(N, c.vocab)
    rows_out[-1] = scored
    weights = sum(rows * c.dim * (q_width + 2 * kv_width) for rows in rows_in)
    weights += sum(rows * c.dim * (q_width + 3 * c.ffn_dim) for rows in rows_out)
    blocks = [(0, time)] if c.attention == "linear" else query_blocks(time)
    pairs = sum((stop - start) * stop for start, stop in blocks)
    extra = 0 if c.attention == "linear" else c.heads
    attention = c.layers * batch * pairs * (6 * q_width + extra)
    return 2 * (3 * weights + attention + 3 * scored * c.vocab * c.dim)
