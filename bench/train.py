#!/usr/bin/env python3
"""One training step of minitron against PyTorch (eager and compiled) and JAX.

    python bench/train.py                   all shapes, every peer that is installed
    python bench/train.py --shapes 0,2      some of them
    python bench/train.py --out FILE        append each shape's figures to FILE as a line of JSON
    python bench/train.py --table FILE      the figures in FILE as the tables of docs/speed.md

Cores, batch and weights are the same.  Each contender runs in a process of its own; they take turns
of about a second, while the others wait, so that a machine that gets faster or slower does so for
all.  Ratios are taken within a turn; the median over the turns is printed.  Beside them NumPy
multiplies two large float32 matrices on the same threads: no training can exceed that speed.

The peers train the same model: the losses of the steps before the first turn must agree, or the run
fails.  To install them: pip install -e '.[bench]'.
"""
import argparse
import dataclasses
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import numpy as np
import peers

# contender -> the package it needs
PEERS = {"torch_eager": "torch", "torch_compile": "torch", "jax_jit": "jax"}
BLAS_KERNEL = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")        # unset: BLAS chooses
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
WARM_UP = 12        # steps before the first turn; compilers work in the first, and caches settle
TURN = 0.8          # seconds


@dataclasses.dataclass(frozen=True)
class Shape:
    vocab: int
    time: int
    layers: int
    heads: int
    dim: int
    batch: int
    qk_norm: bool = False

    per_layer = ("norm1", "norm2", "norm_q", "norm_k")

    def __str__(self):
        return (f"V {self.vocab}  T {self.time}  L {self.layers}  H {self.heads}  D {self.dim}  "
                f"B {self.batch}" + "  qk-norm" * self.qk_norm)

    def config(self):
        from minitron.data.config import Config, default_shards
        return Config(vocab=self.vocab, layers=self.layers, heads=self.heads, kv_heads=self.heads,
                      dim=self.dim, head_dim=self.dim // self.heads,
                      ffn_dim=8 * self.dim // 3 // 8 * 8, batch=self.batch, qk_norm=self.qk_norm,
                      shards=default_shards(self.batch, self.time, self.dim))


SHAPES = [
    Shape(64, 64, 2, 4, 32, 64),
    Shape(64, 64, 2, 4, 64, 64),
    Shape(64, 64, 4, 4, 128, 64),
    Shape(64, 256, 4, 4, 128, 16),
    Shape(64, 256, 4, 8, 256, 16),
    Shape(100, 96, 3, 3, 96, 40, qk_norm=True),     # nothing in minitron was tuned on this one
]


def minitron(shape, weights, inputs, targets):
    from minitron.model.optim import adamw
    from minitron.model.params import Params, decay_mask
    from minitron.training.parallel import Workers
    config = shape.config()
    p, m, v = Params(config), Params(config), Params(config)
    for name, tensor in p.tensors().items():
        tensor[...] = weights[name]
    decay = peers.DECAY * decay_mask(config)
    workers = Workers(config, int(os.environ["OMP_NUM_THREADS"])).__enter__()
    steps = iter(range(1, 10**9))

    def step():
        loss, _, g = workers.gradient(p, inputs, targets)
        t = next(steps)
        adamw(p.flat, g.flat, m.flat, v.flat, decay, t, peers.LR, peers.BETA1, peers.BETA2)
        return loss

    return step


def peak(*_):
    """One product of 2048 x 2048 matrices: 17.2 GFLOP."""
    a, b, out = (np.ones((2048, 2048), np.float32) for _ in range(3))

    def step():
        np.matmul(a, b, out=out)
        return 0.0

    return step


def contender(name, shape, folder):
    """The process of a contender: for each number read, a turn of that many seconds, then a line

    The line is JSON: the median step in ms, peak memory in MiB, the losses of the first steps.
    """
    weights = dict(np.load(folder / "weights.npz"))
    inputs, targets = np.load(folder / "batch.npy")
    make_step = {"minitron": minitron, "peak": peak}.get(name, getattr(peers, name, None))
    step = make_step(shape, weights, inputs, targets)
    losses = [step() for _ in range(WARM_UP)]
    for line in sys.stdin:
        seconds, until = [], time.perf_counter() + float(line)
        while time.perf_counter() < until or len(seconds) < 3:
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        unit = 2**20 if sys.platform == "darwin" else 2**10
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        ms = 1e3 * statistics.median(seconds)
        print(json.dumps({"ms": ms, "memory": memory, "losses": losses}), flush=True)


class Process:
    """A contender's process, seen from outside."""

    def __init__(self, name, index, folder, threads):
        environment = {key: value for key, value in os.environ.items() if key not in BLAS_KERNEL}
        # minitron's threads are its own, each with one of BLAS; the peers' libraries bring theirs,
        # which get all cores.  Each variable is set, since importing minitron sets those of BLAS.
        blas_threads = "1" if name == "minitron" else str(threads)
        environment |= dict.fromkeys(BLAS_THREADS, blas_threads) | {"OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-W", "ignore", __file__, "--contender", name,
                   "--shapes", str(index), "--folder", str(folder)]
        self.process = subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def turn(self, seconds):
        print(seconds, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            command, code = " ".join(self.process.args), self.process.wait()
            sys.exit(f"bench: {command} ended with exit code {code}")
        return json.loads(answer)

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def measure(index, names, rounds, threads):
    """-> {name: {"ms", "memory", "losses"}, each a list over the rounds}"""
    from minitron.model.params import init
    shape = SHAPES[index]
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "weights.npz", **init(shape.config()).tensors())
        tokens = np.random.RandomState(0).randint(0, shape.vocab, (shape.batch, shape.time + 1))
        np.save(Path(folder) / "batch.npy", np.stack([tokens[:, :-1], tokens[:, 1:]]))
        turns = {name: [] for name in names}
        processes = {}
        for name in names:                      # one after the other: no warm-up disturbs another
            processes[name] = Process(name, index, folder, threads)
            processes[name].turn(0)
        for _ in range(rounds):
            for name, process in processes.items():
                turns[name].append(process.turn(TURN))
        for process in processes.values():
            process.stop()
    return {name: {key: [turn[key] for turn in own] for key in own[0]}
            for name, own in turns.items()}


def check_losses(measured):
    """The largest relative difference between losses of the first WARM_UP steps; exits if large"""
    ours = np.array(measured["minitron"]["losses"][0])
    worst = 0.0
    for name, values in measured.items():
        if name not in ("minitron", "peak"):
            worst = max(worst, float(np.abs(np.array(values["losses"][0]) / ours - 1).max()))
    if worst > 1e-3:
        sys.exit(f"bench: losses differ by {worst:.1e}: this is not the same model")
    return worst


def report(shape, measured, threads, out):
    from minitron.model.flops import train_flops
    ms = {name: np.array(values["ms"]) for name, values in measured.items()}
    scored = np.zeros((shape.batch, shape.time), int)
    flops = train_flops(shape.config(), scored, scored)
    speed_limit = 2 * 2048**3 / ms["peak"] * 1e3                    # FLOP/s in each round
    share = np.median(flops / ms["minitron"] * 1e3 / speed_limit)
    figures = {
        "shape": dataclasses.asdict(shape),
        "threads": threads,
        "shards": shape.config().shards,
        "ms": {name: round(float(np.median(own)), 2) for name, own in ms.items() if name != "peak"},
        "tokens_per_second": round(float(scored.size / np.median(ms["minitron"]) * 1e3)),
        "times_faster": {name: round(float(np.median(own / ms["minitron"])), 2)
                         for name, own in ms.items() if name in PEERS},
        "peak_gflops": round(float(np.median(speed_limit)) / 1e9),
        "share_of_peak": round(float(share), 3),
        "memory_mib": {name: round(values["memory"][-1])
                       for name, values in measured.items() if name != "peak"},
        "loss_difference": check_losses(measured),
    }
    print(f"\n{shape}   ({threads} threads, {figures['shards']} shards; "
          f"losses agree to {figures['loss_difference']:.0e})")
    print(f"  {'':14} {'ms/step':>8} {'x minitron':>11} {'peak MiB':>9}")
    for name, value in figures["ms"].items():
        factor = f"{figures['times_faster'][name]:.2f}" if name in PEERS else "1"
        print(f"  {name:14} {value:8.1f} {factor:>11} {figures['memory_mib'][name]:9}")
    print(f"  minitron: {figures['tokens_per_second']:,} tokens/s, {share:.1%} of NumPy's sgemm "
          f"peak, {figures['peak_gflops']} GFLOP/s", flush=True)
    if out:
        with open(out, "a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")


def tables(path, threads):
    """The figures of a file that were measured on this many threads, in Markdown: speed, memory"""
    heads = "| V, T, L, H, D, B | minitron | PyTorch eager | torch.compile | JAX jit |"
    lines = [f"{heads} times faster than each | of sgemm peak |", "|---|---|---|---|---|---|---|"]
    memory = [heads, "|---|---|---|---|---|"]
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        figures = json.loads(line)
        if figures["threads"] != threads:
            continue
        s, ms, mib = figures["shape"], figures["ms"], figures["memory_mib"]
        sizes = ("vocab", "time", "layers", "heads", "dim", "batch")
        shape = ", ".join(str(s[key]) for key in sizes) + ", qk-norm" * s["qk_norm"]
        times = ", ".join(f"{figures['times_faster'][name]:.2f}" for name in PEERS if name in ms)
        columns = [f"{ms[name]:.1f}" if name in ms else "" for name in ("minitron", *PEERS)]
        share = f"{figures['share_of_peak']:.0%} of {figures['peak_gflops']}"
        lines.append(f"| {shape} | {' | '.join(columns)} | {times} | {share} |")
        mibs = [str(mib.get(name, "")) for name in ("minitron", *PEERS)]
        memory.append(f"| {shape} | {' | '.join(mibs)} |")
    return "\n".join(lines), "\n".join(memory)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(map(str, range(len(SHAPES)))),
                        help="which of the shapes, 0 to 5")
    parser.add_argument("--peers", default=",".join(PEERS), help="which peers (default all)")
    parser.add_argument("--rounds", type=int, default=9, help="turns that each takes")
    parser.add_argument("--threads", type=int,
                        help="cores of each contender (default: all); a cell of a sweep has 1")
    parser.add_argument("--out", help="append the figures to this file")
    parser.add_argument("--table",
                        help="print this file's figures on --threads threads (default 2) and end")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.table:
        print("\n\n".join(tables(flags.table, flags.threads or 2)))
        return
    indices = [int(index) for index in flags.shapes.split(",")]
    if flags.contender:
        contender(flags.contender, SHAPES[indices[0]], flags.folder)
        return
    from minitron.base.environment import available_cpus
    threads = flags.threads or available_cpus()
    names = [name for name in PEERS if name in flags.peers.split(",")]
    installed = [name for name in names if importlib.util.find_spec(PEERS[name])]
    for name in names:
        if name not in installed:
            print(f"bench: {name} is left out, since {PEERS[name]} is not installed: "
                  "pip install -e '.[bench]'")
    for index in indices:
        measured = measure(index, ["minitron", "peak", *installed], flags.rounds, threads)
        report(SHAPES[index], measured, threads, flags.out)


if __name__ == "__main__":
    main()
