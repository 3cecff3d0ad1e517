"""Splits by hash: a problem's tokens decide whether it is for training, validation or the test."""
import numpy as np

LARGEST_DRAW = 2**18        # rows that are sampled at once


def split_by_hash(sample, ranges, mirror):
    """Wrap sample(rng, length, batch) as draw(rng, length, batch, split), which keeps to one split

    ranges: {split: (low, high)}, the hashes that belong to it, which partition [0, 1); so no row is
    in two splits.  mirror(tokens), or None, gives the twins, which are to be in the same split.
    """
    def draw(rng, length, batch, split):
        """Up to `batch` rows: fewer, or none, if the split holds none that seven tries find"""
        low, high = ranges[split]
        parts, rows, attempt = [], 0, 0
        while rows < batch and (rows or attempt < 7):
            size = max(int(1.1 * (batch - rows) / (high - low)) + 16, 64 * 4**attempt)
            tokens, answer = sample(rng, length, min(size, LARGEST_DRAW))
            h = problem_hash(tokens, mirror)
            inside = (low <= h) & (h < high)
            parts.append((tokens[inside], answer[inside]))
            rows += int(inside.sum())
            attempt += 1
        tokens, answer = (np.concatenate(part)[:batch] for part in zip(*parts))
        return tokens, answer

    return draw


def problem_hash(tokens, mirror):
    """(B, S) -> (B,) in [0, 1): of a row, or equally of a row and its twin"""
    h = row_hash(tokens)
    return h if mirror is None else (h + row_hash(mirror(tokens))) % 1


def row_hash(tokens):
    """(B, S) -> (B,) in [0, 1): spread evenly, equal for equal rows on every machine

    A sum with a random odd factor per column, modulo 2^64 (Dietzfelbinger 1996), mixed.
    """
    columns = np.arange(1, tokens.shape[1] + 1, dtype=np.uint64)
    factors = mix(columns * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)       # (S,)
    total = (tokens.astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64)   # (B,)
    return (mix(total) >> np.uint64(11)) * 2.0**-53


def mix(h):
    """uint64 -> uint64, one to one: each bit of the result depends on all of h

    SplitMix64's (Steele, Lea & Flood 2014).
    """
    h = (h ^ h >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ h >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return h ^ h >> np.uint64(31)
