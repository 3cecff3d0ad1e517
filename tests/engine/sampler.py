"""run.c's sampler in Python: from equal logits and an equal seed both choose equal tokens.

Kept as plain Python floats, one operation at a time in the order of the C code, so that not one
rounding differs.
"""
import math

import numpy as np

MASK = 2**64 - 1


def draw(random):
    """SplitMix64 (Steele, Lea & Flood 2014).      state -> next state, uniform in [0, 1)"""
    random = (random + 0x9E3779B97F4A7C15) & MASK
    z = (random ^ random >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    z ^= z >> 31
    return random, (z >> 11) * 2.0**-53


def sample(logits, temperature, top_k, top_p, min_p, random):
    """One token.      logits (V,), random: the generator's state -> token, next state

    temperature 0 takes the most likely.  Otherwise weights exp((logit - largest) / temperature); of
    these, from the largest down, equal ones by id, as many as top_k, top_p and min_p all allow; then
    a draw in proportion to the weights.
    """
    # as they arrive in C
    temperature, top_p, min_p = (float(np.float32(x)) for x in (temperature, top_p, min_p))
    logits = [float(x) for x in logits]
    top = max(logits)
    if temperature == 0:
        return logits.index(top), random
    weight = [math.exp((x - top) / temperature) for x in logits]
    total = kept = 0.0
    for w in weight:
        total += w
    candidates = []
    for token in sorted(range(len(weight)), key=lambda i: (-weight[i], i)):
        if (top_k and len(candidates) >= top_k) or kept >= top_p * total or weight[token] < min_p:
            break
        candidates.append(token)
        kept += weight[token]
    random, uniform = draw(random)
    target, running = uniform * kept, 0.0
    for token in candidates:
        running += weight[token]
        if running > target:
            break
    return token, random
