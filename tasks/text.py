"""Text: predict the next character of a file of yours.

    To be, or not to b
     ^^^^^^^^^^^^^^^^^

Every character is scored, given those before it.  Without --data the text is the language reference that comes with Python
(pydoc_data.topics).  The variant "bytes" reads any file at all, as 256 tokens.

Length: characters in a window.
Source: Shannon 1951, "Prediction and entropy of printed English".
Expect: README.md shows one run.
"""
import hashlib
import math

import numpy as np

from . import SPLITS, shares

LENGTHS = (2, 4096)
LENGTH = 128
VARIANTS = ("chars", "bytes")
MIXED = False
EXTRAPOLATES = False
BATCH = 32
ENDS = False
EXACT = False
DATA = True
BOS = b"\n"
TEMPERATURE = 0.8
MOST_CHARACTERS = 1024      # more different ones than this are better read as bytes


def prepare(world, length, variant, train_fraction, data):
    """Read the text -> pieces, draw(rng, length, batch, split), fingerprint.  Raises MinitronError for an unfit file.

    The text is cut into three stretches, so that no window lies in two splits.
    """
    pieces, tokens, fingerprint = tokenize(read(data), data, variant)
    cuts = [int(share * len(tokens)) for share in shares(train_fraction)]
    stretches = dict(zip(SPLITS, (tokens[a:b] for a, b in zip(cuts, cuts[1:]))))
    if min(len(stretch) for stretch in stretches.values()) <= length:
        needed = math.ceil((length + 2) / min(train_fraction, 0.2 * (1 - train_fraction)))
        raise ValueError(f"data {data!r} has {len(tokens)} tokens, too few for length {length}, which needs about {needed}: "
                            "use a longer text or a smaller --length")

    def draw(rng, length, batch, split):
        stretch = stretches[split]
        starts = rng.integers(0, len(stretch) - length, (batch, 1))
        window = stretch[starts + np.arange(length + 1)]
        return window, np.tile(np.arange(length + 1) > 0, (batch, 1))

    return pieces, draw, fingerprint


def read(data):
    if data is None:
        from pydoc_data.topics import topics
        return "\n".join(topics[name] for name in sorted(topics)).encode()
    try:
        with open(data, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"data {data!r} cannot be read: {error.strerror}") from None


def tokenize(content, data, variant):
    """bytes -> pieces (V), tokens (N,), fingerprint: one token a byte, or one a character of UTF-8."""
    fingerprint = hashlib.sha256(content).hexdigest()[:12]
    if variant == "bytes":
        return [bytes([byte]) for byte in range(256)], np.frombuffer(content, np.uint8).astype(np.int64), fingerprint
    try:
        points = np.frombuffer(content.decode().encode("utf-32-le"), np.uint32)
    except UnicodeDecodeError as error:
        raise ValueError(f"data {data!r} is not UTF-8 (byte {error.start}): use --variant bytes") from None
    characters, tokens = np.unique(points, return_inverse=True)
    if not 2 <= len(characters) <= MOST_CHARACTERS:
        raise ValueError(f"data {data!r} has {len(characters)} different characters: use a text with at least 2, "
                            f"and --variant bytes for one with more than {MOST_CHARACTERS}")
    return [chr(point).encode() for point in characters], tokens, fingerprint
