"""BLAS has one thread while minitron computes, whatever it had before, and that again after it."""
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from training_helpers import ROOT, TINY

import train
from minitron.base import blas
from minitron.training.parallel import Workers, glibc

TRAIN = """
import sys
import numpy as np
np.ones((300, 300)) @ np.ones((300, 300))
before = dict(__import__("os").environ)
import train
from minitron.base import blas
from minitron.data.config import Config
assert dict(__import__("os").environ) == before
threads = blas.thread_count()
record = train.train(Config(dim=64, length=1, batch=64, steps=6, test_items=20, shards=1),
                     sys.argv[1], quiet=True)
print(threads, record["blas_threads"], blas.thread_count())
"""

needs_calls = pytest.mark.skipif(blas.thread_count() is None,
                                 reason="this BLAS does not say how many threads it has")


@pytest.fixture
def two_threads():
    """BLAS with two threads, as another library may have set it"""
    before = blas.thread_count()
    blas.set_threads(2)
    yield
    blas.set_threads(before)


def trained(tmp_path, threads):
    """A run in a process that imported NumPy first -> model file, its words about threads"""
    out = tmp_path / f"{threads}.bin"
    environment = os.environ | {"OPENBLAS_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TRAIN, str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return out.read_bytes(), done.stdout.split()


@needs_calls
def test_bytes_do_not_depend_on_the_threads_that_blas_had(tmp_path):
    """Importing minitron leaves them alone, and a run gives them back."""
    model, words = trained(tmp_path, 1)
    assert words == ["1", "1", "1"]
    for threads in (2, 8):
        other, (before, inside, after) = trained(tmp_path, threads)
        assert other == model
        assert int(before) > 1 and inside == "1" and after == before


@needs_calls
def test_threads_are_restored_after_a_run_and_after_an_error(tmp_path, monkeypatch, two_threads):
    train.train(TINY, tmp_path / "model.bin", quiet=True)
    assert blas.thread_count() == 2

    def adamw(*arguments):
        assert blas.thread_count() == 1
        raise ZeroDivisionError

    monkeypatch.setattr(train, "adamw", adamw)
    with pytest.raises(ZeroDivisionError):
        train.train(TINY, tmp_path / "other.bin", quiet=True)
    assert blas.thread_count() == 2


@needs_calls
def test_the_last_of_several_runs_restores_the_threads(two_threads):
    first, second = Workers(TINY.resolve()), Workers(TINY.resolve())
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas.thread_count() == 1
    second.__exit__(None, None, None)
    assert blas.thread_count() == 2


def play_library(monkeypatch, functions):
    """Let NumPy's BLAS be a library with these functions, {name: function}, alone."""
    monkeypatch.setattr(blas, "libraries", lambda: [Library(functions)])
    for cached in (blas.thread_calls, blas.name):
        cached.cache_clear()


class Library(dict):
    def __missing__(self, name):
        raise AttributeError(name)


@pytest.fixture
def fresh():
    yield
    for cached in (blas.thread_calls, blas.name):
        cached.cache_clear()


@pytest.mark.parametrize("names", [
    *blas.CALLS, ("openblas_set_num_threads64_", "openblas_get_num_threads64_"),
    ("scipy_openblas_set_num_threads", "scipy_openblas_get_num_threads"),
], ids=lambda names: names[0])
def test_every_library_that_can_be_set_is_set(monkeypatch, fresh, names):
    state = SimpleNamespace(count=0)
    setter, getter = names
    play_library(monkeypatch, {setter: lambda count: setattr(state, "count", count),
                               getter: lambda: state.count})
    with blas.one_thread():
        assert state.count == blas.thread_count() == 1
    assert state.count == 0


def test_a_library_that_cannot_be_set_is_told_and_recorded(tmp_path, monkeypatch, capsys, fresh):
    play_library(monkeypatch, {})
    record = train.train(TINY, tmp_path / "model.bin")
    first, *_ = capsys.readouterr().err.splitlines()
    assert "cannot be set to one thread, or does not say so" in first
    assert record["blas_threads"] is None


@needs_calls
def test_each_thread_of_a_pool_asks_for_itself(monkeypatch):
    """A BLAS that was built with OpenMP has a number for each thread."""
    threads = set()
    monkeypatch.setattr(blas, "set_threads", lambda count: threads.add(threading.get_ident()))
    with Workers(TINY.resolve(), 1) as workers:
        workers.pool.submit(np.zeros, 1).result()
    assert len(threads) == 2


@pytest.mark.skipif(glibc() is None, reason="another C library decides what it keeps")
def test_memory_is_kept_during_training_and_returned_after_it():
    """In a process of its own, whose memory no other test has used"""
    script = """if True:
        import os
        import numpy as np
        from minitron.data.config import Config
        from minitron.training.parallel import Workers

        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        before, size = resident(), 2**27
        with Workers(Config(dim=4, length=1, batch=8).resolve()):
            np.ones(size, np.uint8)                             # freed at once
            kept = resident() - before
        assert kept > 0.9 * size and resident() - before < 0.1 * size, (kept, resident() - before)
        """
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_importing_train_where_a_package_is_missing_is_an_import_error(tmp_path):
    """Not a restart of the user's script in another Python, nor an exit."""
    script = tmp_path / "mine.py"
    script.write_text("print('mine')\ntry:\n    import train\n"
                      "except ModuleNotFoundError as error:\n    print(error.name)\n")
    command = [sys.executable, "-S", str(script)]                   # without site-packages
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
                          capture_output=True)
    assert (done.stdout, done.stderr) == ("mine\nnumpy\n", "")
