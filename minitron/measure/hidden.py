"""Progress that the loss does not show (Barak et al. 2022, arXiv:2207.08799; Nanda et al. 2023, arXiv:2301.05217)."""
import numpy as np


def norm(p):
    """Length of the vector of all weights.  It falls while weight decay turns learning by heart into a rule."""
    return float(np.sqrt(np.dot(p.flat, p.flat)))


def distance(p, start):
    """How far the weights have moved since `start`, a flat vector"""
    moved = p.flat - start
    return float(np.sqrt(np.dot(moved, moved)))


def fourier(table, top=5):
    """Share of a table's spectrum in its `top` largest frequencies, its mean left out.      table (p, D) -> 0 to 1

    Row a is the embedding of hour a of a clock.  A model that adds by turning needs sines and cosines of a few frequencies alone;
    random rows have about top / (p // 2) in them, and somewhat more, since the largest are chosen.
    """
    power = (np.abs(np.fft.rfft(np.asarray(table, np.float64), axis=0)) ** 2).sum(axis=1)[1:]
    if len(table) % 2:
        weight = np.full(len(power), 2.0)                   # rfft leaves out the mirror image of each frequency
    else:
        weight = np.append(np.full(len(power) - 1, 2.0), 1.0)
    power *= weight
    return float(np.sort(power)[-top:].sum() / power.sum())
