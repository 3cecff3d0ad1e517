#!/usr/bin/env python3
"""run.c against the limits of the machine: the speeds of reading memory and of NumPy's matrix
product.

    python bench/engine.py                      all shapes, on 1 thread and on 2
    python bench/engine.py --shapes 0,1         some of them
    python bench/engine.py --out FILE           append each shape's figures to FILE, a line of JSON
    python bench/engine.py --table FILE         the figures in FILE as the table of docs/engine.md
    python bench/engine.py --model MODEL        the speed of a model file, and a hash of its logits

    decode     one sequence, token by token, from its beginning: bytes of weights per second,
               against a loop in C that only reads as many bytes from memory
    score      logits of 256 sequences of 64 tokens, or of a prompt of 512: 2 FLOPs per weight and
               token (attention comes on top, uncounted), against NumPy's float32 product of two
               1024 x 1024 matrices on as many threads
    generate   greedy texts for 1,000 prompts of 4 to 23 tokens, 24 tokens each, all at once,
               sampling included: as above
    int8       tokens per second in decoding, against the float32 model's
    load       opening the file, against reading it into fresh memory

Each round measures every contender for a moment, one after the other, so that a machine that gets
faster or slower does so for all.  A ratio compares two measurements of one round; the median over
the rounds is printed.  The weights are random.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread

for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)
# threads of Python multiply, each a matrix of its own
os.environ["OPENBLAS_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
from cffi import FFI

from minitron import Engine
from minitron.engine import model_file as export
from minitron.engine.engine import ffi as C
from minitron.engine.engine import pointer
from minitron.model.config import ModelConfig
from minitron.model.params import Params
from minitron.training.parallel import keep_memory

ROUNDS, SECONDS = 9, 0.15
PEAK = 1024


@dataclass(frozen=True)
class Shape:
    dim: int
    layers: int
    heads: int
    ffn: int
    vocab: int = 64
    context: int = 64

    def config(self):
        return ModelConfig(dim=self.dim, layers=self.layers, heads=self.heads, ffn_dim=self.ffn,
                           vocab=self.vocab,
                           qk_norm=False).resolve()

    def weights(self):
        """Weights that a token meets: all matrices, the tied embedding as the head"""
        return sum(int(np.prod(shape)) for name,
                   shape in Params(self.config()).shapes.items() if not name.startswith("norm"))

    @property
    def large(self):
        return self.context > 64


SHAPES = [
    Shape(64, 2, 2, 170),
    Shape(128, 4, 4, 341),
    Shape(256, 4, 8, 682),
    Shape(768, 12, 12, 2048, 32000, 1024),
]


def write_models(shape, folder):
    """model.bin of float32 and, of the large shape, int8.bin"""
    config, rng = shape.config(), np.random.default_rng(0)
    p = Params(config)
    for name, tensor in p.tensors().items():
        tensor[...] = 1 if name.startswith("norm") else rng.standard_normal(tensor.shape,
                np.float32) * tensor.shape[-1] ** -0.5
    pieces = [token.to_bytes(3, "big") for token in range(config.vocab)]
    vocabulary = export.Vocabulary(pieces, shape.context, None, None, 0.0)
    for name, dtype in [("model.bin", export.FLOAT32)] + [("int8.bin", export.INT8)] * shape.large:
        export.write_model(folder / name, config, p, vocabulary, {}, dtype)


def compiler_flags():
    """The compiler's flags that make has found"""
    lines = next((ROOT / "build").glob("flags-*.mk")).read_text(encoding="utf-8").splitlines()
    return [flag for line in lines for flag in line.split(" =", 1)[1].split()]


def limits(folder):
    """read.c, compiled as run.c is"""
    command = ["cc", "-O3", *compiler_flags(), "-shared", "-fPIC", str(ROOT / "bench" / "read.c")]
    subprocess.run([*command, "-o", str(folder / "read.so")], check=True)
    ffi = FFI()
    ffi.cdef("float read_memory(const float *, uint64_t, int, int);"
             "uint64_t read_file(const char *, uint64_t);")
    return ffi, ffi.dlopen(str(folder / "read.so"))


def seconds(action, least=SECONDS):
    """How long an action takes, the mean over `least` seconds or one call, whichever is longer"""
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < least:
        action()
        calls += 1
    return (time.perf_counter() - start) / calls


def peak(threads):
    """A function that returns GFLOP/s: each thread multiplies two matrices of PEAK x PEAK, four
    times"""
    left, right = (np.random.default_rng(i).random((PEAK, PEAK), np.float32) for i in range(2))
    products = [np.empty_like(left) for _ in range(threads)]

    def multiply():
        def times(out):
            for _ in range(4):
                np.matmul(left, right, out=out)

        workers = [Thread(target=times, args=(out,)) for out in products]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return lambda: 2e-9 * PEAK**3 * 4 * threads / seconds(multiply)


def contenders(shape, threads, folder, engines):
    """name -> function that returns a speed: GB/s, GFLOP/s or tokens/s"""
    ffi, lib = limits(folder)
    weights = shape.weights()
    memory, times = np.ones(weights, np.float32), max(1, 10**7 // weights)
    rng, engine = np.random.default_rng(0), engines["model.bin"]

    def read():
        lib.read_memory(ffi.from_buffer("float[]", memory), weights, threads, times)

    texts = rng.integers(0, shape.vocab, (1, 512) if shape.large else (256, 64))
    wanted = np.zeros(texts.shape, bool)
    wanted[:, -1 if shape.large else slice(None)] = True
    prompts = [rng.integers(0, shape.vocab, size).tolist() for size in rng.integers(4, 24, 1000)]
    # tokens that go through the model
    fresh = 24 * len(prompts) + sum(map(len, prompts)) - len(prompts)
    # of a prompt only the last token meets the head
    scored = weights - shape.vocab * shape.dim * shape.large
    count = 32 if shape.large else 63
    one, random, tokens = np.ones(1, np.int32), np.zeros(1, np.uint64), np.empty(count, np.int32)

    def decode(engine):
        """Tokens per second.  By mt_generate itself: Python adds a tenth to a call at dim 64."""
        arguments = [pointer("int32_t[]", one), pointer("int32_t[]", one), count, C.NULL,
                     engine.sampling(0, 0, 1, 0),
                     pointer("uint64_t[]", random), pointer("int32_t[]", tokens),
                     pointer("int32_t[]", one.copy())]
        call = engine.lib.mt_generate
        return count / seconds(lambda: engine.check(call(engine.opened(), 1, *arguments)))

    speeds = {
        "read": lambda: 4e-9 * weights * times / seconds(read),
        "peak": peak(threads),
        "decode": lambda: 4e-9 * weights * decode(engine),
        "score": lambda: 2e-9 * scored * texts.size / seconds(
            lambda: engine.logits(texts, wanted=wanted)),
    }
    if shape.large:
        speeds["int8"] = lambda: decode(engines["int8.bin"])
    else:
        speeds["generate"] = lambda: 2e-9 * weights * fresh / seconds(
            lambda: engine.generate_tokens(prompts, steps=24, temperature=0))
    return speeds


def load(path, rounds):
    """Print the seconds that it takes to open a model file and to read a file of its size,
    alternating.  In a process of its own, since memory that is kept costs less than fresh
    memory."""
    _, lib = limits(Path(path).parent)
    size = Path(path).stat().st_size
    actions = (lambda: Engine(path, 1).close(), lambda: lib.read_file(os.fsencode(path), size))
    for _ in range(rounds + 1):
        print(*map(seconds, actions))


def load_times(path, rounds):
    """-> seconds to open, seconds to read, and the ratio: medians, the first round left out"""
    command = [sys.executable, __file__, "--load", str(path), "--rounds", str(rounds)]
    lines = subprocess.run(command, check=True, capture_output=True,
                           text=True).stdout.splitlines()[1:]
    pairs = [tuple(map(float, line.split())) for line in lines]
    return [round(statistics.median(values), 3)
            for values in (*zip(*pairs), [one / other for one, other in pairs])]


RATIOS = {"decode": "read", "score": "peak", "generate": "peak"}


def measure(shape, threads, rounds, folder):
    """-> the figures of a shape on that many threads: medians of the speeds, and of the ratios to
    their limits"""
    opening = load_times(folder / "model.bin", rounds) if shape.large and threads == 1 else None
    engines = {path.name: Engine(path, threads) for path in folder.glob("*.bin")}
    speeds = contenders(shape, threads, folder, engines)
    for speed in speeds.values():
        speed()                                 # caches settle
    measured = [{name: speed() for name, speed in speeds.items()} for _ in range(rounds)]
    for engine in engines.values():
        engine.close()

    def median(value):
        return round(statistics.median(value(row) for row in measured), 3)

    ratios = {name: median(lambda row, name=name: row[name] / row[RATIOS[name]]) for name in RATIOS
              if name in speeds}
    if "int8" in speeds:
        ratios["int8"] = median(
            lambda row: row["int8"] / (row["decode"] / (4e-9 * shape.weights())))
    return {"shape": asdict(shape), "threads": threads, "ratios": ratios,
            "speeds": {name: median(lambda row, name=name: row[name]) for name in speeds},
            "load": opening and dict(zip(("open", "read", "ratio"), opening)),
            "tokens_per_second": {"decode": round(
                median(lambda row: row["decode"] / (4e-9 * shape.weights())))}}


def table(path):
    """The figures of a file as a table: the median of its runs, and in brackets the least and the
    most"""
    rows = ["| dim, layers | threads | decode GB/s | of reading | score GFLOP/s | of sgemm "
            "| generate GFLOP/s | of sgemm "
            "| int8 | load |", "|---|---|---|---|---|---|---|---|---|---|"]
    runs = defaultdict(list)
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        f = json.loads(line)
        runs[f["shape"]["dim"], f["shape"]["layers"], f["threads"]].append(f)

    def spread(values, form):
        values = [value for value in values if value is not None]
        if not values:
            return ""
        low, middle, high = (form.format(value)
                             for value in (min(values), statistics.median(values), max(values)))
        return middle if low == high else f"{middle} ({low} to {high})"

    for (dim, layers, threads), figures in runs.items():
        cells = [f"{dim}, {layers}", str(threads)]
        for name in ("decode", "score", "generate"):
            cells.append(spread([f["speeds"].get(name) for f in figures], "{:.0f}"))
            cells.append(spread([f["ratios"].get(name) for f in figures], "{:.0%}"))
        cells.append(spread([f["ratios"].get("int8") for f in figures], "{:.2f}"))
        cells.append(spread([f["load"] and f["load"]["ratio"] for f in figures], "{:.2f}"))
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def weights_per_token(c):
    """Weights that each token meets, and their bytes; c: Engine.config"""
    L, D, K, F = c["layers"], c["dim"], c["head_dim"], c["ffn_dim"]
    HK, QKV = c["heads"] * K, (c["heads"] + 2 * c["kv_heads"]) * K
    shapes = [(L * QKV, D), (L * D, HK), (L * 2 * F, D), (L * D, F), (c["vocab"], D)]
    row_bytes = (lambda ins: ins + 4 * -(-ins // 64)) if c["int8"] else (lambda ins: 4 * ins)
    weights = sum(outs * ins for outs, ins in shapes)
    return weights, sum(outs * row_bytes(ins) for outs, ins in shapes)


def measure_model(path, threads):
    """Print how fast a model reads a text at once and token by token, and a hash of its last
    logits."""
    with Engine(path, threads) as engine:
        vocab, context = engine.config["vocab"], engine.config["context"]
        count = min(512, context)
        tokens = np.arange(count, dtype=np.int32) * 7 % vocab
        logits = np.empty((1, vocab), np.float32)
        last = np.arange(count) == count - 1
        engine.reset(1, context)

        def prefill():
            engine.rewind(0)
            engine.forward_into(engine.handle, logits, tokens, None, None, last)

        first, to = pointer("int32_t[]", tokens), pointer("float[]", logits)
        each = [first + i for i in range(count)]

        def decode():
            """Straight by mt_forward: Engine.forward takes longer than a small model's token."""
            engine.rewind(0)
            for token in each:
                engine.lib.mt_forward(engine.handle, 1, token, C.NULL, C.NULL, C.NULL, to)

        (weights, size), prefilled, decoded = weights_per_token(engine.config), seconds(prefill,
                1), seconds(decode, 1)
        hash = 14695981039346656037             # FNV-1a
        for byte in logits.tobytes():
            hash = (hash ^ byte) * 1099511628211 % 2**64
        print(f"prefill: {count / prefilled:.0f} tokens per second, "
              f"{2e-9 * weights * count / prefilled:.1f} GFLOP/s "
              f"({count} at a time, threads: {threads})")
        print(f"decode:  {count / decoded:.0f} tokens per second, "
              f"{1e-9 * size * count / decoded:.1f} GB/s")
        print(f"logits:  {hash:016x}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(map(str, range(len(SHAPES)))),
                        help="numbers from 0, with commas")
    parser.add_argument("--threads", default="1,2",
                        help="numbers of threads, with commas (default 1,2)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", help="append the figures to this file")
    parser.add_argument("--table", help="print the figures of this file")
    parser.add_argument("--model", help="measure this model file instead")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.load:
        load(flags.load, flags.rounds)
        return
    if flags.table:
        print(table(flags.table))
        return
    if flags.model:
        for threads in map(int, flags.threads.split(",")):
            measure_model(flags.model, threads)
        return
    keep_memory()                               # as training and evaluation do
    for index in map(int, flags.shapes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            write_models(SHAPES[index], Path(folder))
            for threads in map(int, flags.threads.split(",")):
                figures = measure(SHAPES[index], threads, flags.rounds, Path(folder))
                ratios = figures["ratios"] | ({"load": figures["load"]["ratio"]} if figures["load"]
                                              else {})
                ratios = "  ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
                print(f"dim {SHAPES[index].dim}, {threads} thread{'s' * (threads > 1)}: {ratios}",
                      flush=True)
                if flags.out:
                    with open(flags.out, "a", encoding="utf-8") as file:
                        file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
