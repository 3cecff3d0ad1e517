"""What several test files need: a random model over all options, its weights, a batch, and a numerical derivative; for those
about the C engine, a model that it can run, and ways to call it.

Everything follows from a seed, and from generators whose streams are frozen, so a seed that fails fails everywhere.
"""
import random
import re
import types

import numpy as np
import pytest
import slow_ops

from minitron.base.environment import ROOT
from minitron.base.errors import MinitronError
from minitron.model import ops
from minitron.model import transformer as model
from minitron.model.config import ModelConfig
from minitron.model.params import Params, init
from minitron.model.transformer import loss_and_gradients

SMALL = ModelConfig(dim=16, layers=2, heads=4, kv_heads=2, head_dim=6, ffn_dim=24, vocab=8).resolve()
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


def random_weights(config, seed):
    """Weights of both signs, norms among them, that keep rounding errors small: no embedding is near 0, where a norm would
    magnify them, and layers write into the residual stream as gently as before training (params.init)."""
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
    """Logits (T, V) of each text, its tokens arriving in the order of `order` (sequence numbers), cut into `calls` calls."""
    engine.reset(len(texts), context)
    seen, rows = [0] * len(texts), [[] for _ in texts]
    for part in np.array_split(order, calls):
        places = []
        for s in part:
            places.append((s, seen[s]))
            seen[s] += 1
        logits = engine.forward([texts[s][i] for s, i in places], part, [positions[s][i] for s, i in places])
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


def counted_flops(monkeypatch, config, inputs, targets, extra=None):
    """FLOPs of all products of one loss_and_gradients, but for those that only sum or repeat: with the read-only matrices of
    ops.shared, in the norm of heads, with a one-hot matrix.  Of a sum over `extra` terms one is left out.
    """
    class Counting(np.ndarray):
        flops = 0

        def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
            arrays = [x.view(np.ndarray) if isinstance(x, Counting) else x for x in inputs]
            if out is not None:
                options["out"] = tuple(x.view(np.ndarray) for x in out)
            result = getattr(ufunc, method)(*arrays, **options)
            if ufunc is np.matmul and all(x.flags.writeable for x in arrays):
                summed = arrays[0].shape[-1]
                Counting.flops += 2 * result.size * (summed - 1 if summed == extra else summed)
            return result.view(Counting) if isinstance(result, np.ndarray) else result

    numpy = types.SimpleNamespace(**vars(np) | {"empty": lambda *arguments: np.empty(*arguments).view(Counting)})
    monkeypatch.setattr(ops, "np", numpy)
    monkeypatch.setattr(ops, "ONE_HOT", 0)
    monkeypatch.setattr(model, "head_norm_forward", slow_ops.head_norm_forward)
    monkeypatch.setattr(model, "head_norm_backward", slow_ops.head_norm_backward)
    p = init(config)
    for name, tensor in p.tensors().items():
        setattr(p, name, tensor.view(Counting))
    loss_and_gradients(p, Params(config), config, inputs, targets, 1.0)
    return Counting.flops
