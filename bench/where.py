#!/usr/bin/env python3
"""The time of a training step, op by op, against its floor: the matrix products with weights.

    python bench/where.py           the shapes of bench/train.py; the table in docs/speed.md

First one shard on one thread, which waits for nothing; then beside a second shard on a second
thread: the difference is the cost of sharing the machine and Python's global lock.  Figures are
medians in milliseconds per step.  The peak is NumPy's product of two 1024 x 1024 matrices on one
thread.  The last lines are the time that a whole run spends around its steps.
"""
import os
import sys
from pathlib import Path

for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)
os.environ["OPENBLAS_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import importlib.util
import tempfile
import time
from collections import defaultdict
from unittest import mock

import numpy as np

from minitron.data.config import Config
from minitron.model import fast
from minitron.model.flops import train_flops
from minitron.model.params import Params, init
from minitron.model.transformer import loss_and_gradients
from minitron.training.parallel import Workers

ROUNDS, SECONDS = 7, 0.4
spec = importlib.util.spec_from_file_location("bench_train", ROOT / "bench" / "train.py")
bench_train = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench_train)


def median_ms(step, seconds=SECONDS):
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1e3 * np.median(times)


def products(config, rows):
    """A function that does only the products with weights of a shard, forward and backward"""
    c, width = config, config.heads * config.head_dim
    sizes = c.layers * [(3 * width, c.dim), (c.dim, width), (c.ffn_dim, c.dim), (c.ffn_dim, c.dim),
                        (c.dim, c.ffn_dim)]
    sizes += [(c.vocab, c.dim)]

    def arrays_of(o, i):                # x, w, y, dx, dw of one product
        shapes = (rows, i), (o, i), (rows, o), (rows, i), (o, i)
        return [np.ones(shape, np.float32) for shape in shapes]

    arrays = [arrays_of(*size) for size in sizes]

    def step():
        for x, w, y, _, _ in arrays:
            np.matmul(x, w.T, out=y)
        for x, w, y, dx, dw in reversed(arrays):
            np.matmul(y, w, out=dx)
            np.matmul(y.T, x, out=dw)

    return step


def timed_ops(seconds):
    """A context that adds the time of each op that the model calls to seconds, {name: sum}"""
    def timed(name, op):
        def call(*arguments):
            start = time.perf_counter()
            result = op(*arguments)
            seconds[name] += time.perf_counter() - start
            return result
        return call

    ops = {name: timed(name, op) for name, op in vars(fast).items()
           if name.endswith(("_forward", "_backward"))}
    return mock.patch.multiple(fast, **ops)


def profile(shape):
    """Print the time of a step of this shape."""
    ms = measure(shape)
    one, two, alone, peak, flops = (ms.pop(name)
                                    for name in ("one", "two", "products", "peak", "flops"))
    ops = sorted(ms.items(), key=lambda item: -item[1])
    print(f"\n{shape}   milliseconds of one core, {shape.config().shards} shards:")
    print(f"  at the peak, {peak:.0f} GFLOP/s: {flops / peak / 1e6:.1f}   "
          f"products with weights alone: {alone:.1f}")
    print(f"  step on one thread: {one:.1f}, {flops / peak / 1e4 / one:.0f}% of the peak; "
          f"on two: {two:.1f}, {flops / peak / 1e4 / two:.0f}%")
    print("  " + ", ".join(f"{name} {value:.1f}" for name, value in ops), flush=True)


def measure(shape):
    """Milliseconds of one core, for all shards of a step -> {name: median}

    Names are the ops; one and two: a whole step on one and on two threads; products; and, in other
    units, peak (GFLOP/s) and flops.
    """
    config = shape.config()
    p, g = init(config), Params(config)
    inputs, targets = np.random.RandomState(0).randint(0, shape.vocab, (2, shape.batch, shape.time))
    part = slice(0, shape.batch // config.shards)
    large = np.ones((1024, 1024), np.float32)
    with Workers(config) as workers:
        def shard():
            loss_and_gradients(p, g, config, inputs[part], targets[part], 1e-4)

        figures = defaultdict(list)
        for _ in range(ROUNDS):
            figures["one"].append(median_ms(shard) * config.shards)
            floor = median_ms(products(config, inputs[part].size))
            figures["products"].append(floor * config.shards)
            both = median_ms(lambda: workers.gradient(p, inputs, targets))
            figures["two"].append(both * workers.threads)
            figures["peak"].append(2 * 1024**3 / median_ms(lambda: large @ large, 0.1) / 1e6)
            seconds = defaultdict(float)
            with timed_ops(seconds):
                for _ in range(3):
                    shard()
            for name, value in seconds.items():
                figures[name].append(value / 3 * 1e3 * config.shards)
    medians = {name: np.median(values) for name, values in figures.items()}
    return medians | {"flops": train_flops(config, inputs, targets)}


def profile_run(dim):
    """Print the share of `python train.py --dim DIM` that is not losses and gradients."""
    import train
    inside, gradient = [], Workers.gradient

    def timed(*arguments):
        start = time.perf_counter()
        result = gradient(*arguments)
        inside.append(time.perf_counter() - start)
        return result

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(Workers, "gradient", timed):
        start = time.perf_counter()
        train.train(Config(dim=dim), Path(folder) / "model.bin", quiet=True)
        seconds = time.perf_counter() - start
    print(f"\npython train.py --dim {dim}: {seconds:.1f} s, "
          f"of which gradients {sum(inside):.1f} s; batches, optimizer, evaluations, checkpoints, "
          f"export: {1 - sum(inside) / seconds:.1%}", flush=True)


if __name__ == "__main__":
    for shape in bench_train.SHAPES:
        profile(shape)
    for dim in (64, 128):
        profile_run(dim)
