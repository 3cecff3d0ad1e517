"""Drop-ins for the ops that take the most time: the arguments and results of ops.py, sooner.

Each saves at least 3% of a training step at some shape of bench/train.py or of addition's default
runs.  The factors below, in the forward's docstring, are of the pair: the time of a step with the
plain pair over that with the drop-ins (bench/tricks.py, 2 cores).  tests/model/test_fast.py holds
each to its op up to rounding, gradients included.

Beside matrix products, passes over memory take the time.  So a drop-in changes arrays of its own in
place, and sums rows by a product with ones, several times as fast as x.sum(axis=-1).
"""
from functools import lru_cache

import numpy as np

from . import ops
from .ops import (  # noqa: F401  ops without a drop-in: a new op is added here
    by_head,
    linear_attention_backward,
    linear_attention_forward,
    linear_backward,
    linear_forward,
    rope_backward,
    rope_forward,
    rope_table,
    rows_backward,
    rows_forward,
    transpose,
)

ONE_HOT = 256       # the largest vocabulary for which embedding_backward multiplies
BLOCK = 32          # queries that attention treats at a time
SAFE = 1e20         # a sum of exp within 1/SAFE..SAFE lost nothing to overflow or underflow


@lru_cache(maxsize=64)
def ones(size, dtype):
    """(size,) of 1, read-only"""
    array = np.ones(size, dtype)
    array.flags.writeable = False
    return array


@lru_cache(maxsize=64)
def past(start, stop, dtype):
    """(stop - start, stop) of 1 where queries start..stop-1 see keys, 0 where not; read-only"""
    array = np.tri(stop - start, stop, start, dtype)
    array.flags.writeable = False
    return array


def embedding_forward(tokens, w):
    """1.53 at addition, dim 32, 1.08 at dim 128, T 64: take is faster than w[tokens]"""
    return w.take(tokens, axis=0), (tokens, len(w))


def embedding_backward(dx, c_embedding):
    """The sum over each token's rows is a product with a one-hot matrix.

    It has 2NVD FLOPs, which are cheap while V is small.
    """
    tokens, V = c_embedding
    if V > ONE_HOT:
        return ops.embedding_backward(dx, c_embedding)
    one_hot = np.zeros((V, len(tokens)), dx.dtype)
    one_hot[tokens, np.arange(len(tokens))] = 1
    return one_hot @ dx


def rmsnorm_forward(x, gain, eps):
    """1.45 at addition, dim 8, 1.04 at dim 128, T 64: sums by products with ones"""
    D = len(gain)
    rows = x.reshape(-1, D)
    mean = (rows * rows) @ ones(D, x.dtype) * (1 / D)
    r = 1 / np.sqrt(mean + eps) + 0 * mean          # + 0 * mean: NaN where x^2 overflows
    n = rows * r[:, None]
    return (n * gain).reshape(x.shape), (n, r, gain)


def rmsnorm_backward(dy, c_rmsnorm):
    """As in ops.py, with sum(dn * n) = (dy * n) @ gain"""
    n, r, gain = c_rmsnorm
    rows = dy.reshape(n.shape)
    product = rows * n
    dgain = ones(len(n), n.dtype) @ product
    mean = product @ gain * (1 / len(gain))
    dx = rows * gain
    dx -= np.multiply(n, mean[:, None], out=product)
    dx *= r[:, None]
    return dx.reshape(dy.shape), dgain


def is_safe(total):
    """Whether sums of exp, taken without a shift, lost nothing.  False where there is a NaN.

    After an overflow a row's sum is infinite, or NaN where the mask multiplied by 0; it is about 0
    where all that counts underflowed.  So a look at the sums saves two passes over the scores.
    """
    return total.size == 0 or (1 / SAFE < total.min() and total.max() < SAFE)


def query_blocks(time):
    """Slices of BLOCK queries, the last perhaps of fewer, that cover 0..T-1"""
    return [slice(start, min(start + BLOCK, time)) for start in range(0, time, BLOCK)]


def attention_forward(q, k, v):
    """1.52 at dim 32, T 64, 1.41 at dim 128, T 256: in blocks of queries, without softmax's shift

    A block computes no scores after its own end.  Keys are transposed by a copy, which also scales,
    since BLAS takes up to twice as long at a small transposed view.
    """
    (_, T, _, K), G = q.shape, k.shape[2]
    queries, values = by_head(q, G), by_head(v, G)                      # (B, G, R or 1, T, K)
    keys_t = np.multiply(transpose(by_head(k, G)), K**-0.5, order="C")  # (B, G, 1, K, T)
    y, weights = np.empty(q.shape, q.dtype), []
    for now in query_blocks(T):
        a = softmax_of_past(queries[..., now, :], keys_t[..., :now.stop], now)
        np.matmul(a, values[..., :now.stop, :], out=by_head(y, G)[..., now, :])
        weights.append(a)
    return y, (q, k, v, y, weights)


def softmax_of_past(queries, keys_t, now):
    """ops.causal_softmax(queries @ keys_t) for the block `now`      -> (B, G, R, S, stop)"""
    with np.errstate(over="ignore", invalid="ignore"):                  # is_safe looks for them
        a = queries @ keys_t                                            # becomes a in place
        np.exp(a, out=a)
        a *= past(now.start, now.stop, a.dtype)
        total = a.reshape(-1, now.stop) @ ones(now.stop, a.dtype)
    if not is_safe(total):
        return ops.causal_softmax(queries @ keys_t)
    a *= (1 / total).reshape(*a.shape[:-1], 1)
    return a


def attention_backward(dy, c_attention):
    """As in ops.py, with sum_j da_j * a_j = sum_k dy_k * y_k, over K, not T, since y = a @ v"""
    q, k, v, y, weights = c_attention
    (B, T, H, K), G = q.shape, k.shape[2]
    queries, keys, dout = by_head(q, G), by_head(k, G), by_head(dy, G)
    values_t = np.multiply(transpose(by_head(v, G)), K**-0.5, order="C")
    sums = (dy * y).reshape(-1, K) @ (ones(K, q.dtype) * K**-0.5)
    sums = by_head(sums.reshape(B, T, H, 1), G)                         # (B, G, R, T, 1)
    dq, dk, dv = np.empty(q.shape, q.dtype), None, None
    for now, a in zip(reversed(query_blocks(T)), reversed(weights)):
        ds = dout[..., now, :] @ values_t[..., :now.stop]
        ds -= sums[..., now, :]
        ds *= a
        np.matmul(ds, keys[..., :now.stop, :], out=by_head(dq, G)[..., now, :])
        dk = add_to_front(dk, transpose(ds) @ queries[..., now, :])
        dv = add_to_front(dv, transpose(a) @ dout[..., now, :])
    return dq, sum_of_group(dk), sum_of_group(dv)


def add_to_front(total, x):
    """total (..., T, K) with x (..., stop, K) added to its first times; the first x has all"""
    if total is None:
        return x
    total[..., :x.shape[-2], :] += x
    return total


def sum_of_group(x):
    """x (B, G, R, T, K) -> its sum over R as (B, T, G, K)"""
    total = x[:, :, 0] if x.shape[2] == 1 else x.sum(axis=2)            # (B, G, T, K)
    return np.ascontiguousarray(total.swapaxes(1, 2))


def swiglu_forward(gate, up):
    """1.04 at dim 128, T 64, 1.01 at addition, dim 8: in place"""
    s = 0.5 * gate
    np.tanh(s, out=s)
    s *= 0.5
    s += 0.5
    y = gate * s
    y *= up
    return y, (gate, up, s)


def swiglu_backward(dy, c_swiglu):
    """As in ops.py, with dgate = dy * up * silu' = ((dy - dup) * s + dup) * up"""
    gate, up, s = c_swiglu
    dup = gate * s
    dup *= dy
    dgate = dy - dup
    dgate *= s
    dgate += dup
    dgate *= up
    return dgate, dup


def cross_entropy_forward(logits, targets):
    """1.06 at dim 32, T 64, 1.04 at addition, dim 8: no shift where the sums show no need of one"""
    z = logits
    with np.errstate(over="ignore"):                                    # is_safe looks for it
        e = np.exp(z)
    total = e @ ones(e.shape[1], e.dtype)
    if not is_safe(total):
        z = logits - logits.max(axis=-1, keepdims=True)
        e = np.exp(z)
        total = e @ ones(e.shape[1], e.dtype)
    loss = np.sum(np.log(total)) - np.sum(z[np.arange(len(targets)), targets])
    return loss, (e, total, targets)


def cross_entropy_backward(dloss, c_cross_entropy):
    """As in ops.py, with p = e / total, and 1 subtracted at the targets alone"""
    e, total, targets = c_cross_entropy
    dlogits = e * (dloss / total)[:, None]
    dlogits[np.arange(len(targets)), targets] -= dloss
    return dlogits
