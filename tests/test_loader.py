"""No file, however corrupt, and no lack of memory makes the engine misbehave.

loader_attack.c does the attacking, compiled with the address and undefined-behaviour sanitizers, which see each access out of
bounds, each overflow and each leak.  Valgrind looks at the program as it is, for reads of memory never written, which they miss.
"""
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from minitron.config import ModelConfig
from minitron.export import Vocabulary, model_bytes
from minitron.params import Params

ROOT = Path(__file__).resolve().parent.parent
SANITIZED = ["-std=c11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MODELS = [      # both kinds of attention, head and layer; 37 tokens fill one panel of run.c's matrices and begin a second
    ModelConfig(dim=4, layers=2, heads=2, kv_heads=1, ffn_dim=6, vocab=3).resolve(),
    ModelConfig(dim=3, layers=1, heads=1, ffn_dim=0, vocab=37, qk_norm=True, tied=False, attention="linear").resolve(),
]


@pytest.fixture
def models(tmp_path):
    """Paths of small model files with random weights."""
    paths = []
    for i, config in enumerate(MODELS):
        p = Params(config)
        p.flat[:] = np.random.default_rng(i).standard_normal(p.flat.size)
        pieces = [b"", b"a", b"ab", *(bytes([byte]) for byte in range(128, 256))][:config.vocab]
        paths.append(tmp_path / f"{i}.bin")
        paths[-1].write_bytes(model_bytes(config, p, Vocabulary(pieces, 9, None, 1, 1.0), {"task": "test"}))
    return paths


def compile(compiler, flags, source, program):
    subprocess.run([compiler, *flags, source, "-o", program, "-lm"], check=True, capture_output=True, text=True)
    return program


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_hostile_files(tmp_path, models, compiler):
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    (tmp_path / "probe.c").write_text("int main(void) { return 0; }\n")
    try:
        compile(compiler, SANITIZED, tmp_path / "probe.c", tmp_path / "probe")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{compiler} has no sanitizers here: {error.stderr.splitlines()[0]}")
    program = compile(compiler, SANITIZED, ROOT / "tests" / "loader_attack.c", tmp_path / "loader_attack")
    run = subprocess.run([program, *models], capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stdout + run.stderr
    refused, accepted = map(int, re.fullmatch(r"(\d+) refused, (\d+) accepted\n", run.stdout).groups())
    assert refused > 10000 and accepted > 1000


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
def test_under_valgrind(tmp_path, models):
    program = compile("gcc", ["-std=c11", "-O1", "-g"], ROOT / "run.c", tmp_path / "run")
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(models[0].read_bytes()[:-1] + b"?")
    for arguments, code in [([models[0], "-i", "aba", "-n", "4", "-p", "0.9"], 0), ([damaged, "-i", "a"], 2)]:
        run = subprocess.run(["valgrind", "--error-exitcode=9", "-q", "--leak-check=full", program, *arguments],
                             capture_output=True, text=True, timeout=100)
        assert run.returncode == code, run.stderr
