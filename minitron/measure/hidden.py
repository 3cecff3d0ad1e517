"""Progress that the loss does not show

Barak et al. 2022, arXiv:2207.08799; Nanda et al. 2023, arXiv:2301.05217
"""
import numpy as np


def norm(p):
    """Length of the vector of all weights; it falls while weight decay turns memory into a rule"""
    return float(np.sqrt(np.dot(p.flat, p.flat)))


def distance(p, start):
    """Distance of the weights from `start`, a flat vector"""
    step = p.flat - start
    return float(np.sqrt(np.dot(step, step)))


def fourier(table, top=5):
    """Share of a table's spectrum in its `top` largest frequencies, without its mean

    table (p, D), row a the embedding of hour a of a clock -> 0 to 1.  A model that adds by rotation
    needs sines and cosines of a few frequencies alone.  Random rows have about top / (p // 2) in
    them, and somewhat more, since the largest are taken.  0 if all rows are equal.
    """
    power = (np.abs(np.fft.rfft(np.asarray(table, np.float64), axis=0)) ** 2).sum(axis=1)[1:]
    mirrored = np.full(len(power), 2.0)             # rfft leaves out each frequency's mirror image
    if len(table) % 2 == 0:
        mirrored[-1] = 1                            # half a turn per step is its own
    power *= mirrored
    return float(np.sort(power)[-top:].sum() / (power.sum() or 1))
