"""Sparse parity: the parity of k of the n bits, without being told which.

    0110101101=1
               ^

Until all k are found nothing helps: any k - 1 of them say nothing about the answer.  So the loss
stands still and then falls, after about n^k steps, while the weights have been moving all along.

Length: n, the number of bits.  Options: k of them count; world names the hidden choice.
Source: Barak et al. 2022, arXiv:2207.08799.
Expect: pairs of 12 and of 20 bits and triples of 12 are found, triples of 20 not yet
(docs/gallery.md).
"""
from . import join

VOCAB = "01="
LENGTHS = (1, 64)
LENGTH = 20
OPTIONS = {"k": (3, 1, 16), "world": (0, 0, 2**31)}
MIXED = False
EXTRAPOLATES = False


def sample(rng, length, batch, variant, k, world):
    if k > length:
        raise ValueError(f"k is {k}, but there are only {length} bits")
    hidden = world(length).permutations(1, length)[0, :k]               # the k places that count
    bits = rng.integers(0, 2, (batch, length))
    parity = bits[:, hidden].sum(axis=1, keepdims=True) % 2             # (B, 1)
    return join(VOCAB, bits, "=", [parity])
