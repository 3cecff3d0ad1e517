"""model.bin: written for run.c, and read back as strictly as run.c does.

The comment at the top of run.c describes the format.
"""
import json
import math
import struct
from dataclasses import dataclass

import numpy as np

from ..base.errors import MinitronError
from ..base.files import read_regular, write_atomically
from ..model.config import LIMITS, WIDEST, ModelConfig, float32_decimal
from ..model.params import Params, shapes

MAGIC, VERSION, HEADER = b"minitron", 1, 256
FIELDS = struct.Struct("<8s13I3f4Q2I")          # bytes 0..111 of the header
RESERVED = slice(FIELDS.size, 240)              # zeros
CHECKSUM = slice(30, 32)                        # its two u64 words
DIMENSIONS = ("layers", "dim", "heads", "kv_heads", "head_dim", "ffn_dim", "vocab")
TIED, QK_NORM, LINEAR, BEGINS_WITH_BOS, OWN_POSITIONS = 1, 2, 4, 8, 16      # flags
NO_TOKEN = 2**32 - 1                            # bos or eos of a model without one
MAX_CONTEXT, MAX_PIECE = 2**20, 256             # tokens, bytes
FLOAT32, INT8 = 0, 1                            # dtype of the matrices
GROUP = 64                                      # int8 weights of a row that share a scale


@dataclass(frozen=True)
class Vocabulary:
    """The part of a model file that is not about its weights."""

    pieces: list            # token id -> bytes
    context: int            # tokens of the longest sequence
    bos: int | None         # stands for an empty prompt
    eos: int | None         # ends a generation
    temperature: float      # recommended for sampling
    begins_with_bos: bool = False       # so did every row of training
    own_positions: bool = False         # they are not 0, 1, 2, ...: they must be given
    prompt_min: int = 0     # the fewest tokens of a prompt in training, and the most; 0: not said
    prompt_max: int = 0


# ---- int8 ----------------------------------------------------------------------------------------


def groups(width):
    """Scales of an int8 row of this width"""
    return -(-width // GROUP)


def quantize(w):
    """w (..., in) -> q (..., in) int8, scale (..., groups) float32: |w - q * scale| <= scale / 2

    A group is GROUP consecutive weights of a row; the last group of a row may be smaller.  Its
    scale is its largest |weight| / 127.  A weight that is not finite makes its group's scale so.
    """
    *rows, width = w.shape
    grouped = np.zeros((*rows, groups(width) * GROUP), np.float32)
    grouped[..., :width] = w
    grouped = grouped.reshape(*rows, -1, GROUP)                             # (..., groups, GROUP)
    scale = abs(grouped).max(axis=-1) / np.float32(127)
    divisor = np.where(np.isfinite(scale) & (scale > 0), scale, np.float32(np.inf))
    with np.errstate(invalid="ignore"):
        q = grouped / divisor[..., None]
    q = np.clip(np.rint(q), -127, 127)          # beyond 127: tiny scales are themselves rounded
    q = np.nan_to_num(q).astype(np.int8)        # inf / inf
    return q.reshape(*rows, -1)[..., :width], scale


def dequantize(q, scale):
    """q (..., in), scale (..., groups) -> w (..., in) float32"""
    with np.errstate(invalid="ignore"):         # 0 * inf
        return q * np.repeat(scale, GROUP, axis=-1)[..., :q.shape[-1]]


# ---- what both directions share ------------------------------------------------------------------


def is_quantized(name, dtype):
    return dtype == INT8 and not name.startswith("norm")


def padded_size(size):
    """The next multiple of 64: each block of the file, and each part of a tensor, starts at one."""
    return size + -size % 64


def padded(block):
    return block.ljust(padded_size(len(block)), b"\0")


def checksum(words):
    """(a, b) of Fletcher's kind over the file's u64 words but for its own two, modulo 2^64

    a is the sum of the words.  b is the sum of all running sums: it counts a word once for itself
    and once for each word after it.
    """
    words = np.delete(words, CHECKSUM)
    times = np.arange(len(words), 0, -1, dtype=np.uint64)
    return int(words.sum(dtype=np.uint64)), int((words * times).sum(dtype=np.uint64))


# ---- writing -------------------------------------------------------------------------------------


def write_model(path, config, p, vocabulary, provenance, dtype=FLOAT32):
    """Write model.bin, whole or not at all.  Raises MinitronError."""
    write_atomically(path, model_bytes(config, p, vocabulary, provenance, dtype))


def model_bytes(config, p, vocabulary, provenance, dtype=FLOAT32):
    """The content of a model file

    p: float32 Params; provenance: a value that JSON can hold; dtype: FLOAT32 or INT8
    """
    tokenizer = tokenizer_block(vocabulary.pieces)
    provenance = json.dumps(provenance, sort_keys=True).replace("\x7f", "\\u007f").encode("ascii")
    tensors = b"".join(tensor_parts(p, dtype))
    blocks = padded(tokenizer) + padded(provenance) + tensors
    sizes = (len(tokenizer), len(provenance), len(tensors), HEADER + len(blocks))
    header = header_bytes(config, vocabulary, dtype, sizes)
    words = np.frombuffer(header + blocks, "<u8").copy()
    words[30], words[31] = checksum(words)
    return words.tobytes()


def header_bytes(config, vocabulary, dtype, sizes):
    """The first 256 bytes, with zeros for the checksum"""
    v = vocabulary
    flags = (TIED * config.tied + QK_NORM * config.qk_norm
             + LINEAR * (config.attention == "linear")
             + BEGINS_WITH_BOS * v.begins_with_bos + OWN_POSITIONS * v.own_positions)
    bos, eos = (NO_TOKEN if token is None else token for token in (v.bos, v.eos))
    fields = FIELDS.pack(
        MAGIC, VERSION, dtype, *(getattr(config, name) for name in DIMENSIONS), v.context,
        flags, bos, eos, config.rope_theta, config.norm_eps, v.temperature, *sizes,
        v.prompt_min, v.prompt_max)
    return fields.ljust(HEADER, b"\0")


def tokenizer_block(pieces):
    parts = [struct.pack("<I", len(piece)) + piece for piece in pieces]
    return struct.pack("<2I", 1, len(pieces)) + b"".join(parts)


def tensor_parts(p, dtype):
    """The parts of the tensor block, padded: one per tensor, two (weights, scales) if it is int8"""
    for name, tensor in p.tensors().items():
        if is_quantized(name, dtype):
            arrays = quantize(tensor)
        else:
            arrays = (tensor.astype("<f4", copy=False),)
        for array in arrays:
            yield padded(array.tobytes())


# ---- reading -------------------------------------------------------------------------------------


def read_model(path):
    """Read model.bin -> ModelConfig, Params, Vocabulary, provenance

    The weights of an int8 file are dequantized.  Raises MinitronError where run.c would refuse.
    """
    try:
        return parse_model(read_regular(path))
    except ValueError as error:
        raise MinitronError(f"{path}: {error}") from None


def parse_model(content):
    """The content of a model file -> ModelConfig, Params, Vocabulary, provenance

    Raises ValueError.
    """
    dtype, config, about, sizes = parse_header(content)
    tokenizer, provenance, tensors = split_blocks(content, *sizes)
    require(len(tensors) == tensor_size(config, dtype),
            "the tensor block does not fit the dimensions")
    words = np.frombuffer(content, "<u8")
    require(checksum(words) == tuple(map(int, words[CHECKSUM])), "the checksum is wrong")

    pieces = parse_tokenizer(tokenizer, config.vocab)
    require(all(32 <= byte < 127 for byte in provenance), "the provenance is not printable ASCII")
    vocabulary = Vocabulary(pieces, **about)
    return config, parse_tensors(tensors, config, dtype), vocabulary, parse_provenance(provenance)


def parse_header(content):
    """The first 256 bytes -> dtype, ModelConfig, {field: value} of Vocabulary, block sizes

    Raises ValueError.
    """
    require(len(content) >= HEADER, "shorter than a header")
    magic, version, dtype, *fields = FIELDS.unpack(content[:FIELDS.size])
    require(magic == MAGIC, "not a minitron model file")
    require(version == VERSION, f"version {version}, expected {VERSION}")
    require(dtype in (FLOAT32, INT8), f"dtype {dtype}, expected 0, float32, or 1, int8")
    numbers = dict(zip(DIMENSIONS, fields))
    context, flags, bos, eos, theta, eps, temperature, *sizes, fewest, most = fields[
        len(DIMENSIONS):]
    check_dimensions(**numbers)
    require(1 <= context <= MAX_CONTEXT, f"context {context} is out of range")
    require(flags < 32, f"flags {flags} are unknown")
    for name, token in (("bos", bos), ("eos", eos)):
        require(token == NO_TOKEN or token < numbers["vocab"],
                f"{name} {token} is not in the vocabulary")
    require(0 <= theta <= np.float32(1e12), f"rope_theta {theta} is out of range")
    require(0 < eps <= 1, f"norm_eps {eps} is out of range")
    require(0 <= temperature <= 100, f"temperature {temperature} is out of range")
    require(fewest <= most <= MAX_CONTEXT and bool(fewest) == bool(most),
            f"prompts of {fewest} to {most} tokens are out of range")
    require(not any(content[RESERVED]), "the header's reserved bytes are not zero")

    config = ModelConfig(
        **numbers, rope_theta=float32_decimal(theta), norm_eps=float32_decimal(eps),
        tied=bool(flags & TIED), qk_norm=bool(flags & QK_NORM),
        attention="linear" if flags & LINEAR else "softmax")
    bos, eos = (None if token == NO_TOKEN else token for token in (bos, eos))
    about = {"context": context, "bos": bos, "eos": eos,
             "temperature": float32_decimal(temperature),
             "begins_with_bos": bool(flags & BEGINS_WITH_BOS),
             "own_positions": bool(flags & OWN_POSITIONS),
             "prompt_min": fewest, "prompt_max": most}
    return dtype, config, about, sizes


def check_dimensions(**numbers):
    """Raises ValueError."""
    for name, value in numbers.items():
        low, high = LIMITS[name]
        require(low <= value <= high, f"{name} {value} is out of range")
    heads, head_dim = numbers["heads"], numbers["head_dim"]
    require(heads % numbers["kv_heads"] == 0, "heads is not a multiple of kv_heads")
    require(head_dim % 2 == 0, "head_dim is odd")
    require(heads * head_dim <= WIDEST, "the heads are too wide")


def split_blocks(content, tokenizer_size, provenance_size, tensor_size, file_size):
    """-> the tokenizer, the provenance and the tensor block.  Raises ValueError."""
    provenance_start = HEADER + padded_size(tokenizer_size)
    tensor_start = provenance_start + padded_size(provenance_size)
    require(file_size == len(content), f"{len(content)} bytes, but its header says {file_size}")
    require(tensor_start + tensor_size == file_size, "the blocks do not add up to the file")
    return (content[HEADER:HEADER + tokenizer_size],
            content[provenance_start:provenance_start + provenance_size],
            content[tensor_start:])


def parse_tokenizer(block, vocab):
    """The tokenizer block -> pieces.  Raises ValueError."""
    require(len(block) >= 8 and struct.unpack("<2I", block[:8]) == (1, vocab),
            "the tokenizer block has another kind or number of pieces")
    pieces, at = [], 8
    for _ in range(vocab):
        require(len(block) >= at + 4, "the tokenizer block is cut off")
        size = int.from_bytes(block[at:at + 4], "little")
        require(size <= MAX_PIECE and len(block) >= at + 4 + size,
                "the tokenizer block is cut off or a piece is too long")
        pieces.append(block[at + 4:at + 4 + size])
        at += 4 + size
    require(at == len(block), "the tokenizer block has bytes after its last piece")
    spelled = [piece for piece in pieces if piece]
    require(len(set(spelled)) == len(spelled), "two pieces are equal")
    return pieces


def parse_provenance(text):
    """The provenance block -> its value.  Raises ValueError.

    run.c prints the block as it is and accepts one that is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        reason = "the provenance is not JSON: the file was not written by minitron"
        raise ValueError(reason) from None


def tensor_arrays(name, shape, dtype):
    """[(kind, shape)] of the arrays that hold a tensor: itself, or int8 weights and their scales"""
    if is_quantized(name, dtype):
        return [("i1", shape), ("<f4", (*shape[:-1], groups(shape[-1])))]
    return [("<f4", shape)]


def tensor_size(config, dtype):
    """Bytes of the tensor block"""
    return sum(padded_size(np.dtype(kind).itemsize * math.prod(shape))
               for name, tensor_shape in shapes(config).items()
               for kind, shape in tensor_arrays(name, tensor_shape, dtype))


def parse_tensors(block, config, dtype):
    """The tensor block -> Params"""
    p, at = Params(config), 0
    for name, tensor in p.tensors().items():
        arrays = []
        for kind, shape in tensor_arrays(name, tensor.shape, dtype):
            arrays.append(np.frombuffer(block, kind, math.prod(shape), at).reshape(shape))
            at += padded_size(arrays[-1].nbytes)
        tensor[...] = dequantize(*arrays) if is_quantized(name, dtype) else arrays[0]
    return p


def require(condition, complaint):
    if not condition:
        raise ValueError(f"{complaint}: the file is damaged or not a model")
