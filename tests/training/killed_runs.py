"""A run whose process is killed (-9) at random moments, and resumed, ends as an undisturbed one.

    make kills                                  200 kills, after those of sweeps
    python tests/training/killed_runs.py 30 1   30 kills, from seed 1

Meanwhile a thread reads model, ledger and checkpoint, and finds each whole or not there, and now
and then a second process wants the same --out.  tests/training/test_train.py has a few of these
kills in every run of the tests.
"""
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from minitron.base.errors import MinitronError  # noqa: E402
from minitron.training import checkpoint  # noqa: E402

RUN = ("--dim 8 --layers 1 --length 1 --batch 16 --steps 150 --eval-every 5 "
       "--test-items 50").split()
KEPT = {"model.bin", "model.bin.ckpt", "runs.jsonl"}
LATEST = 0.3            # seconds from the start of training up to which it is killed: it takes more


def start(out, *flags):
    """`python train.py` as a process, whose output comes line by line"""
    command = [sys.executable, "-u", str(ROOT / "train.py"), *flags, "--out", str(out)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def records(folder):
    """Of the ledger, without what depends on the time

    A line counts when it has its newline: a write in progress shows page by page.
    """
    path = folder / "runs.jsonl"
    *lines, _ = (path.read_text() if path.exists() else "").split("\n")
    return [json.loads(line) | {"seconds": 0, "commit": ""} for line in lines]


def step_saved(out):
    """The step of the checkpoint, None without one.  Raises MinitronError if it is damaged."""
    try:
        return checkpoint.read(f"{out}.ckpt")["progress"]["step"]
    except MinitronError as error:
        if "does not exist" in str(error):
            return None
        raise


def check(out, model, record):
    """Each file is whole, or not there, and that of the undisturbed run."""
    with contextlib.suppress(FileNotFoundError):
        assert out.read_bytes() == model, "another model, or a part of it"
    assert all(each == record for each in records(out.parent)), "a record differs"
    step = step_saved(out)
    assert step is None or step % 5 == 0


@contextlib.contextmanager
def reader(*arguments):
    """While entered, a thread calls check(*arguments) all the time; it raises the first error."""
    errors, ended, reads = [], threading.Event(), Counter()

    def read():
        while not ended.wait(0.002) and not errors:
            try:
                check(*arguments)
                reads["reads"] += 1
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield reads
    finally:
        ended.set()
        thread.join()
    if errors:
        raise errors[0]


def hit(rng, out, spare):
    """Start or resume the run and kill it at a random moment -> its exit code, 0 if it was faster

    One of five is killed before it trains; beside one of five a second process is started.
    spare: let it end.
    """
    with start(out, *(["--resume"] if step_saved(out) is not None else RUN)) as process:
        early = rng.random() < 0.2
        if not early:
            process.stdout.readline()                   # the headline: now it trains
            if rng.random() < 0.2:
                check_second(process, out)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(None if spare else rng.uniform(0, LATEST))
        process.kill()
        assert process.wait() in (0, -signal.SIGKILL), process.stderr.read()
    return process.returncode


def check_second(first, out):
    """Beside a process that trains, another on the same --out ends in one line."""
    while owner(out) != str(first.pid) and first.poll() is None:
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)                   # so that it does not end meanwhile
    if owner(out) == str(first.pid):
        second = start(out, *RUN)
        _, error = second.communicate()
        assert second.returncode == 2
        assert f"is being written by process {first.pid}: " in error, error
    first.send_signal(signal.SIGCONT)


def owner(out):
    """The process id in the lock of a model file, "" without one"""
    with contextlib.suppress(FileNotFoundError):
        return out.with_name(f".{out.name}.lock").read_text()
    return ""


def survive(folder, rng, kills):
    """Kill a run `kills` times, resuming it, and starting it again after its end -> counts

    Raises AssertionError if a file is not whole, or if a saved step or a record is lost.
    """
    with start(folder / "model.bin", *RUN) as process:
        assert process.wait() == 0, process.stderr.read()
    [record], model = records(folder), (folder / "model.bin").read_bytes()
    (folder / "killed").mkdir()
    out, counts, step, ended = folder / "killed" / "model.bin", Counter(), None, False
    with reader(out, model, record) as reads:
        while counts["kills"] < kills or not ended:
            ended, before = hit(rng, out, spare=counts["kills"] >= kills) == 0, step
            counts["ends" if ended else "kills"] += 1
            counts["resumed"] += before is not None
            step = step_saved(out)
            assert len(records(out.parent)) >= counts["ends"], "a record is lost"
            assert before is None or step is None or step >= before, "a saved step is lost"
            assert not ended or step is None and out.exists()
            strays = {path.name for path in out.parent.iterdir()} - KEPT
            assert len(strays) <= 3, f"leftovers pile up: {strays}"
    names = {path.name for path in out.parent.iterdir()}
    assert names == KEPT - {"model.bin.ckpt"}, f"leftovers: {names}"
    assert (out.parent / "runs.jsonl").read_bytes().endswith(b"\n")
    return counts + reads


def main(kills=200, seed=0):
    with tempfile.TemporaryDirectory() as folder:
        print(dict(survive(Path(folder), random.Random(seed), kills)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
