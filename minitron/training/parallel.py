"""One training step on all cores, the same bits on any number of them.

A batch is cut into shards.  A thread, with one BLAS thread, runs each forward and backward, into
gradients of its own, and these are added in the order of the shards.  So the result depends on
the number of shards, which is part of the configuration, and not on the number of threads.
"""
import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from ..base.environment import available_cpus
from ..model.params import Params
from ..model.transformer import loss_and_gradients


@lru_cache(maxsize=1)
def keep_memory():
    """Ask glibc to keep freed memory in the process.

    By default it returns large blocks to the system at every free, and the next array of that size
    is paid for again, page by page: a step took 2.9 times as long at dim 128, 4 layers, batch
    64 x 64 tokens, 2 cores (results/bench/tricks.txt).
    """
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3      # malloc.h
        if not libc.mallopt(m_mmap_threshold, 1 << 30):     # older ones take at most 32 MiB
            libc.mallopt(m_mmap_threshold, 1 << 25)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 1 << 26)
    except (OSError, AttributeError):       # another libc: only slower
        return


def quiet():
    """Turn off this thread's warnings of non-finite numbers: the training loop looks for them."""
    np.seterr(over="ignore", invalid="ignore")


class Workers:
    """Threads and gradients for training one configuration.

    A context manager: leaving it stops the threads.
    """

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
        """[work(item) for item in items], on all threads, of which the calling one is the first"""
        items = list(items)
        results, todo = [None] * len(items), iter(range(len(items)))

        def run():
            for i in todo:                  # one iterator for all threads: each takes the next item
                results[i] = work(items[i])

        others = [self.pool.submit(run) for _ in range(min(self.threads, len(items)) - 1)]
        try:
            run()
        finally:
            for other in others:
                other.result()
        return results

    def gradient(self, p, inputs, targets, positions=None):
        """Mean loss of the scored tokens in nats, share of them predicted right, gradient (Params).

        inputs, targets, positions (B, T).  The next call overwrites the gradient.
        """
        scored = int(np.count_nonzero(targets >= 0))
        shards = min(self.config.shards, len(inputs))       # a task may have fewer rows

        def run(shard):
            inputs, targets, positions = pieces[shard]
            g = self.gradients[shard]
            return loss_and_gradients(p, g, self.config, inputs, targets, 1 / scored, positions)

        pieces = list(zip(*([None] * shards if array is None else np.array_split(array, shards)
                            for array in (inputs, targets, positions))))
        losses, right = zip(*self.map(run, range(shards)))
        total, *others = self.gradients[:shards]
        for other in others:
            total.flat += other.flat
        return sum(losses), sum(right) / scored, total
