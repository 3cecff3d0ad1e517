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
    linear_attention_backward,
    linear_attention_forward,
    linear_backward,
    linear_forward,
    rmsnorm_backward,
    rmsnorm_forward,
    rope_backward,
    rope_forward,
    rope_table,
    swiglu_backward,
    swiglu_forward,
)

ATTENTION_FORWARD = {"softmax": attention_forward, "linear": linear_attention_forward}
ATTENTION_BACKWARD = {"softmax": attention_backward, "linear": linear_attention_backward}


def split_heads(u, config, batch):
    """Views of q, k and v in their fused product: u (N, (H+2G)K) -> q (B, H, T, K), k, v (B, G, T, K)"""
    H, G, K = config.heads, config.kv_heads, config.head_dim
    u = u.reshape(batch, -1, H + 2 * G, K).swapaxes(1, 2)
    return u[:, :H], u[:, H:H + G], u[:, H + G:]


def block_forward(p, l, x, config, cis, batch):
    """Layer l: x plus what attention brings from the past, plus what the feed-forward makes of it.

    x (N, D), cis (B, 1, T, K/2) or None for no positions -> x (N, D)
    """
    c = {}
    n, c["norm1"] = rmsnorm_forward(x, p.norm1[l], config.norm_eps)
    u, c["wqkv"] = linear_forward(n, p.wqkv[l])
    q, k, v = split_heads(u, config, batch)
    if config.qk_norm:
        q, c["norm_q"] = rmsnorm_forward(q, p.norm_q[l], config.norm_eps)
        k, c["norm_k"] = rmsnorm_forward(k, p.norm_k[l], config.norm_eps)
    if cis is not None:
        q, c["rope"] = rope_forward(q, cis)
        k, _ = rope_forward(k, cis)
    y, c["attention"] = ATTENTION_FORWARD[config.attention](q, k, v)
    y = y.swapaxes(1, 2).reshape(len(x), -1)                # (B, H, T, K) -> (N, HK)
    o, c["wo"] = linear_forward(y, p.wo[l])
    x = x + o
    if config.ffn_dim:
        n, c["norm2"] = rmsnorm_forward(x, p.norm2[l], config.norm_eps)
        u, c["w13"] = linear_forward(n, p.w13[l])
        h, c["swiglu"] = swiglu_forward(u)
        o, c["w2"] = linear_forward(h, p.w2[l])
        x = x + o
    return x, c


def block_backward(g, l, dx, config, batch, c):
    """The lines of block_forward from the bottom up.  Writes layer l of the gradients g, returns dx (N, D)."""
    if config.ffn_dim:
        dh, g.w2[l] = linear_backward(dx, c["w2"])
        du = swiglu_backward(dh, c["swiglu"])
        dn, g.w13[l] = linear_backward(du, c["w13"])
        dr, g.norm2[l] = rmsnorm_backward(dn, c["norm2"])
        dx = dx + dr                                        # x went on unchanged and into the norm: both gradients add
    dy, g.wo[l] = linear_backward(dx, c["wo"])
    dy = dy.reshape(batch, -1, config.heads, config.head_dim).swapaxes(1, 2)
    dq, dk, dv = ATTENTION_BACKWARD[config.attention](dy, c["attention"])
    if "rope" in c:
        dq = rope_backward(dq, c["rope"])
        dk = rope_backward(dk, c["rope"])
    if config.qk_norm:
        dq, g.norm_q[l] = rmsnorm_backward(dq, c["norm_q"])
        dk, g.norm_k[l] = rmsnorm_backward(dk, c["norm_k"])
    du = np.concatenate([dq, dk, dv], axis=1).swapaxes(1, 2).reshape(len(dx), -1)
    dn, g.wqkv[l] = linear_backward(du, c["wqkv"])
    dr, g.norm1[l] = rmsnorm_backward(dn, c["norm1"])
    return dx + dr


def model_forward(p, config, tokens, rows, positions=None):
    """Logits at the chosen rows only: a row that is not scored needs no product with the whole vocabulary.

    tokens (B, T) int, rows (M,) indices into the N = B*T rows, positions (B, T) int or None for 0..T-1 -> logits (M, V)
    """
    batch, time = tokens.shape
    cis = None
    if config.rope_theta:
        if positions is None:
            positions = np.arange(time)[None]
        cis = rope_table(positions, config.head_dim, config.rope_theta, p.flat.dtype)
    x, c_embed = embedding_forward(tokens.ravel(), p.embed)
    c_blocks = []
    for l in range(config.layers):
        x, c_block = block_forward(p, l, x, config, cis, batch)
        c_blocks.append(c_block)
    n, c_norm_f = rmsnorm_forward(x[rows], p.norm_f, config.norm_eps)
    logits, c_head = linear_forward(n, p.embed if config.tied else p.head)
    return logits, (c_embed, c_blocks, c_norm_f, c_head, rows, batch, x.shape)


def model_backward(g, config, dlogits, cache):
    """dlogits (M, V) -> all of g.  Every tensor is assigned, not added to, so calling twice gives the same."""
    c_embed, c_blocks, c_norm_f, c_head, rows, batch, shape = cache
    dn, dhead = linear_backward(dlogits, c_head)
    dx_rows, g.norm_f[:] = rmsnorm_backward(dn, c_norm_f)
    dx = np.zeros(shape, dlogits.dtype)
    dx[rows] = dx_rows
    for l in reversed(range(config.layers)):
        dx = block_backward(g, l, dx, config, batch, c_blocks[l])
    g.embed[:] = embedding_backward(dx, c_embed)
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


def train_flops(config, inputs, targets):
    """FLOPs of one training step: 2 a multiply-add, the backward twice the forward.      inputs, targets (B, T)

    Matrix products only.  Attention counts as causal, (T+1)/2 keys a query on average; the head only where it is scored.
    """
    c, T = config, inputs.shape[1]
    q_width, kv_width = c.heads * c.head_dim, c.kv_heads * c.head_dim
    layer = c.dim * (2 * q_width + 2 * kv_width + 3 * c.ffn_dim) + 2 * q_width * (T + 1) / 2
    return 3 * 2 * (inputs.size * c.layers * layer + np.count_nonzero(targets >= 0) * c.vocab * c.dim)
