"""k-hop induction: follow k links backwards through a row of letters.

    2abcbacab           labels:  2 links from the last b: the b before it, whose successor is a; the a before that, then b
     ~~~~~cbb

A link leads from a letter to the place behind the last time that this letter occurred before.  After k links one says the
letter there, or ~ where there is no such place.  One link is an induction head; k in sequence can be done by halves, so that the
depth needed grows as log2(k).

Length: letters of the row.  Options: hops, the largest k, of which each row draws its own; letters of the alphabet.
Source: Sanford et al. 2024, arXiv:2402.09268.
Expect: at dim 64 one layer follows one hop (94%), two layers three (97%), three layers four (docs/gallery.md).
"""
import numpy as np

LENGTHS = (2, 256)
LENGTH = 32
OPTIONS = {"hops": (4, 0, 9), "letters": (4, 3, 20)}
MIXED = False
WATCH = ("heads",)


def VOCAB(variant, hops, letters):
    return "abcdefghijklmnopqrst"[:letters] + "~" + "0123456789"[:hops + 1]


def sample(rng, length, batch, variant, hops, letters):
    steps = rng.integers(1, letters, (batch, length))                       # 1..letters-1: no letter follows itself
    steps[:, 0] = rng.integers(0, letters, batch)
    row, k = steps.cumsum(axis=1) % letters, rng.integers(0, hops + 1, (batch, 1))
    links = follow(row, letters)
    place = np.tile(np.arange(length), (batch, 1))
    for hop in range(hops):
        place = np.where((hop < k) & (place >= 0), np.take_along_axis(links, place, axis=1), place)
    labels = np.where(place >= 0, np.take_along_axis(row, place, axis=1), letters)
    nothing = np.full((batch, 1), -1)
    return np.concatenate([letters + 1 + k, row], axis=1), np.concatenate([nothing, labels], axis=1)


def follow(row, letters):
    """For each place the one behind the last time its letter occurred before, -1 for none.      (B, T) -> (B, T)"""
    links, behind, rows = np.empty_like(row), np.full((len(row), letters), -1), np.arange(len(row))
    for t in range(row.shape[1]):
        links[:, t] = behind[rows, row[:, t]]
        behind[rows, row[:, t]] = t + 1
    return links


def group(tokens, length, hops, letters):
    """k"""
    return tokens[:, 0] - letters - 1
