"""NumPy's matrix library: its name, and its threads, set and asked for by its own calls.

The bits of a matrix product depend on the number of threads that compute it.  Environment
variables that set it are read once, when NumPy is imported; these calls work at any time.
"""
import contextlib
import ctypes
import threading
from functools import cache
from pathlib import Path

import numpy as np

# Functions of a library that set and give its number of threads
CALLS = (
    ("openblas_set_num_threads", "openblas_get_num_threads"),
    ("MKL_Set_Num_Threads", "MKL_Get_Max_Threads"),
    ("bli_thread_set_num_threads", "bli_thread_get_num_threads"),
    ("flexiblas_set_num_threads", "flexiblas_get_num_threads"),
    ("BLASSetThreading", "BLASGetThreading"),       # Apple's Accelerate: 1 is one thread, 0 many
)
# NumPy's own OpenBLAS is called scipy_openblas_..., and with 64-bit integers ...64_.
AFFIXES = [(prefix, suffix) for prefix in ("", "scipy_") for suffix in ("", "64_")]
# For a process that is to start with one thread
ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")

users, lock, count_before = 0, threading.Lock(), None       # of one_thread


@cache
def libraries():
    """NumPy's own library, where the system finds those that it is linked to; others beside it"""
    beside = Path(np.__file__).parent.parent.glob("numpy.libs/*openblas*")
    return [ctypes.CDLL(str(path)) for path in (np.linalg._umath_linalg.__file__, *beside)]


def function(name):
    """A function of the matrix library, or None"""
    for library in libraries():
        for prefix, suffix in AFFIXES:
            with contextlib.suppress(AttributeError):
                return library[f"{prefix}{name}{suffix}"]
    return None


@cache
def thread_calls():
    """The library's functions (set, get) of its number of threads, or None"""
    pairs = ((function(setter), function(getter)) for setter, getter in CALLS)
    return next((pair for pair in pairs if None not in pair), None)


def thread_count():
    """The number of threads that a matrix product may use; None if the library does not say"""
    return thread_calls()[1]() if thread_calls() else None


def set_threads(count):
    if thread_calls():
        thread_calls()[0](count)


@contextlib.contextmanager
def one_thread():
    """While entered, a matrix product uses one thread, in the whole process, where that can be set.

    The last one to leave restores the number that the first one met.
    """
    global users, count_before
    with lock:
        users += 1
        if users == 1:
            count_before = thread_count()
            set_threads(1)
    try:
        yield
    finally:
        with lock:
            users -= 1
            if users == 0:
                set_threads(count_before)


@cache
def name():
    """Name and version of the matrix library; of OpenBLAS also the kernel; or None

    Bits depend on the kernel, which is chosen for the processor: the last digits of one matrix
    product differ between two of them.
    """
    try:
        library = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    except (TypeError, KeyError):           # a build of NumPy without these
        return None
    corename = function("openblas_get_corename")
    if corename is None:
        return f"{library.get('name')} {library.get('version')}"
    corename.restype = ctypes.c_char_p
    return f"{library.get('name')} {library.get('version')} {corename().decode()}"


def numerics():
    """What the bits of NumPy's results depend on, beside the input: fields of a record

    simd: the processor's instructions that NumPy uses, such as "X86_V3 X86_V4", or None
    """
    try:
        simd = " ".join(np.show_config(mode="dicts")["SIMD Extensions"]["found"])
    except (TypeError, KeyError):
        simd = None
    return {"numpy": np.__version__, "simd": simd, "blas": name(), "blas_threads": thread_count()}
