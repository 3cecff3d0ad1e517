"""Random numbers that are the same bits on every machine and in every NumPy version.

NumPy promises the words of its bit generators across versions, but not Generator's use of them.
So the words come from PCG64 (O'Neill 2014); the rest is here, in integer arithmetic and exact
scalings.

A stream is named by numbers, not handed around: Random(seed, TRAIN, 17) draws the batch of step
17.  So a checkpoint needs no random state, and no two uses can share a stream by accident.
"""
import math

import numpy as np

INIT, TRAIN, VALID, TEST, CHANCE, GALLERY, POSITIONS, WORLD = range(8)      # purposes of a stream


class Random:
    """A stream of random numbers, named by integers from 0 to 2^64-1: Random(seed, TRAIN, step)"""

    def __init__(self, *name):
        # SeedSequence joins 32-bit words and drops trailing zeros.  So each integer is two words,
        # and the number of integers comes first.
        halves = [half for number in name for half in (number % 2**32, number >> 32)]
        self._bits = np.random.PCG64(np.random.SeedSequence([len(name), *halves]))

    def words(self, shape):
        """Uniform 64-bit words, uint64"""
        return self._bits.random_raw(math.prod(np.atleast_1d(shape))).reshape(shape)

    def uniform(self, shape):
        """Uniform in [0, 1), float64: the top 53 bits of a word, which is its precision"""
        return (self.words(shape) >> np.uint64(11)) * 2.0**-53

    def integers(self, low, high, shape):
        """Uniform in low..high-1, int64; the remainder's bias is below (high - low) / 2^64"""
        return low + (self.words(shape) % np.uint64(high - low)).astype(np.int64)

    def permutations(self, rows, size):
        """Random orders of 0..size-1, (rows, size): the order that sorts random words"""
        return np.argsort(self.words((rows, size)), axis=1, kind="stable")

    def different(self, rows, size, count):
        """Distinct numbers of 0..size-1 in random order, (rows, count)

        By Floyd's method (Bentley & Floyd 1987), which draws two words per number; permutations
        would draw `size` per row.
        """
        numbers = np.empty((rows, count), np.int64)
        for i, last in enumerate(range(size - count, size)):
            draw = self.integers(0, last + 1, rows)
            repeat = (numbers[:, :i] == draw[:, None]).any(axis=1)
            numbers[:, i] = np.where(repeat, last, draw)
        return np.take_along_axis(numbers, self.permutations(rows, count), axis=1)
