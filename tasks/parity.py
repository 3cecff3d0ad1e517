"""Parity: is the number of 1s odd?

    0110101=0
            ^

One wrong bit flips the answer, so there is no partial credit and no shortcut.

Length: number of bits.  Short ones have few problems: 12 bits have 4,096, of which the test holds about 330.
Source: Hahn 2020, arXiv:1906.06755; as a task, Deletang et al. 2023, arXiv:2207.02098.
Expect: not yet measured in a sweep.
"""
from . import join

VOCAB = "01="
LENGTHS = (1, 64)
LENGTH = 12


def sample(rng, length, batch, variant):
    bits = rng.integers(0, 2, (batch, length))
    return join(VOCAB, bits, "=", [bits.sum(axis=1, keepdims=True) % 2])
