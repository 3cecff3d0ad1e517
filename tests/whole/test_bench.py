"""The benchmarks run and compare equal work.  No test depends on a measured time."""
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_shell import BUILT, LETTERS, write

from minitron import Engine
from minitron.engine.model_file import INT8

ROOT = Path(__file__).resolve().parents[2]


def load(name):
    """bench/NAME.py as a module of another name, since train.py is there twice."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "bench" / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script, *flags):
    command = [sys.executable, str(ROOT / "bench" / script), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_shape_is_measured_without_any_peer(tmp_path):
    out = tmp_path / "speed.jsonl"
    done = run("train.py", "--shapes", "0", "--peers", "", "--rounds", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    [figures] = map(json.loads, out.read_text().splitlines())
    assert figures["shape"]["dim"] == 32 and figures["ms"].keys() == {"minitron"}
    assert figures["times_faster"] == {} and 0 < figures["share_of_peak"] < 1
    assert f"{figures['tokens_per_second']:,} tokens/s" in done.stdout


def test_losses_that_differ_stop_the_benchmark():
    bench = load("train")
    ours, theirs = [4.0, 3.0] * 6, [4.0, 3.01] * 6
    with pytest.raises(SystemExit, match="not the same model"):
        bench.check_losses({"minitron": {"losses": [ours]}, "jax_jit": {"losses": [theirs]}})
    assert bench.check_losses({"minitron": {"losses": [ours]}, "jax_jit": {"losses": [ours]}}) == 0


@pytest.mark.parametrize("index", [0, 5])
def test_pytorch_trains_the_same_model(monkeypatch, index):
    """Five steps, so that gradients and optimizer are the same, too.  Shape 5 has qk-norm."""
    pytest.importorskip("torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    bench = load("train")
    from minitron.model.params import init
    shape = bench.SHAPES[index]
    weights = init(shape.config()).tensors()
    inputs, targets = np.random.RandomState(0).randint(0, shape.vocab, (2, shape.batch, shape.time))
    ours, theirs = (make(shape, weights, inputs, targets)
                    for make in (bench.minitron, bench.peers.torch_eager))
    for _ in range(5):
        assert ours() == pytest.approx(theirs(), rel=1e-5)


@pytest.mark.skipif(not BUILT, reason="the engine is not built: run make")
def test_the_engine_is_measured(tmp_path):
    out = tmp_path / "engine.jsonl"
    done = run("engine.py", "--shapes", "0", "--threads", "1", "--rounds", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    [figures] = map(json.loads, out.read_text().splitlines())
    assert figures["shape"]["dim"] == 64
    assert figures["ratios"].keys() == {"decode", "score", "generate"}
    assert all(0 < ratio < 10 for ratio in figures["ratios"].values())
    assert "dim 64, 1 thread: decode" in done.stdout
    printed = run("engine.py", "--table", str(out)).stdout
    assert printed.count("\n") == 3 and f"{100 * figures['ratios']['score']:.0f}%" in printed


def test_the_documentation_quotes_what_was_measured():
    bench, text = load("train"), (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    results = ROOT / "results" / "bench"
    for threads in (1, 2):
        speed, memory = bench.tables(results / "train_speed.jsonl", threads)
        assert speed in text and (threads == 1 or memory in text)
    for name in ("where.txt", "tricks.txt"):
        assert (results / name).read_text(encoding="utf-8").strip() in text
    engine = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    assert run("engine.py", "--table", str(results / "engine_speed.jsonl")).stdout in engine
    assert (results / "engine_tricks.txt").read_text(encoding="utf-8").strip("\n") in engine


@pytest.mark.skipif(not BUILT, reason="the engine is not built: run make")
def test_speed_of_a_model(tmp_path):
    """bench/engine.py --model: the last line names the bits of the logits after 0, 7, 14 ...

    So machines, builds and threads can be compared.
    """
    model = write(tmp_path / "model.bin", LETTERS, context=700, dtype=INT8)
    command = [sys.executable, ROOT / "bench" / "engine.py", "--model", model, "--threads", "2"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True,
                           timeout=60).stdout.splitlines()
    hash = 14695981039346656037
    with Engine(model, threads=1) as engine:
        engine.reset(1, 512)
        for byte in engine.forward(np.arange(512) * 7 % 8)[-1].tobytes():
            hash = (hash ^ byte) * 1099511628211 % 2**64
    assert lines[2:] == [f"logits:  {hash:016x}"]
    speed = r"[1-9]\d* tokens per second, \d+\.\d"
    assert re.fullmatch(rf"prefill: {speed} GFLOP/s \(512 at a time, threads: 2\)", lines[0])
    assert re.fullmatch(rf"decode:  {speed} GB/s", lines[1])
