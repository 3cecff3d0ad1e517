"""What several test files need: a random model over all options, its weights, a batch, and a numerical derivative.

Everything follows from a seed, and from generators whose streams are frozen, so a seed that fails fails everywhere.
"""
import random

import numpy as np

from minitron.config import ModelConfig
from minitron.params import Params


def random_config(seed):
    """A small resolved ModelConfig: every option takes every kind of value, in any combination."""
    r = random.Random(seed)
    kv_heads = r.randint(1, 3)
    return ModelConfig(
        dim=r.randint(1, 40),
        layers=r.randint(1, 3),
        heads=kv_heads * r.randint(1, 3),
        kv_heads=kv_heads,
        head_dim=2 * r.randint(1, 6),
        ffn_dim=r.choice([0, r.randint(1, 50), r.randint(1, 50)]),
        rope_theta=r.choice([0, 3, 100, 10000]),
        norm_eps=r.choice([1e-5, 1e-3, 0.1]),
        qk_norm=r.random() < 0.5,
        tied=r.random() < 0.5,
        attention=r.choice(["softmax", "linear"]),
        vocab=r.randint(2, 40),
    ).resolve()


def random_params(config, seed, dtype=np.float64):
    """Weights about as large as in training.  Norms are spread around 1, where init's exact 1 would hide a lost factor."""
    p = Params(config, dtype)
    r = np.random.RandomState(seed)
    for name, tensor in p.tensors().items():
        values = r.randn(*tensor.shape)
        tensor[...] = 1 + 0.3 * values if name.startswith("norm") else values * tensor.shape[-1] ** -0.5
    return p


def random_batch(config, seed):
    """inputs (B, T), targets (B, T) with about a third -1 and at least one label, positions (B, T) or None."""
    r = np.random.RandomState(seed)
    shape = B, T = r.randint(1, 4), r.choice([1, 2, 5, 8])
    inputs, targets = r.randint(0, config.vocab, (2, B, T))
    scored = r.rand(*shape) < 0.7
    scored[r.randint(B), r.randint(T)] = True
    positions = None if r.rand() < 0.5 else np.cumsum(r.randint(0, 4, shape), axis=1)
    return inputs, np.where(scored, targets, -1), positions


def derivative(f, h):
    """f'(0) of a smooth function of one number: central differences of fourth order, error h^4 f^(5) / 30."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)
