"""Facts without a rule: how many fit into a model?

    k17=v203
        ^^^^

A random one-to-one table of keys and values.  There is nothing to generalise, so the test asks for
the facts of training.  A single d x d matrix that maps fixed random vectors of keys to those of
values can hold p pairs with p ln p = d^2 / 2; a model that may also choose the vectors can hold
more.

Length: facts.  Option: world names the hidden table.
Source: arXiv:2605.10795 for the capacity of a linear associative memory.
Expect: of 1,024 facts dim 2 holds 6%, dim 3 71%, dim 4 all (docs/gallery.md).
"""
import numpy as np

LENGTHS = (2, 8192)
LENGTH = 256
OPTIONS = {"world": (0, 0, 2**31)}
MIXED = False
EXTRAPOLATES = False
ENDS = False
BATCH = 512


def prepare(world, length, variant, train_fraction, data):
    """Draw the table -> pieces, draw, no fingerprint.  Every split is the whole table."""
    value = world(length).permutations(1, length)[0]                    # (facts,)
    pieces = [f"k{i}=" for i in range(length)] + [f"v{i}" for i in range(length)]

    def draw(rng, facts, batch, split):
        key = rng.integers(0, length, batch)
        tokens = np.stack([key, length + value[key]], axis=1)           # (B, 2)
        return tokens, np.tile([False, True], (batch, 1))

    return pieces, draw, ""
