"""Every operation of the model as a pair: the forward, and below it the gradient, by hand.

    y, c_op = op_forward(x, ...)        c_op, the cache, keeps the values that op_backward needs
    dx, ... = op_backward(dy, c_op)     dx is the gradient of the loss with respect to x

Dimension key, used everywhere, in Python and in run.c:

    B batch   T time   D dim   H heads   G key/value heads   K head width   F feed-forward width
    L layers  V vocabulary     N = B*T rows                  M scored rows

A backward's docstring derives it, line by line as the code computes it, by the chain rule
dx_i = sum_j dy_j * dy_j/dx_i.  Alone, dx is dL/dx, the gradient of the loss; a fraction such as
dr/dx is the derivative of r with respect to x.  [i = j] is 1 where i equals j, and 0 elsewhere.

Ops are pure functions: they change no argument and no cache, so a backward can be called twice.
They name no dtype: float64 goes in for the gradient checks, float32 for training.  That is why
a scale is a Python float, `* K**-0.5`; `/ np.sqrt(K)`, a float64, would make all that follows
float64.  fast.py has drop-ins for the ops that take the most time; transformer.py composes them.
"""
import numpy as np


def embedding_forward(tokens, w):
    """x = w[tokens]      tokens (N,), w (V, D) -> x (N, D)"""
    return w[tokens], (tokens, len(w))


def embedding_backward(dx, c_embedding):
    """dw_v = sum of dx_n over the rows n whose token is v      dx (N, D) -> dw (V, D)"""
    tokens, V = c_embedding
    dw = np.zeros((V, dx.shape[1]), dx.dtype)
    np.add.at(dw, tokens, dx)           # dw[tokens] += dx would count a repeated token once
    return dw


def rows_forward(x, rows):
    """y = x[rows]      x (N, D), rows (M,), distinct -> y (M, D)"""
    return x[rows], (rows, len(x))


def rows_backward(dy, c_rows):
    """dx = dy at these rows, and 0 at the others, which y does not have      (M, D) -> (N, D)"""
    rows, N = c_rows
    dx = np.zeros((N, dy.shape[1]), dy.dtype)
    dx[rows] = dy
    return dx


def linear_forward(x, w):
    """y = x @ w.T      x (N, I), w (O, I) -> y (N, O)

    w is (out, in), the order of the model file.
    """
    return x @ w.T, (x, w)


def linear_backward(dy, c_linear):
    """y_no = sum_i x_ni * w_oi      =>  dx_ni = sum_o dy_no * w_oi
                                     =>  dw_oi = sum_n dy_no * x_ni

    dy (N, O) -> dx (N, I), dw (O, I)
    """
    x, w = c_linear
    dx = dy @ w
    dw = dy.T @ x
    return dx, dw


def rmsnorm_forward(x, gain, eps):
    """y = gain * n,  n = x * r,  r = (mean(x^2) + eps)^-0.5

    x (..., D), gain (D,) -> y (..., D).  Of heads, x (B, T, H, K), it keeps the products of queries
    and keys from growing without bound.
    Zhang & Sennrich 2019, arXiv:1910.07467; of heads: Henry et al. 2020, arXiv:2010.04245
    """
    mean = np.mean(x * x, axis=-1, keepdims=True)                   # (..., 1)
    r = (mean + eps) ** -0.5 + 0 * mean             # + 0 * mean: NaN, not 0, where x^2 overflows
    n = x * r
    return gain * n, (n, r, gain)


def rmsnorm_backward(dy, c_rmsnorm):
    """y = gain * n                  =>  dn = gain * dy,  dgain = sum over rows of dy * n
    r = (mean(x^2) + eps)^-0.5    =>  dr/dx_i = -r^3 * x_i / D = -r^2 * n_i / D
    n = x * r                     =>  dx_i = r * dn_i + sum_j(dn_j * x_j) * dr/dx_i
                                           = r * (dn_i - n_i * mean(dn * n))

    dy (..., D) -> dx (..., D), dgain (D,).  Longer x, same n: the part of dn along n is taken out.
    """
    n, r, gain = c_rmsnorm
    dn = gain * dy
    dgain = np.sum((dy * n).reshape(-1, len(gain)), axis=0)
    dx = r * (dn - n * np.mean(dn * n, axis=-1, keepdims=True))
    return dx, dgain


def rope_table(positions, head_dim, theta, dtype):
    """cis_j = exp(i * position * theta^(-2j/K)), or 1 where theta is 0      (B, T) -> (B, T, K/2)

    Fast pairs (small j) tell near positions apart, slow ones far ones.  Angles are float64, as in
    run.c: at position 10^6 a float32 would be off by 0.03.
    """
    exponents = np.arange(0, head_dim, 2) / head_dim
    frequencies = theta**-exponents if theta else 0 * exponents
    cis = np.exp(1j * positions[..., None] * frequencies)
    return cis.astype(np.result_type(dtype, np.complex64))


def rope_forward(x, cis):
    """y_j = x_j * cis_j, where channels 2j and 2j+1 of x are one complex number, x_j

    x (B, T, H, K), cis (B, T, 1, K/2) -> y (B, T, H, K).      Su et al. 2021, arXiv:2104.09864

    The dot product of a query at position s and a key at t then depends on s - t alone: each pair
    of channels adds Re(q * cis(s) * conj(k * cis(t))) = Re(q * conj(k) * cis(s - t)).
    """
    pairs = x.view(cis.dtype)                           # (B, T, H, K/2)
    return (pairs * cis).view(x.dtype), cis


def rope_backward(dy, c_rope):
    """A rotation's transpose is its inverse, the rotation by the conjugate.      dy -> dx, as x"""
    cis = c_rope
    return rope_forward(dy, cis.conj())[0]


def by_head(x, groups):
    """x (B, T, H, K) -> a view (B, G, R, T, K): the R = H/G heads of a group are side by side

    Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245): the R query heads of a group
    share one key/value head.  So queries have R, keys and values 1, and products broadcast.
    """
    B, T, H, K = x.shape
    return x.reshape(B, T, groups, H // groups, K).transpose(0, 2, 3, 1, 4)


def by_time(x):
    """by_head's inverse      x (B, G, R, T, K) -> (B, T, H, K)"""
    B, G, R, T, K = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(B, T, G * R, K)


def transpose(x):
    """x (..., T, K) -> a view (..., K, T)"""
    return x.swapaxes(-1, -2)


def causal_softmax(s):
    """a = e / sum(e),  e = exp(s), over the past      s (..., S, T), the last S of T queries -> a

    Each row is shifted so that its largest score is 0: a is the same, and exp cannot overflow.
    """
    S, T = s.shape[-2:]
    past = np.tri(S, T, T - S, dtype=bool)              # (S, T): query t sees keys 0..t
    scores = np.where(past, s, -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention_forward(q, k, v):
    """y = a @ v,  a = softmax(s),  s = q @ k.T / sqrt(K), each query over itself and the past

    q (B, T, H, K), k, v (B, T, G, K) -> y (B, T, H, K).      Vaswani et al. 2017, arXiv:1706.03762

    The only op that moves anything from one time to another.
    """
    K, groups = k.shape[-1], k.shape[2]
    queries, keys, values = (by_head(x, groups) for x in (q, k, v))     # (B, G, R or 1, T, K)
    s = queries @ transpose(keys) * K**-0.5                             # (B, G, R, T, T)
    a = causal_softmax(s)                                               # rows add up to 1
    y = a @ values                                                      # (B, G, R, T, K)
    return by_time(y), (queries, keys, values, a)


def attention_backward(dy, c_attention):
    """y = a @ v                =>  da = dy @ v.T,  dv = a.T @ dy
    a = exp(s) / sum(exp(s))    =>  da_j/ds_i = a_j * ([i = j] - a_i)
                                =>  ds_i = sum_j da_j * da_j/ds_i = a_i * (da_i - sum_j da_j * a_j)
    s = q @ k.T / sqrt(K)       =>  dq = ds @ k / sqrt(K),  dk = ds.T @ q / sqrt(K)

    dy (B, T, H, K) -> dq (B, T, H, K), dk, dv (B, T, G, K).  The future has a = 0, hence ds = 0.
    """
    queries, keys, values, a = c_attention
    K, groups = keys.shape[-1], keys.shape[1]
    dout = by_head(dy, groups)                                          # (B, G, R, T, K)
    da = dout @ transpose(values)                                       # (B, G, R, T, T)
    ds = a * (da - np.sum(da * a, axis=-1, keepdims=True)) * K**-0.5
    dq = ds @ keys                                                      # (B, G, R, T, K)
    dk = (transpose(ds) @ queries).sum(axis=2, keepdims=True)           # R queries used this key:
    dv = (transpose(a) @ dout).sum(axis=2, keepdims=True)               # their gradients add
    return by_time(dq), by_time(dk), by_time(dv)


def linear_attention_forward(q, k, v):
    """y = a @ v,  a = tril(q @ k.T) / sqrt(K): attention without its softmax      shapes as there

    y_t = q_t @ S_t / sqrt(K), where S_t is the sum of the outer products k_s v_s^T so far: however
    long the sequence, it can remember one K x K matrix per key/value head.
    Katharopoulos et al. 2020, arXiv:2006.16236 (here without feature map and divisor)
    """
    K, groups = k.shape[-1], k.shape[2]
    queries, keys, values = (by_head(x, groups) for x in (q, k, v))     # (B, G, R or 1, T, K)
    a = np.tril(queries @ transpose(keys)) * K**-0.5                    # (B, G, R, T, T)
    return by_time(a @ values), (queries, keys, values, a)


def linear_attention_backward(dy, c_linear_attention):
    """y = a @ v                        =>  da = dy @ v.T,  dv = a.T @ dy
    a = tril(s) / sqrt(K), s = q @ k.T  =>  ds = tril(da) / sqrt(K),  dq = ds @ k,  dk = ds.T @ q
    """
    queries, keys, values, a = c_linear_attention
    K, groups = keys.shape[-1], keys.shape[1]
    dout = by_head(dy, groups)                                          # (B, G, R, T, K)
    ds = np.tril(dout @ transpose(values)) * K**-0.5                    # (B, G, R, T, T)
    dq = ds @ keys
    dk = (transpose(ds) @ queries).sum(axis=2, keepdims=True)
    dv = (transpose(a) @ dout).sum(axis=2, keepdims=True)
    return by_time(dq), by_time(dk), by_time(dv)


def sigmoid(z):
    """1 / (1 + exp(-z)), written with tanh, which cannot overflow, to within 2^-24 in float32"""
    return 0.5 * np.tanh(0.5 * z) + 0.5


def swiglu_forward(gate, up):
    """y = silu(gate) * up,  silu(z) = z * sigmoid(z)      gate, up (N, F) -> y (N, F)

    Shazeer 2020, arXiv:2002.05202
    """
    s = sigmoid(gate)
    return gate * s * up, (gate, up, s)


def swiglu_backward(dy, c_swiglu):
    """y = silu(gate) * up      =>  dup = dy * silu(gate),  dgate = dy * up * silu'(gate)
    s' = s * (1 - s)            =>  silu'(z) = s + z * s' = s + silu(z) * (1 - s)

    dy (N, F) -> dgate, dup (N, F)
    """
    gate, up, s = c_swiglu
    silu = gate * s
    dup = dy * silu
    dgate = dy * up * (s + silu * (1 - s))
    return dgate, dup


def cross_entropy_forward(logits, targets):
    """loss = sum over rows of -log p[target],  p = softmax(logits), in nats

    logits (M, V), targets (M,) -> loss ()
    """
    z = logits - logits.max(axis=-1, keepdims=True)     # p is the same, and exp cannot overflow
    log_p = z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))
    return -np.sum(log_p[np.arange(len(targets)), targets]), (log_p, targets)


def cross_entropy_backward(dloss, c_cross_entropy):
    """-log p_t = log(sum_j exp(z_j)) - z_t      =>  dlogits_i = dloss * (p_i - [i = t])

    since d log(sum_j exp(z_j)) / dz_i = exp(z_i) / sum_j exp(z_j) = p_i.    dloss () -> (M, V)
    """
    log_p, targets = c_cross_entropy
    p = np.exp(log_p)
    one_hot = np.eye(p.shape[1], dtype=p.dtype)[targets]
    return dloss * (p - one_hot)
