"""Multi-query associative recall: pairs of keys and values, then the keys again in another order.

    k3 v9 k5 v8 k5 _ _ _ k3 _           labels:  v8 at the second k5, v9 at the second k3

At a key that comes again the label is its value; the token after it is filler.  A key comes again
at an even distance from the pairs, at a place drawn without replacement in proportion to
i^(power-1): with a small power mostly a near one.  With softmax attention the width need not grow
with the pairs; without it (--attention linear) all pairs have to fit into a state of fixed size.

Length: tokens of the row, even, at least 4 * pairs.  Options: pairs; vocab, half of it keys and
half values; power.  Variants: the filler between the queries, zeros (one token) or random tokens.
Source: Arora et al. 2023, arXiv:2312.04927, with the same rules.
Expect: with 8 pairs softmax attention learns it from dim 32 up, linear attention from dim 64 up
(docs/gallery.md).
"""
import numpy as np

LENGTHS = (4, 1024)
LENGTH = 64
OPTIONS = {"pairs": (4, 1, 256), "vocab": (128, 8, 8192), "power": (0.01, 0.01, 1.0)}
VARIANTS = ("zeros", "random")
STEP = 2
MIXED = False
BATCH = 64
VERSION = 2
WATCH = ("heads",)


def VOCAB(variant, pairs, vocab, power):
    return ["_ "] + [f"{'k' if i < vocab // 2 else 'v'}{i} " for i in range(1, vocab)]


def sample(rng, length, batch, variant, pairs, vocab, power):
    if length % 2 or length < 4 * pairs or vocab <= length:
        raise ValueError(f"length {length} does not fit pairs {pairs} and vocab {vocab}: "
                         "it must be even, at least 4 * pairs, and below vocab")
    keys = 1 + rng.different(batch, vocab // 2 - 1, pairs)                      # (B, pairs)
    values = vocab // 2 + rng.different(batch, vocab - vocab // 2, pairs)

    # Places with the smallest -log(u) / weight are a draw without replacement by weight
    # (Efraimidis & Spirakis 2006).
    space = (length - 2 * pairs) // 2
    weight = np.arange(1, space + 1) ** (power - 1)                             # (space,)
    race = -np.log1p(-rng.uniform((batch, space))) / weight
    places = np.argsort(race, axis=1, kind="stable")[:, :pairs]                 # (B, pairs)

    # the pairs, then each key once more with its value as the label
    tokens, labels = np.zeros((batch, length), np.int64), np.full((batch, length), -1)
    tokens[:, 0:2 * pairs:2], tokens[:, 1:2 * pairs:2] = keys, values
    np.put_along_axis(tokens, 2 * pairs + 2 * places, keys, axis=1)
    np.put_along_axis(labels, 2 * pairs + 2 * places, values, axis=1)
    if variant == "random":
        tokens = np.where(tokens == 0, rng.integers(0, vocab, tokens.shape), tokens)
    return tokens, labels
