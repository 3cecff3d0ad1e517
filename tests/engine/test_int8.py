"""int8 model files: q * scale is close to the weights, and run.c computes with exactly q * scale.

Then NumPy on the dequantised weights is as good a reference as for float32 files, and bits depend
on as little.
"""
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import bits, constant, feed, in_double, random_config, random_weights

import train
from minitron import Engine
from minitron.base.environment import ROOT
from minitron.data import tasks
from minitron.data.config import Config
from minitron.engine.model_file import (
    GROUP,
    INT8,
    Vocabulary,
    dequantize,
    model_bytes,
    parse_model,
    quantize,
    read_model,
)
from minitron.measure import evaluate
from minitron.model import transformer as model
from minitron.model.config import ModelConfig

needs_engine = pytest.mark.skipif(not any(ROOT.glob("build/libminitron.*")),
                                  reason="the engine is not built: run make")

TINY = {"dim": 16, "layers": 1, "batch": 64, "steps": 200, "eval_every": 200, "test_items": 20}


def wide_config(seed):
    """Rows of one group and more, and of a part of one; outputs of more than one panel"""
    r = np.random.RandomState(seed)
    kv_heads = int(r.choice([1, 2]))
    return ModelConfig(
        dim=int(r.choice([63, 64, 65, 72, 127, 128, 129])), layers=int(
            r.choice([1, 2])), heads=kv_heads * int(r.choice([1, 3])),
        kv_heads=kv_heads, head_dim=int(r.choice([12, 22, 66])), ffn_dim=int(
            r.choice([0, 64, 100, 130])),
        qk_norm=bool(seed % 2), tied=bool(
            seed % 3), attention="linear" if seed % 5 == 4 else "softmax",
        vocab=int(r.choice([64, 70, 129])),
    ).resolve()


CONFIGS = [random_config(seed) for seed in range(40)] + [wide_config(seed) for seed in range(20)]


def vocabulary(config):
    return Vocabulary([token.to_bytes(2, "big") for token in range(config.vocab)], 64, None, None,
                      1.0)


def dequantized(config, p):
    """The weights that an int8 file of p stands for"""
    return parse_model(model_bytes(config, p, vocabulary(config), {}, INT8))[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model file after some steps of training"""
    path = tmp_path_factory.mktemp("int8") / "model.bin"
    train.train(Config(**TINY), path, quiet=True)
    return path


# ------------------------------------------------------------------------------------------------
# The file

@pytest.mark.parametrize("config", CONFIGS[::3])
def test_weights_come_back_within_half_a_scale(config):
    p = random_weights(config, 0)
    p.wqkv[0, 0] = 0                    # a group of zeros
    # one of tiny numbers, that no large neighbour may round away
    p.embed[0, :GROUP] *= 1e-20
    found = dequantized(config, p)
    for name, original in p.tensors().items():
        back = found.tensors()[name]
        if name.startswith("norm"):
            assert np.array_equal(bits(back), bits(original))
            continue
        for first in range(0, original.shape[-1], GROUP):
            group, returned = (x[..., first:first + GROUP] for x in (original, back))
            half = abs(group).max(axis=-1, keepdims=True) / 127 / 2
            # and the roundings of float32
            assert np.all(abs(returned - group) <= half * 1.0001)
            largest = abs(group) == abs(group).max(axis=-1, keepdims=True)
            assert np.allclose(returned[largest], group[largest], rtol=1e-6, atol=0)


def test_quantize_by_hand():
    q, scale = quantize(np.float32([[127, -127, 63.4, 0.6, -0.4, 0], [0, 0, 0, 0, 0, 0]]))
    assert q.tolist() == [[127, -127, 63, 1, 0, 0], [0] * 6] and scale.tolist() == [[1], [0]]
    w = np.ones(GROUP + 1, np.float32)
    w[GROUP] = -254                     # alone in the second group
    q, scale = quantize(w)
    assert (q.dtype, scale.dtype, scale.shape) == (np.int8, np.float32, (2,))
    assert q.tolist() == [127] * GROUP + [-127] and scale.tolist() == [np.float32(1) / np.float32(
        127), 2]
    assert np.array_equal(dequantize(q, scale)[GROUP:], w[GROUP:])


def test_quantizing_again_changes_nothing():
    config = wide_config(1)
    once = dequantized(config, random_weights(config, 0))
    twice = dequantized(config, once)
    assert np.allclose(twice.flat, once.flat, rtol=1e-6, atol=0)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_does_not_go_unnoticed(bad):
    w = np.ones((2, GROUP + 5), np.float32)
    w[1, 3] = bad
    back = dequantize(*quantize(w))
    assert np.isnan(back[1, :GROUP]).all() and np.isfinite(back[1, GROUP:]).all() and np.isfinite(
        back[0]).all()


@pytest.mark.parametrize("units", [143, 180])
def test_tiny_weights_keep_their_sign(units):
    w = np.float32([units * 2.0**-149, -units * 2.0**-149])
    back = dequantize(*quantize(w))
    assert back[0] >= 0 >= back[1]


# ------------------------------------------------------------------------------------------------
# The engine

@needs_engine
@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_logits_are_those_of_numpy_on_the_dequantised_weights(build, number):
    rng, config = np.random.default_rng(number), CONFIGS[number]
    engine, p = build(config, number, dtype=INT8)
    assert engine.config["int8"] == 1 and engine.parameters == p.count()
    tokens = rng.integers(0, config.vocab, (rng.integers(1, 5), rng.integers(1, 60)))
    positions = rng.integers(0, 10**5, tokens.shape) if number % 2 else None
    expected = model.logits(in_double(config, p), config, tokens, positions)
    found, scale = engine.logits(tokens, positions), max(1, np.max(abs(expected)))
    tolerance = 1e-5 if config.dim > 3 else 2e-4
    assert np.max(abs(found - expected)) < tolerance * scale

    # a float32 file of the same weights adds the same numbers up, in another order
    plain, _ = build(config, p=p)
    assert plain.config["int8"] == 0
    assert np.max(abs(plain.logits(tokens, positions) - found)) < 2 * tolerance * scale


@needs_engine
@pytest.mark.parametrize("config", CONFIGS[3::7])
def test_bits_do_not_depend_on_batch_or_calls(build, config):
    rng = np.random.default_rng(0)
    engine, _ = build(config, dtype=INT8)
    lengths = [70, 1, 20, 33]
    texts = [rng.integers(0, config.vocab, length) for length in lengths]
    positions = [np.arange(length) for length in lengths]
    alone = [feed(engine, [text], [ids], [0] * len(text), len(text), len(text))[0] for text,
             ids in zip(texts, positions)]
    ordered = np.repeat(range(4), lengths)
    shuffled = rng.permutation(ordered)
    for order, calls in [(ordered, 1), (shuffled, 1), (shuffled, 9)]:
        for one, other in zip(alone, feed(engine, texts, positions, order, calls, 100)):
            assert np.array_equal(bits(one), bits(other))


@needs_engine
def test_bits_do_not_depend_on_threads(build):
    config = ModelConfig(dim=72, layers=2, heads=4, kv_heads=2, head_dim=18, ffn_dim=140,
                         vocab=9001).resolve()
    tokens = np.random.default_rng(0).integers(0, config.vocab, (2, constant("CHUNK") + 9))
    wanted = np.zeros(tokens.shape, bool)
    wanted[:, ::30] = True
    results = []
    for threads in (1, 2, 3):
        engine, _ = build(config, threads=threads, dtype=INT8)
        results.append([engine.logits(tokens, wanted=wanted)])
        engine.reset(1, 2)
        results[-1] += [engine.forward([5]), engine.score([7], [8])]
        assert engine.generate_tokens([[1]] * 30, 5,
                                      1) == [engine.generate_tokens([[1]], 5, 1, seed=i)[0]
                                             for i in range(30)]
    for result in results[1:]:
        assert all(np.array_equal(bits(one), bits(other)) for one, other in zip(results[0], result))


@needs_engine
def test_a_trained_model_hardly_changes(trained):
    """Its loss on test problems, by less than 1%, and less than that of random weights by far"""
    config, p, known, provenance = read_model(trained)
    task_config = Config(**TINY).resolve()
    problems = evaluate.problems(tasks.load(task_config), task_config, task_config.length, "test",
                                 400)
    inputs, targets = (x[:, :known.context] for x in (problems.inputs, problems.targets))
    int8 = trained.with_name("int8.bin")
    int8.write_bytes(model_bytes(config, p, known, provenance, INT8))
    losses = []
    for path in (trained, int8):
        with Engine(path) as engine:
            engine.reset(*inputs.shape)
            sequences = np.repeat(range(len(inputs)), inputs.shape[1])
            losses.append(-np.nanmean(engine.score(inputs.ravel(), targets.ravel(), sequences)))
    assert 0 < abs(losses[1] / losses[0] - 1) < 0.01
    assert losses[0] < 0.9 * np.log(config.vocab)


# ------------------------------------------------------------------------------------------------
# The command

def quantize_command(*arguments):
    """`python -m minitron quantize` in a process of its own -> exit code, standard output, standard
    error"""
    command = [sys.executable, "-m", "minitron", "quantize", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_quantize(tmp_path, trained):
    out = tmp_path / "int8.bin"
    out.write_bytes(b"the content before")
    code, said, complaint = quantize_command(trained, out)
    assert (code, complaint, said.count("\n")) == (0, "", 1)
    assert said.startswith(f"{out}: {out.stat().st_size} bytes, ") and said.endswith(
        f" of {trained}\n")
    config, p, known, provenance = read_model(trained)
    assert out.read_bytes() == model_bytes(config, p, known, provenance, INT8)
    found = read_model(out)
    assert (found[0], found[2], found[3]) == (config, known, provenance)
    assert np.array_equal(found[1].flat, dequantized(config, p).flat)
    assert os.listdir(tmp_path) == ["int8.bin"]
    if (ROOT / "run").exists():
        info = subprocess.run([ROOT / "run", out, "--info"], capture_output=True, text=True,
                              check=True).stdout
        assert info.startswith(f"{out}: {p.count()} parameters, int8\n")


def test_quantize_in_place(tmp_path, trained):
    path = tmp_path / "model.bin"
    path.write_bytes(trained.read_bytes())
    code, said, _ = quantize_command(path, path)
    assert code == 0 and f"{path.stat().st_size / trained.stat().st_size:.2f} of {path}" in said


@pytest.mark.parametrize("damage", ["missing", "checksum"])
def test_quantize_refuses_a_model(tmp_path, trained, damage):
    path, out, content = tmp_path / "model.bin", tmp_path / "int8.bin", trained.read_bytes()
    if damage != "missing":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    out.write_bytes(b"the content before")
    code, said, complaint = quantize_command(path, out)
    assert (code, said, complaint.count("\n")) == (2, "", 1) and complaint.startswith(
        f"minitron: {path}: ")
    assert out.read_bytes() == b"the content before"


def test_quantize_refuses_an_out(tmp_path, trained):
    for out in (tmp_path / "no-such-folder" / "int8.bin", tmp_path):
        code, said, complaint = quantize_command(trained, out)
        assert (code, said,
                complaint.count("\n")) == (2, "", 1) and f"{out} cannot be written" in complaint
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="RLIMIT_FSIZE is POSIX's")
def test_a_full_disk_leaves_out_as_it_was(tmp_path, trained):
    out = tmp_path / "int8.bin"
    out.write_bytes(b"the content before")
    script = ("import resource, signal, runpy, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
              "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); sys.argv[0] = 'minitron'; "
              "runpy.run_module('minitron', run_name='__main__')")
    command = [sys.executable, "-B", "-c", script, "quantize", trained, out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count(
        "\n") == 1 and f"{out} cannot be written" in done.stderr
    assert out.read_bytes() == b"the content before" and os.listdir(tmp_path) == ["int8.bin"]
