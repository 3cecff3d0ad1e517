"""A training step: AdamW equals a second writing of it, shards change only speed, and it learns."""
import math

import numpy as np
import pytest
from helpers import random_config, random_params

from minitron.data.config import Config
from minitron.model.optim import adamw, clip, learning_rate
from minitron.model.params import Params, decay_mask, init
from minitron.model.transformer import loss_and_gradients
from minitron.training.parallel import Workers

STEPS, PEAK, WARMUP, LIMIT, DECAY, BETA1, BETA2 = 100, 0.02, 10, 30.0, 0.1, 0.9, 0.99


# ---- the optimizer -------------------------------------------------------------------------------


def random_gradients(config, steps):
    """A gradient for each step, from tiny to large: two in five over LIMIT."""
    gradients = [random_params(config, step, np.float64) for step in range(steps)]
    for step, g in enumerate(gradients):
        g.flat *= 10.0 ** (step % 5 - 2)
    return gradients


def reference_training(config, p, gradients):
    """AdamW as in Loshchilov & Hutter's algorithm 2, by tensor      p: name -> array, in place"""
    m, v = ({name: np.zeros_like(w) for name, w in p.items()} for _ in range(2))
    clipped = 0
    for step, g in enumerate(gradients, 1):
        length = math.sqrt(sum(float((tensor**2).sum()) for tensor in g.tensors().values()))
        clipped += length > LIMIT
        if step <= WARMUP:
            lr = PEAK * step / WARMUP
        else:
            progress = (step - WARMUP) / (STEPS - WARMUP)
            lr = 0.1 * PEAK + 0.9 * PEAK * math.cos(math.pi / 2 * progress) ** 2
        for name, gradient in g.tensors().items():
            gradient = gradient / max(1, length / LIMIT)
            m[name] = BETA1 * m[name] + (1 - BETA1) * gradient
            v[name] = BETA2 * v[name] + (1 - BETA2) * gradient**2
            update = (m[name] / (1 - BETA1**step)) / ((v[name] / (1 - BETA2**step)) ** 0.5 + 1e-8)
            is_norm = name in ("norm1", "norm2", "norm_q", "norm_k", "norm_f")
            shrink = 0 if is_norm else lr * DECAY
            p[name] = p[name] - shrink * p[name] - lr * update
    return clipped


@pytest.mark.parametrize("seed", range(5))
def test_100_steps_equal_a_second_adamw(seed):
    config = random_config(seed)
    p, m, v = random_params(config, 1000), Params(config, np.float64), Params(config, np.float64)
    reference = {name: tensor.copy() for name, tensor in p.tensors().items()}
    clipped = reference_training(config, reference, random_gradients(config, STEPS))
    assert 0 < clipped < STEPS                      # both sides of the clip are taken
    decay = DECAY * decay_mask(config, np.float64)
    for step, g in enumerate(random_gradients(config, STEPS), 1):
        clip(g.flat, LIMIT)
        lr = learning_rate(step, STEPS, PEAK, WARMUP)
        adamw(p.flat, g.flat, m.flat, v.flat, decay, step, lr, BETA1, BETA2)
    for name, tensor in p.tensors().items():
        np.testing.assert_allclose(tensor, reference[name], rtol=1e-12, atol=1e-13, err_msg=name)


def test_adamw_works_in_place_in_float32():
    vectors = [np.ones(3, np.float32) for _ in range(5)]     # p, g, m, v, decay
    adamw(*vectors, 1, 0.1, BETA1, BETA2)
    # By hand: m and v stay 1, so the step is lr * ((1 / 0.1) / (1 / 0.01)^0.5 + 1), twice lr.
    np.testing.assert_allclose(vectors, [[0.8], [1], [1], [1], [1]] * np.ones(3), rtol=1e-6)


@pytest.mark.parametrize(
    ("steps", "warmup"), [(100, 10), (100, 0), (100, 1), (7, 6), (5, 5), (1, 0), (1, 1)])
def test_learning_rate(steps, warmup):
    """Up a line to the peak, 2, at step `warmup`, and down half a cosine to a tenth of it."""
    rates = [learning_rate(step, steps, 2.0, warmup) for step in range(1, steps + 1)]
    up, down = rates[:warmup], rates[warmup:]
    assert up == [2.0 * step / warmup for step in range(1, warmup + 1)]
    assert all(earlier > later for earlier, later in zip([2.0, *down], down))
    if down:
        assert down[-1] == pytest.approx(0.2, rel=1e-12)
    if len(down) % 2 == 0 and down:
        halfway = down[len(down) // 2 - 1]
        assert halfway == pytest.approx(1.1, rel=1e-12)


def test_clip_keeps_the_direction():
    g = np.array([3.0, 4.0])
    assert clip(g, 5.0) == 5.0 and g.tolist() == [3, 4]         # at the limit: untouched
    assert clip(g, 1.0) == 5.0                                  # the length it had
    np.testing.assert_allclose(g, [0.6, 0.8], rtol=1e-15)
    zero = np.zeros(2)
    assert clip(zero, 1.0) == 0 and not zero.any()


# ---- shards and threads --------------------------------------------------------------------------


def run_config(shards):
    return Config(dim=18, layers=2, heads=3, kv_heads=1, tied=False, shards=shards).resolve()


def batch_of(size, vocab):
    """The last sequence has no label, so one of many shards has none."""
    r = np.random.RandomState(0)
    inputs, targets = r.randint(0, vocab, (2, size, 6))
    targets[r.rand(size, 6) < 0.4] = -1
    targets[-1] = -1
    return inputs, targets


@pytest.mark.parametrize(("size", "shards"), [(6, 1), (6, 2), (5, 3), (7, 7)])
def test_shards_add_up_to_the_batch(size, shards):
    """In float64: a lost or doubled sequence cannot hide.  5 in 3 shards is 2 + 2 + 1."""
    config = run_config(shards)
    p, (inputs, targets) = random_params(config, 0), batch_of(size, config.vocab)
    whole, scored = Params(config, np.float64), int(np.count_nonzero(targets >= 0))
    expected, right = loss_and_gradients(p, whole, config, inputs, targets, 1 / scored)
    with Workers(config) as workers:
        workers.gradients = [Params(config, np.float64) for _ in range(shards)]
        loss, token, g = workers.gradient(p, inputs, targets)
    assert loss == pytest.approx(expected, rel=1e-13) and token == right / scored
    tolerance = 1e-14 * np.abs(whole.flat).max()
    np.testing.assert_allclose(g.flat, whole.flat, rtol=1e-12, atol=tolerance)


def test_bits_do_not_depend_on_threads():
    """Nor on the calls before: gradients are overwritten.  They are right, too, in float32."""
    config = run_config(4)
    p, (inputs, targets) = init(config), batch_of(30, config.vocab)
    whole = Params(config)
    loss_and_gradients(p, whole, config, inputs, targets, 1 / int(np.count_nonzero(targets >= 0)))
    bits = set()
    for threads in (1, 2, 4):
        with Workers(config, threads) as workers:
            for _ in range(3):
                loss, token, g = workers.gradient(p, inputs, targets)
                bits.add((loss, token, g.flat.tobytes()))
    assert len(bits) == 1
    error = np.linalg.norm(g.flat - whole.flat)
    assert error < 1e-5 * np.linalg.norm(whole.flat)        # measured: 4e-7


def test_an_error_in_a_thread_reaches_the_caller():
    config = run_config(2)
    inputs, targets = batch_of(4, config.vocab)
    with Workers(config) as workers, pytest.raises(IndexError):
        workers.gradient(init(config), inputs + config.vocab, targets)


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["softmax", "linear"])
def test_overfits_a_batch_and_leaves_the_gaps_zero(attention):
    """Sequences that begin differently can be memorised, except for a token that only ever follows
    itself: the mean of equal values tells nothing of their number.  The gaps between tensors go
    into model.bin as zeros.
    """
    config = Config(
        dim=25, layers=2, heads=3, head_dim=6, ffn_dim=33, attention=attention, shards=2).resolve()
    p, m, v = init(config), Params(config), Params(config)
    inputs, targets = np.random.RandomState(0).randint(0, config.vocab, (2, 8, 6))
    inputs[:, 0], inputs[:, 1] = np.arange(8), np.arange(8) + 1
    decay = 0.01 * decay_mask(config)
    with Workers(config) as workers:
        for step in range(1, 201):
            loss, token, g = workers.gradient(p, inputs, targets)
            clip(g.flat, 1.0)
            lr = learning_rate(step, 200, 0.01, 10)
            adamw(p.flat, g.flat, m.flat, v.flat, decay, step, lr, BETA1, BETA2)
    assert loss < 0.01 and token == 1               # measured: 0.001

    used = Params(config)
    for tensor in used.tensors().values():
        tensor[...] = 1
    gaps = used.flat == 0
    assert gaps.any() and not any(vectors.flat[gaps].any() for vectors in (p, g, m, v))
