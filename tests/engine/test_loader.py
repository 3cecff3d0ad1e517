"""No file, however corrupt, and no lack of memory makes the engine misbehave, and Python reads
files as strictly as the engine.

loader_attack.c attacks the library and shell_attack.c the program, compiled with the address and
undefined-behaviour sanitizers, which see each access out of bounds, each overflow and each leak.
fuzz/ holds targets for libFuzzer, which invents files itself: `make fuzz` gives it time, here it
only shows that the targets work.  Valgrind looks at the program as it is, for reads of memory never
written, which they miss.
"""
import os
import random
import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from minitron.engine.engine import EngineMissing, ffi, library
from minitron.engine.model_file import (
    FLOAT32,
    HEADER,
    INT8,
    Vocabulary,
    checksum,
    model_bytes,
    padded,
    parse_model,
)
from minitron.model.config import ModelConfig
from minitron.model.params import Params

ROOT = Path(__file__).resolve().parents[2]
FUZZ = ROOT / "tests" / "fuzz"
SANITIZED = ["-std=c11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
FUZZED = ["-std=c11", "-O0", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
# Freed memory is kept from use only for a while, so that many short lives stay fast.
ENVIRONMENT = os.environ | {"ASAN_OPTIONS": "quarantine_size_mb=8"}
# both kinds of attention, head, layer and weight; 35 tokens fill one panel of run.c's matrices and
# begin a second
MODELS = [
    (ModelConfig(dim=4, layers=2, heads=2, kv_heads=1, ffn_dim=6, vocab=3), FLOAT32),
    (ModelConfig(dim=3, layers=1, heads=1, ffn_dim=0, vocab=37, qk_norm=True, tied=False,
                 attention="linear"), FLOAT32),
    (ModelConfig(dim=66, layers=1, heads=1, head_dim=2, ffn_dim=5, vocab=35, qk_norm=False,
                 rope_theta=0), INT8),
]
TINY = [        # for the many files of test_python_reads_as_strictly
    (ModelConfig(dim=1, layers=1, heads=1, ffn_dim=0, vocab=2), FLOAT32),
    (ModelConfig(dim=2, layers=2, heads=2, kv_heads=1, head_dim=2, ffn_dim=1, vocab=5), INT8),
    (ModelConfig(dim=3, layers=1, heads=1, ffn_dim=2, vocab=8, qk_norm=False, tied=False,
                 attention="linear"), FLOAT32),
    (ModelConfig(dim=65, layers=1, heads=1, head_dim=2, ffn_dim=0, vocab=3, rope_theta=0), INT8),
]


def content_of(config, dtype, seed):
    """A model file's content, with random weights."""
    config = config.resolve()
    p = Params(config)
    p.flat[:] = np.random.default_rng(seed).standard_normal(p.flat.size)
    pieces = [b"", b"a", b"ab", b"\n", b'"', b"\\", *(bytes([byte]) for byte in range(128, 256))][
        :config.vocab]
    bos = 0 if dtype == INT8 else None
    return model_bytes(config, p, Vocabulary(pieces, 9, bos, 2, 1.0), {"task": "test"}, dtype)


@pytest.fixture
def models(tmp_path):
    """Paths of small model files."""
    paths = [tmp_path / f"{i}.bin" for i in range(len(MODELS))]
    for i, path in enumerate(paths):
        path.write_bytes(content_of(*MODELS[i], i))
    return paths


def compile(compiler, flags, source, program):
    subprocess.run([compiler, *flags, source, "-o", program, "-lm"], check=True,
                   capture_output=True, text=True)
    return program


def skip_without(compiler, flags, source, folder):
    """Skip the test where this compiler cannot link such a program."""
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    (folder / "probe.c").write_text(source)
    try:
        compile(compiler, flags, folder / "probe.c", folder / "probe")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{compiler} lacks a library for {flags[-2]}: {error.stderr.splitlines()[0]}")


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_hostile_files(tmp_path, models, compiler):
    skip_without(compiler, SANITIZED, "int main(void) { return 0; }\n", tmp_path)
    program = compile(compiler, SANITIZED, ROOT / "tests" / "engine" / "loader_attack.c",
                      tmp_path / "loader_attack")
    run = subprocess.run([program, *models], capture_output=True, text=True, timeout=100,
                         env=ENVIRONMENT)
    assert run.returncode == 0, run.stdout + run.stderr
    refused, accepted = map(int,
                            re.fullmatch(r"(\d+) refused, (\d+) accepted\n", run.stdout).groups())
    assert refused > 50000 and accepted > 4000


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_program_without_memory(tmp_path, models, compiler):
    skip_without(compiler, SANITIZED, "int main(void) { return 0; }\n", tmp_path)
    program = compile(compiler, SANITIZED, ROOT / "tests" / "engine" / "shell_attack.c",
                      tmp_path / "shell_attack")
    run = subprocess.run([program, tmp_path, *models], capture_output=True, text=True, timeout=100,
                         env=ENVIRONMENT)
    assert run.returncode == 0, run.stderr
    assert int(re.fullmatch(r"(\d+) runs\n", run.stderr)[1]) > 2000


@pytest.mark.parametrize("target", ["loader", "encode", "generate"])
def test_fuzz_targets(tmp_path, target):
    probe = "int LLVMFuzzerTestOneInput(const char *p, long n) { (void)p; return n < 0; }\n"
    skip_without("clang", FUZZED, probe, tmp_path)
    program = compile("clang", FUZZED, FUZZ / f"{target}.c", tmp_path / target)
    (tmp_path / "new").mkdir()
    corpus = FUZZ / "corpus" / target
    flags = ["-runs=2000", "-seed=1", "-max_len=4096", f"-artifact_prefix={tmp_path}/"]
    command = [program, *flags, tmp_path / "new", corpus]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, env=ENVIRONMENT)
    assert run.returncode == 0, run.stderr[-4000:]
    assert f"{len(list(corpus.iterdir()))} files found in {corpus}" in run.stderr
    assert "Done 2000 runs" in run.stderr


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
def test_under_valgrind(tmp_path, models):
    program = compile("gcc", ["-std=c11", "-O1", "-g"], ROOT / "run.c", tmp_path / "run")
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(models[0].read_bytes()[:-1] + b"?")
    for arguments, code in [([models[0], "-i", "aba", "-n", "4", "-p", "0.9"], 0),
                            ([damaged, "-i", "a"], 2)]:
        run = subprocess.run(
            ["valgrind", "--error-exitcode=9", "-q", "--leak-check=full", program, *arguments],
                             capture_output=True, text=True, timeout=100)
        assert run.returncode == code, run.stderr


# ------------------------------------------------------------------------------------------------
# Python and C refuse the same files

NUMBERS = (0, 1, 2, 3, 7, 8, 2**12, 2**15, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
FLOATS = (0.0, -0.0, 1.0, 1e-45, 100.0, 100.00001, 1e12, 1.0000001e12, -1.0, float("inf"),
          float("nan"))


def put(content, kind, at, value):
    content[at:at + struct.calcsize(kind)] = struct.pack(kind, value)


def change_field(content, r):
    """One of version, dtype, dimensions, flags, bos and eos, most often by little"""
    at = r.choice(range(8, 60, 4))
    old, = struct.unpack_from("<I", content, at)
    put(content, "<I", at,
        r.choice((r.choice(NUMBERS), (old + r.choice((-1, 1))) % 2**32,
                  old ^ 1 << r.randrange(32))))


def change_float(content, r):
    put(content, "<f", r.choice((60, 64, 68)), r.choice(FLOATS))


def change_size(content, r):
    at = r.choice((72, 80, 88, 96))
    old, = struct.unpack_from("<Q", content, at)
    put(content, "<Q", at,
        (r.choice((0, 2**63, 2**64 - 63, old, old, old))
         + r.choice((-64, -8, -1, 0, 1, 8, 64))) % 2**64)


def change_header(content, r):
    content[r.randrange(HEADER)] = r.randrange(256)


def block(content, which):
    """Where the tokenizer (0) or provenance (1) block begins, and its size"""
    tokenizer, provenance = struct.unpack_from("<2Q", content, 72)
    return (HEADER, tokenizer) if which == 0 else (HEADER + tokenizer + -tokenizer % 64, provenance)


def change_block(content, r):
    """A byte of the tokenizer, of the provenance or of the gaps after them"""
    start, size = block(content, r.randrange(2))
    content[start + r.randrange(size + -size % 64)] = r.choice(
        (0, 1, 2, 31, 32, 97, 98, 126, 127, r.randrange(256)))


def change_tensors(content, r):
    content[r.randrange(len(content) - struct.unpack_from("<Q", content, 88)[0],
                        len(content))] = r.randrange(256)


def cut_or_grow(content, r):
    """Another length, which the header may confirm"""
    size = r.choice(
        (0, 8, HEADER, r.randrange(len(content)), len(content) + r.choice((-64, -8, -1, 1, 8, 64))))
    content[size:] = bytes(max(0, size - len(content)))
    if r.random() < 0.8 and size >= HEADER:
        put(content, "<Q", 96, size)


def rewrite_pieces(content, r):
    """Another tokenizer block: pieces of all lengths, with equal ones now and then, that may not
    fill the block"""
    start, size = block(content, 0)
    vocab, = struct.unpack_from("<I", content, 40)
    pieces = [r.choice((b"", b"a", bytes([i]), bytes([i]) * r.choice((2, 255, 256, 257))))
              for i in range(vocab)]
    new = struct.pack("<2I", 1, vocab) + b"".join(
        struct.pack("<I", len(piece)) + piece for piece in pieces)
    claimed = len(new) + (0 if r.random() < 0.8 else r.choice((-1, 1)))
    content[start:start + size + -size % 64] = padded(new)
    put(content, "<Q", 72, claimed)
    put(content, "<Q", 96, len(content))


# In the order in which two can follow each other: first those that need what the header says.
CHANGES = (rewrite_pieces, change_block, change_tensors, change_field, change_float, change_size,
           change_header, cut_or_grow)


def repair_checksum(content):
    words = np.frombuffer(content, "<u8")
    content[240:256] = struct.pack("<2Q", *checksum(words))


def read_in_python(content):
    """The content of a file, or None where it is refused.  That the provenance has to be JSON is
    Python's own demand."""
    try:
        config, _, vocabulary, _ = parse_model(content)
    except ValueError as error:
        return {} if "the provenance is not JSON" in str(error) else None
    v = vocabulary
    tokens = [-1 if token is None else token for token in (v.bos, v.eos)]
    return {"config": (config.dim, config.layers, config.vocab, config.tied, v.context, *tokens),
            "pieces": v.pieces,
            "floats": tuple(np.float32((config.rope_theta, config.norm_eps, v.temperature)))}


def read_in_c(lib, content):
    handle, size = ffi.new("mt_engine **"), ffi.new("int32_t *")
    try:
        if lib.mt_load(ffi.from_buffer(content), len(content), handle):
            return None
        c = lib.mt_get_config(handle[0])
        pieces = [ffi.buffer(lib.mt_piece(handle[0], token, size), size[0])[:]
                  for token in range(c.vocab)]
        return {"config": (c.dim, c.layers, c.vocab, c.tied, c.context, c.bos, c.eos),
                "pieces": pieces,
                "floats": (c.rope_theta, c.norm_eps, c.temperature)}
    finally:
        lib.mt_close(handle[0])


def test_python_reads_as_strictly():
    try:
        lib = library()
    except EngineMissing as error:
        pytest.skip(str(error))
    originals = [content_of(*model, 0) for model in TINY]
    r, number, refused, accepted = random.Random(0), 50000, 0, 0
    for i in range(number):
        content = bytearray(originals[i % len(originals)])
        changes = sorted(r.sample(CHANGES, k=r.choice((1, 1, 1, 2))), key=CHANGES.index)
        for change in changes:
            change(content, r)
        if r.random() < 0.95 and len(content) >= HEADER and len(content) % 8 == 0:
            repair_checksum(content)
        with np.errstate(all="ignore"):
            python, c = read_in_python(bytes(content)), read_in_c(lib, content)
        names = [change.__name__ for change in changes]
        assert (python is None) == (c is None) and python in ({}, c), (i, names)
        refused += c is None
        accepted += c is not None
    assert accepted > 0.1 * number and refused > 0.4 * number
