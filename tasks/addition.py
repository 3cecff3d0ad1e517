"""Addition, written out as at school.

    123+456=0579        reversed:  123+456=9750
            ^^^^                           ^^^^

Each digit of the answer needs two digits of the problem and a carry, and the carry may have come all the way from the right.
Written plain, the first digit asked for is the one that depends on all others; reversed, the digits come in the order
in which one works them out.

b+a is the same problem as a+b: whoever has learnt one has not been asked the other anew.

Length: digits of each number, with leading zeros; the answer has one more.  7+5 at length 3 is 007+005=0012.
Source: Lee et al. 2023, arXiv:2307.03381, for plain against reversed.
Expect: README.md shows one run at dim 128 and one at dim 8.
"""
from . import digits, join

VOCAB = "0123456789+="
LENGTHS = (1, 18)           # 18 digits and their sum still fit 64-bit integers
VARIANTS = ("plain", "reversed")


def sample(rng, length, batch, variant):
    a, b = rng.integers(0, 10**length, (2, batch))
    total = digits(a + b, length + 1)
    if variant == "reversed":
        total = total[:, ::-1]
    return join(VOCAB, digits(a, length), "+", digits(b, length), "=", [total])


def mirror(tokens):
    """a+b=c -> b+a=c"""
    length = (tokens[0] == VOCAB.index("+")).argmax()
    twin = tokens.copy()
    twin[:, :length], twin[:, length + 1:2 * length + 1] = tokens[:, length + 1:2 * length + 1], tokens[:, :length]
    return twin
