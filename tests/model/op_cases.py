"""Arguments for each op, at sizes that reach its odd cases, and ways to call a pair.

Used by test_ops.py, for the text, and test_fast.py, for its drop-ins.
"""
import numpy as np
from helpers import derivative

from minitron.model import fast, ops

PAIRS = [name.removesuffix("_forward") for name in vars(ops) if name.endswith("_forward")]
DROP_INS = [
    pair for pair in PAIRS
    if getattr(fast, f"{pair}_backward") is not getattr(ops, f"{pair}_backward")
]
CASES = [*PAIRS, "rmsnorm_heads"]               # rmsnorm takes rows, and heads
FAST_CASES = [case for case in CASES if case.removesuffix("_heads") in DROP_INS]

# One of everything; odd widths and grouped queries; a key/value head per query head; a sequence of
# several of fast.py's blocks, one key/value head, and a vocabulary larger than fast.ONE_HOT.
SIZES = {
    "ones": {"B": 1, "T": 1, "H": 1, "G": 1, "K": 2, "D": 1, "F": 1, "V": 2},
    "grouped": {"B": 2, "T": 5, "H": 6, "G": 2, "K": 4, "D": 7, "F": 9, "V": 11},
    "wide": {"B": 3, "T": 8, "H": 3, "G": 3, "K": 6, "D": 32, "F": 40, "V": 5},
    "blocks": {"B": 1, "T": 70, "H": 2, "G": 1, "K": 4, "D": 5, "F": 6, "V": 300},
}


def arguments(case, size, dtype):
    """The arguments of op_forward.  Those that are arrays of this dtype have a gradient."""
    B, T, H, G, K, D, F, V = SIZES[size].values()
    r = np.random.RandomState(0)

    def x(*shape):
        return r.randn(*shape).astype(dtype)

    def heads(count):
        return x(B, T, count + 2, K)[:, :, 1:-1]    # (B, T, count, K), a slice, as the model has it

    def cis():
        positions = r.randint(0, 50, (B, T))
        return 0.7 * ops.rope_table(positions, K, 100.0, dtype)[:, :, None]

    return {
        "embedding": lambda: [r.randint(0, V, B * T), x(V, D)],
        "rows": lambda: [x(B * T, D), r.permutation(B * T)[:B * T // 2 + 1]],
        "linear": lambda: [x(B * T, D), x(F, D)],
        "rmsnorm": lambda: [x(B * T, D), x(D), 0.1],            # an eps large enough to matter
        "rmsnorm_heads": lambda: [heads(H), x(K), 0.1],
        "rope": lambda: [heads(H), cis()],
        "attention": lambda: [heads(H), heads(G), heads(G)],
        "linear_attention": lambda: [heads(H), heads(G), heads(G)],
        "swiglu": lambda: [x(B * T, F), x(B * T, F)],
        "cross_entropy": lambda: [x(B * T, V), r.randint(0, V, B * T)],
    }[case]()


def forward_of(case, module):
    return getattr(module, case.removesuffix("_heads") + "_forward")


def backward_of(case, module):
    """op_backward(dy, cache), made to return a tuple"""
    def backward(dy, cache):
        gradients = getattr(module, case.removesuffix("_heads") + "_backward")(dy, cache)
        return gradients if isinstance(gradients, tuple) else (gradients,)
    return backward


def like(y):
    """A random dy for this y"""
    return np.asarray(np.random.RandomState(1).randn(*y.shape)).astype(y.dtype)[()]


def run(case, size, dtype, module):
    """-> arguments, y, cache, a random dy, and a function that calls the backward"""
    args = arguments(case, size, dtype)
    y, cache = forward_of(case, module)(*args)
    dy = like(y)
    return args, y, cache, dy, lambda: backward_of(case, module)(dy, cache)


def real(args, dtype=np.float64):
    """Indices of the arguments that have a gradient"""
    return [i for i, arg in enumerate(args) if isinstance(arg, np.ndarray) and arg.dtype == dtype]


def slope(case, module, args, i, direction, dy, h=1e-3):
    """Derivative of sum(dy * y) as argument i moves along a direction, numerically"""
    def f(step):
        moved = [arg + step * direction if j == i else arg for j, arg in enumerate(args)]
        return np.sum(dy * forward_of(case, module)(*moved)[0])

    return derivative(f, h)


def arrays(nested):
    """All arrays and NumPy scalars in a nest of tuples and lists"""
    if isinstance(nested, (tuple, list)):
        return [array for part in nested for array in arrays(part)]
    return [nested] if isinstance(nested, (np.ndarray, np.generic)) else []


def snapshot(nested):
    return [(array.dtype, array.shape, array.tobytes()) for array in arrays(nested)]
