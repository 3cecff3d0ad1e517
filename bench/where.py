#!/usr/bin/env python3
"""Where the time of a training step goes, op by op, and how much of it is the floor: the matrix products with weights alone.

    python bench/where.py           the shapes of bench/train.py; the table in docs/speed.md

One shard on one thread, so that nothing waits for anything; then the same beside a second shard on a second thread: the
difference is what the two cores and Python's global lock cost each other.  Milliseconds a step, medians; the peak is NumPy's
product of two 1024 x 1024 matrices on one thread.  At last, what a whole run spends around its steps.
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
    taken, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(taken) < 3:
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return 1e3 * np.median(taken)


def products(config, rows):
    """A function that does only the products with weights, forward and backward, of a shard of so many rows."""
    c, width = config, config.heads * config.head_dim
    sizes = c.layers * [(3 * width, c.dim), (c.dim, width), (c.ffn_dim, c.dim), (c.ffn_dim, c.dim), (c.dim, c.ffn_dim)]
    sizes += [(c.vocab, c.dim)]
    arrays = [[np.ones(shape, np.float32) for shape in ((rows, i), (o, i), (rows, o), (rows, i), (o, i))] for o, i in sizes]

    def step():
        for x, w, y, _, _ in arrays:
            np.matmul(x, w.T, out=y)
        for x, w, y, dx, dw in reversed(arrays):
            np.matmul(y, w, out=dx)
            np.matmul(y.T, x, out=dw)

    return step


def clocked(seconds):
    """A context in which each op that the model calls is timed      seconds: name -> sum"""
    def around(name, op):
        def clock(*arguments):
            start = time.perf_counter()
            result = op(*arguments)
            seconds[name] += time.perf_counter() - start
            return result
        return clock

    return mock.patch.multiple(fast, **{name: around(name, op) for name, op in vars(fast).items()
                                        if name.endswith(("_forward", "_backward"))})


def profile(shape):
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
            figures["products"].append(median_ms(products(config, inputs[part].size)) * config.shards)
            figures["two"].append(median_ms(lambda: workers.gradient(p, inputs, targets)) * workers.threads)
            figures["peak"].append(2 * 1024**3 / median_ms(lambda: large @ large, 0.1) / 1e6)
            seconds = defaultdict(float)
            with clocked(seconds):
                for _ in range(3):
                    shard()
            for name, value in seconds.items():
                figures[name].append(value / 3 * 1e3 * config.shards)
    ms = {name: np.median(values) for name, values in figures.items()}
    one, two, alone, peak = (ms.pop(name) for name in ("one", "two", "products", "peak"))
    flops = train_flops(config, inputs, targets)
    print(f"\n{shape}   milliseconds of one core, {config.shards} shards:")
    print(f"  at the peak, {peak:.0f} GFLOP/s: {flops / peak / 1e6:.1f}   products with weights alone: {alone:.1f}")
    print(f"  step on one thread: {one:.1f}, {flops / peak / 1e4 / one:.0f}% of the peak; on two: {two:.1f}, "
          f"{flops / peak / 1e4 / two:.0f}%")
    print("  " + ", ".join(f"{name} {value:.1f}" for name, value in sorted(ms.items(), key=lambda item: -item[1])), flush=True)


def around(dim):
    """What a whole `python train.py --dim DIM` spends on anything but losses and gradients."""
    import train
    inside, gradient = [], Workers.gradient

    def clock(*arguments):
        start = time.perf_counter()
        result = gradient(*arguments)
        inside.append(time.perf_counter() - start)
        return result

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(Workers, "gradient", clock):
        start = time.perf_counter()
        train.train(Config(dim=dim), Path(folder) / "model.bin", quiet=True)
        seconds = time.perf_counter() - start
    print(f"\npython train.py --dim {dim}: {seconds:.1f} s, of which gradients {sum(inside):.1f} s; "
          f"batches, optimizer, evaluations, checkpoints, export: {1 - sum(inside) / seconds:.1%}", flush=True)


if __name__ == "__main__":
    for shape in bench_train.SHAPES:
        profile(shape)
    for dim in (64, 128):
        around(dim)
