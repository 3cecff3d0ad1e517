"""A Markov chain of its own for each row: what one has seen of the row is all there is to learn from.

    abacbacbacacbab         after c came b, b, a, b: after the next c, probably b
     ^^^^^^^^^^^^^^

Each row draws its own table of transitions, every row of the table uniformly among all distributions (Dirichlet(1)).  A model
gets better in steps: first all symbols alike, then the frequencies of this row's symbols, then those of its pairs, which takes
two layers.  The best there can be is known: where n symbols stood behind c, k of them b, b comes next with (k+1) / (n+states).

Length: tokens of the row.  Option: states of the chain.
Source: Edelman et al. 2024, arXiv:2402.11004.
Expect: two layers end 0.006 nats above the best there can be, one layer 0.105 to 0.119 (docs/gallery.md).
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
    cuts = np.sort(rng.uniform((batch, states, states - 1)), axis=2)    # the gaps between uniform cuts of 0..1 are Dirichlet(1)
    tokens, draws = np.empty((batch, length), np.int64), rng.uniform((batch, length))
    tokens[:, 0] = draws[:, 0] * states
    for t in range(1, length):
        tokens[:, t] = (draws[:, t, None] >= cuts[np.arange(batch), tokens[:, t - 1]]).sum(axis=1)
    return tokens, np.tile(np.arange(length) > 0, (batch, 1))


def reference(tokens, variant, states):
    """Nats a token of predictors that count the row's pairs, the best there can be, its symbols alone, and nothing"""
    rows, pairs, single = np.arange(len(tokens)), np.ones((len(tokens), states, states)), np.ones((len(tokens), states))
    nats = {"Bayes bigram": 0.0, "unigram": 0.0, "uniform": np.log(states)}
    time = tokens.shape[1]
    for t in range(1, time):
        last, here = tokens[:, t - 1], tokens[:, t]
        single[rows, last] += 1
        nats["Bayes bigram"] -= np.log(pairs[rows, last, here] / pairs[rows, last].sum(axis=1)).mean() / (time - 1)
        nats["unigram"] -= np.log(single[rows, here] / single.sum(axis=1)).mean() / (time - 1)
        pairs[rows, last, here] += 1
    return nats
