"""Expressions modulo 5, each operator written before its two arguments (Polish notation).

    +3*24=1             chain:  3+2*4=0         worked off from left to right: (3+2)*4
          ^                           ^

A tree has to be read off a row of tokens before it can be evaluated from its leaves up; the three
operators are equally likely, and so are all shapes of tree.  The chain has the same operators and
no tree.

Length: operands; an expression has 2 * length - 1 tokens.
Source: Deletang et al. 2023, arXiv:2207.02098 (modular arithmetic, with and without brackets).
Expect: at dim 64 one seed of two learns chains of four, none chains of eight; trees of three reach
68% (docs/gallery.md).
"""
import numpy as np

from . import join

VOCAB = "01234+-*="
LENGTHS = (1, 32)
LENGTH = 4
VARIANTS = ("tree", "chain")
MODULUS = 5


def sample(rng, length, batch, variant):
    size = 2 * length - 1
    values = rng.integers(0, MODULUS, (batch, size))
    operators = rng.integers(MODULUS, MODULUS + 3, (batch, size))
    if variant == "chain":
        tokens = np.where(np.arange(size) % 2, operators, values)       # (B, size)
        result = tokens[:, 0]                                           # (B,)
        for t in range(2, size, 2):
            result = apply(tokens[:, t - 1], result, tokens[:, t])
    else:
        tokens = np.where(tree_shapes(rng, length, batch), operators, values)
        result = evaluate(tokens)
    return join(VOCAB, tokens, "=", [result[:, None]])


def tree_shapes(rng, length, batch):
    """Where operators stand: bool (B, 2 * length - 1); trees of `length` leaves are equally likely

    Of the rotations of any row of length-1 operators (+1) and length operands (-1) exactly one is
    an expression: the one that begins after the first place where the running sum is lowest
    (cycle lemma).
    """
    size = 2 * length - 1
    is_operator = rng.permutations(batch, size) < length - 1
    running = np.where(is_operator, 1, -1).cumsum(axis=1)
    start = running.argmin(axis=1)[:, None] + 1                         # (B, 1)
    return np.take_along_axis(is_operator, (start + np.arange(size)) % size, axis=1)


def evaluate(tokens):
    """Values (B,) of expressions (B, S), read from their ends with a stack"""
    batch, size = tokens.shape
    rows, height = np.arange(batch), np.zeros(batch, np.int64)
    stack = np.zeros((batch, size + 2), np.int64)
    for t in reversed(range(size)):
        # an operand is pushed; an operator takes the two topmost values and pushes its result
        token = tokens[:, t]
        is_operator = token >= MODULUS
        first, second = stack[rows, height], stack[rows, np.maximum(height - 1, 0)]
        height += np.where(is_operator, -1, 1)
        stack[rows, height] = np.where(is_operator, apply(token, first, second), token)
    return stack[rows, height]


def apply(operator, a, b):
    """a + b, a - b or a * b modulo 5, by the operator's token"""
    result = np.where(operator == MODULUS + 1, a - b, a * b)
    return np.where(operator == MODULUS, a + b, result) % MODULUS
