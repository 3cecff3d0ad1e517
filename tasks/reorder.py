"""Write a string again: reversed, copied, or sorted.

    hello=olleh         copy:  hello=hello         sort:  hello=ehllo
          ^^^^^                      ^^^^^                      ^^^^^

Every token of the answer stands somewhere in the problem; the model has to learn where.

Length: letters of the string.
Source: Deletang et al. 2023, arXiv:2207.02098.
Expect: twelve letters at dim 64; with coupled ids eighteen, too, at 93% or more (docs/gallery.md).
"""
import numpy as np

from . import join

VOCAB = "abcdefghijklmnopqrstuvwxyz="
LENGTHS = (1, 64)
LENGTH = 8
VARIANTS = ("reverse", "copy", "sort")


def sample(rng, length, batch, variant):
    letters = rng.integers(0, 26, (batch, length))
    orders = {"reverse": letters[:, ::-1], "copy": letters, "sort": np.sort(letters, axis=1)}
    return join(VOCAB, letters, "=", [orders[variant]])


def positions(length, variant):
    """A letter and its copy share an id.  Sorting has no such pairs: there ids count up."""
    letters = np.arange(1, length + 1)
    if variant == "reverse":
        return np.concatenate([letters, [length + 1], letters[::-1]])
    if variant == "copy":
        return np.concatenate([letters, [0], letters])
    return np.arange(2 * length + 1)
