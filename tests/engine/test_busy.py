"""One engine, two at a time: each gets what it would get alone, or is refused in one line.

The same holds for a process that fork() made of one whose threads were at work, and for threads
that the system does not start.
"""
import copy
import gc
import itertools
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from helpers import LETTERS, SMALL, refused

from minitron import Engine
from minitron.base.environment import ROOT
from minitron.base.errors import MinitronError
from minitron.engine.engine import ffi
from minitron.model.config import ModelConfig

pytestmark = pytest.mark.skipif(not any(ROOT.glob("build/libminitron.*")),
                                reason="the engine is not built: run make")


# ---- every use against every other ---------------------------------------------------------------
#
# A use of an engine yields between its calls, and returns what it got.


def generation(engine):
    yield
    return engine.generate("ab", seed=1)


def many(engine):
    yield
    return engine.generate_tokens([[0, 1]] * 40, 5, seed=3)


def evaluation(engine):
    yield
    return engine.logits([[1, 2, 3], [4, 5, 6]]).tolist()


def probabilities(engine):
    yield
    return engine.logprobs(["ab"], ["cd"])[0].tolist()


def attention(engine):
    yield
    return engine.attention([[1, 2, 3]], 1, 2).tolist()


def stream(engine):
    pieces = []
    for piece in engine.stream("abc", seed=2):
        pieces.append(piece)
        yield
    return pieces


def sequences(engine):
    engine.reset(2, 12)
    yield
    got = [engine.forward([1, 2, 3], [0, 1, 1]).tolist()]
    yield
    engine.rewind(1, 1)
    yield
    got.append(engine.score([5, 6], [6, 7]).tolist())
    yield
    return [*got, engine.length(0), engine.length(1)]


def samples(engine):
    how, state = engine.sampling(1, 0, 1, 0), ffi.new("uint64_t *", 7)
    tokens = []
    for _ in range(5):
        tokens.append(engine.sample(np.arange(8) / 4, how, state))
        yield
    return tokens


USES = (generation, many, evaluation, probabilities, attention, stream, sequences, samples)


def advance(use):
    """One step of a use -> whether it has ended, and what it returned or why it was refused"""
    try:
        next(use)
        return False, None
    except StopIteration as end:
        return True, end.value
    except MinitronError as refusal:
        return True, refusal


def alternate(uses, threads):
    """Uses that take turns until all have ended -> their results; threads: one for each, or none"""
    results = [(False, None)] * len(uses)
    while not all(ended for ended, _ in results):
        for i, use in enumerate(uses):
            if not results[i][0]:
                results[i] = threads[i].submit(advance, use).result() if threads else advance(use)
    return [result for _, result in results]


def assert_each_is_alone_or_refused(engine, pair, threads):
    expected = [alternate([use(engine)], None)[0] for use in pair]
    results = alternate([use(engine) for use in pair], threads)
    for one, other in zip(results, expected):
        if isinstance(one, MinitronError):
            assert "busy" in str(one) or "has no sequences" in str(one)
            assert "\n" not in str(one)
        else:
            assert one == other
    assert not all(isinstance(result, MinitronError) for result in results)
    # and is as good as new
    assert alternate([use(engine) for use in pair[:1]], None) == expected[:1]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("pair", list(itertools.product(USES, repeat=2)),
                         ids=lambda pair: "-".join(use.__name__ for use in pair))
def test_two_at_a_time(build, pair, threads):
    engine, _ = build(SMALL, pieces=LETTERS, context=12, threads=threads)
    if pair != (sequences, sequences):      # on one thread: its second reset() is its own choice
        assert_each_is_alone_or_refused(engine, pair, None)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        assert_each_is_alone_or_refused(engine, pair, [one, other])


def test_the_matrix_notices_when_nothing_is_refused(build, monkeypatch):
    monkeypatch.setattr(Engine, "claim", lambda self, user: None)
    engine, _ = build(SMALL, pieces=LETTERS, context=12)
    for pair in [(stream, stream), (stream, generation), (sequences, evaluation)]:
        with pytest.raises(AssertionError):
            assert_each_is_alone_or_refused(engine, pair, None)


@pytest.mark.parametrize("use", USES)
def test_a_call_during_another_threads_call(letters, use):
    """at_work() stands for a call that run.c has not ended yet."""
    with ThreadPoolExecutor(1) as other:
        with letters.at_work():
            result = other.submit(alternate, [use(letters)], None).result()[0]
            assert "busy on another thread: open another" in str(result)
    assert not isinstance(alternate([use(letters)], None)[0], MinitronError)


def test_tokens_can_be_turned_into_text_meanwhile(letters):
    for piece in letters.stream("ab", seed=1):
        assert letters.decode(letters.encode(piece)) == piece.encode()


def test_a_stream_that_is_left_lets_go_of_the_engine(letters):
    expected = letters.generate("ab", seed=1)

    def fails():
        for _ in letters.stream("ab", seed=1):
            raise KeyError

    def breaks():
        for _ in letters.stream("ab", seed=1):
            break

    def closes():
        stream = letters.stream("ab", seed=1)
        next(stream)
        refused("busy with a stream", letters.generate, "ab")
        stream.close()

    def forgets():
        cycle = [letters.stream("ab", seed=1)]
        next(cycle[0])
        cycle.append(cycle)
        refused("busy with a stream", letters.generate, "ab")
        del cycle
        gc.collect()

    def ends():
        assert "".join(letters.stream("ab", seed=1)) == expected

    def is_refused():
        refused("longer than", list, letters.stream("a" * 13))

    for leave in (fails, breaks, closes, forgets, ends, is_refused):
        with suppress(KeyError):
            leave()
        assert letters.generate("ab", seed=1) == expected


def test_sequences_are_lost_to_what_makes_its_own(letters):
    for use in (generation, many, evaluation, probabilities, attention, stream):
        letters.reset(1, 4)
        letters.forward([1])
        alternate([use(letters)], None)
        for call in (lambda: letters.forward([2]), lambda: letters.score([2], [3]),
                     lambda: letters.rewind(0)):
            refused("has no sequences: call reset", call)
        assert letters.length() == -1


def test_closing_amid_a_stream_or_on_another_thread(letters):
    stream = letters.stream("ab")
    next(stream)
    with ThreadPoolExecutor(1) as other:
        with letters.at_work(claims=False) as handle:
            other.submit(letters.close).result()            # does not wait,
            assert letters.lib.mt_reset(handle, 1, 4) == 0      # nor does it free what is in use
    refused("closed", next, stream)
    for call in (lambda: letters.length(), lambda: letters.rewind(0),
                 lambda: letters.attention([[1]], 0, 0), lambda: letters.logprobs(["a"], ["b"])):
        refused("closed", call)


@pytest.mark.parametrize("function", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_engine_cannot_be_copied(letters, function):
    refused("cannot be copied or pickled: open the model file again", function, letters)


# ---- fork ----------------------------------------------------------------------------------------


def python(script, *arguments):
    """Run a script in a process of its own -> what it printed; no child of it is left."""
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, start_new_session=True) as process:
        try:
            out, error = process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, error
    return out


FORKED = """
import os, sys
from multiprocessing import get_context
import numpy as np
from minitron import Engine
from minitron.base.errors import MinitronError

path, threads = sys.argv[1], 2
engine = Engine(path, threads)
text = np.arange(200)[None] % 8

def results(engine):
    '''OpenMP's threads, those of Python, and one after the other'''
    found = [engine.logits(text).tobytes(), str(engine.generate_tokens([[1, 2]] * 40, 3))]
    engine.reset(1, 300)
    return [*found, engine.forward(text[0]).tobytes()]

def opened_anew(_):
    return results(Engine(path, threads))

expected = results(engine)
stream = engine.stream(bytes([1]), steps=5)
pieces = [next(stream)]
pid = os.fork()
if pid == 0:
    rest = pieces + list(stream)
    good = rest == list(engine.stream(bytes([1]), steps=5)) and results(engine) == expected
    os._exit(0 if good and opened_anew(0) == expected else 1)
assert os.waitpid(pid, 0)[1] == 0
assert pieces + list(stream) == list(engine.stream(bytes([1]), steps=5))
engine.reset(1, 300)
first = engine.forward(text[0, :150])
pid = os.fork()
if pid == 0:            # a prompt that the parent has read, continued with fewer threads
    second = engine.forward(text[0, 150:])
    os._exit(np.concatenate([first, second]).tobytes() != expected[2])
assert os.waitpid(pid, 0)[1] == 0
with get_context("fork").Pool(2) as pool:
    assert pool.map(opened_anew, range(4)) == [expected] * 4
print("good")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork()")
def test_a_forked_process_gets_the_same_bits(build, tmp_path):
    build(ModelConfig(dim=64, layers=1, heads=2, vocab=64).resolve(), context=300)
    assert python(FORKED, tmp_path / "0.bin") == "good\n"


BUSY_FORK = """
import os, sys, threading
from minitron import Engine
from minitron.base.errors import MinitronError

engine = Engine(sys.argv[1], 1)
entered, leave = threading.Event(), threading.Event()

def work():
    with engine.at_work():
        entered.set()
        leave.wait()

thread = threading.Thread(target=work)
thread.start()
entered.wait()
pid = os.fork()
if pid == 0:
    try:
        engine.generate("a")
    except MinitronError as refusal:
        print(refusal, flush=True)
    os._exit(len(Engine(sys.argv[1], 1).generate("a")) == 0)
status = os.waitpid(pid, 0)[1]
leave.set()
thread.join()
print(status, len(engine.generate("a")) > 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork()")
def test_a_fork_amid_a_call_is_refused(build, tmp_path):
    build(SMALL, pieces=LETTERS, context=12)
    assert python(BUSY_FORK, tmp_path / "0.bin").splitlines() == [
        "this engine was at work when the process forked: open the model again", "0 True"]


TRAINED = """
import sys
from multiprocessing import get_context
from train import train
from minitron.data.config import Config

config = Config(dim=64, layers=1, length=3, batch=64, shards=2, steps=4, eval_every=2,
                test_items=200)

def run(i):
    record = train(config, f"{sys.argv[1]}/{i}.bin", quiet=True, threads=2)
    return record["metrics"], open(f"{sys.argv[1]}/{i}.bin", "rb").read()

expected = run(0)
with get_context("fork").Pool(2) as pool:
    assert pool.map(run, range(1, 3)) == [expected] * 2
print("good")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork()")
def test_training_in_processes_forked_after_training(tmp_path):
    assert python(TRAINED, tmp_path) == "good\n"


# ---- threads that do not start -------------------------------------------------------------------

NARROW = """
import resource, sys
import numpy as np
from minitron import Engine
from minitron.base.errors import MinitronError

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
engine = Engine(sys.argv[1], 256)
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20, before[1]))
for call in (lambda: engine.logits(np.zeros((1, 250), int)),
             lambda: engine.generate_tokens([[1]] * 4000, 1)):
    try:
        call()
    except MinitronError as refusal:
        print(refusal)
resource.setrlimit(resource.RLIMIT_AS, before)
print(engine.logits(np.zeros((1, 250), int)).shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_threads_that_cannot_be_started(build, tmp_path):
    build(ModelConfig(dim=64, layers=1, heads=2, vocab=64).resolve(), context=300)
    lines = python(NARROW, tmp_path / "0.bin").splitlines()
    assert len(lines) == 3 and lines[2] == "(1, 250, 64)"
    assert all("256 threads cannot be started" in line for line in lines[:2])
