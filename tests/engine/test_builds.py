"""run.c built in other ways: with its plain loops it is the same model, and with any compiler it
has the same bits.

-DSLOW replaces each fast loop by its plain twin, whose sums are rounded otherwise.  Compilers and
their levels of optimisation may change nothing at all where the processor has fused multiply-adds,
as run.c writes them out.
"""
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from helpers import bits, random_config, random_weights

from minitron import Engine
from minitron.base.environment import ROOT
from minitron.engine.model_file import FLOAT32, INT8, Vocabulary, model_bytes
from minitron.model.config import ModelConfig

pytestmark = pytest.mark.skipif(not any(ROOT.glob("build/libminitron.*")),
                                reason="the engine is not built: run make")

WIDE = ModelConfig(dim=72, layers=2, heads=6, kv_heads=2, head_dim=34, ffn_dim=100, qk_norm=True,
                   tied=False, vocab=150).resolve()
CONFIGS = [*map(random_config, range(12)), WIDE]


def native():
    """The Makefile's flag for this processor, in a list, which is empty where compilers know
    none"""
    return [word for path in ROOT.glob("build/flags-*.mk") for word in path.read_text().split()
            if word.startswith("-m")][:1]


def macros(compiler):
    """The macros that a compiler defines for this processor"""
    command = [compiler, *native(), "-dM", "-E", "-x", "c", os.devnull]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The models' files, as float32 and as int8"""
    folder, paths = tmp_path_factory.mktemp("models"), []
    for i, config in enumerate(CONFIGS):
        pieces = [token.to_bytes(2, "big") for token in range(config.vocab)]
        for dtype in (FLOAT32, INT8):
            paths.append(folder / f"{i}-{dtype}.bin")
            content = model_bytes(config, random_weights(config, i),
                                  Vocabulary(pieces, 200, None, None, 1.0), {}, dtype)
            paths[-1].write_bytes(content)
    return paths


def results(paths):
    """Logits, log-probabilities and attention weights of each model, of many tokens at a time and
    of one"""
    found = []
    for i, path in enumerate(paths):
        with Engine(path, 1) as engine:
            tokens = np.random.default_rng(i).integers(0, engine.config["vocab"], (2, 80))
            found += [engine.logits(tokens),
                      engine.attention(tokens, engine.config["layers"] - 1, 0)]
            engine.reset(1, 20)
            found += [engine.forward([token])[0] for token in tokens[0, :20]]
            engine.reset(1, 80)
            found.append(engine.score(tokens[0, :-1], tokens[0, 1:], positions=np.arange(79) * 50))
    return found


@pytest.fixture(scope="module")
def expected(files):
    """The results of the library that make has built"""
    return results(files)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_slow_twins(built, files, expected, compiler):
    built(compiler, "-O1", "-DSLOW", *native())
    different = 0
    for one, other in zip(results(files), expected):
        assert np.max(abs(one - other)) < 2e-5 * max(1, np.max(abs(other)))
        different += not np.array_equal(bits(one), bits(other))
    assert different > len(expected) / 2    # it was not the same code twice


@pytest.mark.parametrize("compiler, flags", [
    # the last: other panels
    ("gcc", ["-O2"]), ("clang", ["-O2"]), ("gcc", ["-O1", "-mno-avx512f"]),
], ids=lambda value: "".join(value))
def test_bits_do_not_depend_on_the_compiler(built, files, expected, compiler, flags):
    known = macros(compiler) if shutil.which(compiler) else ""
    if known and not re.search(r"define (__FP_FAST_FMAF|__FMA__|__ARM_FEATURE_FMA) ", known):
        pytest.skip("this processor has no fused multiply-add, so compilers may round as they like")
    if "-mno-avx512f" in flags and "__AVX512F__" not in known:
        pytest.skip("this processor has no AVX-512, so the panels are the others anyway")
    built(compiler, *native(), *flags)
    for one, other in zip(results(files), expected):
        assert np.array_equal(bits(one), bits(other))
