"""Experts who err: can a model be better than all who taught it?

    q17=D           training: an expert's answer, right with probability p; test: the right one
        ^

Each question has one right answer out of several.  In training a different expert answers each
time.  A model that has learnt these answers and is sampled at a low temperature is a vote among the
experts: if their mistakes are independent it is nearly always right, which is called transcendence.
If all share one bias (variant shared: all give the same wrong answer to a fixed share 1-p of the
questions) no temperature helps.

Length: questions.  Options: choices for each; percent, how often an expert is right; world names
the hidden answers.
Source: Zhang et al. 2024, arXiv:2406.11741.
Expect: experts who are right half of the time teach 99.8% at temperature 0.25, but 50% if they
share a bias (docs/gallery.md).
"""
import numpy as np

LENGTHS = (2, 4096)
LENGTH = 256
VARIANTS = ("independent", "shared")
OPTIONS = {"choices": (10, 2, 26), "percent": (50, 1, 100), "world": (0, 0, 2**31)}
MIXED = False
EXTRAPOLATES = False
ENDS = False
EXACT = False
BATCH = 512
TEMPERATURE = 1.0


def prepare(world, length, variant, train_fraction, data, choices, percent):
    """Draw the right answers, and a shared bias's wrong ones -> pieces, draw, no fingerprint"""
    hidden = world(length)
    right = hidden.integers(0, choices, length)                                 # (questions,)
    wrong = (right + hidden.integers(1, choices, length)) % choices
    is_biased = hidden.permutations(1, length)[0] >= round(length * percent / 100)
    pieces = [f"q{i}=" for i in range(length)] + [chr(ord("A") + i) for i in range(choices)]

    def rows(question, answer):
        tokens = np.stack([question, length + answer], axis=1)                  # (B, 2)
        return tokens, np.tile([False, True], (len(tokens), 1))

    def draw(rng, questions, batch, split):
        """Experts' answers in training; elsewhere the right ones, to all questions in turn"""
        if split != "train":
            question = np.arange(batch) % length
            return rows(question, right[question])
        question = rng.integers(0, length, batch)
        if variant == "shared":
            return rows(question, np.where(is_biased, wrong, right)[question])
        errs = rng.integers(0, 100, batch) >= percent
        return rows(question, (right[question] + errs * rng.integers(1, choices, batch)) % choices)

    return pieces, draw, ""


def sampled(temperature, length, variant, choices, percent, world):
    """How often a model that has learnt the experts' answers exactly draws the right one"""
    p = percent / 100
    if variant == "shared":
        return round(length * p) / length
    odds = np.float64(1 - p) / (choices - 1) / p         # of one wrong answer, to the right one
    with np.errstate(over="ignore"):
        return float(1 / (1 + (choices - 1) * odds ** (1 / max(temperature, 1e-9))))
