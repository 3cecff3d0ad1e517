"""The transformer: token ids in, logits out, and the way back.

Llama-shaped (Touvron et al. 2023, arXiv:2302.13971): RMSNorm before each part, rotary positions, causal attention,
SwiGLU, no biases.  block_backward is block_forward read from the bottom to the top.  The dimension key is in ops.py;
run.c's forward does the same in C.
"""
import numpy as np

from .ops import (
    attention_backward,
    attention_forward,
    cross_entropy_backward,
    cross_entropy_forward,
    embedding_backward,
    embedding_forward,
    head_norm_backward,
    head_norm_forward,
    linear_attention_backward,
    linear_attention_forward,
    linear_backward,
    linear_forward,
    norm_linear_backward,
    norm_linear_forward,
    rope_backward,
    rope_forward,
    rope_table,
    swiglu_backward,
    swiglu_forward,
)

ATTENTION_FORWARD = {"softmax": attention_forward, "linear": linear_attention_forward}
ATTENTION_BACKWARD = {"softmax": attention_backward, "linear": linear_attention_backward}


def split_heads(u, config):
    """Views of q, k and v in their fused product: u (N, (H+2G)K) -> q (N, HK), k, v (N, GK)"""
    q_width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return u[..., :q_width], u[..., q_width:q_width + kv_width], u[..., q_width + kv_width:]


def gate_and_up(w13):
    """The two matrices in w13: (2F, D) -> (2, F, D), a view"""
    return w13.reshape(2, -1, w13.shape[1])


def rope_tables(config, positions, dtype):
    """rope_forward's tables for q, which also scales by K^-0.5, and for k.      positions (B, T) -> (B, T, HK/2), (B, T, GK/2)"""
    cis = rope_table(positions, config.head_dim, config.rope_theta, dtype)
    return np.tile(cis * config.head_dim**-0.5, config.heads), np.tile(cis, config.kv_heads)


def qkv_forward(p, l, x, config, tokens):
    """Queries, keys and values of layer l, before positions.      x (N, D), tokens (N,) -> q (N, HK), k, v (N, GK)

    In the first layer x is the embedding, so they depend on the token alone: they are computed once for each token of the
    vocabulary, and looked up as the embedding is.
    """
    look_up = l == 0 and config.vocab <= len(tokens)
    u, c_norm_linear = norm_linear_forward(p.embed if look_up else x, p.norm1[l], p.wqkv[l], config.norm_eps)
    q, k, v = split_heads(u, config)
    c_q = c_k = None
    if config.qk_norm:
        q, c_q = head_norm_forward(q, p.norm_q[l], config.norm_eps)
        k, c_k = head_norm_forward(k, p.norm_k[l], config.norm_eps)
    if look_up:
        q, k, v = (h.take(tokens, axis=0) for h in (q, k, v))
    return q, k, v, (c_norm_linear, c_q, c_k, (tokens, config.vocab) if look_up else None)


def qkv_backward(g, l, dq, dk, dv, config, c_qkv):
    """dq (N, HK), dk, dv (N, GK) -> dx (N, D), None; where they were looked up, None and the embedding's gradient (V, D)"""
    c_norm_linear, c_q, c_k, c_embedding = c_qkv
    if c_embedding is not None:
        dq, dk, dv = split_heads(embedding_backward(np.concatenate([dq, dk, dv], axis=-1), c_embedding), config)
    if config.qk_norm:
        dq, g.norm_q[l] = head_norm_backward(dq, c_q)
        dk, g.norm_k[l] = head_norm_backward(dk, c_k)
    dx, g.norm1[l], g.wqkv[l] = norm_linear_backward(np.concatenate([dq, dk, dv], axis=-1), c_norm_linear)
    return (dx, None) if c_embedding is None else (None, dx)


def block_forward(p, l, x, config, cis, tokens, rows):
    """Layer l: x plus what attention brings from the past, plus what the feed-forward makes of it.

    x (N, D), cis: rope_tables, tokens (N,), rows: indices (M,) of those rows that are needed behind this layer, None for all
    -> x (N, D) or (M, D)
    """
    c = {"rows": rows}
    time = cis[0].shape[1]
    q, k, v, c["qkv"] = qkv_forward(p, l, x, config, tokens)
    q, k, v = (h.reshape(-1, time, h.shape[1]) for h in (q, k, v))
    q, c["rope_q"] = rope_forward(q, cis[0])
    k, c["rope_k"] = rope_forward(k, cis[1])
    q, k, v = (h.reshape(-1, time, h.shape[2] // config.head_dim, config.head_dim) for h in (q, k, v))
    y, c["attention"] = ATTENTION_FORWARD[config.attention](q, k, v)
    c["shape"] = y.shape
    y = y.reshape(len(x), -1)
    if rows is not None:
        x, y = x[rows], y[rows]
    o, c["wo"] = linear_forward(y, p.wo[l])
    o += x                                                  # x = x + o, without a third array
    x = o
    if config.ffn_dim:
        u, c["w13"] = norm_linear_forward(x, p.norm2[l], gate_and_up(p.w13[l]), config.norm_eps)
        h, c["swiglu"] = swiglu_forward(u)
        o, c["w2"] = linear_forward(h, p.w2[l])
        o += x
        x = o
    return x, c


def block_backward(g, l, dx, config, c):
    """The lines of block_forward from the bottom up; writes layer l of the gradients g.

    dx (N, D) or (M, D) -> dx (N, D), and the embedding's gradient by way of qkv_forward's table, or None
    """
    if config.ffn_dim:
        dh, g.w2[l] = linear_backward(dx, c["w2"])
        du = swiglu_backward(dh, c["swiglu"])
        dr, g.norm2[l], gate_and_up(g.w13[l])[:] = norm_linear_backward(du, c["w13"])
        dr += dx                                            # x went on unchanged and into the norm: both gradients add
        dx = dr
    dy, g.wo[l] = linear_backward(dx, c["wo"])
    batch, time, *_ = c["shape"]
    if c["rows"] is not None:
        dx, dy = (scatter_rows(d, c["rows"], batch * time) for d in (dx, dy))
    dq, dk, dv = ATTENTION_BACKWARD[config.attention](dy.reshape(c["shape"]), c["attention"])
    dq, dk, dv = (d.reshape(batch, time, -1) for d in (dq, dk, dv))
    dq = rope_backward(dq, c["rope_q"])
    dk = rope_backward(dk, c["rope_k"])
    dq, dk, dv = (d.reshape(batch * time, -1) for d in (dq, dk, dv))
    dr, dembed = qkv_backward(g, l, dq, dk, dv, config, c["qkv"])
    if dr is not None:
        dr += dx
        dx = dr
    return dx, dembed


def scatter_rows(x, rows, size):
    """(size, D) of zeros but for x (M, D) at `rows`: what x[rows] was taken from gets back the gradient of it"""
    out = np.zeros((size, x.shape[1]), x.dtype)
    out[rows] = x
    return out


def model_forward(p, config, tokens, rows, positions=None):
    """Logits at the chosen rows only.  A row that is not scored needs no product with the whole vocabulary, and in the last
    layer, behind attention, it is not needed at all.

    tokens (B, T) int, rows (M,) ascending indices into the N = B*T rows, positions (B, T) int or None for 0..T-1 -> logits (M, V)
    """
    if positions is None:
        positions = np.arange(tokens.shape[1])[None]
    cis = rope_tables(config, positions, p.flat.dtype)
    tokens = tokens.ravel()
    x, c_embedding = embedding_forward(tokens, p.embed)
    c_blocks = []
    for l in range(config.layers):
        chosen = rows if l == config.layers - 1 and len(rows) < len(tokens) else None
        x, c_block = block_forward(p, l, x, config, cis, tokens, chosen)
        c_blocks.append(c_block)
    logits, c_head = norm_linear_forward(x, p.norm_f, p.embed if config.tied else p.head, config.norm_eps)
    return logits, (c_embedding, c_blocks, c_head)


def model_backward(g, config, dlogits, cache):
    """dlogits (M, V) -> all of g.  Every tensor is assigned, not added to, so calling twice gives the same."""
    c_embedding, c_blocks, c_head = cache
    dx, g.norm_f[:], dhead = norm_linear_backward(dlogits, c_head)
    for l in reversed(range(config.layers)):
        dx, dembed = block_backward(g, l, dx, config, c_blocks[l])
    g.embed[:] = embedding_backward(dx, c_embedding)
    if dembed is not None:
        g.embed += dembed
    if config.tied:
        g.embed += dhead            # one tensor in two places: its gradients add
    else:
        g.head[:] = dhead


def loss_and_gradients(p, g, config, inputs, targets, weight, positions=None):
    """Loss of a batch, `weight` times the sum over its scored tokens, in nats; fills g with the gradients of it.

    inputs, targets (B, T) int; a target of -1 is not scored -> loss (), number of scored tokens predicted right
    """
    rows = np.flatnonzero(targets.ravel() >= 0)
    answers = targets.ravel()[rows]
    weight = float(weight)          # a NumPy float64 would turn every gradient of a float32 model into one
    logits, cache = model_forward(p, config, inputs, rows, positions)
    loss, c_loss = cross_entropy_forward(logits, answers)
    model_backward(g, config, cross_entropy_backward(weight, c_loss), cache)
    return weight * float(loss), int(np.sum(logits.argmax(axis=-1) == answers))


def logits(p, config, tokens, positions=None):
    """tokens (B, T) -> logits (B, T, V): the NumPy twin of Engine.logits"""
    tokens = np.asarray(tokens)
    rows = np.arange(tokens.size)
    return model_forward(p, config, tokens, rows, positions)[0].reshape(*tokens.shape, -1)
