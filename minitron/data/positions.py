"""Position ids: rotary positions turn by them.  The model takes them as an input, and so does run.c.

    plain       0, 1, 2, ...
    random      sorted draws from a longer range (Ruoss et al. 2023, arXiv:2305.16843): training
                meets the ids that a longer row will have, only never that many at once
    coupled     the task says which tokens share an id, such as digits of equal weight (Cho et al.
                2024, arXiv:2405.20671); a longer row then has no distance that a shorter one lacks

A model without positions (--rope-theta 0) knows the order from the causal mask alone (Kazemnejad
et al. 2023, arXiv:2305.19466).
"""
import numpy as np


def position_ids(task, config, rng, length, shape):
    """For rows of `shape` (B, T), which have this length -> (B, T), or None for plain ones"""
    batch, time = shape
    if config.positions == "coupled":
        ids = task.module.positions(length, task.variant, **task.arguments)[:time]
        return np.broadcast_to(ids, shape)
    if config.positions == "random":
        return np.sort(rng.different(batch, config.position_range, time), axis=1)
    return None
