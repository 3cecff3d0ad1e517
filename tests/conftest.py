"""Engines for the tests: model files with random weights, and libraries that make has not built."""
import shutil
import subprocess

import pytest
from helpers import LETTERS, SMALL, random_weights

from minitron import Engine
from minitron.base.environment import ROOT
from minitron.engine import engine as module
from minitron.engine.model_file import FLOAT32, Vocabulary, model_bytes, read_model


@pytest.fixture
def build(tmp_path):
    """build(config, ...) -> an Engine with random weights or p, and the weights of its file

    The Engine is closed after the test.
    """
    engines = []

    def build(config, seed=0, pieces=None, context=64, bos=None, eos=None, threads=1,
              dtype=FLOAT32, p=None, **about):
        p, path = random_weights(config, seed) if p is None else p, tmp_path / f"{len(engines)}.bin"
        tokens = range(config.vocab)
        pieces = pieces or [token.to_bytes(1 + (token > 255), "big") for token in tokens]
        vocabulary = Vocabulary(pieces, context, bos, eos, 1.0, **about)
        path.write_bytes(model_bytes(config, p, vocabulary, {}, dtype))
        engines.append(Engine(path, threads))
        return engines[-1], p if dtype == FLOAT32 else read_model(path)[1]

    yield build
    for engine in engines:
        engine.close()


@pytest.fixture
def letters(build):
    """An engine whose eight tokens are the letters a to h, with a context of 12."""
    return build(SMALL, pieces=LETTERS, context=12)[0]


@pytest.fixture
def built(tmp_path, monkeypatch):
    """built(compiler, flags): Engine uses a library built so until the test ends."""
    def built(compiler, *flags, source=ROOT / "run.c"):
        if not shutil.which(compiler):
            pytest.skip(f"{compiler} is not installed")
        module.library()                    # which reads the declarations
        path = tmp_path / "library.so"
        # the Makefile's flags, except for -O3
        always = ["-std=c11", "-ffp-contract=off", "-DMINITRON_LIB", "-shared", "-fPIC", "-w"]
        subprocess.run([compiler, *always, *flags, source, "-o", path, "-lm"], check=True)
        lib = module.ffi.dlopen(str(path))
        monkeypatch.setattr(module, "library", lambda: lib)

    return built
