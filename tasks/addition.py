"""Addition, written out as at school.

    123+456=0579        reversed:  123+456=9750        scratchpad:  128+456=418050:0584
            ^^^^                           ^^^^                             ^^^^^^^^^^^

Each digit of the answer needs two digits of the problem and a carry, and the carry may come all the
way from the right.  Plain, the first digit asked for is the one that depends on all the others;
reversed, the digits come in the order in which one works them out.  The scratchpad first writes
down each column from the right, its digit of the sum and its carry (8+6 is 4 carry 1, 2+5+1 is 8
carry 0, ...), and then the answer.

b+a is the same problem as a+b: both are in one split, so that no test problem is the twin of a
training problem.

Length: digits of each number, with leading zeros; the answer has one more.  7+5 at length 3 is
007+005=0012.
Source: Lee et al. 2023, arXiv:2307.03381; coupled positions, Cho et al. 2024, arXiv:2405.20671.
Expect: README.md shows one run at dim 128 and one at dim 8.
"""
import numpy as np

from . import join, swap_numbers

VOCAB = "0123456789+=:"
LENGTHS = (1, 64)
VARIANTS = ("plain", "reversed", "scratchpad")
VERSION = 2


def sample(rng, length, batch, variant):
    a, b = rng.integers(0, 10, (2, batch, length))              # digits (B, n), the highest first
    total, carries = add(a, b)                                  # (B, n+1), (B, n)
    if variant == "plain":
        return join(VOCAB, a, "+", b, "=", [total])
    if variant == "reversed":
        return join(VOCAB, a, "+", b, "=", [total[:, ::-1]])

    # the scratchpad: digit and carry of each column, from the right
    pairs = np.stack([total[:, :0:-1], carries[:, ::-1]], axis=2)       # (B, n, 2)
    return join(VOCAB, a, "+", b, "=", [pairs.reshape(batch, -1)], [":"], [total])


def add(a, b):
    """Digits (B, n), the highest first -> digits of a + b (B, n+1), carry of each column (B, n)"""
    total = np.zeros((len(a), a.shape[1] + 1), np.int64)
    carries = np.empty_like(a)
    for column in reversed(range(a.shape[1])):
        column_sum = a[:, column] + b[:, column] + total[:, column + 1]     # with the carry into it
        carries[:, column], total[:, column + 1] = column_sum // 10, column_sum % 10
        total[:, column] = carries[:, column]                               # the next column's
    return total, carries


def mirror(tokens, variant):
    """a+b=c -> b+a=c"""
    return swap_numbers(tokens, VOCAB.index("+"))


def positions(length, variant):
    """Digits of equal weight share an id.

    So a digit of the answer is equally far from the digits that it needs, however long the numbers
    are.  The tokens of the answer are one step apart in the direction of writing, and "=" is one
    step from the first.
    """
    number, up = np.arange(length, 0, -1), np.arange(1, length + 2)
    if variant == "plain":
        return np.concatenate([number, [0], number, [length + 2], up[::-1]])
    if variant == "reversed":
        return np.concatenate([number, [0], number, [0], up])
    pairs = np.repeat(up[:-1], 2)
    return np.concatenate([number, [0], number, [0], pairs, [length + 2], up[::-1]])
