"""Each pair in ops.py: the gradient written by hand is the derivative of the forward, and the pair keeps its contract.

Contract: float32 stays float32, nothing that comes in is changed, backward may be called again, and the two stand together in the
file.  The pairs are found by name, so a new one cannot go untested.  That the forwards are the right formulas is test_model.py's
business, which holds the whole model against an independent one.
"""
import ast
from pathlib import Path

import numpy as np
import pytest
from helpers import derivative

from minitron import model, ops

PAIRS = [name.removesuffix("_forward") for name in vars(ops) if name.endswith("_forward")]

# One of everything; odd widths and grouped queries; each key/value head with a query head of its own.
SIZES = {
    "ones": {"B": 1, "T": 1, "H": 1, "G": 1, "K": 2, "D": 1, "F": 1, "V": 2},
    "grouped": {"B": 2, "T": 5, "H": 6, "G": 2, "K": 4, "D": 7, "F": 9, "V": 11},
    "wide": {"B": 3, "T": 8, "H": 3, "G": 3, "K": 6, "D": 32, "F": 40, "V": 5},
}

every_pair = pytest.mark.parametrize("pair", PAIRS)
every_size = pytest.mark.parametrize("size", SIZES)


def arguments(pair, size, dtype):
    """What op_forward of this name is called with.  Its real arrays are what it is differentiated by."""
    B, T, H, G, K, D, F, V = SIZES[size].values()
    r = np.random.RandomState(0)

    def x(*shape):
        return r.randn(*shape).astype(dtype)

    def heads(count):
        return x(B, T, count, K).swapaxes(1, 2)     # a view, as the model passes it

    return {
        "embedding": lambda: [r.randint(0, V, B * T), x(V, D)],
        "linear": lambda: [x(B * T, D), x(F, D)],
        "rmsnorm": lambda: [x(B * T, D), x(D), 0.1],        # an eps large enough to matter
        "rope": lambda: [heads(H), ops.rope_table(r.randint(0, 50, (B, T)), K, 100.0, dtype)],
        "attention": lambda: [heads(H), heads(G), heads(G)],
        "linear_attention": lambda: [heads(H), heads(G), heads(G)],
        "swiglu": lambda: [x(B * T, 2 * F)],
        "cross_entropy": lambda: [x(B * T, V), r.randint(0, V, B * T)],
    }[pair]()


def run(pair, size, dtype):
    """-> arguments, y, cache, a random dy, and backward(dy, cache) to be called, which returns a tuple"""
    args = arguments(pair, size, dtype)
    y, cache = getattr(ops, f"{pair}_forward")(*args)
    dy = np.asarray(np.random.RandomState(1).randn(*y.shape)).astype(dtype)[()]

    def backward():
        gradients = getattr(ops, f"{pair}_backward")(dy, cache)
        return gradients if isinstance(gradients, tuple) else (gradients,)

    return args, y, cache, dy, backward


def slope(pair, args, i, direction, dy):
    """Derivative of sum(dy * y) as argument i moves along a direction, numerically."""
    def f(step):
        moved = [arg + step * direction if j == i else arg for j, arg in enumerate(args)]
        return np.sum(dy * getattr(ops, f"{pair}_forward")(*moved)[0])

    return derivative(f, 1e-3)


def arrays(nested):
    """All arrays and NumPy scalars in a nest of tuples."""
    if isinstance(nested, tuple):
        return [array for part in nested for array in arrays(part)]
    return [nested] if isinstance(nested, (np.ndarray, np.generic)) else []


def snapshot(nested):
    return [(array.dtype, array.shape, array.tobytes()) for array in arrays(nested)]


@every_size
@every_pair
def test_gradient(pair, size):
    """For each input: the gradient times a random direction is the derivative along that direction."""
    args, _, _, dy, backward = run(pair, size, np.float64)
    wanted = [i for i, arg in enumerate(args) if isinstance(arg, np.ndarray) and arg.dtype == np.float64]
    for i, gradient in zip(wanted, backward(), strict=True):
        direction = np.random.RandomState(i).randn(*args[i].shape)
        assert gradient.shape == args[i].shape
        # Where a gradient is zero (one time step: nothing to choose from) rounding leaves up to 1e-12.
        assert np.sum(gradient * direction) == pytest.approx(slope(pair, args, i, direction, dy), rel=1e-9, abs=1e-11)


@every_size
@every_pair
def test_float32_stays_float32(pair, size):
    """One float64 would double the memory and halve the speed of all that follows, and show in no result."""
    _, y, cache, _, backward = run(pair, size, np.float32)
    floating = {array.dtype for array in arrays((y, cache, backward())) if array.dtype.kind in "fc"}
    assert floating <= {np.dtype(np.float32), np.dtype(np.complex64)}
    assert y.dtype == np.float32 and {gradient.dtype for gradient in backward()} == {np.dtype(np.float32)}


@every_size
@every_pair
def test_nothing_is_changed_and_backward_repeats(pair, size):
    args, _, cache, dy, backward = run(pair, size, np.float32)
    before = snapshot((cache, dy))
    assert snapshot(backward()) == snapshot(backward())
    assert snapshot((cache, dy)) == before
    assert snapshot(tuple(args)) == snapshot(tuple(arguments(pair, size, np.float32)))


@pytest.mark.parametrize("module", [ops, model])
def test_backward_stands_below_its_forward(module):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    forwards = [name for name in names if name.endswith("_forward")]
    assert forwards
    for name in forwards:
        assert names[names.index(name) + 1] == name.removesuffix("_forward") + "_backward"


def test_embedding_gradient_adds_up_repeated_tokens():
    """Token 2 stands twice, 1 never: its row is zero and not left out."""
    _, cache = ops.embedding_forward(np.array([2, 0, 2]), np.zeros((4, 1)))
    assert ops.embedding_backward(np.array([[1.0], [10.0], [100.0]]), cache).tolist() == [[10], [0], [101], [0]]


def test_large_numbers_do_not_overflow():
    """Where softmax and sigmoid are written with care: the results are exact limits, and no exp overflows on the way."""
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, cache = ops.cross_entropy_forward(np.array([[1e4, 0, -1e4]], np.float32), np.array([2]))
        assert loss == 2e4
        assert ops.cross_entropy_backward(1.0, cache).tolist() == [[1, 0, -1]]
        y, _ = ops.swiglu_forward(np.array([[1e4, -1e4, 1, 1]], np.float32))
        assert y.tolist() == [[1e4, 0]]
        q = np.full((1, 1, 2, 2), 1e3, np.float32)
        assert np.array_equal(ops.attention_forward(q, q, q)[0], q)
        assert np.all(ops.rmsnorm_forward(np.zeros((1, 3), np.float32), np.ones(3, np.float32), 1e-5)[0] == 0)


def test_rope_table_is_exact_far_out():
    """Angles are float64 even for float32: at position 10^6 a float32 angle would be off by 0.03."""
    positions = np.array([[0, 1, 10**6]])
    table = ops.rope_table(positions, 4, 100.0, np.float32)
    angles = positions[0][:, None] * np.array([1, 0.1])
    assert np.abs(table[0, 0] - (np.cos(angles) + 1j * np.sin(angles))).max() < 1e-7    # float32 rounding is 6e-8 * |cis|


def test_causal_mask_is_shared_and_read_only():
    mask = ops.causal_mask(3, np.dtype(np.float32))
    assert mask is ops.causal_mask(3, np.dtype(np.float32))
    assert mask.tolist() == [[0, -np.inf, -np.inf], [0, 0, -np.inf], [0, 0, 0]]
    with pytest.raises(ValueError, match="read-only"):
        mask += 1
