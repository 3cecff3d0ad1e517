"""Modular addition: a + b on a clock with p hours, every hour a token of its own.

    57+48=46        p = 59
          ^^

The model is told nothing of numbers: it sees a part of a p x p table and has to fill in the rest.  Given enough steps and
weight decay it first learns the table by heart and much later the rule, which is called grokking.

In the variant plain, b+a counts as the same problem as a+b, so that looking into the other half of a symmetric table does not
help.  The variant ordered holds out cells of the table without regard to that, as the published runs do.

Length: p, the hours of the clock.  The train fraction (--train-fraction 0.4) is the share of the table that training sees, and
a batch as large as that share is all of it, each problem once.
Source: Power et al. 2022, arXiv:2201.02177; Nanda et al. 2023, arXiv:2301.05217.
Expect: of p = 113, ordered, 0.7 of the table is enough after 480 steps and 0.3 after 3,540 (docs/gallery.md).
"""
import numpy as np

from . import SPLITS, shares

LENGTHS = (2, 256)
LENGTH = 59
VARIANTS = ("plain", "ordered")
MIXED = False
EXTRAPOLATES = False
ENDS = False
BATCH = 512
VERSION = 2
WATCH = ("fourier",)


def prepare(world, length, variant, train_fraction, data):
    """Cut the table into splits -> pieces, draw, no fingerprint: the cut is the same for every run."""
    pieces = [str(hour) for hour in range(length)] + ["+", "="]
    a, b = np.divmod(np.arange(length**2), length)
    lot = world(length).uniform((length, length))
    if variant == "plain":
        lot = np.triu(lot) + np.triu(lot, 1).T                                  # one lot for a+b and b+a
    order = np.argsort(lot, axis=None, kind="stable")
    lot = lot.flat[order]
    table = np.stack([a, np.full_like(a, length), b, np.full_like(a, length + 1), (a + b) % length], axis=1)[order]
    cuts = [round(share * len(table)) for share in shares(train_fraction)]
    cuts = [cut + (0 < cut < len(table) and lot[cut - 1] == lot[cut]) for cut in cuts]      # never between twins
    splits = {name: table[start:stop] for name, start, stop in zip(SPLITS, cuts, cuts[1:])}

    def draw(rng, length, batch, split):
        rows = splits[split]
        if batch < len(rows):
            rows = rows[rng.integers(0, len(rows), batch)]
        return rows, np.tile(np.arange(5) == 4, (len(rows), 1))

    return pieces, draw, ""
