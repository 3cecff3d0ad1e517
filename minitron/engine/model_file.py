"""model.bin: written for run.c, and read back as strictly as run.c does.  The format is described at the top of run.c."""
import json
import math
import struct
from dataclasses import dataclass

import numpy as np

from ..base.errors import MinitronError
from ..base.files import write_atomically
from ..model.config import LIMITS, ModelConfig, single
from ..model.params import Params, shapes

MAGIC, VERSION, HEADER = b"minitron", 1, 256
FIXED = struct.Struct("<8s13I3f4Q")             # bytes 0..103 of the header
NONE = 2**32 - 1                                # no such token
DIMENSIONS = ("layers", "dim", "heads", "kv_heads", "head_dim", "ffn_dim", "vocab")
MAX_PIECE = 256
TIED, QK_NORM, LINEAR = 1, 2, 4
FLOAT32, INT8 = 0, 1                            # dtype of the matrices
GROUP = 64                                      # int8 weights of a row that share a scale


@dataclass(frozen=True)
class Vocabulary:
    """What a model file knows beside its weights' shapes."""

    pieces: list            # token id -> bytes
    context: int            # tokens of the longest sequence
    bos: int | None         # stands for an empty prompt
    eos: int | None         # ends a generation
    temperature: float      # recommended for sampling


def padded(block):
    return block + bytes(-len(block) % 64)


def checksum(words):
    """(a, b) of Fletcher's kind over the file's u64 words, words 30 and 31 left out, both modulo 2^64.

    b, the sum of all running sums, counts word i as often as words follow it, itself included.
    """
    words = np.concatenate([words[:30], words[32:]])
    times = np.arange(len(words), 0, -1, dtype=np.uint64)
    return int(words.sum(dtype=np.uint64)), int((words * times).sum(dtype=np.uint64))


def quantize(w):
    """w (..., in) -> q (..., in) int8, scale (..., groups) float32, with w close to q * scale: within scale / 2.

    A group is GROUP weights that follow each other in a row, the last of a row may be smaller; its scale is its largest
    weight / 127.  A weight that is not finite makes its group's scale so, and does not go unnoticed.
    """
    grouped = np.zeros((*w.shape[:-1], -(-w.shape[-1] // GROUP) * GROUP), np.float32)
    grouped[..., :w.shape[-1]] = w
    grouped = grouped.reshape(*w.shape[:-1], -1, GROUP)
    scale = abs(grouped).max(axis=-1) / np.float32(127)
    safe = np.where(np.isfinite(scale) & (scale > 0), scale, np.float32(np.inf))
    with np.errstate(invalid="ignore"):
        q = grouped / safe[..., None]
    q = np.clip(np.rint(q), -127, 127)       # beyond 127: tiny scales are rounded themselves
    q = np.nan_to_num(q).astype(np.int8)                             # inf / inf
    return q.reshape(*w.shape[:-1], -1)[..., :w.shape[-1]], scale


def dequantize(q, scale):
    """q (..., in), scale (..., groups) -> w (..., in) float32"""
    with np.errstate(invalid="ignore"):         # 0 * inf
        return q * np.repeat(scale, GROUP, axis=-1)[..., :q.shape[-1]]


def is_matrix(name):
    return not name.startswith("norm")


def tensor_sizes(config, dtype):
    """Bytes of each part of the tensor block before padding: a tensor is one part, an int8 matrix two."""
    for name, shape in shapes(config).items():
        if dtype == INT8 and is_matrix(name):
            yield math.prod(shape)
            yield 4 * math.prod(shape[:-1]) * -(-shape[-1] // GROUP)
        else:
            yield 4 * math.prod(shape)


def tensor_parts(p, dtype):
    """The parts of the tensor block."""
    for name, tensor in p.tensors().items():
        arrays = quantize(tensor) if dtype == INT8 and is_matrix(name) else (tensor.astype("<f4", copy=False),)
        for array in arrays:
            yield padded(array.tobytes())


def model_bytes(config, p, vocabulary, provenance, dtype=FLOAT32):
    """The content of a model file.      p: float32 Params; provenance: anything that JSON can hold; dtype FLOAT32 or INT8"""
    v = vocabulary
    tokenizer = struct.pack("<2I", 1, len(v.pieces)) + b"".join(struct.pack("<I", len(x)) + x for x in v.pieces)
    provenance = json.dumps(provenance, sort_keys=True).replace("\x7f", "\\u007f").encode("ascii")
    weights = b"".join(tensor_parts(p, dtype))
    blocks = padded(tokenizer) + padded(provenance) + weights
    flags = TIED * config.tied + QK_NORM * config.qk_norm + LINEAR * (config.attention == "linear")
    fixed = FIXED.pack(
        MAGIC, VERSION, dtype, *(getattr(config, name) for name in DIMENSIONS), v.context, flags,
        NONE if v.bos is None else v.bos, NONE if v.eos is None else v.eos,
        config.rope_theta, config.norm_eps, v.temperature,
        len(tokenizer), len(provenance), len(weights), HEADER + len(blocks),
    )
    words = np.frombuffer(fixed.ljust(HEADER, b"\0") + blocks, "<u8").copy()
    words[30], words[31] = checksum(words)
    return words.tobytes()


def write_model(path, config, p, vocabulary, provenance, dtype=FLOAT32):
    """Write model.bin, whole or not at all.  Raises MinitronError where the file cannot be written."""
    write_atomically(path, model_bytes(config, p, vocabulary, provenance, dtype))


def read_model(path):
    """Read model.bin -> ModelConfig, Params, Vocabulary, provenance.  Raises MinitronError, as run.c would refuse.

    The weights of an int8 file are what they mean, in float32.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise MinitronError(f"{path}: {error.strerror}") from None
    try:
        return parse_model(content)
    except ValueError as error:
        raise MinitronError(f"{path}: {error}") from None


def parse_model(content):
    """The content of a model file -> ModelConfig, Params, Vocabulary, provenance.  Raises ValueError."""
    dtype, config, (context, bos, eos, temperature), sizes = parse_header(content)
    tokenizer_size, provenance_size, tensor_size, file_size = sizes
    provenance_start = HEADER + tokenizer_size + -tokenizer_size % 64
    tensor_start = provenance_start + provenance_size + -provenance_size % 64
    require(file_size == len(content), f"{len(content)} bytes, but its header says {file_size}")
    require(tensor_start + tensor_size == file_size, "the blocks do not add up to the file")
    require(tensor_size == sum(size + -size % 64 for size in tensor_sizes(config, dtype)),
            "the tensor block does not fit the dimensions")
    words = np.frombuffer(content, "<u8")
    require(checksum(words) == (int(words[30]), int(words[31])), "the checksum is wrong")

    pieces = parse_tokenizer(content[HEADER:HEADER + tokenizer_size], config.vocab)
    provenance = content[provenance_start:provenance_start + provenance_size]
    require(all(32 <= byte < 127 for byte in provenance), "the provenance is not printable ASCII")
    p = parse_tensors(content[tensor_start:], config, dtype)
    return config, p, Vocabulary(pieces, context, bos, eos, temperature), parse_provenance(provenance)


def parse_tensors(block, config, dtype):
    """The tensor block -> Params"""
    p, at = Params(config), 0

    def part(kind, shape):
        nonlocal at
        array = np.frombuffer(block, kind, math.prod(shape), at).reshape(shape)
        at += array.nbytes + -array.nbytes % 64
        return array

    for name, tensor in p.tensors().items():
        if dtype == INT8 and is_matrix(name):
            tensor[...] = dequantize(part("i1", tensor.shape), part("<f4", (*tensor.shape[:-1], -(-tensor.shape[-1] // GROUP))))
        else:
            tensor[...] = part("<f4", tensor.shape)
    return p


def parse_header(content):
    """The first 256 bytes -> dtype, ModelConfig, (context, bos, eos, temperature), four block sizes.  Raises ValueError."""
    require(len(content) >= HEADER, "shorter than a header")
    magic, version, dtype, *fields = FIXED.unpack(content[:FIXED.size])
    require(magic == MAGIC, "not a minitron model file")
    require(version == VERSION, f"version {version}, expected {VERSION}")
    require(dtype in (FLOAT32, INT8), f"dtype {dtype}, expected 0, float32, or 1, int8")
    numbers = dict(zip(DIMENSIONS, fields))
    context, flags, bos, eos, theta, eps, temperature, *sizes = fields[len(DIMENSIONS):]
    for name, value in numbers.items():
        require(LIMITS[name][0] <= value <= LIMITS[name][1], f"{name} {value} is out of range")
    require(1 <= context <= 2**20, f"context {context} is out of range")
    require(flags < 8, f"flags {flags} are unknown")
    require(bos == NONE or bos < numbers["vocab"], f"bos {bos} is not in the vocabulary")
    require(eos == NONE or eos < numbers["vocab"], f"eos {eos} is not in the vocabulary")
    require(0 <= theta <= np.float32(1e12), f"rope_theta {theta} is out of range")
    require(0 < eps <= 1, f"norm_eps {eps} is out of range")
    require(0 <= temperature <= 100, f"temperature {temperature} is out of range")
    require(not any(content[FIXED.size:240]), "the header's reserved bytes are not zero")
    require(numbers["heads"] % numbers["kv_heads"] == 0, "heads is not a multiple of kv_heads")
    require(numbers["head_dim"] % 2 == 0, "head_dim is odd")
    require(numbers["heads"] * numbers["head_dim"] <= 2**16, "the heads are too wide")

    config = ModelConfig(
        **numbers, rope_theta=single(theta), norm_eps=single(eps), tied=bool(flags & TIED), qk_norm=bool(flags & QK_NORM),
        attention="linear" if flags & LINEAR else "softmax",
    )
    bos, eos = (None if token == NONE else token for token in (bos, eos))
    return dtype, config, (context, bos, eos, single(temperature)), sizes


def parse_provenance(text):
    """The provenance block -> what it holds.  Raises ValueError.  run.c shows it as it is and does not ask whether it is JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the provenance is not JSON: the file was not written by minitron") from None


def parse_tokenizer(block, vocab):
    """The tokenizer block -> pieces.  Raises ValueError."""
    require(len(block) >= 8 and struct.unpack("<2I", block[:8]) == (1, vocab), "the tokenizer block begins wrongly")
    pieces, at = [], 8
    for _ in range(vocab):
        require(len(block) >= at + 4, "the tokenizer block ends early")
        size = int.from_bytes(block[at:at + 4], "little")
        require(size <= MAX_PIECE and len(block) >= at + 4 + size, "the tokenizer block ends early or a piece is too long")
        pieces.append(block[at + 4:at + 4 + size])
        at += 4 + size
    require(at == len(block), "the tokenizer block goes on after its last piece")
    written = [piece for piece in pieces if piece]
    require(len(set(written)) == len(written), "two pieces are equal")
    return pieces


def require(condition, complaint):
    if not condition:
        raise ValueError(f"{complaint}: the file is damaged or not a model")
