"""Modular addition: a + b on a clock with p hours, every hour a token of its own.

    57+48=46        p = 59
          ^^

The model is told nothing of numbers: it sees a part of a p x p table and has to fill in the rest.  Given enough steps and
weight decay it first learns the table by heart and much later the rule, which is called grokking.

b+a counts as the same problem as a+b, so that looking into the other half of a symmetric table does not help.

Length: p, the hours of the clock.  The train fraction (--train-fraction 0.4) is the share of the table that training sees.
Source: Power et al. 2022, arXiv:2201.02177; Nanda et al. 2023, arXiv:2301.05217.
Expect: not yet measured in a sweep.
"""
import numpy as np

LENGTHS = (2, 256)
LENGTH = 59
MIXED = False
BATCH = 512


def VOCAB(length):
    return [str(hour) for hour in range(length)] + ["+", "="]


def sample(rng, length, batch, variant):
    a, b = rng.integers(0, length, (2, batch))
    plus, equals = np.full((2, batch), [[length], [length + 1]])
    tokens = np.stack([a, plus, b, equals, (a + b) % length], axis=1)
    return tokens, np.tile(np.arange(5) == 4, (batch, 1))


def mirror(tokens):
    """a+b=c -> b+a=c"""
    return tokens[:, [2, 1, 0, 3, 4]]
