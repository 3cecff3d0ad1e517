"""Shared by several test files: a random model over all options, its weights, a batch, a numerical
derivative; for those about the C engine, a model that it can run, and ways to call it.

Everything follows from a seed, and from generators whose streams are frozen, so a seed that fails
fails everywhere.
"""
import random
import re

import numpy as np
import pytest

from minitron.base.environment import ROOT
from minitron.base.errors import MinitronError
from minitron.model.config import ModelConfig
from minitron.model.params import Params

SMALL = ModelConfig(
    dim=16, layers=2, heads=4, kv_heads=2, head_dim=6, ffn_dim=24, vocab=8).resolve()
LETTERS = [bytes([byte]) for byte in b"abcdefgh"]


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
    """Weights about as large as in training; norms around 1, which would hide a lost factor"""
    p = Params(config, dtype)
    r = np.random.RandomState(seed)
    for name, tensor in p.tensors().items():
        values = r.randn(*tensor.shape)
        if name.startswith("norm"):
            tensor[...] = 1 + 0.3 * values
        else:
            tensor[...] = values * tensor.shape[-1] ** -0.5
    return p


def random_batch(config, seed):
    """inputs, targets (B, T), a third -1 and at least one label, positions (B, T) or None"""
    r = np.random.RandomState(seed)
    shape = B, T = r.randint(1, 4), r.choice([1, 2, 5, 8])
    inputs, targets = r.randint(0, config.vocab, (2, B, T))
    scored = r.rand(*shape) < 0.7
    scored[r.randint(B), r.randint(T)] = True
    positions = None if r.rand() < 0.5 else np.cumsum(r.randint(0, 4, shape), axis=1)
    return inputs, np.where(scored, targets, -1), positions


def derivative(f, h):
    """f'(0) of a smooth f: central differences of fourth order, error h^4 f^(5) / 30"""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def random_weights(config, seed):
    """Weights of both signs, norms among them, that keep rounding errors small.

    No embedding is near 0, where a norm would magnify them, and layers write into the residual
    stream as gently as before training (params.init).
    """
    rng, p = np.random.default_rng(seed), Params(config)
    for name, tensor in p.tensors().items():
        if name.startswith(("norm", "embed")):
            tensor[...] = rng.choice([-1, 1], tensor.shape) * rng.uniform(0.5, 1.5, tensor.shape)
        else:
            scale = (2 * config.layers) ** -0.5 if name in ("wo", "w2") else 1
            tensor[...] = rng.uniform(-1, 1, tensor.shape) * scale * tensor.shape[-1] ** -0.5
    return p


def in_double(config, p):
    double = Params(config, np.float64)
    double.flat[:] = p.flat
    return double


def bits(array):
    """The bits of float32: unlike ==, they tell -0 from 0."""
    return np.ascontiguousarray(array).view(np.uint32)


def feed(engine, texts, positions, order, calls, context):
    """Logits (T, V) of each text; tokens come in the `order` of sequences, in `calls` calls"""
    engine.reset(len(texts), context)
    seen, rows = [0] * len(texts), [[] for _ in texts]
    for part in np.array_split(order, calls):
        places = []
        for s in part:
            places.append((s, seen[s]))
            seen[s] += 1
        tokens, ids = ([x[s][i] for s, i in places] for x in (texts, positions))
        logits = engine.forward(tokens, part, ids)
        for s, row in zip(part, logits):
            rows[s].append(row)
    return [np.array(row) for row in rows]


def refused(match, function, *arguments, **named):
    with pytest.raises(MinitronError, match=match) as caught:
        function(*arguments, **named)
    assert str(caught.value) and "\n" not in str(caught.value)


def constant(name):
    """A number in run.c's enums, such as CHUNK = 240"""
    return int(re.search(rf"\b{name} = (\d+)", (ROOT / "run.c").read_text(encoding="utf-8"))[1])
