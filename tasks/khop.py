"""k-hop induction: follow k links backwards through a row of letters.

    2abcbacab           labels:  the last b links to the a after the b before it, and that to b
     ~~~~~cbb

A link leads from a letter to the place after its last earlier occurrence.  The label is the letter
at the end of k links, or ~ if there is no such place.  One link is an induction head; k links in
sequence can be followed by halves, so that the depth needed grows as log2(k).

Length: letters of the row.  Options: hops, the largest k, of which each row draws its own; letters
of the alphabet.
Source: Sanford et al. 2024, arXiv:2402.09268.
Expect: at dim 64 one layer follows one hop (94%), two layers three (97%), three layers four
(docs/gallery.md).
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
    # a random row in which no letter follows itself: steps of 1 to letters-1 around the alphabet
    steps = rng.integers(1, letters, (batch, length))
    steps[:, 0] = rng.integers(0, letters, batch)
    row = steps.cumsum(axis=1) % letters                                    # (B, length)
    k = rng.integers(0, hops + 1, (batch, 1))                               # (B, 1)

    # from each place follow k links; -1 once there is none
    links = link_targets(row, letters)
    place = np.tile(np.arange(length), (batch, 1))
    for hop in range(hops):
        next_place = np.take_along_axis(links, place, axis=1)
        place = np.where((hop < k) & (place >= 0), next_place, place)
    labels = np.where(place >= 0, np.take_along_axis(row, place, axis=1), letters)

    # the number of hops stands before the letters, without a label
    tokens = np.concatenate([letters + 1 + k, row], axis=1)                 # (B, 1 + length)
    return tokens, np.concatenate([np.full((batch, 1), -1), labels], axis=1)


def link_targets(row, letters):
    """(B, T) -> (B, T): for each place the one after its letter's last earlier occurrence, or -1"""
    links, rows = np.empty_like(row), np.arange(len(row))
    target = np.full((len(row), letters), -1)
    for t in range(row.shape[1]):
        links[:, t] = target[rows, row[:, t]]
        target[rows, row[:, t]] = t + 1
    return links


def group(tokens, length, hops, letters):
    """k"""
    return tokens[:, 0] - letters - 1
