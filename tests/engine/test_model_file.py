"""model.bin carries a model without changing a bit of it, and its two readers agree.

model_file.py writes the file and reads it back; run.c reads it for use.  The layout tested here is
that of the comment at the top of run.c, not of model_file.py.  A file is untrusted: both readers
refuse a bad one in one line, and accept the same files.
"""
import json
import os
import stat
import struct
from functools import lru_cache

import numpy as np
import pytest
from helpers import random_config

from minitron import Engine
from minitron.base.environment import ROOT
from minitron.base.errors import MinitronError
from minitron.base.files import write_atomically
from minitron.engine.model_file import Vocabulary, model_bytes, read_model, write_model
from minitron.model.config import ModelConfig
from minitron.model.params import Params, shapes

DIMENSIONS = ("layers", "dim", "heads", "kv_heads", "head_dim", "ffn_dim", "vocab")
NONE = 2**32 - 1
HEADER = {      # the comment in run.c: offset -> format, name
    0: ("8s", "magic"), 8: ("I", "version"), 12: ("I", "dtype"),
    16: ("I", "layers"), 20: ("I", "dim"), 24: ("I", "heads"), 28: ("I", "kv_heads"),
    32: ("I", "head_dim"), 36: ("I", "ffn_dim"), 40: ("I", "vocab"), 44: ("I", "context"),
    48: ("I", "flags"), 52: ("I", "bos"), 56: ("I", "eos"),
    60: ("f", "rope_theta"), 64: ("f", "norm_eps"), 68: ("f", "temperature"),
    72: ("Q", "tokenizer_size"), 80: ("Q", "provenance_size"), 88: ("Q", "tensor_size"),
    96: ("Q", "file_size"),
    104: ("I", "prompt_min"), 108: ("I", "prompt_max"),
    112: ("128s", "zeros"), 240: ("Q", "checksum_a"), 248: ("Q", "checksum_b"),
}
# Skipped only if the engine was never built: a stale or broken library has to fail.
needs_engine = pytest.mark.skipif(not any(ROOT.glob("build/libminitron.*")),
                                  reason="the engine is not built: run make")


def random_model(seed):
    """config, Params, Vocabulary, provenance, all random; a weight has any bits of a float32."""
    rng, config = np.random.default_rng(seed), random_config(seed)
    p = Params(config)
    for tensor in p.tensors().values():
        tensor[...] = rng.integers(0, 2**32, tensor.shape, np.uint32).view(np.float32)
    lengths = rng.choice([1, 2, 3, 256], 20 * config.vocab)
    pieces = {rng.bytes(int(length)): None for length in lengths}
    pieces = [*pieces][:config.vocab]
    pieces[int(rng.integers(config.vocab))] = b""
    bos, eos = (None if token < 0 else int(token)
                for token in rng.integers(-config.vocab, config.vocab, 2))
    context, temperature = int(rng.integers(1, 2**20 + 1)), round(float(rng.uniform(0, 100)), 4)
    provenance = {"seed": seed, "text": "\u00e9\n\"\x7f", "list": [None, True, 1.5]}
    begins, own = (bool(flag) for flag in rng.integers(0, 2, 2))
    prompts = sorted(map(int, rng.integers(1, 2**20 + 1, 2))) if rng.random() < 0.5 else (0, 0)
    vocabulary = Vocabulary(pieces, context, bos, eos, temperature, begins, own, *prompts)
    return config, p, vocabulary, provenance


def floats_of(config, vocabulary):
    """The three float32 of a header"""
    return [np.float32(x) for x in (config.rope_theta, config.norm_eps, vocabulary.temperature)]


@lru_cache
def random_content(seed):
    return model_bytes(*random_model(seed))


def sealed(content):
    """The content with its right checksum, computed as run.c's comment says, word by word"""
    words = [*struct.unpack(f"<{len(content) // 8}Q", content)]
    a = b = 0
    for word in words[:30] + words[32:]:
        a = (a + word) % 2**64
        b = (b + a) % 2**64
    words[30:32] = a, b
    return struct.pack(f"<{len(words)}Q", *words)


@pytest.mark.parametrize("seed", range(50))
def test_a_model_that_is_written_and_read_is_the_same(tmp_path, seed):
    config, p, vocabulary, provenance = random_model(seed)
    write_model(tmp_path / "model.bin", config, p, vocabulary, provenance)
    read_config, read_p, read_vocabulary, read_provenance = read_model(tmp_path / "model.bin")
    assert (read_config, read_vocabulary, read_provenance) == (config, vocabulary, provenance)
    assert read_p.flat.dtype == np.float32 and read_p.flat.tobytes() == p.flat.tobytes()
    write_model(tmp_path / "again.bin", read_config, read_p, read_vocabulary, read_provenance)
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "model.bin").read_bytes()


@pytest.mark.parametrize("seed", range(20))
def test_the_file_is_as_run_c_describes_it(seed):
    config, p, vocabulary, provenance = random_model(seed)
    content = model_bytes(config, p, vocabulary, provenance)
    header = {name: struct.unpack_from("<" + form, content, offset)[0]
              for offset, (form, name) in HEADER.items()}
    for name in DIMENSIONS:
        assert header[name] == getattr(config, name)
    assert header["magic"] == b"minitron" and (header["version"], header["dtype"]) == (1, 0)
    assert header["zeros"] == bytes(128)
    flags = (config.tied, config.qk_norm, config.attention == "linear",
             vocabulary.begins_with_bos, vocabulary.own_positions)
    assert header["flags"] == sum(flag << i for i, flag in enumerate(flags))
    for name in ("context", "prompt_min", "prompt_max"):
        assert header[name] == getattr(vocabulary, name)
    for name, token in (("bos", vocabulary.bos), ("eos", vocabulary.eos)):
        assert header[name] == (NONE if token is None else token)
    assert [header[name] for name in ("rope_theta", "norm_eps", "temperature")] == floats_of(
        config, vocabulary)
    assert header["file_size"] == len(content)
    assert sealed(content) == content

    def block(start, size):
        """-> a block's content, where the next begins; the gap between them is zero."""
        end = start + size
        following = -(-end // 64) * 64
        assert not any(content[end:following])
        return content[start:end], following

    tokenizer, start = block(256, header["tokenizer_size"])
    pieces = b"".join(struct.pack("<I", len(piece)) + piece for piece in vocabulary.pieces)
    assert tokenizer == struct.pack("<2I", 1, config.vocab) + pieces
    text, start = block(start, header["provenance_size"])
    assert json.loads(text) == provenance and all(32 <= byte < 127 for byte in text)
    assert start + header["tensor_size"] == len(content)
    for name, shape in shapes(config).items():
        tensor, start = block(start, 4 * int(np.prod(shape)))
        assert tensor == getattr(p, name).tobytes()
    assert start == len(content)


def test_a_directory_that_does_not_exist(tmp_path):
    with pytest.raises(MinitronError, match="cannot be written"):
        write_model(tmp_path / "nowhere" / "model.bin", *random_model(0))
    with pytest.raises(MinitronError, match="No such file"):
        read_model(tmp_path / "nowhere" / "model.bin")


# ---- two readers, one verdict --------------------------------------------------------------------


def flip(rng, content, low, high):
    """The content with up to three bits of the bytes low..high-1 flipped"""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        content[rng.integers(low, high)] ^= 1 << int(rng.integers(8))
    return bytes(content)


def set_field(rng, content):
    """The content with a header field set to a value that tempts arithmetic to go wrong"""
    content = bytearray(content)
    offset = int(rng.choice(list(HEADER)[1:-3]))
    form, _ = HEADER[offset]
    if form == "f":
        value = rng.choice([0, -1, np.nan, np.inf, -np.inf, 1e-45, 1, 100, 101, 1e12, 3e38])
    else:
        value = rng.choice([0, 1, 2, -1, 2**15, 2**16, 2**20, 2**31 - 1, 2**32 - 1])
        value = int(value) % (2**64 if form == "Q" else 2**32)
    struct.pack_into("<" + form, content, offset, value)
    return bytes(content)


def resize(rng, content):
    """The content cut off, or with bytes added; in half the cases the header says so."""
    full = len(content)
    size = int(rng.choice([rng.integers(full), full - rng.integers(1, 200), full - 64]))
    if rng.random() < 0.5:
        changed = content[:size]
    else:
        changed = content + rng.bytes(int(rng.choice([1, 8, 64, rng.integers(1, 500)])))
    if rng.random() < 0.5 and len(changed) >= 256:
        changed = changed[:96] + struct.pack("<Q", len(changed)) + changed[104:]
    return changed


def starts(content):
    """Offsets of the tokenizer, the provenance and the tensors"""
    tokenizer, provenance = struct.unpack_from("<2Q", content, 72)
    second = 256 + -(-tokenizer // 64) * 64
    return 256, second, second + -(-provenance // 64) * 64


MUTATIONS = {
    "header": lambda rng, content: flip(rng, content, 0, 112),
    "reserved": lambda rng, content: flip(rng, content, 112, 256),
    "tokenizer": lambda rng, content: flip(rng, content, *starts(content)[:2]),
    "provenance": lambda rng, content: flip(rng, content, *starts(content)[1:]),
    "tensors": lambda rng, content: flip(rng, content, starts(content)[2], len(content)),
    "fields": set_field,
    "size": resize,
}


def opinion(reader, path):
    """A reader's result on a file, or None if it refuses, in one line"""
    try:
        return reader(path)
    except MinitronError as error:
        reason = str(error).removeprefix(str(path))
        assert 10 < len(reason) < len(str(error)) and "\n" not in reason
        return None


@needs_engine
@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("seal", [False, True], ids=["as is", "checksum repaired"])
def test_both_readers_agree(tmp_path, mutation, seal):
    path, accepted, unchanged = tmp_path / "model.bin", 0, 0
    for seed in range(250):
        rng, original = np.random.default_rng(seed), random_content(seed % 10)
        content = MUTATIONS[mutation](rng, original)
        if seal and len(content) >= 256 and len(content) % 8 == 0:
            content = sealed(content)
        path.write_bytes(content)
        model, engine = opinion(read_model, path), opinion(Engine, path)
        verdicts = f"seed {seed}: Python {model and 'accepts'}, C {engine and 'accepts'}"
        assert (model is None) == (engine is None), verdicts
        unchanged += content == original
        if engine:
            accepted += 1
            compare(engine, *model)
            engine.close()
    if seal and mutation not in ("reserved", "size"):
        assert accepted > unchanged         # the deeper checks were reached, and some files pass
    else:
        assert accepted == unchanged


def compare(engine, config, p, vocabulary, provenance):
    """The engine read the same in a file as Python did."""
    for name in (*DIMENSIONS, "tied", "qk_norm"):
        assert engine.config[name] == getattr(config, name)
    assert engine.config["linear"] == (config.attention == "linear")
    for name in ("context", "begins_with_bos", "own_positions", "prompt_min", "prompt_max"):
        assert engine.config[name] == getattr(vocabulary, name)
    assert [engine.config[name] for name in ("bos", "eos")] == [
        -1 if token is None else token for token in (vocabulary.bos, vocabulary.eos)]
    assert [engine.config[name] for name in ("rope_theta", "norm_eps", "temperature")] == floats_of(
        config, vocabulary)
    assert engine.parameters == p.count()
    assert [engine.decode([token]) for token in range(config.vocab)] == vocabulary.pieces
    assert engine.provenance == provenance


def small_model(path, changes):
    """Write a small model, with these changes to its config and vocabulary -> path"""
    config = {"dim": 4, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 2, "ffn_dim": 4,
              "vocab": 3}
    vocabulary = {"pieces": [b"a", b"b", b"ab"], "context": 9, "bos": None, "eos": None,
                  "temperature": 1.0}
    for name, value in changes.items():
        fields = Vocabulary.__dataclass_fields__
        (vocabulary if name in fields else config)[name] = value
    config = ModelConfig(**config)
    path.write_bytes(model_bytes(config, Params(config), Vocabulary(**vocabulary), {}))
    return path


NARROW = {"dim": 1, "ffn_dim": 0}


@needs_engine
@pytest.mark.parametrize("changes", [
    {"dim": 0}, {"dim": 2**16 + 1}, {"layers": 0}, NARROW | {"layers": 2**12 + 1},
    {"heads": 0}, {"kv_heads": 0}, {"heads": 3, "kv_heads": 2}, {"kv_heads": 4},
    {"head_dim": 0}, {"head_dim": 3}, NARROW | {"heads": 2**15 + 1},
    NARROW | {"heads": 1, "head_dim": 2**16 + 2}, {"ffn_dim": 2**16 + 1},
    {"vocab": 1, "pieces": [b"a"]}, NARROW | {"vocab": 2**20 + 1, "pieces": [b""] * (2**20 + 1)},
    {"context": 0}, {"context": 2**20 + 1}, {"bos": 3}, {"eos": 3},
    {"rope_theta": -1}, {"rope_theta": 1.1e12}, {"rope_theta": np.nan}, {"rope_theta": np.inf},
    {"norm_eps": 0}, {"norm_eps": -1}, {"norm_eps": 1.1}, {"norm_eps": np.nan},
    {"temperature": -1}, {"temperature": 100.1}, {"temperature": np.nan},
    {"prompt_min": 3, "prompt_max": 2}, {"prompt_min": 3}, {"prompt_max": 2},
    {"prompt_min": 1, "prompt_max": 2**20 + 1}, {"prompt_min": 2**32 - 1, "prompt_max": 2**32 - 1},
    {"pieces": [b"a", b"b", b"a"]}, {"pieces": [b"a", b"b"]}, {"pieces": [b"a", b"b", b"c", b"d"]},
    {"pieces": [b"a", b"b", b"c" * 257]},
], ids=lambda changes: str(changes)[:40])
def test_impossible_models(tmp_path, changes):
    """Each is refused for this one reason: size, checksum and all else are right."""
    path = small_model(tmp_path / "model.bin", changes)
    assert opinion(read_model, path) is None and opinion(Engine, path) is None


@needs_engine
@pytest.mark.parametrize("changes", [
    NARROW | {"layers": 2**12}, {"dim": 2**16}, NARROW | {"heads": 2**15},
    NARROW | {"heads": 1, "head_dim": 2**16}, {"dim": 1}, {"ffn_dim": 2**16}, {"ffn_dim": 1},
    {"vocab": 2, "pieces": [b"a", b"b"]}, {"context": 1}, {"context": 2**20}, {"bos": 2, "eos": 0},
    {"rope_theta": 0}, {"rope_theta": 1e12}, {"norm_eps": 1}, {"norm_eps": 1e-12},
    {"temperature": 0}, {"temperature": 100}, {"prompt_min": 3, "prompt_max": 3},
    {"prompt_min": 1, "prompt_max": 2**20}, {"begins_with_bos": True, "own_positions": True},
    {"pieces": [b"", b"", b"c" * 256]}, {"pieces": [b"a", b"aa", b"aaa"]},
], ids=lambda changes: str(changes)[:40])
def test_extreme_models(tmp_path, changes):
    """Each is at a limit, and within it."""
    path = small_model(tmp_path / "model.bin", changes)
    with Engine(path) as engine:
        compare(engine, *read_model(path))


def with_block(content, number, block):
    """The content with another tokenizer (number 0) or provenance (1), and sizes to match"""
    begin = starts(content)
    block_and_gap = block + bytes(-len(block) % 64)
    content = content[:begin[number]] + block_and_gap + content[begin[number + 1]:]
    header = bytearray(content[:256])
    struct.pack_into("<Q", header, 72 + 8 * number, len(block))
    struct.pack_into("<Q", header, 96, len(content))
    return sealed(bytes(header) + content[256:])


@needs_engine
@pytest.mark.parametrize("text", [b"", b"{", b"{}{}", b"[" * 10**5],
                         ids=["empty", "open", "two", "deep"])
def test_provenance_that_is_not_json(tmp_path, text):
    path = tmp_path / "model.bin"
    path.write_bytes(with_block(random_content(0), 1, text))
    assert opinion(read_model, path) is None and opinion(Engine, path) is None


@needs_engine
@pytest.mark.parametrize("block, good", [
    (struct.pack("<2I3I", 1, 3, 0, 0, 0), True),
    (struct.pack("<2I3I", 2, 3, 0, 0, 0), False),       # another kind
    (struct.pack("<2I3I", 1, 2, 0, 0, 0), False),       # another count
    (struct.pack("<2I3I", 1, 3, 0, 0, 1), False),       # a piece cut off
    (struct.pack("<2I2I", 1, 3, 0, 0), False),          # too few
    (struct.pack("<2I4I", 1, 3, 0, 0, 0, 0), False),    # too many
])
def test_tokenizer_blocks(tmp_path, block, good):
    path = small_model(tmp_path / "model.bin", {})
    path.write_bytes(with_block(path.read_bytes(), 0, block))
    for reader in (read_model, Engine):
        assert (opinion(reader, path) is not None) == good


@needs_engine
@pytest.mark.parametrize("bit", range(5, 32))
def test_unknown_flags(tmp_path, bit):
    path = tmp_path / "model.bin"
    content = bytearray(random_content(0))
    content[48 + bit // 8] |= 1 << bit % 8
    path.write_bytes(sealed(bytes(content)))
    assert opinion(read_model, path) is None and opinion(Engine, path) is None


def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MinitronError, match="pipe cannot be written: it is not a regular file"):
        write_atomically(tmp_path / "pipe", b"content")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
