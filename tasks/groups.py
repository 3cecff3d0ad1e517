"""State tracking: the product so far of a sequence of group elements.

    21345 13245             labels:  21345 23145        (first swap places 1 and 2, then 2 and 3)

Each token is an element of a group; its label is the product of all elements up to it.  S5, the
permutations of five things, and A5, the even ones among them, are not solvable groups: their
products are complete for NC1 (Barrington 1989).  So unless TC0 = NC1, which few believe and nobody
has ruled out, a transformer's depth has to grow with the length.  z60, a clock of 60 hours, has as
many elements as A5 and is in TC0.

Length: elements of the row.
Source: Merrill et al. 2024, arXiv:2404.08819.
Expect: at dim 64 eight steps of the clock are learnt to 93% or more, of A5 not even two are
(docs/gallery.md).
"""
import itertools
from functools import lru_cache

import numpy as np

LENGTHS = (1, 64)
LENGTH = 8
VARIANTS = ("a5", "s5", "z60")
MIXED = False


@lru_cache(maxsize=3)
def group_of(variant):
    """Names of the elements, and table (n, n): table[i, j] is element i followed by element j"""
    if variant == "z60":
        hours = np.arange(60)
        return [f"{hour:02} " for hour in hours], (hours[:, None] + hours) % 60
    elements = [p for p in itertools.permutations(range(5)) if variant == "s5" or is_even(p)]
    index = {p: i for i, p in enumerate(elements)}
    table = [[index[tuple(p[place] for place in q)] for q in elements] for p in elements]
    return ["".join(str(1 + place) for place in p) + " " for p in elements], np.array(table)


def is_even(p):
    return sum(p[i] > p[j] for j in range(len(p)) for i in range(j)) % 2 == 0


def VOCAB(variant):
    return group_of(variant)[0]


def sample(rng, length, batch, variant):
    table = group_of(variant)[1]
    tokens = rng.integers(0, len(table), (batch, length))
    labels = tokens.copy()                                      # (B, length)
    for t in range(1, length):
        labels[:, t] = table[labels[:, t - 1], tokens[:, t]]
    return tokens, labels
