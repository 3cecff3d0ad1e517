"""minitron: a transformer in NumPy with every gradient by hand, and one C file that runs it.

    from minitron import Engine         the C engine
    from train import train             training

Importing it changes nothing in the process.  While train() runs, the matrix library has one thread,
and memory that is freed stays in the process; after it, both are as before.
"""


def __getattr__(name):
    """Engine, loaded at its first use, so that `import minitron` needs no NumPy."""
    if name == "Engine":
        from .engine.engine import Engine
        return Engine
    raise AttributeError(f"module 'minitron' has no attribute {name!r}")
