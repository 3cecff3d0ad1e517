"""Reverse a string.

    hello=olleh
          ^^^^^

Every answer token stands somewhere in the problem; what is to be learnt is where.

Length: letters of the string.
Source: Deletang et al. 2023, arXiv:2207.02098.
Expect: not yet measured in a sweep.
"""
from . import join

VOCAB = "abcdefghijklmnopqrstuvwxyz="
LENGTHS = (1, 64)
LENGTH = 8


def sample(rng, length, batch, variant):
    letters = rng.integers(0, 26, (batch, length))
    return join(VOCAB, letters, "=", [letters[:, ::-1]])
