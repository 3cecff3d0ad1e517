"""The same model, loss and AdamW in PyTorch and in JAX, as their users would write them for a CPU.

A peer is made from a shape, the weights that minitron starts from, {name: array}, and a batch.  It
is a function step() that trains one step and returns the loss before it.  PyTorch uses
scaled_dot_product_attention, rms_norm and fused AdamW.
"""
import numpy as np

LR, BETA1, BETA2, EPS, DECAY = 1e-3, 0.9, 0.99, 1e-8, 0.01


def angles(shape):
    """(T, K/2)"""
    K = shape.dim // shape.heads
    return np.arange(shape.time)[:, None] * 10000.0 ** (-np.arange(0, K, 2) / K)


def torch_loss(shape, p, compiled):
    """loss(inputs, targets) of parameters p: name -> tensors, one per layer or a single one"""
    import torch
    import torch.nn.functional as F

    s = shape
    K = s.dim // s.heads
    table = torch.tensor(angles(s))
    cis = torch.polar(torch.ones_like(table), table).to(torch.complex64)
    cos, sin = table.cos().float(), table.sin().float()

    def rope(x):        # (B, H, T, K)
        # Complex numbers are faster in eager mode, and torch.compile does not compile them.
        pairs = x.reshape(*x.shape[:-1], K // 2, 2)
        if not compiled:
            return torch.view_as_real(torch.view_as_complex(pairs) * cis).flatten(-2)
        a, b = pairs.unbind(-1)
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)

    def loss(inputs, targets):
        x = F.embedding(inputs, p["embed"][0])
        for l in range(s.layers):
            n = F.rms_norm(x, (s.dim,), p["norm1"][l], 1e-5)
            u = F.linear(n, p["wqkv"][l]).view(s.batch, s.time, 3, s.heads, K)
            q, k, v = u.permute(2, 0, 3, 1, 4)                  # (B, H, T, K)
            if s.qk_norm:
                q = F.rms_norm(q, (K,), p["norm_q"][l], 1e-5)
                k = F.rms_norm(k, (K,), p["norm_k"][l], 1e-5)
            y = F.scaled_dot_product_attention(rope(q), rope(k), v, is_causal=True)
            x = x + F.linear(y.transpose(1, 2).reshape(s.batch, s.time, s.dim), p["wo"][l])
            n = F.rms_norm(x, (s.dim,), p["norm2"][l], 1e-5)
            gate, up = F.linear(n, p["w13"][l]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, p["w2"][l])
        logits = F.linear(F.rms_norm(x, (s.dim,), p["norm_f"][0], 1e-5), p["embed"][0])
        return F.cross_entropy(logits.view(-1, s.vocab), targets.view(-1))

    return loss


def torch_step(shape, weights, inputs, targets, compiled):
    import torch

    def parameters(name, tensor):
        layers = tensor if tensor.ndim > 2 or name in shape.per_layer else [tensor]
        return [torch.nn.Parameter(torch.tensor(w)) for w in layers]

    p = {name: parameters(name, tensor) for name, tensor in weights.items()}
    norms = [w for name, tensors in p.items() for w in tensors if name.startswith("norm")]
    matrices = [w for name, tensors in p.items() for w in tensors if not name.startswith("norm")]
    groups = [{"params": norms, "weight_decay": 0}, {"params": matrices, "weight_decay": DECAY}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(BETA1, BETA2), eps=EPS, fused=True)
    inputs, targets = torch.tensor(inputs), torch.tensor(targets)
    forward = torch_loss(shape, p, compiled)
    if compiled:
        forward = torch.compile(forward)

    def step():
        optimizer.zero_grad()
        value = forward(inputs, targets)
        value.backward()
        optimizer.step()
        return value.item()

    return step


def torch_eager(shape, weights, inputs, targets):
    return torch_step(shape, weights, inputs, targets, compiled=False)


def torch_compile(shape, weights, inputs, targets):
    return torch_step(shape, weights, inputs, targets, compiled=True)


def jax_loss(shape):
    """loss(p, inputs, targets) of parameters p: name -> array"""
    import jax
    import jax.numpy as jnp

    s = shape
    K = s.dim // s.heads
    table = angles(s)[:, None]                                  # (T, 1, K/2)
    cos, sin = jnp.cos(table).astype(jnp.float32), jnp.sin(table).astype(jnp.float32)
    future = jnp.triu(jnp.full((s.time, s.time), -jnp.inf, jnp.float32), 1)

    def norm(x, w):
        return w * x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5)

    def rope(x):        # (B, T, H, K)
        a, b = x[..., 0::2], x[..., 1::2]
        return jnp.stack((a * cos - b * sin, a * sin + b * cos), -1).reshape(x.shape)

    def loss(p, inputs, targets):
        x = p["embed"][inputs]
        for l in range(s.layers):
            u = (norm(x, p["norm1"][l]) @ p["wqkv"][l].T).reshape(s.batch, s.time, 3, s.heads, K)
            q, k, v = u[:, :, 0], u[:, :, 1], u[:, :, 2]
            if s.qk_norm:
                q, k = norm(q, p["norm_q"][l]), norm(k, p["norm_k"][l])
            scores = jnp.einsum("bqhk,bthk->bhqt", rope(q), rope(k)) * K**-0.5
            a = jax.nn.softmax(scores + future)
            x = x + jnp.einsum("bhqt,bthk->bqhk", a, v).reshape(x.shape) @ p["wo"][l].T
            gate, up = jnp.split(norm(x, p["norm2"][l]) @ p["w13"][l].T, 2, -1)
            x = x + (jax.nn.silu(gate) * up) @ p["w2"][l].T
        logp = jax.nn.log_softmax(norm(x, p["norm_f"]) @ p["embed"].T)
        return -jnp.mean(jnp.take_along_axis(logp, targets[..., None], -1))

    return loss


def jax_jit(shape, weights, inputs, targets):
    import jax
    import jax.numpy as jnp

    loss = jax_loss(shape)

    def train(p, m, v, t, inputs, targets):
        value, g = jax.value_and_grad(loss)(p, inputs, targets)
        for name in p:
            m[name] = BETA1 * m[name] + (1 - BETA1) * g[name]
            v[name] = BETA2 * v[name] + (1 - BETA2) * g[name] ** 2
            update = m[name] / (1 - BETA1**t) / (jnp.sqrt(v[name] / (1 - BETA2**t)) + EPS)
            decay = 0 if name.startswith("norm") else DECAY
            p[name] = p[name] - LR * (update + decay * p[name])
        return value, p, m, v

    train = jax.jit(train, donate_argnums=(0, 1, 2))
    p = {name: jnp.asarray(w) for name, w in weights.items()}
    m, v = ({name: jnp.zeros_like(w) for name, w in p.items()} for _ in range(2))
    state, steps = [p, m, v], iter(range(1, 10**9))
    inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)

    def step():
        value, *state[:] = train(*state, float(next(steps)), inputs, targets)
        return float(value)

    return step
