"""Drop-ins for the ops that take the most time: same arguments, same results, more speed.
"""
from functools import lru_cache

import numpy as np

from .ops import (  # noqa: F401  the others stay as ops.py states them
    by_head,
    by_time,
    causal_softmax,
    linear_attention_backward,
    linear_attention_forward,
    linear_backward,
    linear_forward,
    rope_table,
    rows_backward,
    rows_forward,
    transpose,
)

ONE_HOT = 256       # the largest vocabulary whose gradient is summed by a product with a one-hot matrix
BLOCK = 32          # queries that attention treats at a time
SAFE = 1e20         # sums of exp between 1/SAFE and SAFE lost nothing to overflow or underflow


@lru_cache(maxsize=64)
def ones(size, dtype):
    """(size,) of 1, read-only.  x @ ones sums the rows of x faster than x.sum(axis=-1) does."""
    array = np.ones(size, dtype)
    array.flags.writeable = False
    return array


@lru_cache(maxsize=64)
def past(start, stop, dtype):
    """(stop - start, stop) of 1 where a query of start..stop-1 may look, and 0 where not; read-only"""
    array = np.tri(stop - start, stop, start, dtype)
    array.flags.writeable = False
    return array


def embedding_forward(tokens, w):
    return w.take(tokens, axis=0), (tokens, len(w))


def embedding_backward(dx, c_embedding):
    tokens, V = c_embedding
    if V <= ONE_HOT:
        one_hot = np.zeros((V, len(tokens)), dx.dtype)
        one_hot[tokens, np.arange(len(tokens))] = 1
        return one_hot @ dx
    order = np.argsort(tokens, kind="stable")
    seen, starts = np.unique(tokens[order], return_index=True)
    dw = np.zeros((V, dx.shape[1]), dx.dtype)
    dw[seen] = np.add.reduceat(dx[order], starts, axis=0)
    return dw


def rmsnorm_forward(x, gain, eps):
    D = len(gain)
    rows = x.reshape(-1, D)
    r = 1 / np.sqrt((rows * rows) @ ones(D, x.dtype) * (1 / D) + eps)
    n = rows * r[:, None]
    return (n * gain).reshape(x.shape), (n, r, gain)


def rmsnorm_backward(dy, c_rmsnorm):
    n, r, gain = c_rmsnorm
    rows = dy.reshape(n.shape)
    product = rows * n
    dgain = ones(len(n), n.dtype) @ product
    along = product @ gain * (-1 / len(gain))
    dx = np.multiply(n, along[:, None], out=product)
    dx += rows * gain
    dx *= r[:, None]
    return dx.reshape(dy.shape), dgain


def rope_forward(x, cis):
    B, T, H, K = x.shape
    cis = np.repeat(cis, H, axis=2)
    return (x.view(cis.dtype) * cis).view(x.dtype), cis


def rope_backward(dy, c_rope):
    return (dy.view(c_rope.dtype) * c_rope.conj()).view(dy.dtype)


def blocks(time):
    """Slices of at most BLOCK queries that cover 0..T-1"""
    return [slice(start, min(start + BLOCK, time)) for start in range(0, time, BLOCK)]


def exp_of_past(s, now):
    e = np.exp(s, out=s)
    e *= past(now.start, now.stop, s.dtype)
    return e


def attention_forward(q, k, v):
    (B, T, H, K), G = q.shape, k.shape[2]
    queries, values = by_head(q, G), by_head(v, G)
    keys_t = np.multiply(transpose(by_head(k, G)), K**-0.5, order="C")
    y = np.empty(q.shape, q.dtype)
    a = []
    with np.errstate(over="ignore", invalid="ignore"):
        for now in blocks(T):
            s = queries[..., now, :] @ keys_t[..., :now.stop]
            e = np.exp(s, out=s)
            e *= past(now.start, now.stop, q.dtype)
            total = e.reshape(-1, now.stop) @ ones(now.stop, q.dtype)
            if 1 / SAFE < total.min() and total.max() < SAFE:
                e *= (1 / total).reshape(*e.shape[:-1], 1)
            else:
                e = causal_softmax(queries[..., now, :] @ keys_t[..., :now.stop])
            np.matmul(e, values[..., :now.stop, :], out=by_head(y, G)[..., now, :])
            a.append(e)
    return y, (q, k, v, a, y)


def attention_backward(dy, c_attention):
    q, k, v, a, y = c_attention
    (B, T, H, K), G = q.shape, k.shape[2]
    queries, keys, dout = by_head(q, G), by_head(k, G), by_head(dy, G)
    values_t = np.multiply(transpose(by_head(v, G)), K**-0.5, order="C")
    delta = (dy * y).reshape(-1, K) @ (ones(K, q.dtype) * K**-0.5)
    delta = by_head(delta.reshape(B, T, H, 1), G)
    dq = np.empty(q.shape, q.dtype)
    dk = dv = None
    for now, a_now in zip(reversed(blocks(T)), reversed(a)):
        ds = dout[..., now, :] @ values_t[..., :now.stop]
        ds -= delta[..., now, :]
        ds *= a_now
        np.matmul(ds, keys[..., :now.stop, :], out=by_head(dq, G)[..., now, :])
        dk = add_front(dk, transpose(ds) @ queries[..., now, :])
        dv = add_front(dv, transpose(a_now) @ dout[..., now, :])
    return dq, sum_of_group(dk), sum_of_group(dv)


def sum_of_group(x):
    B, G, R, T, K = x.shape
    out = np.empty((B, T, G, K), x.dtype)
    np.sum(x, axis=2, out=out.swapaxes(1, 2))
    return out


def add_front(total, part):
    if total is None:
        return part
    total[..., :part.shape[-2], :] += part
    return total


def swiglu_forward(gate, up):
    s = np.tanh(0.5 * gate)
    s *= 0.5
    s += 0.5
    y = gate * s
    y *= up
    return y, (gate, up, s)


def swiglu_backward(dy, c_swiglu):
    gate, up, s = c_swiglu
    dup = gate * s
    dup *= dy
    dgate = dy - dup
    dgate *= s
    dgate += dup
    dgate *= up
    return dgate, dup


def cross_entropy_forward(logits, targets):
    e = np.exp(logits)
    total = e @ ones(logits.shape[1], logits.dtype)
    if total.size and not (1 / SAFE < total.min() and total.max() < SAFE):
        shifted = logits - logits.max(axis=-1, keepdims=True)
        e = np.exp(shifted)
        total = e @ ones(logits.shape[1], logits.dtype)
    else:
        shifted = logits
    loss = np.sum(np.log(total)) - np.sum(shifted[np.arange(len(targets)), targets])
    return loss, (e, total, targets)


def cross_entropy_backward(dloss, c_cross_entropy):
    e, total, targets = c_cross_entropy
    dlogits = e * (dloss / total)[:, None]
    dlogits[np.arange(len(e)), targets] -= dloss
    return dlogits
