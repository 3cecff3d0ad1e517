"""Random numbers that are the same bits on every machine and every NumPy version.

NumPy promises its bit generators across versions, but not what Generator makes of their words.  So the words come from
PCG64 (O'Neill 2014) and the rest is here, in integer arithmetic and exact scalings alone.

A stream is named by numbers, not handed around: the batch of step 17 is drawn from Random(seed, TRAIN, 17).  Nothing about a
stream has to be saved to resume a run, and no two uses can share one by accident.
"""
import math

import numpy as np

INIT, TRAIN, VALID, TEST, CHANCE, GALLERY, POSITIONS, WORLD = range(8)       # what a stream is for


class Random:
    """A stream of random numbers named by integers of 0 to 2^64-1, e.g. Random(seed, TRAIN, step)."""

    def __init__(self, *name):
        # SeedSequence joins words of 32 bits and drops zeros at the end; so each integer gets two words, behind their number.
        halves = [half for number in name for half in (number % 2**32, number >> 32)]
        self._bits = np.random.PCG64(np.random.SeedSequence([len(name), *halves]))

    def words(self, shape):
        """Uniform 64-bit words, uint64."""
        return self._bits.random_raw(math.prod(np.atleast_1d(shape))).reshape(shape)

    def uniform(self, shape):
        """Uniform in [0, 1): the top 53 bits of a word, as many as a float64 holds."""
        return (self.words(shape) >> np.uint64(11)) * 2.0**-53

    def integers(self, low, high, shape):
        """Uniform in low..high-1, int64.  The remainder's bias is below (high - low) / 2^64."""
        return low + (self.words(shape) % np.uint64(high - low)).astype(np.int64)

    def permutations(self, rows, size):
        """rows random orders of 0..size-1, (rows, size): the order in which random words sort."""
        return np.argsort(self.words((rows, size)), axis=1, kind="stable")

    def different(self, rows, size, count):
        """rows times `count` different numbers of 0..size-1 in random order, (rows, count).

        Floyd's method (Bentley & Floyd 1987): two words a number, where permutations would need `size` a row.
        """
        chosen = np.empty((rows, count), np.int64)
        for i, last in enumerate(range(size - count, size)):
            drawn = self.integers(0, last + 1, rows)
            taken = (chosen[:, :i] == drawn[:, None]).any(axis=1)
            chosen[:, i] = np.where(taken, last, drawn)
        return np.take_along_axis(chosen, self.permutations(rows, count), axis=1)
