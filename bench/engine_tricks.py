#!/usr/bin/env python3
"""What each trick in run.c is worth: run.c without it, against run.c as it is, in turns within one
run.

    python bench/engine_tricks.py           the table in docs/engine.md; two minutes

Each variant is run.c with one passage replaced, compiled as make does.  Dim 128, 4 layers, what
bench/engine.py measures.  1.20 means that with the trick it is 1.20 times as fast; medians of the
ratios over the rounds.
"""
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
spec = importlib.util.spec_from_file_location("bench_engine", ROOT / "bench" / "engine.py")
bench_engine = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench_engine)

from minitron import Engine
from minitron.engine.engine import ffi, library

ROUNDS, SHAPE = 9, bench_engine.SHAPES[1]
VARIANTS = [    # the trick, threads, passage of run.c, its replacement
    ("6 tokens at a time, not 4", 1, "NARROW = 32, ROWS = 6", "NARROW = 32, ROWS = 4"),
    ("6 tokens at a time, not 1", 1, "NARROW = 32, ROWS = 6", "NARROW = 32, ROWS = 1"),
    ("weights asked for ahead", 1, "__builtin_prefetch(address)", "(void)(address)"),
    ("an exponential without a call", 1, "static inline float exponential(float x)\n{",
     "static inline float exponential(float x)\n{\n    if (x > -HUGE_VALF) return expf(x);"),
    ("12 sequences at a time, not 60", 1, "WINDOW = 12 }", "WINDOW = 60 }"),
    ("a fork for each thread", 2, None, None),
    ("threads from 2^18 on, not from 2^14", 2, "THREAD_WORK = 1 << 18", "THREAD_WORK = 1 << 14"),
]


def build(folder, number, old, new):
    """A library from run.c with one passage replaced"""
    source = (ROOT / "run.c").read_text(encoding="utf-8")
    if source.count(old) != 1:
        sys.exit(f"bench: run.c does not hold {old!r} once")
    path = folder / f"{number}.c"
    path.write_text(source.replace(old, new), encoding="utf-8")
    flags = bench_engine.compiler_flags()
    command = ["cc", "-std=c11", "-O3", "-ffp-contract=off", *flags, "-w", "-DMINITRON_LIB",
               "-shared", "-fPIC", str(path)]
    subprocess.run([*command, "-o", str(path.with_suffix(".so")), "-lm"], check=True)
    return ffi.dlopen(str(path.with_suffix(".so")))


def speeds(folder, threads, lib, forks=True):
    with mock.patch("minitron.engine.engine.library", lambda: lib):
        engines = {"model.bin": Engine(folder / "model.bin", threads)}
    if not forks:
        engines["model.bin"].workers = lambda handle, tasks: [handle]
    every = bench_engine.contenders(SHAPE, threads, folder, engines)
    return {name: every[name] for name in ("decode", "score", "generate")}


def main():
    command = ["cc", *bench_engine.compiler_flags(), "-dM", "-E", "-x", "c", os.devnull]
    if "__AVX512F__" not in subprocess.run(command, capture_output=True, text=True).stdout:
        sys.exit("bench: this needs AVX-512, whose ROWS the first two variants change")
    bench_engine.keep_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench_engine.write_models(SHAPE, folder)
        print(f"{'':36} threads   decode    score  generate")
        for number, (what, threads, old, new) in enumerate(VARIANTS):
            with_it = speeds(folder, threads, library())
            other = library() if old is None else build(folder, number, old, new)
            without = speeds(folder, threads, other, forks=old is not None)
            rounds = [{key: with_it[key]() / without[key]() for key in with_it}
                      for _ in range(ROUNDS)]
            ratios = (statistics.median(row[key] for row in rounds) for key in with_it)
            print(f"{what:36} {threads:7d}" + "".join(f"{ratio:9.2f}" for ratio in ratios),
                  flush=True)


if __name__ == "__main__":
    main()
