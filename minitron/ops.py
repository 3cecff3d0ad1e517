"""Every operation of the model, each as a pair: forward, and beside it the gradient written out by hand.

    y, c_op = op_forward(x, ...)        c_op is the cache: what the backward needs to know of the forward
    dx, ... = op_backward(dy, c_op)     dx is the gradient of the loss by x; dy, the gradient by y, comes in

Dimension key, used everywhere, in Python and in run.c:

    B batch   T time   D dim   H heads   G key/value heads   K head width   F feed-forward width
    L layers  V vocabulary     N = B*T rows                  M scored rows

All ops are pure functions: nothing is stored on the side, and no cache is changed, so that a backward can be called
twice.  No op names a dtype: float64 arrays go in for the gradient checks, float32 for training.  That is why a scale
is written `* K**-0.5` and never `/ np.sqrt(K)`: the first is a Python float, which leaves float32 alone, the
second a NumPy float64, which would turn a whole attention into float64.

The residual stream is kept as N rows, not as (B, T, D): one large matrix product is faster than B small ones, and only
attention has to know which row belongs to which sequence.
"""
from functools import lru_cache

import numpy as np


def embedding_forward(tokens, w):
    """x = w[tokens]      tokens (N,), w (V, D) -> x (N, D)"""
    return w[tokens], (tokens, len(w))


def embedding_backward(dx, c_embedding):
    """dx (N, D) -> dw (V, D)

    A row of w gets the sum of dx over all places where its token stands.  Sorting the places by token makes each such
    sum one contiguous run, which reduceat adds up; np.add.at does the same several times slower.
    """
    tokens, vocab = c_embedding
    order = np.argsort(tokens, kind="stable")
    seen, starts = np.unique(tokens[order], return_index=True)
    dw = np.zeros((vocab, dx.shape[1]), dx.dtype)
    dw[seen] = np.add.reduceat(dx[order], starts, axis=0)
    return dw


def linear_forward(x, w):
    """y = x @ w.T      x (N, I), w (O, I) -> y (N, O)

    w is (out, in), as run.c reads it: its rows are what a matrix-vector product walks along.
    """
    return x @ w.T, (x, w)


def linear_backward(dy, c_linear):
    """dy (N, O) -> dx (N, I), dw (O, I)

    From dL = sum(dy * (dx @ w.T + x @ dw.T)): each factor's gradient is dy times the other factor.
    """
    x, w = c_linear
    return dy @ w, dy.T @ x


def rmsnorm_forward(x, w, eps):
    """y = w * x / sqrt(mean(x^2) + eps)      x (..., D), w (D,) -> y (..., D)

    Zhang & Sennrich 2019, arXiv:1910.07467
    """
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return w * (r * x), (x, w, r)


def rmsnorm_backward(dy, c_rmsnorm):
    """dy (..., D) -> dx (..., D), dw (D,)

    With n = r*x and dn = w*dy:   dx = r * (dn - n * mean(dn * n)).
    The second term is dr/dx = -r^3 * x / D at work.  Scaling x leaves n alone (but for eps), so the part of dn along n goes.
    """
    x, w, r = c_rmsnorm
    n, dn = r * x, w * dy
    dx = r * (dn - n * np.mean(dn * n, axis=-1, keepdims=True))
    return dx, np.sum((dy * n).reshape(-1, len(w)), axis=0)


def rope_table(positions, head_dim, theta, dtype):
    """cis = exp(i * position * theta^(-2j/K)) for j = 0..K/2-1      positions (B, T) -> cis (B, 1, T, K/2), complex

    Slow pairs (large j) tell far positions apart, fast ones near ones.  Computed in float64, as run.c does.
    """
    frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    angles = positions[:, None, :, None] * frequencies
    return np.exp(1j * angles).astype(np.result_type(dtype, np.complex64))


def rope_forward(x, cis):
    """Rotary positions: channels (2j, 2j+1) of x are one complex number, and it is turned by cis[j].

    x (B, H, T, K), cis (B, 1, T, K/2) -> y (B, H, T, K).      Su et al. 2021, arXiv:2104.09864

    The product of a query at position s and a key at position t then depends on s - t only.
    """
    return np.multiply(x.view(cis.dtype), cis, order="C").view(x.dtype), cis


def rope_backward(dy, c_rope):
    """dy (B, H, T, K) -> dx (B, H, T, K).   A rotation's transpose turns back: the same product with the conjugate."""
    return rope_forward(dy, c_rope.conj())[0]


@lru_cache(maxsize=64)
def causal_mask(time, dtype):
    """(T, T) of 0 where a query (row) may look, at itself and the past, and -inf where it may not.  Shared: read-only."""
    mask = np.triu(np.full((time, time), -np.inf, dtype), 1)
    mask.flags.writeable = False
    return mask


def group_queries(q, groups):
    """q (B, H, T, K) -> (B, G, H/G * T, K): the queries that share a key/value head, one under the other.

    Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) then is ordinary attention with more queries, and
    in the backward the sum of dk over the sharing heads happens inside the matrix product.
    """
    B, H, T, K = q.shape
    return q.reshape(B, groups, H // groups * T, K)


def attention_forward(q, k, v):
    """y = softmax(q @ k.T / sqrt(K)) @ v, over the past only.      q (B, H, T, K), k, v (B, G, T, K) -> y (B, H, T, K)

    The only op that moves anything from one time to another.      Vaswani et al. 2017, arXiv:1706.03762
    """
    B, H, T, K = q.shape
    grouped = group_queries(q * K**-0.5, k.shape[1])
    s = (grouped @ k.swapaxes(-1, -2)).reshape(B, H, T, T)
    s += causal_mask(T, q.dtype)
    s -= s.max(axis=-1, keepdims=True)              # so that exp cannot overflow; softmax does not notice
    a = np.exp(s, out=s)
    a /= a.sum(axis=-1, keepdims=True)
    y = (group_queries(a, k.shape[1]) @ v).reshape(B, H, T, K)
    return y, (q, k, v, a, y)


def attention_backward(dy, c_attention):
    """dy (B, H, T, K) -> dq (B, H, T, K), dk, dv (B, G, T, K)

    y = a @ v is linear in both:  dv = a.T @ dy,  da = dy @ v.T.
    Softmax:  ds = a * (da - sum(da * a)), and that sum over T is sum(dy * y) over K, since y = a @ v.
    s = q @ k.T / sqrt(K) is linear in both again.  Where the mask was, a is 0, and so is ds.
    """
    q, k, v, a, y = c_attention
    K, G = q.shape[-1], k.shape[1]
    dv = group_queries(a, G).swapaxes(-1, -2) @ group_queries(dy, G)
    ds = (group_queries(dy, G) @ v.swapaxes(-1, -2)).reshape(a.shape)
    ds -= np.sum(dy * y, axis=-1, keepdims=True)
    ds *= a
    ds *= K**-0.5
    ds = group_queries(ds, G)
    return (ds @ k).reshape(q.shape), ds.swapaxes(-1, -2) @ group_queries(q, G), dv


def linear_attention_forward(q, k, v):
    """y = tril(q @ k.T / sqrt(K)) @ v: attention with its softmax left out.      Shapes as in attention_forward.

    Then y_t = q_t @ S_t / sqrt(K), with S_t the sum of the outer products k_s v_s^T so far: all it can remember is one K x K
    matrix a key/value head, however long the sequence.

    Katharopoulos et al. 2020, arXiv:2006.16236 (here without feature map and divisor)
    """
    B, H, T, K = q.shape
    s = (group_queries(q * K**-0.5, k.shape[1]) @ k.swapaxes(-1, -2)).reshape(B, H, T, T)
    s *= np.tril(np.ones((T, T), q.dtype))
    y = (group_queries(s, k.shape[1]) @ v).reshape(B, H, T, K)
    return y, (q, k, v, s)


def linear_attention_backward(dy, c_linear_attention):
    """dy (B, H, T, K) -> dq (B, H, T, K), dk, dv (B, G, T, K).      Three linear maps: ds = tril(dy @ v.T), no softmax."""
    q, k, v, s = c_linear_attention
    (T, K), G = q.shape[-2:], k.shape[1]
    dv = group_queries(s, G).swapaxes(-1, -2) @ group_queries(dy, G)
    ds = (group_queries(dy, G) @ v.swapaxes(-1, -2)).reshape(s.shape)
    ds *= np.tril(np.ones((T, T), q.dtype)) * K**-0.5
    ds = group_queries(ds, G)
    return (ds @ k).reshape(q.shape), ds.swapaxes(-1, -2) @ group_queries(q, G), dv


def swiglu_forward(u):
    """y = silu(gate) * up, silu(z) = z / (1 + exp(-z))      u (N, 2F) = [gate, up] -> y (N, F)

    Shazeer 2020, arXiv:2002.05202.   The sigmoid is written with tanh, which cannot overflow.
    """
    gate, up = np.split(u, 2, axis=-1)
    s = 0.5 * np.tanh(0.5 * gate) + 0.5
    return gate * s * up, (gate, up, s)


def swiglu_backward(dy, c_swiglu):
    """dy (N, F) -> du (N, 2F)

    silu(z) = z*s with s' = s*(1 - s), so silu'(z) = s + z*s*(1 - s).
    """
    gate, up, s = c_swiglu
    silu = gate * s
    return np.concatenate([dy * up * (s + silu * (1 - s)), dy * silu], axis=-1)


def cross_entropy_forward(logits, targets):
    """loss = sum over rows of -log softmax(logits)[target], in nats      logits (M, V), targets (M,) -> loss ()"""
    z = logits - logits.max(axis=-1, keepdims=True)
    e = np.exp(z)
    total = e.sum(axis=-1, keepdims=True)
    loss = np.sum(np.log(total)) - np.sum(z[np.arange(len(z)), targets])
    return loss, (e / total, targets)


def cross_entropy_backward(dloss, c_cross_entropy):
    """dloss () -> dlogits (M, V).      d(log sum exp)/dz is the softmax, and -z[target] gives -1 at the target."""
    probability, targets = c_cross_entropy
    dlogits = probability * dloss
    dlogits[np.arange(len(targets)), targets] -= dloss
    return dlogits
