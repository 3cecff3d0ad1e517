"""Experts who err: can a model be better than all who taught it?

    q17=D           in training one expert's answer, right with probability p; in the test the right one
        ^

Each question has one right answer of several.  In training a different expert answers each time.  A model that learns what
they say, sampled at a low temperature, is a vote among them: where their mistakes are independent it is right nearly always,
which is called transcendence.  Where all share one bias (the variant shared: on a fixed share 1-p of the questions all give the
same wrong answer) no temperature helps.

Length: questions.  Options: choices for each; percent, how often an expert is right; world names the hidden answers.
Source: Zhang et al. 2024, arXiv:2406.11741.
Expect: 99.8% right at temperature 0.25 of experts who are right half of the time; 50% if they share a bias (docs/gallery.md).
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
    """Draw the right answers, and the wrong ones of a shared bias -> pieces, draw, no fingerprint."""
    hidden = world(length)
    right = hidden.integers(0, choices, length)
    wrong = (right + hidden.integers(1, choices, length)) % choices
    misled = hidden.permutations(1, length)[0] >= round(length * percent / 100)

    def draw(rng, questions, batch, split):
        """Answers of experts; outside training all questions with their right answers, as often as it takes."""
        asked = np.arange(batch) % length if split != "train" else rng.integers(0, length, batch)
        if split != "train":
            said = right[asked]
        elif variant == "shared":
            said = np.where(misled, wrong, right)[asked]
        else:
            errs = rng.integers(0, 100, batch) >= percent
            said = (right[asked] + errs * rng.integers(1, choices, batch)) % choices
        return np.stack([asked, length + said], axis=1), np.tile([False, True], (batch, 1))

    return [f"q{i}=" for i in range(length)] + [chr(65 + i) for i in range(choices)], draw, ""


def sampled(temperature, length, variant, choices, percent, world):
    """How often the right answer is drawn at a temperature by a model that has learnt exactly what the experts say"""
    p = percent / 100
    if variant == "shared":
        return round(length * p) / length
    odds = np.float64(1 - p) / (choices - 1) / p            # of one wrong answer against the right one
    with np.errstate(over="ignore"):
        return float(1 / (1 + (choices - 1) * odds ** (1 / max(temperature, 1e-9))))
