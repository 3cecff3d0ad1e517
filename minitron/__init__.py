"""minitron: a transformer in NumPy with every gradient by hand, and one C file that runs what it learnt.

    from minitron import Engine         the C engine
    from train import train             training

Import it before NumPy where you can: it asks the matrix library for one thread, since minitron's own threads each take a piece of
the batch (parallel.py), and since the bits of a matrix product depend on the number of threads.
"""
import os

for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_variable, "1")


def __getattr__(name):
    """Engine, loaded when it is first asked for, so that `import minitron` needs no NumPy."""
    if name == "Engine":
        from .engine.engine import Engine
        return Engine
    raise AttributeError(f"module 'minitron' has no attribute {name!r}")
