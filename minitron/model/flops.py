"""FLOPs that the model asks for: matrix products alone, 2 per multiply-add.

Scaling laws are drawn over this count, which depends on nothing but the configuration and the data.
transformer.py computes less in the first and the last layer, and more in attention.
"""
import numpy as np


def forward_flops(config, batch, time, scored, past=0):
    """FLOPs for `time` new tokens in each of `batch` sequences, after `past` tokens that are cached

    `scored` of all new tokens need logits; generating one token is time 1, scored 1.  Attention
    counts as causal.
    """
    c = config
    q_width, kv_width = c.heads * c.head_dim, c.kv_heads * c.head_dim
    pairs = time * past + time * (time + 1) // 2            # of a query and a key that it may see
    weights = c.dim * (2 * q_width + 2 * kv_width + 3 * c.ffn_dim)
    layer = batch * (time * weights + 2 * q_width * pairs)
    return 2 * (c.layers * layer + scored * c.vocab * c.dim)


def train_flops(config, inputs, targets):
    """FLOPs of a training step: the backward has two products for each of the forward's

    inputs, targets (B, T); a target of -1 is not scored
    """
    return 3 * forward_flops(config, *inputs.shape, np.count_nonzero(targets >= 0))
