"""The drop-ins of fast.py equal the ops of ops.py, values and all gradients, in both dtypes.

A trick that makes an op fast has a case that seldom comes: the last short block, the large score,
the large vocabulary.  Each is held to the text on both sides of its border.
"""
import numpy as np
import pytest
from op_cases import DROP_INS, FAST_CASES, SIZES, arguments, backward_of, forward_of, like, slope

from minitron.model import fast, ops

TIMES = [1, 5, fast.BLOCK - 1, fast.BLOCK, fast.BLOCK + 1, 2 * fast.BLOCK, 97, 100, 256]
VOCABS = [1, 7, fast.ONE_HOT, fast.ONE_HOT + 1, 1000]
EXACT = {np.dtype(np.float32): np.float64, np.dtype(np.complex64): np.complex128}


def in_exact(args):
    """The same arguments in float64"""
    return [arg.astype(EXACT.get(arg.dtype, arg.dtype)) if isinstance(arg, np.ndarray) else arg
            for arg in args]


def assert_equals_text(case, args, tolerance):
    """The value and each gradient differ by `tolerance` at most, relative to the largest number in
    them and in the arguments.

    The arguments count since a gradient may be zero (one time step: nothing to attend to), and
    rounding, times a large argument, is not.  The text is computed in float64 always, so that the
    error is the drop-in's alone.
    """
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, cache = forward_of(case, fast)(*args)
        results = (y, *backward_of(case, fast)(like(y), cache))
    text_y, text_cache = forward_of(case, ops)(*in_exact(args))
    text = (text_y, *backward_of(case, ops)(like(y).astype(np.float64), text_cache))
    largest = max(np.abs(arg).max() for arg in args
                  if isinstance(arg, np.ndarray) and arg.dtype == y.dtype)
    for result, expected in zip(results, text, strict=True):
        assert result.shape == expected.shape
        error = np.max(np.abs(result - expected))
        assert error <= tolerance * max(largest, np.abs(expected).max())


def test_these_are_the_drop_ins():
    assert set(DROP_INS) == {"embedding", "rmsnorm", "attention", "swiglu", "cross_entropy"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", FAST_CASES)
def test_drop_in_equals_text(case, size):
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        assert_equals_text(case, arguments(case, size, dtype), tolerance)


def heads_and_scores(time, heads, groups, kind, dtype):
    """q, k, v of attention, slices of one product as in the model, their scores as `kind` says

    The first channel of every key is 1, so that of a query is added to all the scores of its row,
    which softmax does not notice; times 2, since K^-0.5 is 1/2.
    """
    B, K = 2, 4
    u = np.random.RandomState(time).randn(B, time, heads + 2 * groups, K)
    q, k = u[:, :, :heads], u[:, :, heads:heads + groups]
    k[..., 0] = 1
    if kind == "times 100":
        q *= 100
    elif kind == "one row":
        q[-1, time // 2, 0, 0] = 2000
    elif kind == "one key":
        k[-1, time // 2, 0] *= 2000
    elif kind == "below and above":
        q[:, ::2, :, 0], q[:, 1::2, :, 0] = -300, 300
    else:
        q[..., 0] = {"small": 0, "all below": -300, "all above": 300,
                     "large but safe": 60, "low but safe": -60}[kind]
    u = u.astype(dtype)
    return u[:, :, :heads], u[:, :, heads:heads + groups], u[:, :, heads + groups:]


SAFE_KINDS = ["small", "large but safe", "low but safe"]
KINDS = [*SAFE_KINDS, "all below", "all above", "below and above", "one row", "one key",
         "times 100"]


def largest_score(q, k):
    groups = k.shape[2]
    scores = ops.by_head(q, groups) @ ops.transpose(ops.by_head(k, groups)) * k.shape[-1] ** -0.5
    return np.abs(scores).max()


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_scores_take_both_paths(monkeypatch, kind):
    """The shift is used where it must be, and only there: the tests below do test both."""
    shifted = []

    def causal_softmax(scores):
        shifted.append(scores)
        return np.zeros(scores.shape)

    monkeypatch.setattr(ops, "causal_softmax", causal_softmax)
    for dtype in (np.float32, np.float64):
        shifted.clear()
        fast.attention_forward(*heads_and_scores(256, 4, 2, kind, dtype))
        assert bool(shifted) == (kind not in SAFE_KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", TIMES)
def test_attention_equals_text(time, kind):
    for heads, groups in ((4, 2), (2, 2), (3, 1), (1, 1)):
        args = heads_and_scores(time, heads, groups, kind, np.float64)
        assert_equals_text("attention", args, 1e-12)
        args = heads_and_scores(time, heads, groups, kind, np.float32)
        # Scores are rounded relative to their size; exp makes that an error relative to the result.
        assert_equals_text("attention", args, 2e-7 * (50 + largest_score(*args[:2])))


@pytest.mark.parametrize("kind", ["small", "below and above", "one row"])
@pytest.mark.parametrize(("time", "heads", "groups"), [(5, 4, 2), (70, 3, 1), (64, 2, 2)])
def test_attention_gradient_is_the_derivative(time, heads, groups, kind):
    """Over several blocks and by the shifted path, too.

    The step is small, since a key's first channel now moves scores by up to 1000 times as much.
    """
    args = heads_and_scores(time, heads, groups, kind, np.float64)
    y, cache = fast.attention_forward(*args)
    for i, gradient in enumerate(fast.attention_backward(like(y), cache)):
        direction = np.random.RandomState(i).randn(*args[i].shape)
        expected = slope("attention", fast, args, i, direction, like(y), 1e-5)
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("time", [*TIMES, 2, 63, 66, 1024])
def test_blocks_cover_the_time(time):
    blocks = fast.query_blocks(time)
    assert [block.start for block in blocks] == [0, *(block.stop for block in blocks[:-1])]
    assert blocks[-1].stop == time
    assert all(0 < block.stop - block.start <= fast.BLOCK for block in blocks)


@pytest.mark.parametrize("vocab", VOCABS)
def test_embedding_equals_text(vocab):
    """With far more tokens than words, and with words that never come"""
    r = np.random.RandomState(0)
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        args = [r.randint(0, vocab, 500), r.randn(vocab, 7).astype(dtype)]
        assert_equals_text("embedding", args, tolerance)


@pytest.mark.parametrize("width", [1, 2, 8, 9, 129])
@pytest.mark.parametrize("heads", [1, 4])
def test_rmsnorm_of_heads_equals_text(heads, width):
    r = np.random.RandomState(0)
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        x, gain = r.randn(3, 5, heads + 1, width)[:, :, 1:], r.randn(width)
        assert_equals_text("rmsnorm", [x.astype(dtype), gain.astype(dtype), 1e-5], tolerance)


@pytest.mark.parametrize(
    "kind", ["small", "times 100", "all below", "all above", "one row", "one logit"])
@pytest.mark.parametrize("vocab", VOCABS)
def test_cross_entropy_equals_text(vocab, kind):
    r = np.random.RandomState(0)
    logits, targets = r.randn(9, vocab), r.randint(0, vocab, 9)
    if kind == "one row":
        logits[3] += 1000
    elif kind == "one logit":
        logits[3, 0] = -1000
    else:
        logits *= 100 if kind == "times 100" else 1
        logits += {"all below": -150, "all above": 150}.get(kind, 0)
    assert_equals_text("cross_entropy", [logits, targets], 1e-12)
    rounded = logits.astype(np.float32)
    assert_equals_text("cross_entropy", [rounded, targets], 2e-7 * (50 + np.abs(logits).max()))


@pytest.mark.parametrize("module", [ops, fast])
def test_nan_among_large_numbers_stays_nan(module):
    """The shift by the maximum is where a comparison could lose it."""
    q, k, v = (x.copy() for x in heads_and_scores(130, 2, 2, "times 100", np.float32))
    k[0, 50, 1, 3] = np.nan
    y, cache = module.attention_forward(q, k, v)
    dq, dk, _ = module.attention_backward(like(y), cache)
    assert np.isnan(y[0, 50:, 1]).all() and np.isnan(dq[0, 50:, 1]).all()
    assert np.isnan(dk[0, 50, 1]).all()
    assert not np.isnan(y[1]).any() and not np.isnan(y[0, :50]).any()   # another sequence, the past
    for large in (0, 1e4):
        logits = np.array([[large, np.nan, -1]], np.float32)
        loss, cache = module.cross_entropy_forward(logits, np.array([0]))
        assert np.isnan(loss) and np.isnan(module.cross_entropy_backward(1.0, cache)).all()


def test_no_rows_are_no_loss():
    """A shard may hold no scored token."""
    loss, cache = fast.cross_entropy_forward(np.zeros((0, 5), np.float32), np.zeros(0, int))
    assert loss == 0 and fast.cross_entropy_backward(1.0, cache).shape == (0, 5)


def test_shared_arrays_are_shared_and_read_only():
    float32 = np.dtype(np.float32)
    for make, args, values in (
        (fast.ones, (2, float32), [1, 1]),
        (fast.past, (1, 3, float32), [[1, 1, 0], [1, 1, 1]]),
    ):
        array = make(*args)
        assert array is make(*args) and array.dtype == float32 and array.tolist() == values
        with pytest.raises(ValueError, match="read-only"):
            array += 1
