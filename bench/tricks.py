#!/usr/bin/env python3
"""The worth of each drop-in of fast.py: a step's time with its plain twin of ops.py, over its time.

    python bench/tricks.py            all of them, at the shapes of bench/train.py and of addition

Both forms take turns in one process, a few steps each; printed is the median of the turns' ratios.
Losses must agree.  The last rows take away all drop-ins at once, and the memory that is kept.
"""
import os
import sys
from pathlib import Path

for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):      # BLAS chooses, as in train.py
    os.environ.pop(variable, None)
os.environ["OPENBLAS_NUM_THREADS"] = "1"                        # minitron has threads of its own
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import argparse
import contextlib
import ctypes
import importlib.util
import time
from unittest import mock

import numpy as np

from minitron.base.rng import TRAIN, Random
from minitron.data import batches, tasks
from minitron.data.config import Config
from minitron.model import fast, ops
from minitron.model.optim import adamw
from minitron.model.params import Params, decay_mask, init
from minitron.training import parallel

DIMS = (8, 32, 128)                 # of addition's default runs
TURNS, SECONDS = 7, 0.15

spec = importlib.util.spec_from_file_location("bench_train", ROOT / "bench" / "train.py")
bench_train = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench_train)


def plain_twins(*names):
    """A context in which these drop-ins are the ops that they stand for"""
    pairs = [f"{name}_{direction}" for name in names for direction in ("forward", "backward")]
    return mock.patch.multiple(fast, **{pair: getattr(ops, pair) for pair in pairs})


@contextlib.contextmanager
def memory_given_back():
    """A context with glibc's defaults"""
    libc = ctypes.CDLL("libc.so.6")
    for parameter, default in ((-1, 2**17), (-2, 2**17), (-3, 2**17)):
        libc.mallopt(parameter, default)
    try:
        yield
    finally:
        parallel.keep_memory()


def drop_ins():
    """Names of the pairs that fast.py replaces"""
    return [name.removesuffix("_forward") for name, op in vars(fast).items()
            if name.endswith("_forward") and op is not getattr(ops, name)]


def trainers():
    """Name of each shape -> a function that trains one step and returns its loss"""
    random = np.random.RandomState(0)
    for dim in DIMS:
        config = Config(dim=dim).resolve()
        rows = batches.batch(tasks.load(config), Random(0, TRAIN, 1), config.length, config.batch)
        yield f"add {dim}", trainer(config, *rows[:2])
    for shape in bench_train.SHAPES:
        if shape.dim > 128:             # products with weights take nearly all of it
            continue
        batch = random.randint(0, shape.vocab, (2, shape.batch, shape.time))
        yield f"D{shape.dim} T{shape.time}", trainer(shape.config(), *batch)


def trainer(config, inputs, targets):
    p, m, v, decay = init(config), Params(config), Params(config), decay_mask(config)
    workers = parallel.Workers(config).__enter__()

    def step():
        loss, _, g = workers.gradient(p, inputs, targets)
        adamw(p.flat, g.flat, m.flat, v.flat, decay, 100, 0.0, 0.9, 0.99)
        return loss

    return step


def turn(step):
    """-> median seconds of a step, loss"""
    step()
    seconds, until = [], time.perf_counter() + SECONDS
    while time.perf_counter() < until or len(seconds) < 3:
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    return np.median(seconds), loss


def factor(step, without):
    """Time of a step in the context `without`, over its time outside: the median of TURNS"""
    ratios = []
    for _ in range(TURNS):
        a, loss = turn(step)
        with without():
            b, other = turn(step)
        assert abs(loss / other - 1) < 1e-5, (loss, other)
        ratios.append(b / a)
    return np.median(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="drop-ins, separated by commas (default all)")
    only = parser.parse_args().only
    names = only.split(",") if only else drop_ins()
    rows = {name: lambda name=name: plain_twins(name) for name in names}
    if not only:
        rows |= {"all of them": lambda: plain_twins(*names), "memory is kept": memory_given_back}
    columns = dict(trainers())
    print(" ".join([f"{'':14}", *(f"{column:>9}" for column in columns)]))
    for name, without in rows.items():
        factors = [factor(step, without) for step in columns.values()]
        print(" ".join([f"{name:14}", *(f"{value:9.2f}" for value in factors)]), flush=True)


if __name__ == "__main__":
    main()
