"""The model computes its formulas, its gradient is the derivative of its loss, and no token sees
the future, with the plain ops of ops.py as with the drop-ins of fast.py.

Two independent witnesses for the gradient: finite differences, which know only model.py's own loss,
and automatic differentiation (HIPS autograd) of a second model below, written from the formulas in
another style.  All in float64, where a wrong factor cannot hide in rounding.
"""
import dataclasses
import hashlib
import random

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import value_and_grad
from helpers import derivative, random_batch, random_params
from helpers import random_config as random_fast_config

from minitron.base.rng import Random
from minitron.data.config import Config
from minitron.model.optim import adamw
from minitron.model.params import ALIGN, Params, decay_mask, init
from minitron.model.transformer import logits, loss_and_gradients, model_backward, model_forward
from minitron.training.parallel import Workers

both_levels = pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])


def random_config(seed, plain=False):
    return dataclasses.replace(random_fast_config(seed), plain=plain)


CONFIG = random_config(0)


def loss_of(p, config, batch, weight=1.0):
    """-> loss, gradient (Params)"""
    inputs, targets, positions = batch
    g = Params(config, p.flat.dtype)
    return loss_and_gradients(p, g, config, inputs, targets, weight, positions)[0], g


def per_label(batch):
    return 1 / int(np.count_nonzero(batch[1] >= 0))


# ---- gradients -----------------------------------------------------------------------------------


def test_random_configurations_reach_every_option():
    configs = [random_config(seed) for seed in range(200)]
    assert {1, 2, 3} == {c.layers for c in configs}
    for yes in (lambda c: c.tied, lambda c: c.qk_norm, lambda c: c.kv_heads < c.heads,
                lambda c: c.dim % 2, lambda c: c.ffn_dim % 2, lambda c: c.vocab % 2):
        assert {True, False} == {bool(yes(c)) for c in configs}
    assert {"softmax", "linear"} == {c.attention for c in configs}
    assert {0, 3, 100, 10000} == {c.rope_theta for c in configs}
    assert (1, 40) == (min(c.dim for c in configs), max(c.dim for c in configs))
    assert (2, 40) == (min(c.vocab for c in configs), max(c.vocab for c in configs))
    assert any(c.ffn_dim == 0 for c in configs)
    assert any(c.heads * c.head_dim != c.dim for c in configs)
    shapes = {random_batch(c, seed)[0].shape for seed, c in enumerate(configs)}
    assert (1, 1) in shapes and (3, 8) in shapes


@both_levels
@pytest.mark.parametrize("seed", range(200))
def test_gradient_is_the_derivative(seed, plain):
    """Along a random direction of all parameters, and of one tensor alone, which might go unnoticed
    in the sum of all.
    """
    config = random_config(seed, plain)
    p, direction = random_params(config, seed), random_params(config, seed + 1000)
    batch = random_batch(config, seed)
    _, g = loss_of(p, config, batch, per_label(batch))
    alone = Params(config, np.float64)
    name = random.Random(seed).choice(list(p.shapes))
    alone.tensors()[name][...] = direction.tensors()[name]
    for step in (direction.flat, alone.flat):
        expected = slope(p, config, batch, step)
        assert np.dot(g.flat, step) == pytest.approx(expected, rel=1e-7, abs=3e-9)


def slope(p, config, batch, direction):
    """Derivative of the loss as the parameters move along a direction, numerically.

    The step is small, 1e-5, since a norm of a small x bends sharply; the error then is up to 6e-9
    relative, measured.  It leaves the rounding of the loss, over the step: up to
    7 * 2e-16 / 1e-5 = 1e-10, measured up to 3e-10.
    """
    moved = Params(config, np.float64)

    def f(h):
        moved.flat[:] = p.flat + h * direction
        return loss_of(moved, config, batch, per_label(batch))[0]

    return derivative(f, 1e-5)


def reference_loss(tensors, config, inputs, targets, positions, weight):
    """The loss, one sequence and one head at a time."""
    c, K = config, config.head_dim
    total = 0.0
    for tokens, answers, position in zip(inputs, targets, positions, strict=True):
        future = np.array([[s > t for s in range(len(tokens))] for t in range(len(tokens))])
        x = tensors["embed"][tokens]
        for l in range(c.layers):
            n = reference_norm(x, tensors["norm1"][l], c.norm_eps)
            for h in range(c.heads):
                shared = c.heads + h // (c.heads // c.kv_heads)     # its key head in wqkv
                wq, wk, wv = (tensors["wqkv"][l][i * K:(i + 1) * K]
                              for i in (h, shared, shared + c.kv_heads))
                q, k, v = anp.dot(n, wq.T), anp.dot(n, wk.T), anp.dot(n, wv.T)
                if c.qk_norm:
                    q = reference_norm(q, tensors["norm_q"][l], c.norm_eps)
                    k = reference_norm(k, tensors["norm_k"][l], c.norm_eps)
                if c.rope_theta:
                    q = reference_rotation(q, position, c.rope_theta)
                    k = reference_rotation(k, position, c.rope_theta)
                score = anp.dot(q, k.T) / np.sqrt(K)
                if c.attention == "softmax":
                    weights = anp.exp(anp.where(future, -np.inf, score))
                    weights = weights / anp.sum(weights, axis=1, keepdims=True)
                else:
                    weights = anp.where(future, 0.0, score)
                x = x + anp.dot(anp.dot(weights, v), tensors["wo"][l][:, h * K:(h + 1) * K].T)
            if c.ffn_dim:
                n = reference_norm(x, tensors["norm2"][l], c.norm_eps)
                gate = anp.dot(n, tensors["w13"][l][:c.ffn_dim].T)
                up = anp.dot(n, tensors["w13"][l][c.ffn_dim:].T)
                x = x + anp.dot(gate / (1 + anp.exp(-gate)) * up, tensors["w2"][l].T)
        n = reference_norm(x, tensors["norm_f"], c.norm_eps)
        z = anp.dot(n, tensors["embed" if c.tied else "head"].T)
        for t, answer in enumerate(answers):
            if answer >= 0:
                total = total + weight * (anp.log(anp.sum(anp.exp(z[t]))) - z[t, answer])
    return total


def reference_norm(x, w, eps):
    return x / anp.sqrt(anp.mean(x**2, axis=1, keepdims=True) + eps) * w


def reference_rotation(x, position, theta):
    """Each pair (a, b) of channels becomes (a cos - b sin, a sin + b cos)."""
    pairs = []
    for j in range(x.shape[1] // 2):
        angle = position / theta ** (2 * j / x.shape[1])
        a, b = x[:, 2 * j], x[:, 2 * j + 1]
        pairs += [a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)]
    return anp.stack(pairs, axis=1)


@both_levels
@pytest.mark.parametrize("seed", range(60))
def test_equals_automatic_differentiation(seed, plain):
    config = random_config(seed, plain)
    p, batch = random_params(config, seed), random_batch(config, seed)
    inputs, targets, positions = batch
    if positions is None:
        positions = np.tile(np.arange(inputs.shape[1]), (len(inputs), 1))
    loss, g = loss_of(p, config, batch, per_label(batch))
    reference = value_and_grad(reference_loss)
    expected, gradients = reference(
        p.tensors(), config, inputs, targets, positions, per_label(batch))
    assert loss == pytest.approx(expected, rel=1e-12)
    for name, tensor in g.tensors().items():
        # Measured: 2e-14 of the tensor's length; 1e-16 of all where it is 0 (norm_q where T = 1).
        error = np.linalg.norm(tensor - gradients[name])
        rounding = 1e-15 * np.linalg.norm(g.flat)
        assert error <= 1e-12 * np.linalg.norm(gradients[name]) + rounding, name


@both_levels
@pytest.mark.parametrize("seed", range(20))
def test_float32_stays_float32(seed, plain):
    """Training's dtype, in all caches, and equal to float64 but for rounding"""
    config = random_config(seed, plain)
    p, batch = random_params(config, seed, np.float32), random_batch(config, seed)
    inputs, targets, positions = batch
    out, cache = model_forward(p, config, inputs, np.flatnonzero(targets >= 0), positions)
    floating = {array.dtype for array in arrays((out, cache)) if array.dtype.kind in "fc"}
    assert floating <= {np.dtype("f4"), np.dtype("c8")}
    exact = Params(config, np.float64)
    exact.flat[:] = p.flat
    loss, g = loss_of(p, config, batch, per_label(batch))
    expected, gradient = loss_of(exact, config, batch, per_label(batch))
    assert loss == pytest.approx(expected, rel=1e-5)
    assert np.linalg.norm(g.flat - gradient.flat) < 5e-5 * np.linalg.norm(gradient.flat)


def arrays(nested):
    """All arrays in a nest of tuples, lists and dicts."""
    if isinstance(nested, np.ndarray):
        return [nested]
    if isinstance(nested, dict):
        nested = list(nested.values())
    if isinstance(nested, (tuple, list)):
        return [array for part in nested for array in arrays(part)]
    return []


@both_levels
@pytest.mark.parametrize("seed", range(20))
def test_gradient_is_assigned_whatever_was_there(seed, plain):
    """A second call, and a buffer full of rubbish, give the same bits: nothing adds up, and nothing
    is left out.
    """
    config = random_config(seed, plain)
    p = random_params(config, seed, np.float32)
    inputs, targets, positions = random_batch(config, seed)
    _, clean = loss_of(p, config, (inputs, targets, positions))
    dirty = Params(config)
    for tensor in dirty.tensors().values():
        tensor[...] = np.nan
    for _ in range(2):
        loss_and_gradients(p, dirty, config, inputs, targets, 1.0, positions)
        assert dirty.flat.tobytes() == clean.flat.tobytes()


@pytest.mark.parametrize("seed", range(20))
def test_only_labels_count(seed):
    """The loss is -log softmax at the labels and nothing at -1: two halves of them add up."""
    config = random_config(seed)
    p, (inputs, targets, positions) = random_params(config, seed), random_batch(config, seed)
    out = logits(p, config, inputs, positions)
    at_target = np.take_along_axis(out, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    nll = np.log(np.exp(out).sum(axis=-1)) - at_target
    scored, g = targets >= 0, Params(config, np.float64)
    loss, right = loss_and_gradients(p, g, config, inputs, targets, 0.5, positions)
    assert loss == pytest.approx(0.5 * nll[scored].sum(), rel=1e-12)
    assert right == np.sum(out.argmax(axis=-1)[scored] == targets[scored])

    first = np.random.RandomState(seed).rand(*targets.shape) < 0.5
    one, other = (loss_of(p, config, (inputs, np.where(half, targets, -1), positions), 0.5)[1]
                  for half in (first, ~first))
    tolerance = 2e-14 * np.abs(g.flat).max()
    np.testing.assert_allclose(one.flat + other.flat, g.flat, rtol=1e-12, atol=tolerance)


def test_the_weight_may_be_a_numpy_number():
    """A NumPy float64, unlike a Python float, turns float32 into float64, whose bytes rope_backward
    would read as complex64.
    """
    p, batch = random_params(CONFIG, 0, np.float32), random_batch(CONFIG, 0)
    bits = {loss_of(p, CONFIG, batch, weight)[1].flat.tobytes()
            for weight in (0.5, np.float64(0.5))}
    assert len(bits) == 1


@both_levels
def test_a_batch_without_labels_has_no_gradient(plain):
    """So a shard may hold none."""
    config, batch = random_config(0, plain), (np.zeros((2, 3), int), np.full((2, 3), -1), None)
    loss, g = loss_of(random_params(config, 0), config, batch)
    assert loss == 0 and not g.flat.any()


# ---- two ways to the same numbers ----------------------------------------------------------------


def forward_and_backward(p, config, shape, tokens, rows, dlogits):
    """-> logits at the rows, gradients of sum(dlogits * logits), cache

    config is the model's, shape that of its parameters
    """
    out, cache = model_forward(p, config, tokens, rows)
    g = Params(shape, p.flat.dtype)
    g.flat[:] = np.nan
    model_backward(g, config, dlogits, cache)
    return out, g.tensors(), cache


def assert_same(one, other):
    """By tensor, to 1e-12 of its largest number, or 1e-15 of all (norm_q is 0 where T = 1)"""
    largest = max(np.abs(tensor).max() for tensor in other.values())
    for name, tensor in one.items():
        tolerance = 1e-12 * np.abs(other[name]).max() + 1e-15 * largest
        assert np.abs(tensor - other[name]).max() <= tolerance, name


@both_levels
@pytest.mark.parametrize("seed", range(40))
def test_first_layer_by_token_and_by_row_are_the_same(seed, plain):
    """With more rows than words the first layer computes q, k and v once per word; a config that
    claims to have more words makes the same model compute them for each row.  Nothing else looks at
    config.vocab.
    """
    config = random_config(seed, plain)
    more = dataclasses.replace(config, vocab=49)
    p, r = random_params(config, seed), np.random.RandomState(seed)
    tokens, rows = r.randint(0, config.vocab, (3, 16)), np.arange(48)
    dlogits = r.randn(48, config.vocab)
    by_token, g, cache = forward_and_backward(p, config, config, tokens, rows, dlogits)
    by_row, expected, other = forward_and_backward(p, more, config, tokens, rows, dlogits)
    assert "places_u" in cache[1][0] and "places_u" not in other[1][0]      # each went its own way
    np.testing.assert_allclose(by_token, by_row, rtol=1e-12, atol=1e-12 * np.abs(by_row).max())
    assert_same(g, expected)


@both_levels
@pytest.mark.parametrize("count", [1, 7, 23])
@pytest.mark.parametrize("seed", range(20))
def test_rows_that_are_not_scored_are_left_out(seed, count, plain):
    """The last layer computes the scored rows only: their logits are those of scoring all, and the
    gradients those of all rows with a weight of zero on the others.
    """
    config = random_config(seed, plain)
    p, r = random_params(config, seed), np.random.RandomState(seed)
    tokens, rows = r.randint(0, config.vocab, (3, 8)), np.sort(r.permutation(24)[:count])
    dlogits = np.zeros((24, config.vocab))
    dlogits[rows] = r.randn(count, config.vocab)
    some, g, cache = forward_and_backward(p, config, config, tokens, rows, dlogits[rows])
    assert "rows_x" in cache[1][-1]
    every, expected, _ = forward_and_backward(p, config, config, tokens, np.arange(24), dlogits)
    np.testing.assert_allclose(some, every[rows], rtol=1e-12, atol=1e-12 * np.abs(every).max())
    assert_same(g, expected)


@pytest.mark.parametrize("seed", range(10))
def test_plain_ops_train_to_the_same_loss(seed):
    """20 steps of AdamW, in float32"""
    losses = []
    for plain in (False, True):
        config = dataclasses.replace(random_config(seed, plain), dim=20)
        config = Config(**dataclasses.asdict(config) | {"vocab": None}).resolve()
        p, m, v, decay = init(config), Params(config), Params(config), decay_mask(config)
        inputs, targets = np.random.RandomState(seed).randint(0, config.vocab, (2, 8, 40))
        with Workers(config) as workers:
            for step in range(1, 21):
                loss, _, g = workers.gradient(p, inputs, targets)
                adamw(p.flat, g.flat, m.flat, v.flat, decay, step, 0.002, 0.9, 0.99)
        losses.append(loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0] < 2.64     # log(14)


@both_levels
@pytest.mark.parametrize("time", [8, 128])
@pytest.mark.parametrize("seed", range(10))
def test_the_same_call_gives_the_same_bits(seed, time, plain):
    """Whatever was computed in between: no array that is kept or shared has been written to."""
    config = random_config(seed, plain)
    p, r = random_params(config, seed, np.float32), np.random.RandomState(seed)
    inputs, targets = r.randint(0, config.vocab, (2, 3, time))
    targets[r.rand(3, time) < 0.3] = -1
    results = set()
    for _ in range(2):
        loss, g = loss_of(p, config, (inputs, targets, None))
        results.add((loss, g.flat.tobytes(), logits(p, config, inputs).tobytes()))
        other = random_params(config, seed + 1, np.float32)
        loss_of(other, config, (inputs[:, ::-1], targets, None))
    assert len(results) == 1


# ---- what depends on what ------------------------------------------------------------------------


def tokens_and_change(config, seed):
    """Two batches of 3 sequences of 8 tokens, which differ in every place."""
    tokens = np.random.RandomState(seed).randint(0, config.vocab, (3, 8))
    return tokens, (tokens + 1) % config.vocab


@both_levels
@pytest.mark.parametrize("seed", range(30))
def test_no_token_sees_the_future(seed, plain):
    """Whatever comes from time t on, the logits before t keep their bits."""
    config = random_config(seed, plain)
    p, (tokens, other) = random_params(config, seed, np.float32), tokens_and_change(config, seed)
    before = logits(p, config, tokens)
    for t in range(1, tokens.shape[1]):
        after = logits(p, config, np.concatenate([tokens[:, :t], other[:, t:]], axis=1))
        assert after[:, :t].tobytes() == before[:, :t].tobytes()
        assert not np.array_equal(after[:, t], before[:, t])


@both_levels
@pytest.mark.parametrize("seed", range(30))
def test_sequences_of_a_batch_do_not_meet(seed, plain):
    """Other rows of the same batch leave a row's bits alone; alone, or cut short, it differs by the
    order of sums at most.
    """
    config = random_config(seed, plain)
    p, (tokens, other) = random_params(config, seed), tokens_and_change(config, seed)
    both = logits(p, config, tokens)
    beside = logits(p, config, np.concatenate([tokens[:1], other[1:]]))
    assert beside[0].tobytes() == both[0].tobytes()
    np.testing.assert_allclose(logits(p, config, tokens[1:2])[0], both[1], rtol=1e-12, atol=1e-13)
    short = logits(p, config, tokens[:, :5])
    np.testing.assert_allclose(short, both[:, :5], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("seed", range(30))
def test_only_differences_of_positions_count(seed):
    config = random_config(seed)
    p, (tokens, _) = random_params(config, seed), tokens_and_change(config, seed)
    ids = np.tile(np.arange(tokens.shape[1]), (len(tokens), 1))
    default = logits(p, config, tokens)
    np.testing.assert_allclose(logits(p, config, tokens, ids), default, rtol=1e-13, atol=1e-13)
    shifted = logits(p, config, tokens, ids + np.array([[7], [0], [1000]]))     # row by row
    np.testing.assert_allclose(shifted, default, rtol=1e-10, atol=1e-11)    # 1000 rounds to 1e-13
    stretched = logits(p, config, tokens, 2 * ids)
    assert np.array_equal(stretched, default) == (config.rope_theta == 0)


# ---- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_params_are_views_of_one_aligned_vector(seed):
    p = Params(random_config(seed))
    for number, tensor in enumerate(p.tensors().values(), 1):
        offset = (tensor.ctypes.data - p.flat.ctypes.data) // p.flat.itemsize
        assert np.shares_memory(tensor, p.flat) and offset % ALIGN == 0
        assert not p.flat[offset:offset + tensor.size].any()        # no other tensor wrote here
        tensor[...] = number
    assert np.count_nonzero(p.flat) == p.count()
    assert p.flat.size % ALIGN == 0 and p.flat.size - p.count() < ALIGN * len(p.shapes)


@pytest.mark.parametrize("name", Params(CONFIG).shapes)
def test_first_nonfinite_names_the_tensor_and_layer(name):
    p = Params(CONFIG)
    assert p.first_nonfinite() is None
    p.tensors()[name][-1] = np.inf
    per_layer = name not in ("embed", "norm_f", "head")
    assert p.first_nonfinite() == (f"{name}[{CONFIG.layers - 1}]" if per_layer else name)


def test_norms_do_not_decay():
    for seed in range(20):
        mask = Params(random_config(seed))
        mask.flat[:] = decay_mask(random_config(seed))
        for name, tensor in mask.tensors().items():
            is_norm = name in ("norm1", "norm2", "norm_q", "norm_k", "norm_f")
            assert np.all(tensor == (0 if is_norm else 1))


def sha256(array):
    """16 hex digits for the array's bits, in little-endian order."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
    return hashlib.sha256(little.tobytes()).hexdigest()[:16]


def test_random_streams_have_their_golden_bits():
    """The same on every machine and NumPy: a run's data and first weights follow from its seed."""
    assert Random(1, 2, 3).words(3).tolist() == [
        15315076757634509236, 11876280279043480806, 3019869609462719111]
    assert sha256(Random(1, 2, 3).words((100, 7))) == "4ab034e185e12f30"
    assert sha256(Random(1, 2, 3).uniform(1000)) == "ee52c52d0e81aca2"
    assert sha256(Random(1, 2, 3).integers(-5, 1000, (40, 5))) == "3cc505d3ebd94b23"
    assert sha256(Random(1, 2, 3).permutations(30, 17)) == "91de862ce4ed7256"


def test_no_two_names_share_a_stream():
    """SeedSequence alone drops zeros at the end and splits numbers of 2^32 and more."""
    names = [(), (0,), (0, 0), (5,), (5, 0), (5, 0, 0), (0, 5), (5 + 2**32,), (5, 1), (1, 5),
             (2**63,), (2**64 - 1,)]
    assert len({Random(*name).words(1)[0] for name in names}) == len(names)


def test_initial_weights_have_their_golden_bits():
    config = Config(dim=24, layers=2, heads=4, kv_heads=2, head_dim=6, tied=False, seed=5).resolve()
    config = dataclasses.replace(config, vocab=13)      # not the default task's, which may change
    assert sha256(init(config).flat) == "0c2fcad12ed2d7f3"
