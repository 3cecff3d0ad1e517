#!/usr/bin/env python3
"""What each trick that makes training fast gains by itself: the time of a step without it, over the time with it.

    python bench/tricks.py            all of them, the table in docs/speed.md

A trick is taken away by putting a plain form in the place of the fast one.  Both forms take turns in one process, a few steps
each, and the median of the turns' ratios is printed, with the lower and upper quartile.  Losses must agree.
"""
import os
import sys
from pathlib import Path

for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):      # a benchmark runs with the library's own choice, as train.py's do
    os.environ.pop(variable, None)
os.environ["OPENBLAS_NUM_THREADS"] = "1"                        # minitron has threads of its own
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "model")]

import contextlib
import ctypes
import dataclasses
import time
from unittest import mock

import numpy as np
import slow_ops

from minitron.data.config import Config
from minitron.model import ops, optim
from minitron.model import transformer as model
from minitron.model.params import Params, decay_mask, init
from minitron.training import parallel

SMALL, WIDE, LONG = (64, 64, 2, 4, 32, 64), (64, 64, 4, 4, 128, 64), (64, 256, 4, 4, 128, 16)       # V, T, L, H, D, B
TURNS, SECONDS = 11, 0.4


# ---- the plain forms -------------------------------------------------------------------------------------------------


class RowSum:
    """In the place of ones(): x @ it is x.sum(axis=-1)."""

    __array_ufunc__ = None

    def __init__(self, size, dtype):
        pass

    def __rmatmul__(self, x):
        return x.sum(axis=-1)


class Broadcast:
    """In the place of repeat(): x @ it by np.repeat, x @ its transpose by sums over short rows."""

    __array_ufunc__ = None

    def __init__(self, heads, width, dtype, transposed=False):
        self.arguments, self.transposed = (heads, width, dtype), transposed

    @property
    def T(self):
        return Broadcast(*self.arguments, transposed=True)

    def __len__(self):
        return self.arguments[0]

    def __rmatmul__(self, x):
        heads, width, _ = self.arguments
        return x.reshape(*x.shape[:-1], heads, width).sum(axis=-1) if self.transposed else np.repeat(x, width, axis=-1)


def gain_on_the_rows_forward(x, gain, w, eps):
    r = 1 / np.sqrt((x * x) @ ops.ones(x.shape[1], x.dtype) * (1 / x.shape[1]) + eps)
    n = x * r[:, None]
    scaled = n * gain
    return scaled @ w.swapaxes(-1, -2), (n, r, gain, w, scaled)


def gain_on_the_rows_backward(dy, c):
    n, r, gain, w, scaled = c
    dn = dy @ w
    if dy.ndim == 3:
        dn = dn.sum(axis=0)
    product = dn * n
    dgain = ops.ones(len(n), n.dtype) @ product
    along = product @ gain * (-1 / len(gain))
    dn *= gain
    np.multiply(n, along[:, None], out=product)
    dn += product
    dn *= r[:, None]
    return dn, dgain, dy.swapaxes(-1, -2) @ scaled


def sliced_swiglu_forward(u):
    F = u.shape[1] // 2
    return ops.swiglu_forward((u[:, :F], u[:, F:]))


def sliced_swiglu_backward(dy, c):
    gate, up, s = c
    du = np.empty((len(dy), 2 * dy.shape[1]), dy.dtype)
    dgate, dup = du[:, :dy.shape[1]], du[:, dy.shape[1]:]
    np.multiply(gate, s, out=dup)
    dup *= dy
    np.subtract(dy, dup, out=dgate)
    dgate *= s
    dgate += dup
    dgate *= up
    return du


def sigmoid_by_exp_forward(u):
    gate, up = u
    s = np.exp(-gate)
    s += 1
    np.reciprocal(s, out=s)
    y = gate * s
    y *= up
    return y, (gate, up, s)


def qkv_without_table(p, l, x, config, tokens):
    more = dataclasses.replace(config, vocab=len(tokens) + 1)       # it would not be worth it then
    return QKV_FORWARD(p, l, x, more, tokens)


def exp_divided(s, start, stop):
    e = EXP_OF_PAST(s, start, stop)
    e /= e.sum(axis=-1, keepdims=True)
    return e


def transposed_view(x, more=0):
    out = np.empty((*x.shape[:-1], x.shape[-1] + more), x.dtype)
    out[..., :x.shape[-1]] = x
    return out.swapaxes(-1, -2)


def block_of_all_rows_forward(p, l, x, config, cis, tokens, rows):
    x, c = BLOCK_FORWARD(p, l, x, config, cis, tokens, None)
    return (x if rows is None else x[rows]), c | {"taken": rows}


def block_of_all_rows_backward(g, l, dx, config, c):
    if c["taken"] is not None:
        dx = model.scatter_rows(dx, c["taken"], c["shape"][0] * c["shape"][1])
    return BLOCK_BACKWARD(g, l, dx, config, c)


def plain_adamw(p, g, m, v, decay, step, lr, beta1, beta2, eps=1e-8):
    m += (1 - beta1) * (g - m)
    v += (1 - beta2) * (g * g - v)
    p -= lr * (m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps) + decay * p)


@contextlib.contextmanager
def memory_given_back():
    """glibc's defaults, as long as it lasts."""
    libc = ctypes.CDLL("libc.so.6")
    for parameter, default in ((-1, 2**17), (-2, 2**17), (-3, 2**17)):
        libc.mallopt(parameter, default)
    try:
        yield
    finally:
        parallel.keep_memory.__wrapped__()


def plain_ops():
    forms = {name: op for name, op in vars(slow_ops).items() if name.endswith(("_forward", "_backward")) and hasattr(model, name)}
    return mock.patch.multiple(model, ATTENTION_FORWARD={"softmax": slow_ops.attention_forward},
                               ATTENTION_BACKWARD={"softmax": slow_ops.attention_backward}, **forms)


def replaced(module, **forms):
    return lambda: mock.patch.multiple(module, **forms)


EXP_OF_PAST, QKV_FORWARD = ops.exp_of_past, model.qkv_forward
BLOCK_FORWARD, BLOCK_BACKWARD = model.block_forward, model.block_backward
TRICKS = [      # what it is, shape, what takes it away (forms put in its place, or options of trainer), share of scored positions
    ("two shards on two threads", WIDE, {"threads": 1}),
    ("freed memory is kept in the process", WIDE, memory_given_back),
    ("gate and up as two whole arrays, not halves of one", WIDE, replaced(
        model, gate_and_up=lambda w: w, swiglu_forward=sliced_swiglu_forward, swiglu_backward=sliced_swiglu_backward)),
    ("sigmoid by tanh, not exp", WIDE, replaced(model, swiglu_forward=sigmoid_by_exp_forward)),
    ("rows summed by a product with ones", SMALL, replaced(ops, ones=RowSum)),
    ("heads summed and repeated by a product", SMALL, replaced(ops, repeat=Broadcast)),
    ("a norm's gain goes into the weights", WIDE, replaced(
        model, norm_linear_forward=gain_on_the_rows_forward, norm_linear_backward=gain_on_the_rows_backward)),
    ("first layer's q, k, v looked up by token", SMALL, replaced(model, qkv_forward=qkv_without_table)),
    ("the same", WIDE, replaced(model, qkv_forward=qkv_without_table)),
    ("last layer only for scored rows (a third scored)", WIDE, replaced(
        model, block_forward=block_of_all_rows_forward, block_backward=block_of_all_rows_backward), 1 / 3),
    ("keys and values transposed by a copy", WIDE, replaced(ops, transposed=transposed_view)),
    ("blocks of queries that skip the future", LONG, replaced(ops, query_blocks=lambda time: [(0, time)])),
    ("softmax divided after its product with v", LONG, replaced(ops, exp_of_past=exp_divided)),
    ("no row maximum where none is needed", SMALL, replaced(ops, is_safe=lambda s: False)),
    ("embedding's gradient by a one-hot product", SMALL, replaced(ops, ONE_HOT=0)),
    ("AdamW in place, in pieces, on all threads", WIDE, {"plain_optimizer": True}),
    ("all of the ops' tricks", SMALL, plain_ops),
    ("all of the ops' tricks", WIDE, plain_ops),
    ("all of the ops' tricks", LONG, plain_ops),
]


# ---- measuring -------------------------------------------------------------------------------------------------------


def trainer(shape, scored, threads=None, plain_optimizer=False):
    """A function that trains one step.      scored: share of the positions that are"""
    V, T, L, H, D, B = shape
    config = Config(vocab=V, layers=L, heads=H, kv_heads=H, dim=D, head_dim=D // H, ffn_dim=8 * D // 3 // 8 * 8, batch=B,
                    qk_norm=False, shards=2)
    p, m, v, decay = init(config), Params(config), Params(config), decay_mask(config)
    r = np.random.RandomState(0)
    inputs, targets = r.randint(0, V, (2, B, T))
    targets = np.where(r.rand(B, T) < scored, targets, -1)
    workers = parallel.Workers(config, threads)

    def step():
        loss, _, g = workers.gradient(p, inputs, targets)
        vectors = p.flat, g.flat, m.flat, v.flat, decay
        if plain_optimizer:
            plain_adamw(*vectors, 100, 0.0, 0.9, 0.99)
        else:
            workers.by_piece(lambda *pieces: optim.adamw(*pieces, 100, 0.0, 0.9, 0.99), *vectors)
        return loss

    return step


def turn(step):
    """-> milliseconds a step, loss"""
    step()
    seconds, until = [], time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    return 1e3 * np.median(seconds), loss


def compare(shape, without, scored=1.0):
    """-> ms with, ms without, the ratio's quartiles"""
    fast = plain = trainer(shape, scored)
    patch = without
    if isinstance(without, dict):
        plain, patch = trainer(shape, scored, **without), contextlib.nullcontext
    pairs = []
    for _ in range(TURNS):
        with_it, loss = turn(fast)
        with patch():
            without_it, other = turn(plain)
        assert abs(loss / other - 1) < 1e-5, (loss, other)
        pairs.append((with_it, without_it))
    a, b = np.array(pairs).T
    return np.median(a), np.median(b), np.quantile(b / a, [0.5, 0.25, 0.75])


def main():
    print(f"{'trick':58} {'shape V,T,L,H,D,B':20} {'ms with':>8} {'without':>8} {'factor':>7} {'quartiles':>12}")
    for name, shape, without, *scored in TRICKS:
        a, b, (middle, low, high) = compare(shape, without, *scored)
        print(f"{name:58} {','.join(map(str, shape)):20} {a:8.1f} {b:8.1f} {middle:7.2f} {low:6.2f}-{high:.2f}", flush=True)


if __name__ == "__main__":
    main()
