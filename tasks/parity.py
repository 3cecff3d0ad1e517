"""Parity: is the number of 1s odd?

    0110101=0           scratchpad:  0110101=0100110
            ^                                ^^^^^^^

One wrong bit flips the answer, so there is no partial credit and no shortcut.  The scratchpad
writes down the parity of the bits so far after each bit; the last one is the answer, and each needs
only the one before and one more bit.

Length: bits.  Short ones have few problems: 12 bits have 4,096, of which the test holds about 330.
Source: Hahn 2020, arXiv:1906.06755; with a scratchpad, Wen et al. 2024, arXiv:2410.05459.
Expect: at dim 32, 24 bits stay at chance; with a scratchpad 24 and 48 bits are solved
(docs/gallery.md).
"""
import numpy as np

from . import join

VOCAB = "01="
LENGTHS = (1, 64)
LENGTH = 12
VARIANTS = ("plain", "scratchpad")


def sample(rng, length, batch, variant):
    bits = rng.integers(0, 2, (batch, length))
    parities = bits.cumsum(axis=1) % 2                          # (B, length)
    return join(VOCAB, bits, "=", [parities if variant == "scratchpad" else parities[:, -1:]])


def positions(length, variant):
    """A bit and the parity up to it share an id."""
    bits = np.arange(1, length + 1)
    return np.concatenate([bits, [0], bits if variant == "scratchpad" else [1]])
