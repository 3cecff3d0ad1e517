"""Threads that cannot be started, and processes that fork.

OpenMP, by which run.c shares a large product among threads, ends the whole process where it cannot
start one.  And in a process that fork() made it waits for ever for threads that only its parent
has.  So threads are tried out before run.c is given any, and a forked process gives it none.
"""
import os
import threading
import weakref

from ..base.errors import MinitronError

MOST_THREADS = 256          # as in run.c
engines = weakref.WeakSet()
forked = False              # whether fork() made this process


def forget_threads():
    """In a process that fork() has just made: its parent's threads are not there."""
    global forked
    forked = True
    for engine in engines:
        engine.forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_threads)


def threads_for_products(threads):
    """How many of an engine's threads may share a product: 1 in a forked process"""
    return 1 if forked else threads


def try_threads(count):
    """Start as many threads beside this one as count needs, and end them.  Raises MinitronError."""
    started, enough = [], threading.Event()
    try:
        for _ in range(count - 1):
            thread = threading.Thread(target=enough.wait)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError) as error:
        raise cannot_start(count, error) from None
    finally:
        enough.set()
        for thread in started:
            thread.join()


def cannot_start(count, error):
    """The MinitronError of threads that did not start"""
    return MinitronError(f"{count} threads cannot be started ({error}): use fewer")
