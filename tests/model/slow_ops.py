"""The ops of minitron/ops.py in their plainest form: each is its formula, and nothing is done for speed.

To be read first; test_ops.py holds the fast ones against these.  Signatures and dimension key are those of ops.py:
B batch   T time   D dim   H heads   G key/value heads   K head width   F feed-forward width   V vocabulary   N = B*T rows
Left out is what has no trick: linear, and the backwards of rope and linear_attention, which finite differences check.
"""
import numpy as np


def embedding_forward(tokens, w):
    """x = w[tokens]      tokens (N,), w (V, D) -> x (N, D)"""
    return w[tokens], (tokens, w.shape)


def embedding_backward(dx, c_embedding):
    """dw[token] = sum of dx over the places of this token      dx (N, D) -> dw (V, D)"""
    tokens, shape = c_embedding
    dw = np.zeros(shape, dx.dtype)
    np.add.at(dw, tokens, dx)           # dw[tokens] += dx would count a repeated token once
    return dw


def rmsnorm_forward(x, gain, eps):
    """y = gain * n with n = x / sqrt(mean(x^2) + eps)      x (..., D), gain (D,) -> y (..., D)"""
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    n = x * r
    return gain * n, (n, r, gain)


def rmsnorm_backward(dy, c_rmsnorm):
    """dx = r * (dn - n * mean(dn * n)) with dn = gain * dy      dy (..., D) -> dx (..., D), dgain (D,)"""
    n, r, gain = c_rmsnorm
    dn = gain * dy
    dx = r * (dn - n * np.mean(dn * n, axis=-1, keepdims=True))
    return dx, np.sum((dy * n).reshape(-1, len(gain)), axis=0)


def norm_linear_forward(x, gain, w, eps):
    """y = rmsnorm(x) @ w.T      x (N, D), gain (D,), w (O, D) or (S, O, D) -> y (N, O) or (S, N, O)"""
    h, c_rmsnorm = rmsnorm_forward(x, gain, eps)
    return h @ w.swapaxes(-1, -2), (h, w, c_rmsnorm)


def norm_linear_backward(dy, c_norm_linear):
    """dh = dy @ w, dw = dy.T @ h, then back through the norm      dy of y's shape -> dx (N, D), dgain (D,), dw of w's shape"""
    h, w, c_rmsnorm = c_norm_linear
    dh = dy @ w
    if w.ndim == 3:
        dh = dh.sum(axis=0)             # h went into each matrix of the stack
    dx, dgain = rmsnorm_backward(dh, c_rmsnorm)
    return dx, dgain, dy.swapaxes(-1, -2) @ h


def head_norm_forward(x, gain, eps):
    """y = rmsnorm(x) of each head      x (..., HK), gain (K,) -> y (..., HK)"""
    y, c_rmsnorm = rmsnorm_forward(x.reshape(*x.shape[:-1], -1, len(gain)), gain, eps)
    return y.reshape(x.shape), c_rmsnorm


def head_norm_backward(dy, c_head_norm):
    """rmsnorm's dx of each head, its dgain summed over all      dy (..., HK) -> dx (..., HK), dgain (K,)"""
    dx, dgain = rmsnorm_backward(dy.reshape(c_head_norm[0].shape), c_head_norm)
    return dx.reshape(dy.shape), dgain


def rope_forward(x, cis):
    """(a, b) -> (a cos - b sin, a sin + b cos) for each pair of channels      x (B, T, HK), cis (B, T, HK/2) -> y (B, T, HK)"""
    cos, sin, a, b = cis.real, cis.imag, x[..., 0::2], x[..., 1::2]
    return np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(x.shape), cis


def shared_by(heads, x):
    """A key/value head repeated for each query head that uses it      x (B, T, G, K) -> (B, T, H, K)"""
    return np.repeat(x, heads // x.shape[2], axis=2)


def sum_shared(groups, dx):
    """shared_by's backward: what was used several times gets the sum of its gradients      dx (B, T, H, K) -> (B, T, G, K)"""
    B, T, H, K = dx.shape
    return dx.reshape(B, T, groups, H // groups, K).sum(axis=3)


def attention_forward(q, k, v):
    """y = a @ v with a = softmax(q @ k.T), over the past only      q (B, T, H, K), k, v (B, T, G, K) -> y (B, T, H, K)"""
    keys, values = shared_by(q.shape[2], k), shared_by(q.shape[2], v)
    s = np.einsum("bthk,bshk->bhts", q, keys)
    s = np.where(np.tri(q.shape[1], dtype=bool), s, -np.inf)    # the future, above the diagonal: exp makes it 0
    e = np.exp(s - s.max(axis=-1, keepdims=True))               # at most 1; softmax does not notice a shift of the row
    a = e / e.sum(axis=-1, keepdims=True)
    return np.einsum("bhts,bshk->bthk", a, values), (q, k, v, a)


def attention_backward(dy, c_attention):
    """dv = a.T @ dy, da = dy @ v.T, ds = a * (da - rowsum(da * a)), dq = ds @ k, dk = ds.T @ q

    dy (B, T, H, K) -> dq (B, T, H, K), dk, dv (B, T, G, K)
    """
    q, k, v, a = c_attention
    keys, values = shared_by(q.shape[2], k), shared_by(q.shape[2], v)
    da = np.einsum("bthk,bshk->bhts", dy, values)
    ds = a * (da - np.sum(da * a, axis=-1, keepdims=True))
    dq = np.einsum("bhts,bshk->bthk", ds, keys)
    dk = np.einsum("bhts,bthk->bshk", ds, q)
    dv = np.einsum("bhts,bthk->bshk", a, dy)
    return dq, sum_shared(k.shape[2], dk), sum_shared(k.shape[2], dv)


def linear_attention_forward(q, k, v):
    """y = tril(q @ k.T) @ v      shapes as in attention_forward"""
    s = np.einsum("bthk,bshk->bhts", q, shared_by(q.shape[2], k))
    s = np.where(np.tri(q.shape[1], dtype=bool), s, 0)
    return np.einsum("bhts,bshk->bthk", s, shared_by(q.shape[2], v)), (q, k, v, s)


def swiglu_forward(u):
    """y = silu(gate) * up, silu(z) = z / (1 + exp(-z))      u (2, N, F) = [gate, up] -> y (N, F)"""
    gate, up = u
    return gate / (1 + np.exp(-gate)) * up, (gate, up)


def swiglu_backward(dy, c_swiglu):
    """dgate = dy * up * silu'(gate), dup = dy * silu(gate), silu'(z) = s + z*s*(1 - s)      dy (N, F) -> du (2, N, F)"""
    gate, up = c_swiglu
    s = 1 / (1 + np.exp(-gate))
    return np.stack([dy * up * (s + gate * s * (1 - s)), dy * gate * s])


def cross_entropy_forward(logits, targets):
    """loss = sum over rows of -log softmax(logits)[target]      logits (M, V), targets (M,) -> loss ()"""
    z = logits - logits.max(axis=-1, keepdims=True)
    log_p = z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))
    return -np.sum(log_p[np.arange(len(targets)), targets]), (np.exp(log_p), targets)


def cross_entropy_backward(dloss, c_cross_entropy):
    """dlogits = dloss * (p - 1 at the target)      dloss () -> dlogits (M, V)"""
    p, targets = c_cross_entropy
    return dloss * (p - np.eye(p.shape[1], dtype=p.dtype)[targets])
