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

from ..base import blas
from ..base.environment import available_cpus
from ..model.params import Params
from ..model.transformer import loss_and_gradients


@lru_cache(maxsize=1)
def glibc():
    """The C library if it is glibc, else None"""
    try:
        libc = ctypes.CDLL("libc.so.6") if sys.platform == "linux" else None
        return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
    except OSError:                         # another libc: only slower
        return None


def set_malloc(mmap_threshold, trim_threshold, top_pad):
    """Set glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD, in bytes."""
    if not glibc().mallopt(-3, mmap_threshold):             # older ones take at most 32 MiB
        glibc().mallopt(-3, 1 << 25)
    glibc().mallopt(-1, trim_threshold)
    glibc().mallopt(-2, top_pad)


def keep_memory():
    """Ask glibc to keep freed memory in the process.

    By default it returns large blocks to the system at every free, and the next array of that size
    is paid for again, page by page: a step took 2.9 times as long at dim 128, 4 layers, batch
    64 x 64 tokens, 2 cores (results/bench/tricks.txt).
    """
    if glibc():
        set_malloc(1 << 30, 2**31 - 1, 1 << 26)


def return_memory():
    """Return freed memory to the system, and let glibc do so again.

    glibc raises its first two limits by itself as a program frees large arrays, until one of them
    is set.  So they end here where that would have ended, at 32 and 64 MiB.
    """
    if glibc():
        set_malloc(1 << 25, 1 << 26, 1 << 17)
        glibc().malloc_trim(0)


def prepare_thread():
    """Turn off this thread's warnings of numbers that are not finite: the loop looks for them.

    Where BLAS was built with OpenMP, each thread has a BLAS thread count of its own.
    """
    np.seterr(over="ignore", invalid="ignore")
    blas.set_threads(1)


class Workers:
    """Threads and gradients for training one configuration.

    A context manager.  While entered, BLAS has one thread (base/blas.py) and the process keeps its
    memory; leaving it stops the threads and restores both.
    """

    def __init__(self, config, threads=None):
        self.config = config
        self.gradients = [Params(config) for _ in range(config.shards)]
        self.threads = min(config.shards, threads or available_cpus())
        self.pool = ThreadPoolExecutor(self.threads, initializer=prepare_thread)
        self.one_blas_thread = blas.one_thread()

    def __enter__(self):
        self.one_blas_thread.__enter__()
        keep_memory()
        return self

    def __exit__(self, *exception):
        self.pool.shutdown()
        return_memory()
        self.one_blas_thread.__exit__(*exception)

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
