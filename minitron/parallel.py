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

from .environment import available_cpus
from .model import loss_and_gradients
from .params import Params

PIECE = 2**15       # entries of a flat vector that a thread works on at a time


@lru_cache(maxsize=1)
def keep_memory():
    """Ask glibc to keep freed memory in the process.

    By default it hands large blocks back to the system at every free, and the next array of the same size is paid for
    again page by page: 160 ms a step against 115 ms at dim 128, 4 layers, batch 64 x 64 tokens, 2 cores (medians of 15).
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
        self.pool = ThreadPoolExecutor(min(config.shards, threads or available_cpus()), initializer=quiet)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.pool.shutdown()

    def gradient(self, p, inputs, targets):
        """Mean loss over the batch's scored tokens in nats, share of them predicted right, and the gradient (Params).

        inputs, targets (B, T).  The gradient is overwritten by the next call.
        """
        scored = int(np.count_nonzero(targets >= 0))

        def run(shard):
            return loss_and_gradients(p, self.gradients[shard], self.config, *pieces[shard], 1 / scored)

        pieces = list(zip(np.array_split(inputs, self.config.shards), np.array_split(targets, self.config.shards)))
        losses, right = zip(*self.pool.map(run, range(self.config.shards)))
        total, *others = self.gradients

        def add(piece):
            for other in others:
                total.flat[piece] += other.flat[piece]

        self.by_piece(add, len(total.flat))
        return sum(losses), sum(right) / scored, total

    def by_piece(self, work, size):
        """work(slice) over pieces of 0..size-1 on all threads, for what is done to each entry of a flat vector by itself.

        A piece of each of AdamW's vectors fits into a core's own cache together: MEASURE.
        """
        pieces = [slice(start, start + PIECE) for start in range(0, size, PIECE)]
        for _ in map(work, pieces) if len(pieces) == 1 else self.pool.map(work, pieces):
            pass
