"""Multi-query associative recall: pairs of keys and values, then the keys once more, in another order.

    k3 v9 k5 v8 k5 _ _ _ k3 _           labels:  v8 at the second k5, v9 at the second k3

The label is what is to be said at a key; the token behind it is filler.  A key comes again at an even distance of the pairs, at a
place drawn without replacement in proportion to i^(power-1): at a small power mostly near ones.  With softmax attention the
width need not grow with the pairs; without it (--attention linear) all pairs have to fit into a state of fixed size.

Length: tokens of the row, even, at least 4 * pairs.  Options: pairs; vocab, half of it keys and half values; power.  Variants:
what stands between the queries, zeros (one filler token) or random tokens.
Source: Arora et al. 2023, arXiv:2312.04927, with the same rules.
Expect: with 8 pairs softmax learns it from dim 32 on, linear attention from dim 64 on (docs/gallery.md).
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
        raise ValueError(f"length {length} does not fit pairs {pairs} and vocab {vocab}: it is even, at least 4 * pairs, "
                            "and below vocab")
    keys = 1 + rng.different(batch, vocab // 2 - 1, pairs)
    values = vocab // 2 + rng.different(batch, vocab - vocab // 2, pairs)
    space = (length - 2 * pairs) // 2
    weight = np.arange(1, space + 1) ** (power - 1)
    # Places with the smallest -log(u) / weight are a draw without replacement by weight (Efraimidis & Spirakis 2006).
    race = -np.log1p(-rng.uniform((batch, space))) / weight
    gaps = np.argsort(race, axis=1, kind="stable")[:, :pairs]
    tokens, labels = np.zeros((batch, length), np.int64), np.full((batch, length), -1)
    tokens[:, 0:2 * pairs:2], tokens[:, 1:2 * pairs:2] = keys, values
    np.put_along_axis(tokens, 2 * pairs + 2 * gaps, keys, axis=1)
    np.put_along_axis(labels, 2 * pairs + 2 * gaps, values, axis=1)
    if variant == "random":
        tokens = np.where(tokens == 0, rng.integers(0, vocab, tokens.shape), tokens)
    return tokens, labels
