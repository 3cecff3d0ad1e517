"""Brackets: which one has to be closed next?

    ([{}])[         labels:  )]}]).]        . where all are closed

A random walk of opening and closing brackets of several kinds, never deeper than a bound.  At each
token the label is the bracket that would close the innermost open one: the top of a stack.

Length: brackets of the row.  Options: kinds of brackets; depth, the deepest nesting.
Source: Yao et al. 2021, arXiv:2105.11115.
Expect: at dim 32 one layer has 16% of the rows right, two layers 98% (docs/gallery.md).
"""
import numpy as np

LENGTHS = (1, 256)
LENGTH = 32
OPTIONS = {"kinds": (4, 1, 4), "depth": (6, 1, 64)}
MIXED = False


def VOCAB(variant, kinds, depth):
    return "([{<"[:kinds] + ")]}>"[:kinds] + "."


def sample(rng, length, batch, variant, kinds, depth):
    coins = rng.integers(0, 2, (batch, length))
    kind = rng.integers(0, kinds, (batch, length))
    tokens, labels = np.empty((2, batch, length), np.int64)

    # a stack of kinds per row, with the label "." below all of them
    rows, height = np.arange(batch), np.zeros(batch, np.int64)
    stack = np.full((batch, depth + 1), kinds)                          # (B, depth + 1)
    for t in range(length):
        opens = (height == 0) | (height < depth) & (coins[:, t] == 1)   # (B,)
        tokens[:, t] = np.where(opens, kind[:, t], kinds + stack[rows, height])
        height += np.where(opens, 1, -1)
        stack[rows[opens], height[opens]] = kind[opens, t]
        labels[:, t] = kinds + stack[rows, height]
    return tokens, labels
