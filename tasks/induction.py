"""Induction: what followed the last time?

    qfwmkzhcwmkzbx          wmkz comes again; after its w the rest is certain
             ^^^

A row of symbols, all different, in which one segment comes a second time, at a random place.  To continue it one has to find the
place where the present symbol stood before, and say what stood behind it: two steps, for which attention needs two layers.
The first symbol of the second time is not scored, since nothing tells it.

Length: tokens of the row.  Options: segment, the length of what recurs; symbols, the size of the alphabet.
Source: Olsson et al. 2022, arXiv:2209.11895; in this form after the repeated subsequences of Nanda et al. 2023, arXiv:2301.05217.
Expect: two layers solve it, one does not, and a head forms as the loss falls (docs/gallery.md).
"""
import numpy as np

LENGTHS = (4, 120)
LENGTH = 48
OPTIONS = {"segment": (8, 2, 60), "symbols": (64, 4, 94)}
MIXED = False
ENDS = False
WATCH = ("heads",)


def VOCAB(variant, segment, symbols):
    return [chr(33 + i) for i in range(symbols)]


def sample(rng, length, batch, variant, segment, symbols):
    if segment > symbols:
        raise ValueError(f"option segment {segment} exceeds symbols {symbols}: a segment has different symbols")
    if not 2 * segment <= length <= symbols + segment:
        raise ValueError(f"length {length} does not fit segment {segment} and symbols {symbols}: "
                            f"use {2 * segment} to {symbols + segment}")
    different = rng.permutations(batch, symbols)[:, :length - segment]
    first = rng.integers(0, 2**31, (batch, 1)) % (length - 2 * segment + 1)
    second = first + segment + rng.integers(0, 2**31, (batch, 1)) % (length - 2 * segment + 1 - first)
    t = np.arange(length)
    again = (second <= t) & (t < second + segment)
    source = np.where(again, first + t - second, np.where(t < second, t, t - segment))
    return np.take_along_axis(different, source, axis=1), again & (t > second)
