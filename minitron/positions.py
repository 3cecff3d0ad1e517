"""Position ids: what rotary positions turn by.  The model takes them as an input, and so does run.c.

    plain       0, 1, 2, ...
    random      sorted draws from a longer range (Ruoss et al. 2023, arXiv:2305.16843): ids that a longer row will
                have are met in training, only never so many at once
    coupled     the task says which tokens share an id, such as digits of equal weight (Cho et al. 2024, arXiv:2405.20671); a
                longer row then has no distance that a shorter one has not

A model without positions at all (--rope-theta 0) is told the order by the causal mask alone (Kazemnejad et al. 2023,
arXiv:2305.19466).
"""
import numpy as np


def position_ids(task, config, rng, length, shape):
    """For rows of `shape` (B, T), which have this length -> (B, T), or None for plain ones"""
    batch, time = shape
    if config.positions == "coupled":
        ids = task.module.positions(length, task.variant, **task.options)[:time]
        return np.broadcast_to(ids, shape)
    if config.positions == "random":
        return np.sort(rng.different(batch, config.position_range, time), axis=1)
    return None
