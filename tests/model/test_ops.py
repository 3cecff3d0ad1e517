"""Each pair of ops.py, and each drop-in of fast.py: the gradient is the derivative of the forward.

Both levels keep one contract: float32 stays float32, no argument and no cache changes, a backward
may be called again, a NaN is passed on, and a pair stands together in its file.  Pairs are
collected by name, so a new one cannot go untested.  test_model.py holds the whole model against an
independent one: that the formulas are the right ones is its business.
"""
import ast
from pathlib import Path

import numpy as np
import pytest
from op_cases import (
    CASES,
    FAST_CASES,
    SIZES,
    arguments,
    arrays,
    backward_of,
    forward_of,
    real,
    run,
    slope,
    snapshot,
)

from minitron.model import fast, ops
from minitron.model import transformer as model

LEVELS = [pytest.param(ops, case, id=f"ops-{case}") for case in CASES]
LEVELS += [pytest.param(fast, case, id=f"fast-{case}") for case in FAST_CASES]

every_case = pytest.mark.parametrize(("module", "case"), LEVELS)
every_size = pytest.mark.parametrize("size", SIZES)


@every_size
@every_case
def test_gradient(module, case, size):
    """For each input: the gradient times a random direction is the derivative along it."""
    args, _, _, dy, backward = run(case, size, np.float64, module)
    for i, gradient in zip(real(args), backward(), strict=True):
        direction = np.random.RandomState(i).randn(*args[i].shape)
        expected = slope(case, module, args, i, direction, dy)
        assert gradient.shape == args[i].shape
        # Where a gradient is zero (T = 1: nothing to attend to) rounding leaves up to 1e-12.
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-9, abs=1e-11)


@every_size
@every_case
def test_float32_stays_float32(module, case, size):
    """One float64 would double the memory and halve the speed after it, and show in no result."""
    _, y, cache, _, backward = run(case, size, np.float32, module)
    floating = {array.dtype for array in arrays((y, cache, backward())) if array.dtype.kind in "fc"}
    assert floating <= {np.dtype(np.float32), np.dtype(np.complex64)}
    assert y.dtype == np.float32
    assert {gradient.dtype for gradient in backward()} == {np.dtype(np.float32)}


@every_size
@every_case
def test_nothing_is_changed_and_backward_repeats(module, case, size):
    """Nor may a result share memory with an argument or a cache."""
    args, y, cache, dy, backward = run(case, size, np.float32, module)
    before, gradients = snapshot((cache, dy)), backward()
    assert snapshot(backward()) == snapshot(gradients)
    assert snapshot((cache, dy)) == before
    assert snapshot(args) == snapshot(arguments(case, size, np.float32))
    assert not any(np.may_share_memory(y, array) for array in arrays(args))
    kept = arrays((args, cache, dy))
    assert not any(np.may_share_memory(gradient, array) for gradient in gradients for array in kept)


@every_case
def test_nan_in_is_nan_out(module, case):
    """Every result that depends on a number is NaN when it is: a broken run must look broken."""
    args, y, cache, dy, backward = run(case, "grouped", np.float32, module)
    forward, gradients = forward_of(case, module), backward()

    def spoilt(array, value):
        array = array.copy()
        array.flat[len(array.flat) // 2] = value
        return array

    for i in real(args, np.float32):
        moved, poisoned = (forward(*args[:i], spoilt(args[i], value), *args[i + 1:])[0]
                           for value in (0.5, np.nan))
        assert np.all(np.isnan(poisoned) | (moved == y))
        assert np.isnan(poisoned).any() or np.array_equal(moved, y)     # row 2 of 3 was not taken
    moved, poisoned = (backward_of(case, module)(spoilt(np.asarray(dy), value)[()], cache)
                       for value in (0.5, np.nan))
    for before, other, bad in zip(gradients, moved, poisoned):
        assert np.all(np.isnan(bad) | (other == before)) and np.isnan(bad).any()


@pytest.mark.parametrize("module", [ops, model])
def test_backward_stands_below_its_forward(module):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    forwards = [name for name in names if name.endswith("_forward")]
    assert forwards
    for name in forwards:
        assert names[names.index(name) + 1] == name.removesuffix("_forward") + "_backward"


@pytest.mark.parametrize("module", [ops, fast])
def test_embedding_gradient_adds_up_repeated_tokens(module):
    """Token 2 stands twice, 1 never: its row is zero and not left out."""
    _, cache = module.embedding_forward(np.array([2, 0, 2]), np.zeros((4, 1)))
    dw = module.embedding_backward(np.array([[1.0], [10.0], [100.0]]), cache)
    assert dw.tolist() == [[10], [0], [101], [0]]


@pytest.mark.parametrize("module", [ops, fast])
def test_large_numbers_do_not_overflow(module):
    """Softmax and sigmoid reach their exact limits, and no exp overflows on the way."""
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        logits = np.array([[1e4, 0, -1e4]], np.float32)
        loss, cache = module.cross_entropy_forward(logits, np.array([2]))
        assert loss == 2e4
        assert module.cross_entropy_backward(1.0, cache).tolist() == [[1, 0, -1]]
        gate, up = np.array([[[1e4, -1e4]], [[1, 1]]], np.float32)
        assert module.swiglu_forward(gate, up)[0].tolist() == [[1e4, 0]]
        q = np.full((1, 2, 1, 2), 1e3, np.float32)
        assert np.array_equal(module.attention_forward(q, q, q)[0], q)
        zero, one = np.zeros((1, 4), np.float32), np.ones(4, np.float32)
        assert np.all(module.rmsnorm_forward(zero, one, 1e-5)[0] == 0)


@pytest.mark.parametrize("module", [ops, fast])
def test_norm_of_an_overflow_is_not_finite(module):
    """Not zeros, which a model would take for a small input: run.c says NaN, too."""
    x = np.array([[3e19, 1, 1, 1], [1, 1, 1, 1]], np.float32)           # 3e19^2 exceeds float32
    with np.errstate(over="ignore", invalid="ignore"):
        y, cache = module.rmsnorm_forward(x, np.ones(4, np.float32), 1e-5)
        dx, _ = module.rmsnorm_backward(np.ones_like(x), cache)
    assert np.isnan(y[0]).all() and np.isfinite(y[1]).all()
    assert np.isnan(dx[0]).all() and np.isfinite(dx[1]).all()


def test_softmax_weights_are_in_the_cache():
    """Each row adds up to 1 and holds nothing of the future: the array that a reader looks at."""
    q, k, v = arguments("attention", "grouped", np.float64)
    y, (*_, values, a) = ops.attention_forward(q, k, v)
    assert a.shape == (2, 2, 3, 5, 5) and not np.triu(a, 1).any()
    np.testing.assert_allclose(a.sum(axis=-1), 1, rtol=1e-14)
    np.testing.assert_array_equal(ops.by_time(a @ values), y)


def test_rope_table_is_exact_far_out():
    """Angles are float64 even for float32: at position 10^6 a float32 would be off by 0.03."""
    positions = np.array([[0, 1, 10**6]])
    table = ops.rope_table(positions, 4, 100.0, np.float32)[0]
    angles = positions[0][:, None] * np.array([1, 0.1])
    exact = np.cos(angles) + 1j * np.sin(angles)
    assert np.abs(table - exact).max() < 1e-7           # float32 rounding is 6e-8 * |cis|


def test_no_positions_is_a_table_of_ones():
    table = ops.rope_table(np.arange(6).reshape(2, 3), 4, 0, np.float32)
    assert np.array_equal(table, np.ones((2, 3, 2)))


def test_rotated_products_depend_on_the_distance_alone():
    """q at position s and k at t: their dot product is that of s + 9 and t + 9."""
    r = np.random.RandomState(0)
    q, k = r.randn(2, 1, 1, 1, 6)

    def product(s, t):
        at_s, at_t = (ops.rope_table(np.array([[position]]), 6, 100.0, float)[:, :, None]
                      for position in (s, t))
        return np.sum(ops.rope_forward(q, at_s)[0] * ops.rope_forward(k, at_t)[0])

    assert product(5, 2) == pytest.approx(product(14, 11), rel=1e-12)
    assert abs(product(5, 2) - product(5, 3)) > 1e-3
