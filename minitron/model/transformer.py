"""The transformer: token ids in, logits out, and the gradient back.

Llama-shaped (Touvron et al. 2023, arXiv:2302.13971): RMSNorm before each part, rotary positions,
causal attention, SwiGLU, no biases.  Each backward is its forward read from the bottom to the top.
The dimension key is in ops.py; run.c's forward does the same in C.
"""
import numpy as np

from . import fast, ops


def ops_of(config):
    """The ops as ops.py states them, or with the drop-ins of fast.py: the same up to rounding."""
    return ops if config.plain else fast


def attention_of(config):
    """The forward and the backward of the attention that config names"""
    op = ops_of(config)
    if config.attention == "softmax":
        return op.attention_forward, op.attention_backward
    return op.linear_attention_forward, op.linear_attention_backward


def split_heads(u, time, config):
    """Views of q, k and v in their joint product      u (N, (H+2G)K) -> (B, T, H or G, K) each"""
    H, G, K = config.heads, config.kv_heads, config.head_dim
    heads = u.reshape(-1, time, H + 2 * G, K)
    return heads[:, :, :H], heads[:, :, H:H + G], heads[:, :, H + G:]


def join_heads(*gradients):
    """split_heads' inverse      dq, dk, dv (B, T, H or G, K) -> du (N, (H+2G)K)"""
    B, T = gradients[0].shape[:2]
    return np.concatenate(gradients, axis=2).reshape(B * T, -1)


def halves(w13):
    """Views of the two matrices in w13      (2F, D) -> (F, D) each"""
    F = len(w13) // 2
    return w13[:F], w13[F:]


def block_forward(p, l, x, cis, places, rows, config):
    """Layer l: x + attention(norm(x)), and to that its feed-forward(norm(x)).

    x (N, D); or (V, D), a row per token of the vocabulary, with places (N,), each row's token;
    cis (B or 1, T, 1, K/2); rows (M,) or None -> x (N, D), or (M, D): these rows alone
    """
    op, (attend, _), eps, c = ops_of(config), attention_of(config), config.norm_eps, {}

    # Queries, keys and values of each head, with their positions.
    h, c["norm1"] = op.rmsnorm_forward(x, p.norm1[l], eps)
    u, c["wqkv"] = op.linear_forward(h, p.wqkv[l])                      # (N, (H+2G)K)
    if places is not None:                          # each row so far depends on its token alone
        x, c["places_x"] = op.embedding_forward(places, x)              # (N, D)
        u, c["places_u"] = op.embedding_forward(places, u)              # (N, (H+2G)K)
    q, k, v = split_heads(u, cis.shape[1], config)                      # (B, T, H, K), (B, T, G, K)
    if config.qk_norm:
        q, c["norm_q"] = op.rmsnorm_forward(q, p.norm_q[l], eps)
        k, c["norm_k"] = op.rmsnorm_forward(k, p.norm_k[l], eps)
    q, c["rope_q"] = op.rope_forward(q, cis)
    k, c["rope_k"] = op.rope_forward(k, cis)

    # Attention brings in the past.
    y, c["attention"] = attend(q, k, v)                                 # (B, T, H, K)
    c["shape"] = y.shape
    y = y.reshape(len(x), -1)                                           # (N, HK)
    if rows is not None:                            # nothing after this looks at the other rows
        x, c["rows_x"] = op.rows_forward(x, rows)                       # (M, D)
        y, c["rows_y"] = op.rows_forward(y, rows)                       # (M, HK)
    o, c["wo"] = op.linear_forward(y, p.wo[l])
    x = x + o

    if config.ffn_dim:                              # which looks at each row by itself
        w1, w3 = halves(p.w13[l])                                       # (F, D) each
        h, c["norm2"] = op.rmsnorm_forward(x, p.norm2[l], eps)
        gate, c["w1"] = op.linear_forward(h, w1)                        # (N, F)
        up, c["w3"] = op.linear_forward(h, w3)
        f, c["swiglu"] = op.swiglu_forward(gate, up)
        o, c["w2"] = op.linear_forward(f, p.w2[l])                      # (N, D)
        x = x + o
    return x, c


def block_backward(g, l, dx, config, c):
    """The lines of block_forward from the bottom up; writes layer l of the gradients g.

    dx of block_forward's result -> dx of its x.  Where x went two ways, its gradients add.
    """
    op, (_, attend_backward) = ops_of(config), attention_of(config)

    if config.ffn_dim:
        dw1, dw3 = halves(g.w13[l])                                     # views, to be assigned to
        df, g.w2[l] = op.linear_backward(dx, c["w2"])                   # (N, F)
        dgate, dup = op.swiglu_backward(df, c["swiglu"])
        dh_up, dw3[:] = op.linear_backward(dup, c["w3"])                # (N, D)
        dh_gate, dw1[:] = op.linear_backward(dgate, c["w1"])
        dx_norm, g.norm2[l] = op.rmsnorm_backward(dh_gate + dh_up, c["norm2"])
        dx = dx + dx_norm

    dy, g.wo[l] = op.linear_backward(dx, c["wo"])
    if "rows_y" in c:
        dy = op.rows_backward(dy, c["rows_y"])                          # (N, HK)
        dx = op.rows_backward(dx, c["rows_x"])                          # (N, D)
    dy = dy.reshape(c["shape"])                                         # (B, T, H, K)
    dq, dk, dv = attend_backward(dy, c["attention"])

    dk = op.rope_backward(dk, c["rope_k"])
    dq = op.rope_backward(dq, c["rope_q"])
    if config.qk_norm:
        dk, g.norm_k[l] = op.rmsnorm_backward(dk, c["norm_k"])
        dq, g.norm_q[l] = op.rmsnorm_backward(dq, c["norm_q"])
    du = join_heads(dq, dk, dv)                                         # (N, (H+2G)K)
    if "places_u" in c:
        du = op.embedding_backward(du, c["places_u"])                   # (V, (H+2G)K)
        dx = op.embedding_backward(dx, c["places_x"])                   # (V, D)
    dh, g.wqkv[l] = op.linear_backward(du, c["wqkv"])
    dx_norm, g.norm1[l] = op.rmsnorm_backward(dh, c["norm1"])
    return dx + dx_norm


def model_forward(p, config, tokens, rows, positions=None):
    """Logits at the given rows

    tokens (B, T) int, rows (M,) ascending indices into the N = B*T rows,
    positions (B, T) int, or None for 0..T-1 -> logits (M, V)

    Two layers do less than all rows.  The first computes q, k and v of each token of a small
    vocabulary once; the last leaves out the rows that are not scored, after its attention.
    """
    op, N = ops_of(config), tokens.size
    if positions is None:
        positions = np.arange(tokens.shape[1])[None]
    cis = op.rope_table(positions, config.head_dim, config.rope_theta, p.flat.dtype)
    cis = cis[:, :, None]                                               # the same for each head

    tokens, places = tokens.ravel(), None
    if config.vocab < N:
        tokens, places = np.arange(config.vocab), tokens
    x, c_embed = op.embedding_forward(tokens, p.embed)                  # (N, D) or (V, D)
    c_blocks = []
    for l in range(config.layers):
        first, last = l == 0, l == config.layers - 1
        x, c_block = block_forward(p, l, x, cis, places if first else None,
                                   rows if last and len(rows) < N else None, config)
        c_blocks.append(c_block)
    h, c_norm = op.rmsnorm_forward(x, p.norm_f, config.norm_eps)        # (M, D)
    logits, c_head = op.linear_forward(h, p.embed if config.tied else p.head)
    return logits, (c_embed, c_blocks, c_norm, c_head)


def model_backward(g, config, dlogits, cache):
    """dlogits (M, V) -> all of g.  Every tensor is assigned: calling twice gives the same."""
    op = ops_of(config)
    c_embed, c_blocks, c_norm, c_head = cache
    dh, dhead = op.linear_backward(dlogits, c_head)
    dx, g.norm_f[:] = op.rmsnorm_backward(dh, c_norm)
    for l in reversed(range(config.layers)):
        dx = block_backward(g, l, dx, config, c_blocks[l])
    g.embed[:] = op.embedding_backward(dx, c_embed)
    if config.tied:
        g.embed += dhead                    # one tensor in two places: its gradients add
    else:
        g.head[:] = dhead


def loss_and_gradients(p, g, config, inputs, targets, weight, positions=None):
    """`weight` times the sum of the scored tokens' losses, in nats; fills g with its gradient.

    inputs, targets (B, T) int; a target of -1 is not scored.
    -> loss (), the number of scored tokens whose most likely prediction is right
    """
    op = ops_of(config)
    rows = np.flatnonzero(targets.ravel() >= 0)                         # (M,)
    answers = targets.ravel()[rows]
    weight = float(weight)              # a NumPy float64 would make all gradients float64
    logits, cache = model_forward(p, config, inputs, rows, positions)
    loss, c_loss = op.cross_entropy_forward(logits, answers)
    dlogits = op.cross_entropy_backward(weight, c_loss)
    model_backward(g, config, dlogits, cache)
    return weight * float(loss), int(np.sum(logits.argmax(axis=-1) == answers))


def logits(p, config, tokens, positions=None):
    """tokens (B, T) -> logits (B, T, V): the NumPy twin of Engine.logits"""
    tokens = np.asarray(tokens)
    rows = np.arange(tokens.size)
    return model_forward(p, config, tokens, rows, positions)[0].reshape(*tokens.shape, -1)
