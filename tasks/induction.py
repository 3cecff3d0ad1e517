"""Induction: which symbol came next the last time?

    qfwmkzhcwmkzbx          wmkz comes again; after its w the rest is certain
             ^^^

A row of symbols, all different, in which one segment comes a second time, at a random place.  To
continue the segment, the model has to find the earlier place of the current symbol and copy the
symbol after it: two steps, for which attention needs two layers.  The first symbol of the second
time is not scored, since nothing predicts it.

Length: tokens of the row.  Options: segment, the length of the part that recurs; symbols, the size
of the alphabet.
Source: Olsson et al. 2022, arXiv:2209.11895; the form follows the repeated subsequences of Nanda et
al. 2023, arXiv:2301.05217.
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
    return [chr(ord("!") + i) for i in range(symbols)]


def sample(rng, length, batch, variant, segment, symbols):
    if segment > symbols:
        raise ValueError(f"segment is {segment}, but there are only {symbols} symbols")
    if not 2 * segment <= length <= symbols + segment:
        raise ValueError(f"length {length} does not fit segment {segment} and symbols {symbols}: "
                         f"use {2 * segment} to {symbols + segment}")
    distinct = rng.permutations(batch, symbols)[:, :length - segment]

    # where the segment stands: second is at least `segment` after first
    room = length - 2 * segment + 1
    first = rng.integers(0, 2**31, (batch, 1)) % room                           # (B, 1)
    second = first + segment + rng.integers(0, 2**31, (batch, 1)) % (room - first)

    # each place copies one of the distinct symbols, the second segment those of the first
    t = np.arange(length)
    recurs = (second <= t) & (t < second + segment)                             # (B, length)
    source = np.where(recurs, first + t - second, np.where(t < second, t, t - segment))
    return np.take_along_axis(distinct, source, axis=1), recurs & (t > second)
