"""Each pair in ops.py: the gradient written by hand is the derivative of the forward, and the pair keeps its contract.

Contract: float32 stays float32, nothing that comes in is changed, backward may be called again, NaN is passed on, and the two
stand together in the file.  The pairs are found by name, so a new one cannot go untested.

A trick that makes an op fast has a case that seldom comes: the sequence of one block, the large score, the large vocabulary.
slow_ops.py has the ops without tricks, and the second half holds the fast ones against them on both sides of each such border.
That the formulas are the right ones is test_model.py's business, which holds the whole model against an independent one.
"""
import ast
from pathlib import Path

import numpy as np
import pytest
import slow_ops
from helpers import derivative

from minitron.model import ops
from minitron.model import transformer as model

PAIRS = [name.removesuffix("_forward") for name in vars(ops) if name.endswith("_forward")]
CASES = [*PAIRS, "norm_linear_stacked"]             # norm_linear takes one matrix or a stack of them

# One of everything; odd widths and grouped queries; each key/value head with a query head of its own; a sequence of several
# blocks and a vocabulary larger than ops.ONE_HOT.
SIZES = {
    "ones": {"B": 1, "T": 1, "H": 1, "G": 1, "K": 2, "D": 1, "F": 1, "V": 2},
    "grouped": {"B": 2, "T": 5, "H": 6, "G": 2, "K": 4, "D": 7, "F": 9, "V": 11},
    "wide": {"B": 3, "T": 8, "H": 3, "G": 3, "K": 6, "D": 32, "F": 40, "V": 5},
    "blocks": {"B": 1, "T": 130, "H": 2, "G": 1, "K": 4, "D": 5, "F": 6, "V": 300},
}

every_case = pytest.mark.parametrize("case", CASES)
every_size = pytest.mark.parametrize("size", SIZES)


def arguments(case, size, dtype):
    """What op_forward of this name is called with.  Its real arrays are what it is differentiated by."""
    B, T, H, G, K, D, F, V = SIZES[size].values()
    r = np.random.RandomState(0)

    def x(*shape):
        return r.randn(*shape).astype(dtype)

    def rows(count):
        return x(B, T, (count + 2) * K)[..., K:-K]      # (B, T, count * K), a slice, as the model passes it

    def heads(count):
        return rows(count).reshape(B, T, count, K)

    return {
        "embedding": lambda: [r.randint(0, V, B * T), x(V, D)],
        "linear": lambda: [x(B * T, D), x(F, D)],
        "norm_linear": lambda: [x(B * T, D), x(D), x(F, D), 0.1],       # an eps large enough to matter
        "norm_linear_stacked": lambda: [x(B * T, D), x(D), x(2, F, D), 0.1],
        "head_norm": lambda: [rows(H), x(K), 0.1],
        "rope": lambda: [rows(H), np.tile(0.7 * ops.rope_table(r.randint(0, 50, (B, T)), K, 100.0, dtype), H)],
        "attention": lambda: [heads(H), heads(G), heads(G)],
        "linear_attention": lambda: [heads(H), heads(G), heads(G)],
        "swiglu": lambda: [x(2, B * T, F)],
        "cross_entropy": lambda: [x(B * T, V), r.randint(0, V, B * T)],
    }[case]()


def forward_of(case, module=ops):
    return getattr(module, case.removesuffix("_stacked") + "_forward")


def backward_of(case, module=ops):
    """-> op_backward(dy, cache), made to return a tuple"""
    def backward(dy, cache):
        gradients = getattr(module, case.removesuffix("_stacked") + "_backward")(dy, cache)
        return gradients if isinstance(gradients, tuple) else (gradients,)
    return backward


def like(y):
    """A random dy for this y."""
    return np.asarray(np.random.RandomState(1).randn(*y.shape)).astype(y.dtype)[()]


def run(case, size, dtype):
    """-> arguments, y, cache, a random dy, and backward to be called, which returns a tuple"""
    args = arguments(case, size, dtype)
    y, cache = forward_of(case)(*args)
    dy = like(y)
    return args, y, cache, dy, lambda: backward_of(case)(dy, cache)


def real(args, dtype=np.float64):
    """The places of those arguments that have a gradient."""
    return [i for i, arg in enumerate(args) if isinstance(arg, np.ndarray) and arg.dtype == dtype]


def slope(case, args, i, direction, dy, h=1e-3):
    """Derivative of sum(dy * y) as argument i moves along a direction, numerically."""
    def f(step):
        moved = [arg + step * direction if j == i else arg for j, arg in enumerate(args)]
        return np.sum(dy * forward_of(case)(*moved)[0])

    return derivative(f, h)


def arrays(nested):
    """All arrays and NumPy scalars in a nest of tuples and lists."""
    if isinstance(nested, (tuple, list)):
        return [array for part in nested for array in arrays(part)]
    return [nested] if isinstance(nested, (np.ndarray, np.generic)) else []


def snapshot(nested):
    return [(array.dtype, array.shape, array.tobytes()) for array in arrays(nested)]


@every_size
@every_case
def test_gradient(case, size):
    """For each input: the gradient times a random direction is the derivative along that direction."""
    args, _, _, dy, backward = run(case, size, np.float64)
    for i, gradient in zip(real(args), backward(), strict=True):
        direction = np.random.RandomState(i).randn(*args[i].shape)
        assert gradient.shape == args[i].shape
        # Where a gradient is zero (one time step: nothing to choose from) rounding leaves up to 1e-12.
        assert np.sum(gradient * direction) == pytest.approx(slope(case, args, i, direction, dy), rel=1e-9, abs=1e-11)


@every_size
@every_case
def test_float32_stays_float32(case, size):
    """One float64 would double the memory and halve the speed of all that follows, and show in no result."""
    _, y, cache, _, backward = run(case, size, np.float32)
    floating = {array.dtype for array in arrays((y, cache, backward())) if array.dtype.kind in "fc"}
    assert floating <= {np.dtype(np.float32), np.dtype(np.complex64)}
    assert y.dtype == np.float32 and {gradient.dtype for gradient in backward()} == {np.dtype(np.float32)}


@every_size
@every_case
def test_nothing_is_changed_and_backward_repeats(case, size):
    """Nor may what comes out share memory with what came in: the model adds to it in place."""
    args, y, cache, dy, backward = run(case, size, np.float32)
    before, gradients = snapshot((cache, dy)), backward()
    assert snapshot(backward()) == snapshot(gradients)
    assert snapshot((cache, dy)) == before
    assert snapshot(args) == snapshot(arguments(case, size, np.float32))
    assert not any(np.may_share_memory(y, array) for array in arrays(args))
    assert not any(np.may_share_memory(gradient, array) for gradient in gradients for array in arrays((args, cache, dy)))


@every_case
def test_nan_in_is_nan_out(case):
    """What depends on a number is NaN when that number is: a run that has gone wrong must not look like one that has not."""
    args, y, cache, dy, backward = run(case, "grouped", np.float32)
    gradients = backward()

    def spoilt(array, value):
        array = array.copy()
        array.flat[len(array.flat) // 2] = value
        return array

    for i in real(args, np.float32):
        moved, poisoned = (forward_of(case)(*args[:i], spoilt(args[i], value), *args[i + 1:])[0] for value in (0.5, np.nan))
        assert np.all(np.isnan(poisoned) | (moved == y))
    moved, poisoned = (backward_of(case)(spoilt(np.asarray(dy), value)[()], cache) for value in (0.5, np.nan))
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
        y, _ = ops.swiglu_forward(np.array([[[1e4, -1e4]], [[1, 1]]], np.float32))
        assert y.tolist() == [[1e4, 0]]
        q = np.full((1, 2, 1, 2), 1e3, np.float32)
        assert np.array_equal(ops.attention_forward(q, q, q)[0], q)
        zero, one = np.zeros((1, 4), np.float32), np.ones(4, np.float32)
        assert np.all(ops.norm_linear_forward(zero, one, np.eye(4, dtype=np.float32), 1e-5)[0] == 0)
        assert np.all(ops.head_norm_forward(zero[None], one[:2], 1e-5)[0] == 0)


def test_rope_table_is_exact_far_out():
    """Angles are float64 even for float32: at position 10^6 a float32 angle would be off by 0.03."""
    positions = np.array([[0, 1, 10**6]])
    table = ops.rope_table(positions, 4, 100.0, np.float32)[0]
    angles = positions[0][:, None] * np.array([1, 0.1])
    assert np.abs(table - (np.cos(angles) + 1j * np.sin(angles))).max() < 1e-7    # float32 rounding is 6e-8 * |cis|


def test_no_positions_is_a_table_of_ones():
    assert np.array_equal(ops.rope_table(np.arange(6).reshape(2, 3), 4, 0, np.float32), np.ones((2, 3, 2)))


def test_shared_arrays_are_shared_and_read_only():
    float32 = np.dtype(np.float32)
    for make, arguments, values in (
        (ops.ones, (2, float32), [1, 1]),
        (ops.repeat, (2, 3, float32), [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]),
        (ops.past, (1, 3, float32), [[1, 1, 0], [1, 1, 1]]),
    ):
        array = make(*arguments)
        assert array is make(*arguments) and array.dtype == float32 and array.tolist() == values
        with pytest.raises(ValueError, match="read-only"):
            array += 1


# ---- fast equals slow ------------------------------------------------------------------------------------------------

TIMES = [1, 5, 64, 65, 97, 100, 128, 130, 256]
VOCABS = [1, 7, ops.ONE_HOT, ops.ONE_HOT + 1, 1000]


def assert_fast_equals_slow(case, args, tolerance):
    """The value and each gradient differ by `tolerance` at most, relative to the largest number in them and in the arguments.

    The arguments count since a gradient may be zero (one time step: nothing to choose from), and rounding, times a large
    argument, is not.  The slow op is computed in float64 always, so that the error is the fast op's alone.
    """
    wide = {np.dtype(np.float32): np.float64, np.dtype(np.complex64): np.complex128}
    exact = [arg.astype(wide.get(arg.dtype, arg.dtype)) if isinstance(arg, np.ndarray) else arg for arg in args]
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, cache = forward_of(case)(*args)
        got = (y, *backward_of(case)(like(y), cache))
    wanted, slow_cache = forward_of(case, slow_ops)(*exact)
    wanted = (wanted,)
    if hasattr(slow_ops, case.removesuffix("_stacked") + "_backward"):
        wanted += backward_of(case, slow_ops)(like(y).astype(np.float64), slow_cache)
    largest = max(np.abs(arg).max() for arg in args if isinstance(arg, np.ndarray) and arg.dtype == y.dtype)
    for fast, slow in zip(got, wanted):
        assert fast.shape == slow.shape
        assert np.max(np.abs(fast - slow)) <= tolerance * max(largest, np.abs(slow).max())


def heads_and_scores(time, heads, groups, kind, dtype):
    """q, k, v of attention: slices of one product, as the model passes them, their scores as `kind` says.

    The first channel of every key is 1, so that of a query is added to all the scores of its row, which softmax does not notice.
    """
    B, K = 2, 6
    u = np.random.RandomState(time).randn(B, time, (heads + 2 * groups) * K)
    q, k, v = np.split(u, [heads * K, (heads + groups) * K], axis=-1)
    q, k, v = (x.reshape(B, time, -1, K) for x in (q, k, v))
    k[..., 0] = 1
    if kind == "times 100":
        q *= 100
    elif kind == "one row":
        q[-1, time // 2, 0, 0] = 1000
    elif kind == "one key":
        k[-1, time // 2, 0] *= 1000
    elif kind == "below and above":
        q[:, ::2, :, 0], q[:, 1::2, :, 0] = -150, 150
    else:
        q[..., 0] = {"small": 0, "all below": -150, "all above": 150, "large but safe": 20, "low but safe": -20}[kind]
    u = u.astype(dtype)
    return [x.reshape(B, time, -1, K) for x in np.split(u, [heads * K, (heads + groups) * K], axis=-1)]


SAFE_KINDS = ["small", "large but safe", "low but safe"]
KINDS = [*SAFE_KINDS, "all below", "all above", "below and above", "one row", "one key", "times 100"]


def largest_score(q, k):
    return np.abs(np.einsum("bthk,bshk->bhts", q, slow_ops.shared_by(q.shape[2], k))).max()


def test_kinds_of_scores_take_both_paths():
    """exp_of_past shifts where it must, and only there: otherwise the tests below would not test both."""
    for kind in KINDS:
        largest = largest_score(*heads_and_scores(256, 4, 2, kind, np.float64)[:2])
        assert largest < ops.SAFE if kind in SAFE_KINDS else largest > 100


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", TIMES)
def test_attention_equals_slow(time, kind):
    for heads, groups in ((4, 2), (2, 2), (3, 1)):
        assert_fast_equals_slow("attention", heads_and_scores(time, heads, groups, kind, np.float64), 1e-12)
        args = heads_and_scores(time, heads, groups, kind, np.float32)
        # A score is rounded relative to its size, and exp turns that into an error relative to the result.
        assert_fast_equals_slow("attention", args, 2e-7 * (50 + largest_score(*args[:2])))


@pytest.mark.parametrize("time", TIMES)
def test_linear_attention_equals_slow(time):
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        assert_fast_equals_slow("linear_attention", heads_and_scores(time, 4, 2, "small", dtype), tolerance)


@pytest.mark.parametrize("kind", ["small", "below and above", "one row"])
@pytest.mark.parametrize(("time", "heads", "groups"), [(5, 4, 2), (130, 3, 1), (100, 2, 2)])
def test_attention_gradient_is_the_derivative(time, heads, groups, kind):
    """As test_gradient, over several blocks and by the shifted path.

    The step is smaller, since a key's first channel now moves scores by up to 1000 times as much.
    """
    args = heads_and_scores(time, heads, groups, kind, np.float64)
    y, cache = ops.attention_forward(*args)
    for i, gradient in enumerate(ops.attention_backward(like(y), cache)):
        direction = np.random.RandomState(i).randn(*args[i].shape)
        wanted = slope("attention", args, i, direction, like(y), 1e-5)
        assert np.sum(gradient * direction) == pytest.approx(wanted, rel=1e-7, abs=1e-8)


@every_size
@pytest.mark.parametrize("case", [case for case in CASES if hasattr(slow_ops, case.removesuffix("_stacked") + "_forward")])
def test_op_equals_slow(case, size):
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        assert_fast_equals_slow(case, arguments(case, size, dtype), tolerance)


def test_every_pair_has_a_slow_twin():
    assert [pair for pair in PAIRS if not hasattr(slow_ops, f"{pair}_forward")] == ["linear"]       # it has nothing to simplify


@pytest.mark.parametrize("vocab", VOCABS)
def test_embedding_equals_slow(vocab):
    """By the one-hot matrix and by sorting; with far more tokens than words, and with words that never come."""
    r = np.random.RandomState(0)
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        assert_fast_equals_slow("embedding", [r.randint(0, vocab, 500), r.randn(vocab, 7).astype(dtype)], tolerance)


@pytest.mark.parametrize("kind", ["small", "times 100", "all below", "all above", "one row", "one logit"])
@pytest.mark.parametrize("vocab", VOCABS)
def test_cross_entropy_equals_slow(vocab, kind):
    r = np.random.RandomState(0)
    logits, targets = r.randn(9, vocab), r.randint(0, vocab, 9)
    if kind == "one row":
        logits[3] += 1000
    elif kind == "one logit":
        logits[3, 0] = -1000
    else:
        logits *= 100 if kind == "times 100" else 1
        logits += {"all below": -150, "all above": 150}.get(kind, 0)
    assert_fast_equals_slow("cross_entropy", [logits, targets], 1e-12)
    assert_fast_equals_slow("cross_entropy", [logits.astype(np.float32), targets], 2e-7 * (50 + np.abs(logits).max()))


def test_nan_among_large_numbers_stays_nan():
    """The shift by the maximum is where a comparison could lose it."""
    q, k, v = heads_and_scores(130, 2, 2, "times 100", np.float32)
    k[0, 50, 1, 3] = np.nan
    y, cache = ops.attention_forward(q, k, v)
    dq, dk, _ = ops.attention_backward(like(y), cache)
    assert np.isnan(y[0, 50:, 1]).all() and np.isnan(dq[0, 50:, 1]).all() and np.isnan(dk[0, 50, 1]).all()
    assert not np.isnan(y[1]).any() and not np.isnan(y[0, :50]).any()       # neither another sequence nor the past
    for large in (0, 1e4):
        loss, cache = ops.cross_entropy_forward(np.array([[large, np.nan, -1]], np.float32), np.array([0]))
        assert np.isnan(loss) and np.isnan(ops.cross_entropy_backward(1.0, cache)).all()


@pytest.mark.parametrize("time", [*TIMES, 2, 63, 66, 127, 192, 200, 1024])
def test_blocks_cover_the_time(time):
    blocks = ops.query_blocks(time)
    assert [start for start, _ in blocks] == [0, *(stop for _, stop in blocks[:-1])] and blocks[-1][1] == time
    assert len({stop - start for start, stop in blocks}) == 1
    assert blocks[0][1] <= ops.BLOCK or len(blocks) == 1
