"""minitron: a transformer in NumPy with every gradient by hand, and one C file that runs it.

    from minitron import Engine         the C engine
    from train import train             training

Import it before NumPy where you can.  It asks the matrix library for one thread: minitron's own
threads each take a shard of the batch (training/parallel.py), and the bits of a matrix product
depend on the number of threads that compute it.
"""
import os

for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_variable, "1")


def __getattr__(name):
    """Engine, loaded at its first use, so that `import minitron` needs no NumPy."""
    if name == "Engine":
        from .engine.engine import Engine
        return Engine
    raise AttributeError(f"module 'minitron' has no attribute {name!r}")
