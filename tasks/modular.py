"""Modular addition: a + b on a clock with p hours, every hour a token of its own.

    57+48=46        p = 59
          ^^

The model is told nothing about numbers: it sees a part of a p x p table and has to fill in the
rest.  With enough steps and weight decay it first memorises the table and learns the rule much
later, which is called grokking.

In the variant plain, b+a counts as the same problem as a+b, so that the other half of the symmetric
table does not give a test answer away.  The variant ordered holds out cells of the table without
regard to that, as the published runs do.

Length: p, the hours of the clock.  The train fraction (--train-fraction 0.4) is the share of the
table that training sees, and a batch as large as that share is all of it, each problem once.
Source: Power et al. 2022, arXiv:2201.02177; Nanda et al. 2023, arXiv:2301.05217.
Expect: of p = 113, ordered, 0.7 of the table is enough after 480 steps and 0.3 after 3,540
(docs/gallery.md).
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
    """Cut the table into splits, the same in every run -> pieces, draw, no fingerprint"""
    # the whole table, p * p rows "a+b=c"
    pieces = [str(hour) for hour in range(length)] + ["+", "="]
    a, b = np.divmod(np.arange(length**2), length)
    plus, equals = np.full_like(a, length), np.full_like(a, length + 1)
    table = np.stack([a, plus, b, equals, (a + b) % length], axis=1)            # (p * p, 5)

    # in the order of random lots, of which a+b and b+a have one if they are the same problem
    lots = world(length).uniform((length, length))
    if variant == "plain":
        lots = np.triu(lots) + np.triu(lots, 1).T
    order = np.argsort(lots, axis=None, kind="stable")
    table, lots = table[order], lots.flat[order]

    # cut into shares, one row later where a cut would part twins
    cuts = [round(share * len(table)) for share in shares(train_fraction)]
    cuts = [cut + (0 < cut < len(table) and lots[cut - 1] == lots[cut]) for cut in cuts]
    splits = {name: table[start:stop] for name, start, stop in zip(SPLITS, cuts, cuts[1:])}

    def draw(rng, length, batch, split):
        rows = splits[split]
        if batch < len(rows):
            rows = rows[rng.integers(0, len(rows), batch)]
        return rows, np.tile(np.arange(5) == 4, (len(rows), 1))

    return pieces, draw, ""
