"""A Markov chain of its own for each row: the row so far is all there is to learn from.

    abacbacbacacbab         after c came b, b, a, b: after the next c, probably b
     ^^^^^^^^^^^^^^

Each row draws its own table of transitions, every row of the table uniformly among all
distributions (Dirichlet(1)).  A model improves in steps: at first all symbols are equally likely,
then it counts this row's symbols, then its pairs, which takes two layers.  The best predictor is
known: if c has been followed n times, k of them by b, then b comes next with (k+1) / (n+states).

Length: tokens of the row.  Option: states of the chain.
Source: Edelman et al. 2024, arXiv:2402.11004.
Expect: two layers end 0.006 nats above the best predictor, one layer 0.105 to 0.119
(docs/gallery.md).
"""
import numpy as np

LENGTHS = (2, 512)
LENGTH = 100
OPTIONS = {"states": (3, 2, 10)}
MIXED = False
ENDS = False
EXACT = False
DISTINCT = False
VERSION = 2
BATCH = 64
TEMPERATURE = 1.0
WATCH = ("heads",)


def VOCAB(variant, states):
    return "abcdefghij"[:states]


def sample(rng, length, batch, variant, states):
    # the gaps between sorted uniform cuts of 0..1 are Dirichlet(1)
    cuts = np.sort(rng.uniform((batch, states, states - 1)), axis=2)
    draws = rng.uniform((batch, length))

    tokens, rows = np.empty((batch, length), np.int64), np.arange(batch)
    tokens[:, 0] = draws[:, 0] * states
    for t in range(1, length):
        cuts_here = cuts[rows, tokens[:, t - 1]]                        # (B, states - 1)
        tokens[:, t] = (draws[:, t, None] >= cuts_here).sum(axis=1)
    return tokens, np.tile(np.arange(length) > 0, (batch, 1))


def reference(tokens, variant, states):
    """Nats per token of three predictors: the row's pairs, the best; its symbols; none of it"""
    rows, time = np.arange(len(tokens)), tokens.shape[1]
    nats = {"Bayes bigram": 0.0, "unigram": 0.0, "uniform": np.log(states)}
    pairs = np.ones((len(tokens), states, states))                      # counts, each from 1
    single = np.ones((len(tokens), states))
    for t in range(1, time):
        last, new = tokens[:, t - 1], tokens[:, t]                     # (B,)
        single[rows, last] += 1
        by_pair = pairs[rows, last, new] / pairs[rows, last].sum(axis=1)
        by_symbol = single[rows, new] / single.sum(axis=1)
        nats["Bayes bigram"] -= np.log(by_pair).mean() / (time - 1)
        nats["unigram"] -= np.log(by_symbol).mean() / (time - 1)
        pairs[rows, last, new] += 1
    return nats
