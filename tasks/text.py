"""Text: predict the next character of a file of yours.

    To be, or not to b
     ^^^^^^^^^^^^^^^^^

Every character is scored, given those before it.  Without --data the text is the language reference
that comes with Python (pydoc_data.topics).  The variant "bytes" reads any file at all, as 256
tokens.

Length: characters in a window.
Source: Shannon 1951, "Prediction and entropy of printed English".
Expect: README.md shows one run.
"""
import hashlib
import math
import os
import stat
import sys
from functools import lru_cache

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
MOST_CHARACTERS = 1024      # a text with more different ones is better read as bytes
MOST_BYTES = 2**30          # of a file; reading its characters takes about eight times the memory


def prepare(world, length, variant, train_fraction, data):
    """Read the text -> pieces, draw(rng, length, batch, split), fingerprint

    The text is cut into three stretches, so that no window lies in two splits.  Raises ValueError
    if the file cannot be read or is too short.
    """
    pieces, tokens, fingerprint = read(data, variant)                           # tokens (N,)
    cuts = [int(share * len(tokens)) for share in shares(train_fraction)]
    stretches = {name: tokens[start:stop] for name, start, stop in zip(SPLITS, cuts, cuts[1:])}
    if min(len(stretch) for stretch in stretches.values()) <= length:
        needed = math.ceil((length + 2) / min(train_fraction, 0.2 * (1 - train_fraction)))
        raise ValueError(f"data {data!r} has {len(tokens)} tokens, too few for length {length}, "
                         f"which needs about {needed}: use a longer text or a smaller --length")

    def draw(rng, length, batch, split):
        stretch = stretches[split]
        starts = rng.integers(0, len(stretch) - length, (batch, 1))
        window = stretch[starts + np.arange(length + 1)]                        # (B, length + 1)
        return window.astype(np.int64), np.tile(np.arange(length + 1) > 0, (batch, 1))

    return pieces, draw, fingerprint


def read(data, variant):
    """pieces (V), tokens (N,), fingerprint of the file `data`, or of Python's language reference

    A file is read again only if it has changed.
    """
    if data is None:
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise ValueError("this Python lacks its language reference, pydoc_data: "
                             "name a text with --data") from None
        return tokenize("\n".join(topics[name] for name in sorted(topics)).encode(), data, variant)
    try:
        about = os.stat(data)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError(f"data {data!r} is not a regular file: save its text to one")
        if about.st_size > MOST_BYTES:
            raise ValueError(f"data {data!r} has {about.st_size:,} bytes: "
                             f"use a file of at most {MOST_BYTES:,}")
        return read_file(data, variant, about.st_ino, about.st_size, about.st_mtime_ns,
                         about.st_ctime_ns)
    except OSError as error:
        raise ValueError(f"data {data!r} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=1)
def read_file(data, variant, *version):
    """The same of a file of which this is the version"""
    with open(data, "rb") as file:
        return tokenize(file.read(MOST_BYTES), data, variant)


def tokenize(content, data, variant):
    """bytes -> pieces (V), tokens (N,), fingerprint: a token is a byte, or a character of UTF-8"""
    fingerprint = hashlib.sha256(content).hexdigest()[:12]
    if variant == "bytes":
        return [bytes([byte]) for byte in range(256)], np.frombuffer(content, np.uint8), fingerprint

    try:
        points = np.frombuffer(content.decode().encode("utf-32-le"), np.uint32)
    except UnicodeDecodeError as error:
        raise ValueError(f"data {data!r} is not UTF-8 (byte {error.start}): "
                         "use --variant bytes") from None
    occurs = np.zeros(sys.maxunicode + 1, bool)
    occurs[points] = True
    characters = np.flatnonzero(occurs)
    if not 2 <= len(characters) <= MOST_CHARACTERS:
        raise ValueError(f"data {data!r} has {len(characters)} different characters: use a text "
                         "with at least 2, and --variant bytes for one with more than "
                         f"{MOST_CHARACTERS}")
    token_of = np.cumsum(occurs, dtype=np.int16) - 1            # of a code point that occurs
    return [chr(c).encode() for c in characters], token_of[points], fingerprint
