"""Every operation of the model, each as a pair: forward, and beside it the gradient written out by hand.

    y, c_op = op_forward(x, ...)        c_op is the cache: what the backward needs to know of the forward
    dx, ... = op_backward(dy, c_op)     dx is the gradient of the loss by x; dy, the gradient by y, comes in

Dimension key, used everywhere, in Python and in run.c:

    B batch   T time   D dim   H heads   G key/value heads   K head width   F feed-forward width
    L layers  V vocabulary     N = B*T rows                  M scored rows

All ops are pure functions: nothing is stored on the side, and no input or cache is changed, so that a backward can be called
twice.  No op names a dtype: float64 arrays go in for the gradient checks, float32 for training.  That is why a scale
is written `* K**-0.5` and never `/ np.sqrt(K)`: the first is a Python float, which leaves float32 alone, the
second a NumPy float64, which would turn a whole attention into float64.

The residual stream is kept as N rows, not as (B, T, D): one large matrix product is faster than B small ones, and only
attention has to know which row belongs to which sequence.

Beside the matrix products, what costs time is going over memory.  Hence three habits; docs/speed.md has what each is worth, and
tests/slow_ops.py has the ops without them, in the plainest form.
1.  An array that an op has made itself it goes on changing in place.
2.  NumPy goes over a slice, or repeats one number along a short row, at a third of the speed that it has on whole arrays.  Matrix
    products do not mind slices, and a product with a matrix of zeros and ones sums or repeats faster than NumPy does.
3.  The smaller of two factors is the one to be changed: a norm's gain goes into the weights, not into all the rows.
"""
from functools import lru_cache

import numpy as np

ONE_HOT = 256       # the largest vocabulary whose gradient is summed by a product with a one-hot matrix
BLOCK = 64          # queries that attention treats at a time
SAFE = 40           # exp of -SAFE to SAFE is far from both ends of float32


def shared(make):
    """Keep what `make` returns, by its arguments, and hand out the same array, read-only."""
    @lru_cache(maxsize=64)
    def made(*arguments):
        array = make(*arguments)
        array.flags.writeable = False
        return array
    return made


@shared
def ones(size, dtype):
    """(size,) of 1.  x @ ones sums the rows of x, at two to six times the speed of x.sum(axis=-1)."""
    return np.ones(size, dtype)


@shared
def repeat(heads, width, dtype):
    """(H, HK) of 0 and 1.  x (N, H) @ repeat writes each head's number K times; x (N, HK) @ repeat.T sums each head."""
    return np.kron(np.eye(heads, dtype=dtype), np.ones((1, width), dtype))


@shared
def past(start, stop, dtype):
    """(stop - start, stop) of 1 where a query of start..stop-1 (row) may look, at itself and the past, and 0 where not."""
    return np.tril(np.ones((stop, stop), dtype))[start:].copy()


def embedding_forward(tokens, w):
    """x = w[tokens]      tokens (N,), w (V, D) -> x (N, D)"""
    return w.take(tokens, axis=0), (tokens, len(w))


def embedding_backward(dx, c_embedding):
    """dx (N, D) -> dw (V, D): a row of w gets the sum of dx over all places where its token stands.

    The one-hot matrix of the tokens does that in a product, 2NVD FLOPs that are cheap while V is small.  Where it is not, sorting
    the places by token makes each sum one contiguous run, which reduceat adds up.  np.add.at is several times slower than both.
    """
    tokens, vocab = c_embedding
    if vocab <= ONE_HOT:
        one_hot = np.zeros((vocab, len(tokens)), dx.dtype)
        one_hot[tokens, np.arange(len(tokens))] = 1
        return one_hot @ dx
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


def norm_linear_forward(x, gain, w, eps):
    """y = (gain * n) @ w.T with n = x / sqrt(mean(x^2) + eps)      x (N, D), gain (D,), w (O, D) -> y (N, O)

    RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467) and the linear map behind it in one, so that the gain can be multiplied
    into w.  w may also be a stack of matrices (S, O, D); y is then (S, N, O).
    """
    mean = (x * x) @ ones(x.shape[1], x.dtype) * (1 / x.shape[1])
    r = 1 / np.sqrt(mean + eps)
    n = x * r[:, None]
    scaled = w * gain
    return n @ scaled.swapaxes(-1, -2), (n, r, gain, w, scaled)


def norm_linear_backward(dy, c_norm_linear):
    """dy (N, O) or (S, N, O) -> dx (N, D), dgain (D,), dw of w's shape

    dx = r * (dn - n * mean(dn * n)).  The second term is dr/dx = -r^3 * x / D at work.  Scaling x leaves n alone (but for
    eps), so the part of dn along n goes.
    """
    n, r, gain, w, scaled = c_norm_linear
    D = len(gain)
    dn = dy @ scaled
    if dy.ndim == 3:
        dn = dn.sum(axis=0)
    along = (dn * n) @ ones(D, dy.dtype) * (-1 / D)
    dn += n * along[:, None]
    dn *= r[:, None]
    dscaled = dy.swapaxes(-1, -2) @ n
    dgain = np.einsum("od,od->d", dscaled.reshape(-1, D), w.reshape(-1, D))
    dscaled *= gain
    return dn, dgain, dscaled


def head_norm_forward(x, gain, eps):
    """y = gain * x / sqrt(mean(x^2) + eps), the mean over each head      x (..., HK), gain (K,) -> y (..., HK)

    For queries and keys (Henry et al. 2020, arXiv:2010.04245): their products then cannot grow without bound.
    """
    K = len(gain)
    spread = repeat(x.shape[-1] // K, K, x.dtype)
    x = np.ascontiguousarray(x)
    r = 1 / np.sqrt((x * x) @ spread.T * (1 / K) + eps)
    r = r @ spread
    n = x * r
    return n * np.tile(gain, len(spread)), (n, r, gain)


def head_norm_backward(dy, c_head_norm):
    """dy (..., HK) -> dx (..., HK), dgain (K,).      As in norm_linear_backward, with dn = gain * dy."""
    n, r, gain = c_head_norm
    K = len(gain)
    spread, gains = repeat(n.shape[-1] // K, K, n.dtype), np.tile(gain, n.shape[-1] // K)
    product = dy * n
    dgain = np.sum(product.reshape(-1, K), axis=0)
    along = product @ (spread * gains).T * (-1 / K)
    dx = np.multiply(n, along @ spread, out=product)
    dx += dy * gains
    dx *= r
    return dx, dgain


def rope_table(positions, head_dim, theta, dtype):
    """cis = exp(i * position * theta^(-2j/K)) for j = 0..K/2-1, or 1 where theta is 0.      positions (B, T) -> (B, T, K/2)

    Slow pairs (large j) tell far positions apart, fast ones near ones.  Computed in float64, as run.c does.
    """
    frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim) if theta else np.zeros(head_dim // 2)
    return np.exp(1j * positions[..., None] * frequencies).astype(np.result_type(dtype, np.complex64))


def rope_forward(x, cis):
    """Rotary positions: channels (2j, 2j+1) of x are one complex number, and it is turned by cis[j].

    x (B, T, HK), cis (B, T, HK/2): a head's table once for each head -> y (B, T, HK).      Su et al. 2021, arXiv:2104.09864

    The product of a query at position s and a key at position t then depends on s - t only.  A table may carry a scale as well:
    that of the queries has softmax's 1/sqrt(K) in it.
    """
    return np.multiply(x.view(cis.dtype), cis).view(x.dtype), cis


def rope_backward(dy, c_rope):
    """dy (B, T, HK) -> dx (B, T, HK).   A rotation's transpose turns back: the same product with the conjugate."""
    return rope_forward(dy, c_rope.conj())[0]


def by_head(x, groups):
    """x (B, T, H, K) -> its view (B, G, H/G, T, K)

    The queries of all heads that share a key/value head stand together.  Grouped-query attention (Ainslie et al. 2023,
    arXiv:2305.13245) then is ordinary attention, in which keys and values have a 1 in place of H/G.
    """
    B, T, H, K = x.shape
    return x.reshape(B, T, groups, H // groups, K).transpose(0, 2, 3, 1, 4)


def query_blocks(time):
    """(start, stop) of blocks of equal size, at most BLOCK, that cover 0..T-1; all in one where T has no fitting divisor."""
    size = next((size for size in range(BLOCK, BLOCK // 4, -1) if time % size == 0), time)
    return [(start, start + size) for start in range(0, time, size)]


def transposed(x, more=0):
    """A copy (..., K + more, T) of x (..., T, K), `more` rows left open.

    BLAS's small products take up to twice as long where the second factor is a transposed view.  The copy goes block by block:
    rows a power of two apart share a few lines of the cache, and 256 of them push each other out.
    """
    *batch, T, K = x.shape
    out = np.empty((*batch, K + more, T), x.dtype)
    for start, stop in query_blocks(T):
        out[..., :K, start:stop] = x[..., start:stop, :].swapaxes(-1, -2)
    return out


def is_safe(s):
    """Whether softmax of s needs no shift.  False where there is a NaN, which then stays one.

    exp overflows above 88 in float32, and a row below -87 would all become 0.  Softmax guards against both by subtracting each
    row's maximum, which takes ten times as long as finding out, in two quick passes, that there is nothing to guard against.
    """
    return s.size == 0 or -SAFE < s.min() and s.max() < SAFE


def exp_of_past(s, start, stop):
    """exp(s) over the past, 0 over the future, in place; each row is scaled alike, which softmax does not notice.

    s (..., stop - start, stop)
    """
    mask = past(start, stop, s.dtype)
    if not is_safe(s):
        s[..., mask == 0] = -np.inf
        s -= s.max(axis=-1, keepdims=True)
    np.exp(s, out=s)
    s *= mask
    return s


def attention_forward(q, k, v):
    """y = softmax(q @ k.T) @ v, over the past only.      q (B, T, H, K), k, v (B, T, G, K) -> y (B, T, H, K)

    The only op that moves anything from one time to another.      Vaswani et al. 2017, arXiv:1706.03762

    softmax is e / total with e = exp(q @ k.T).  The division is done on y, which is smaller than e.  A block of queries does
    not look past its own end, so most of what the mask would hide is not even computed.
    """
    B, T, H, K = q.shape
    G = k.shape[2]
    queries, keys_t, values = by_head(q, G), transposed(by_head(k, G)), by_head(v, G)
    y, total = np.empty(q.shape, q.dtype), np.empty((B, T, H), q.dtype)
    outputs, totals = by_head(y, G), by_head(total[..., None], G)
    exps = []
    for start, stop in query_blocks(T):
        e = exp_of_past(queries[..., start:stop, :] @ keys_t[..., :stop], start, stop)
        np.matmul(e, values[..., :stop, :], out=outputs[..., start:stop, :])
        totals[..., start:stop, 0] = (e.reshape(-1, stop) @ ones(stop, q.dtype)).reshape(e.shape[:-1])
        exps.append(e)
    inverse = 1 / total
    y *= (inverse @ repeat(H, K, q.dtype)).reshape(y.shape)
    return y, (q, k, v, y, exps, inverse)


def attention_backward(dy, c_attention):
    """dy (B, T, H, K) -> dq (B, T, H, K), dk, dv (B, T, G, K)

    With a = e / total, y = a @ v is linear in both:  dv = a.T @ dy,  da = dy @ v.T.
    Softmax:  ds = a * (da - sum(da * a)), and that sum over T is sum(dy * y) over K, since y = a @ v.
    s = q @ k.T is linear in both again.  Where the mask was, e is 0, and so is ds.

    Dividing dy once leaves e in place of a:  ds = e * (dy/total @ v.T - sum(dy * y)/total).  The difference costs no pass of its
    own, since it is one product: [dy/total, -sum(dy * y)/total] @ [v, 1].T.
    """
    q, k, v, y, exps, inverse = c_attention
    (B, T, H, K), G = q.shape, k.shape[2]
    spread = repeat(H, K, q.dtype)
    row_sums = (dy * y).reshape(B, T, H * K) @ spread.T
    row_sums *= -inverse
    left = np.empty((B, G, H // G, T, K + 1), q.dtype)
    left[..., :K] = by_head(dy * (inverse @ spread).reshape(dy.shape), G)
    left[..., K:] = by_head(row_sums[..., None], G)
    right = transposed(by_head(v, G), more=1)
    right[..., K, :] = 1
    queries, keys, dq = by_head(q, G), by_head(k, G), np.empty(q.shape, q.dtype)
    dk, dv = empty_by_block(k.shape, k.dtype), empty_by_block(v.shape, v.dtype)
    for (start, stop), e in zip(reversed(query_blocks(T)), reversed(exps)):
        ds = left[..., start:stop, :] @ right[..., :stop]
        ds *= e
        np.matmul(ds, keys[..., :stop, :], out=by_head(dq, G)[..., start:stop, :])
        add_product(dk, ds, queries[..., start:stop, :])
        add_product(dv, e, left[..., start:stop, :K])
    return dq, join_blocks(dk), join_blocks(dv)


def empty_by_block(shape, dtype):
    """Room for (B, T, G, K) numbers as (J, B, G, S, K), the J blocks of queries in front: some blocks are one piece of memory."""
    B, T, G, K = shape
    J = len(query_blocks(T))
    if J == 1:
        return np.empty(shape, dtype).transpose(0, 2, 1, 3)[None]       # nothing to move in the end
    return np.empty((J, B, G, T // J, K), dtype)


def add_product(total, s, x):
    """total = s.T @ x, summed over the heads that share, where s has all keys, as in the first call; and += where it has less.

    s (B, G, H/G, S, T'), x (B, G, H/G, S, K), total (J, B, G, S, K), of which the blocks that make T' change
    """
    J, B, G, S, K = total.shape
    s = np.moveaxis(s.reshape(*s.shape[:-1], -1, S), 4, 0).swapaxes(-1, -2)
    if len(s) == J and s.shape[3] == 1:
        np.matmul(s[:, :, :, 0], x[:, :, 0], out=total)
        return
    product = s @ x
    product = product.sum(axis=3) if s.shape[3] > 1 else product[:, :, :, 0]
    if len(s) == J:
        total[...] = product
    else:
        total[:len(s)] += product


def join_blocks(x):
    """x (J, B, G, S, K) -> (B, J * S, G, K)"""
    J, B, G, S, K = x.shape
    return x.transpose(1, 0, 3, 2, 4).reshape(B, J * S, G, K)


def linear_attention_forward(q, k, v):
    """y = tril(q @ k.T) @ v: attention with its softmax left out.      Shapes as in attention_forward.

    Then y_t = q_t @ S_t, with S_t the sum of the outer products k_s v_s^T so far: all it can remember is one K x K matrix a
    key/value head, however long the sequence.

    Katharopoulos et al. 2020, arXiv:2006.16236 (here without feature map and divisor)
    """
    T, G = q.shape[1], k.shape[2]
    s = by_head(q, G) @ by_head(k, G).swapaxes(-1, -2)
    s *= past(0, T, q.dtype)
    y = np.empty(q.shape, q.dtype)
    np.matmul(s, by_head(v, G), out=by_head(y, G))
    return y, (q, k, v, s)


def linear_attention_backward(dy, c_linear_attention):
    """dy (B, T, H, K) -> dq (B, T, H, K), dk, dv (B, T, G, K).      Three linear maps: ds = tril(dy @ v.T), no softmax."""
    q, k, v, s = c_linear_attention
    T, G = q.shape[1], k.shape[2]
    ds = by_head(dy, G) @ by_head(v, G).swapaxes(-1, -2)
    ds *= past(0, T, q.dtype)
    dq = np.empty(q.shape, q.dtype)
    np.matmul(ds, by_head(k, G), out=by_head(dq, G))
    dk = (ds.swapaxes(-1, -2) @ by_head(q, G)).sum(axis=2)
    dv = (s.swapaxes(-1, -2) @ by_head(dy, G)).sum(axis=2)
    return dq, dk.swapaxes(1, 2), dv.swapaxes(1, 2)


def swiglu_forward(u):
    """y = silu(gate) * up, silu(z) = z / (1 + exp(-z))      u (2, N, F) = [gate, up] -> y (N, F)

    Shazeer 2020, arXiv:2002.05202.   The sigmoid is written with tanh, which cannot overflow and takes half the time of exp.
    """
    gate, up = u
    s = np.tanh(0.5 * gate)
    s *= 0.5
    s += 0.5
    y = gate * s
    y *= up
    return y, (gate, up, s)


def swiglu_backward(dy, c_swiglu):
    """dy (N, F) -> du (2, N, F)

    silu(z) = z*s with s' = s*(1 - s), so silu'(z) = s + silu(z) * (1 - s).  With dup = dy * silu at hand,
    dgate = dy * up * silu' = ((dy - dup) * s + dup) * up, which takes fewer passes.
    """
    gate, up, s = c_swiglu
    du = np.empty((2, *dy.shape), dy.dtype)
    dgate, dup = du
    np.multiply(gate, s, out=dup)
    dup *= dy
    np.subtract(dy, dup, out=dgate)
    dgate *= s
    dgate += dup
    dgate *= up
    return du


def cross_entropy_forward(logits, targets):
    """loss = sum over rows of -log softmax(logits)[target], in nats      logits (M, V), targets (M,) -> loss ()"""
    z = logits if is_safe(logits) else logits - logits.max(axis=-1, keepdims=True)
    e = np.exp(z)
    total = e @ ones(z.shape[1], z.dtype)
    loss = np.sum(np.log(total)) - np.sum(z[np.arange(len(z)), targets])
    return loss, (e, total, targets)


def cross_entropy_backward(dloss, c_cross_entropy):
    """dloss () -> dlogits (M, V).      d(log sum exp)/dz is the softmax, and -z[target] gives -1 at the target."""
    e, total, targets = c_cross_entropy
    dlogits = e * (dloss / total)[:, None]
    dlogits[np.arange(len(e)), targets] -= dloss
    return dlogits
