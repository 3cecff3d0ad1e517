"""Position ids, by which rotary positions rotate: an input of the model, and of run.c.

    plain       0, 1, 2, ...
    random      sorted draws from a longer range (Ruoss et al. 2023, arXiv:2305.16843): training
                meets the ids of longer rows, only never as many at once
    coupled     the task says which tokens share an id, such as digits of equal weight (Cho et al.
                2024, arXiv:2405.20671); a longer row then has only the distances of a shorter one

A model without positions (--rope-theta 0) knows the order from the causal mask alone (Kazemnejad et
al. 2023, arXiv:2305.19466).
"""
import numpy as np


def position_ids(task, config, rng, length, shape):
    """Ids of rows of this length, of `shape` (B, T)      -> (B, T), or None for plain ones"""
    batch, time = shape
    if config.positions == "coupled":
        ids = task.module.positions(length, task.variant, **task.options)[:time]
        return np.broadcast_to(ids, shape)
    if config.positions == "random":
        return np.sort(rng.different(batch, config.position_range, time), axis=1)
    return None
