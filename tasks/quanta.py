"""Many sparse parities at once, a few asked often and most rarely: the quanta of skill.

    t2 0110101101=1         the parity of the bits that belong to task 2
                  ^

Each skill is learnt at a stroke, the frequent ones first.  Task i is asked in proportion to
i^-alpha (Zipf), so the mean loss falls as a smooth power law although no single one does.

Length: bits.  Options: tasks, the number of skills; k bits count for each; alpha; world names the
hidden choices.
Source: Michaud et al. 2023, arXiv:2303.13506.
Expect: at dim 64 three of eight parities, two of them alike, are learnt, each whole; below that one
(docs/gallery.md).
"""
import numpy as np

from . import by_weight

LENGTHS = (1, 64)
LENGTH = 16
OPTIONS = {"tasks": (16, 1, 512), "k": (3, 1, 16), "alpha": (1.4, 0.0, 4.0), "world": (0, 0, 2**31)}
MIXED = False
EXTRAPOLATES = False
DISTINCT = False
VERSION = 2
BATCH = 512


def VOCAB(variant, tasks, k, alpha, world):
    return ["0", "1", "="] + [f"t{i} " for i in range(1, tasks + 1)]


def sample(rng, length, batch, variant, tasks, k, alpha, world):
    if k > length:
        raise ValueError(f"k is {k}, but there are only {length} bits")
    hidden = world(length).permutations(tasks, length)[:, :k]                   # (tasks, k) places
    task = by_weight(rng, np.arange(1, tasks + 1) ** -alpha, batch)             # (B,)
    bits = rng.integers(0, 2, (batch, length))
    parity = np.take_along_axis(bits, hidden[task], axis=1).sum(axis=1) % 2     # (B,)

    equals = np.full((batch, 1), 2)
    tokens = np.concatenate([task[:, None] + 3, bits, equals, parity[:, None]], axis=1)
    return tokens, np.tile(np.arange(length + 3) == length + 2, (batch, 1))


def group(tokens, length, **options):
    """The task, from 1"""
    return tokens[:, 0] - 2
