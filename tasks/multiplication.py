"""Multiplication, with no intermediate results written down.

    34*27=0918          reversed:  34*27=8190
          ^^^^                           ^^^^

The middle digits of the answer need all digits of both numbers and a sum of many products: addition
takes one column at a time, multiplication all of them at once.

b*a is the same problem as a*b.

Length: digits of each number, with leading zeros; the answer has twice as many.
Source: Dziri et al. 2023, arXiv:2305.18654.
Expect: at dim 128 two digits are learnt to 59%, three to 2% (docs/gallery.md).
"""
from . import digits, join, swap_numbers

VOCAB = "0123456789*="
LENGTHS = (1, 9)            # a product of 18 digits still fits 64-bit integers
LENGTH = 2
VARIANTS = ("plain", "reversed")


def sample(rng, length, batch, variant):
    a, b = rng.integers(0, 10**length, (2, batch))              # numbers (B,)
    product = digits(a * b, 2 * length)                         # (B, 2 * length)
    if variant == "reversed":
        product = product[:, ::-1]
    return join(VOCAB, digits(a, length), "*", digits(b, length), "=", [product])


def mirror(tokens, variant):
    """a*b=c -> b*a=c"""
    return swap_numbers(tokens, VOCAB.index("*"))
