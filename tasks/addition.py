"""Addition, written out as at school.

    123+456=0579        reversed:  123+456=9750        scratchpad:  128+456=418050:0584
            ^^^^                           ^^^^                             ^^^^^^^^^^^

Each digit of the answer needs two digits of the problem and a carry, and the carry may have come all the way from the right.
Written plain, the first digit asked for is the one that depends on all others; reversed, the digits come in the order
in which one works them out.  The scratchpad writes both down for each column, from the right: the digit of the sum there, and
the carry into the next (8+6 is 4 carry 1, 2+5+1 is 8 carry 0, ...), and then the answer.

b+a is the same problem as a+b: whoever has learnt one has not been asked the other anew.

Length: digits of each number, with leading zeros; the answer has one more.  7+5 at length 3 is 007+005=0012.
Source: Lee et al. 2023, arXiv:2307.03381; for the coupled positions, Cho et al. 2024, arXiv:2405.20671.
Expect: README.md shows one run at dim 128 and one at dim 8.
"""
import numpy as np

from . import join, swap_numbers

VOCAB = "0123456789+=:"
LENGTHS = (1, 64)
VARIANTS = ("plain", "reversed", "scratchpad")
VERSION = 2


def sample(rng, length, batch, variant):
    a, b = rng.integers(0, 10, (2, batch, length))
    total, carries = add(a, b)
    if variant == "plain":
        return join(VOCAB, a, "+", b, "=", [total])
    if variant == "reversed":
        return join(VOCAB, a, "+", b, "=", [total[:, ::-1]])
    columns = np.stack([total[:, :0:-1], carries[:, ::-1]], axis=2).reshape(batch, -1)
    colon = np.full((batch, 1), VOCAB.index(":"))
    return join(VOCAB, a, "+", b, "=", [columns], [colon], [total])


def add(a, b):
    """Digits a, b (B, n), the first one the highest -> digits of the sum (B, n+1), the carry out of each column (B, n)"""
    total, carries = np.zeros((len(a), a.shape[1] + 1), np.int64), np.empty_like(a)
    for column in reversed(range(a.shape[1])):
        here = a[:, column] + b[:, column] + total[:, column + 1]
        total[:, column + 1], carries[:, column] = here % 10, here // 10
        total[:, column] = carries[:, column]
    return total, carries


def mirror(tokens, variant):
    """a+b=c -> b+a=c"""
    return swap_numbers(tokens, VOCAB.index("+"))


def positions(length, variant):
    """Digits of equal weight share an id, so that what an answer's digit needs is equally far away however long the numbers are.

    Each token of the answer stands one step from the next in the direction of writing, and so does "=" from the first.
    """
    number, up = np.arange(length, 0, -1), np.arange(1, length + 2)
    if variant == "plain":
        return np.concatenate([number, [0], number, [length + 2], up[::-1]])
    if variant == "reversed":
        return np.concatenate([number, [0], number, [0], up])
    return np.concatenate([number, [0], number, [0], np.repeat(up[:-1], 2), [length + 2], up[::-1]])
