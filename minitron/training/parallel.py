"""One training step on all cores, the same bits on any number of them.

A batch is cut into shards.  Each is run forward and backward by one thread with one BLAS thread, into gradients of its own,
and these are added up in the order of the shards.  What is computed depends on the number of shards, which is part of the
configuration, and not on how many threads happen to work them off.
"""
import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from ..base.environment import available_cpus
from ..model.params import Params
from ..model.transformer import loss_and_gradients

SMALL = 2**18       # a flat vector of so few entries is worked on by one thread


@lru_cache(maxsize=1)
def keep_memory():
    """Ask glibc to keep freed memory in the process.

    By default it hands large blocks back to the system at every free, and the next array of the same size is paid for
    again page by page: 267 ms a step against 101 ms at dim 128, 4 layers, batch 64 x 64 tokens, 2 cores (bench/tricks.py).
    """
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3      # malloc.h
        if not libc.mallopt(m_mmap_threshold, 1 << 30):                 # older ones take no more than 32 MiB
            libc.mallopt(m_mmap_threshold, 1 << 25)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 1 << 26)
    except (OSError, AttributeError):       # another libc: only slower
        return


def quiet():
    """No warnings of numbers that are not finite from this thread: the training loop looks for them itself."""
    np.seterr(over="ignore", invalid="ignore")


class Workers:
    """Threads and gradients for training one configuration.  A context manager: leaving it stops the threads."""

    def __init__(self, config, threads=None):
        keep_memory()
        self.config = config
        self.gradients = [Params(config) for _ in range(config.shards)]
        self.threads = min(config.shards, threads or available_cpus())
        self.pool = ThreadPoolExecutor(self.threads, initializer=quiet)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.pool.shutdown()

    def map(self, work, items):
        """[work(item) for item in items], on all threads, of which the calling one is the first: it is awake already."""
        items = list(items)
        results, todo = [None] * len(items), iter(range(len(items)))

        def run():
            for i in todo:                  # one iterator for all threads: each takes the next item that nobody has taken
                results[i] = work(items[i])

        others = [self.pool.submit(run) for _ in range(min(self.threads, len(items)) - 1)]
        try:
            run()
        finally:
            for other in others:
                other.result()
        return results

    def gradient(self, p, inputs, targets, positions=None):
        """Mean loss over the batch's scored tokens in nats, share of them predicted right, and the gradient (Params).

        inputs, targets, positions (B, T).  The gradient is overwritten by the next call.
        """
        scored = int(np.count_nonzero(targets >= 0))

        def run(shard):
            inputs, targets, positions = pieces[shard]
            return loss_and_gradients(p, self.gradients[shard], self.config, inputs, targets, 1 / scored, positions)

        shards = min(self.config.shards, len(inputs))           # a task may have fewer rows than a batch asks for
        pieces = list(zip(*([None] * shards if array is None else np.array_split(array, shards)
                            for array in (inputs, targets, positions))))
        losses, right = zip(*self.map(run, range(shards)))
        total, *others = self.gradients[:shards]

        def add(total, *others):
            for other in others:
                total += other

        self.by_piece(add, total.flat, *(other.flat for other in others))
        return sum(losses), sum(right) / scored, total

    def by_piece(self, work, *vectors):
        """work(*pieces) for pieces of these flat vectors of one size: one piece a thread, or the whole where threads would wait.

        For what is done to each entry by itself.  AdamW of 400,000: 0.47 ms on two threads, 0.62 ms on one;
        of 100,000: 0.27 and 0.15.
        """
        size = len(vectors[0])
        count = self.threads if size > SMALL else 1
        pieces = [slice(size * i // count, size * (i + 1) // count) for i in range(count)]
        self.map(lambda piece: work(*(vector[piece] for vector in vectors)), pieces)
