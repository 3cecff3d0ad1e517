"""Why a run may not have learnt it: the cause that is suspected first, by a rule that looks at its record and at its neighbours.

    unfinished  it was killed, or took too long
    lr          it diverged, or the held-out nll once rose by half and 0.1 nats, the loss of the batches with it
    positions   every length that training drew from is learnt, and one beyond is not
    data        over the last quarter of the curve the batches' loss is below half of the held-out nll, and 0.1 below: memorised
    steps       the held-out nll fell by more than 5% over the last quarter of the curve
    width       it is flat, and a run of larger dim learnt it, alike in all that was not turned with it
    depth       the same of layers
    unknown     none of these

The first that fits is named.  It is a suspicion, to be tested with the dial that it names; the order puts what would make the
later ones meaningless first.  The loss is that of single batches of mixed lengths and noisy, so that only means of it are used.
It also has the token END in it, which costs next to nothing: with one answer token it is half of the nll from the beginning.  So
it is scaled by the ratio that the two have in the first quarter of the curve, where that is below 1.
"""
from typing import NamedTuple

import numpy as np

from . import phase

SPIKE, MEMORISED, FALLING = 1.5, 0.5, 0.05
GAP = 0.1                   # nats: smaller differences are noise near 0, whatever their ratio
# What follows from the model's size and may differ between a run and a larger one
SIZES = ("dim", "layers", "heads", "kv_heads", "head_dim", "ffn_dim", "lr", "seed", "shards")


class Cause(NamedTuple):
    name: str
    why: str                # what in the record says so
    turn: str               # what to try


def cause(record, learnt=()):
    """record -> Cause.      learnt: the records of its ledger that learnt it"""
    if record["status"] in ("killed", "timeout"):
        return Cause("unfinished", f"it ended as {record['status']}", "sweep --retry failed, with more time")
    if record["status"] == "diverged":
        return Cause("lr", "the loss became infinite or no number", "a smaller --lr")
    nll, loss = (np.array([value(point, name) for point in record["curve"]]) for name in ("nll", "loss"))
    quarter = max(1, len(nll) // 4)
    loss = comparable(loss, nll, quarter)
    spike = spiked(nll, loss)
    if spike is not None:
        return Cause("lr", f"held-out nll rose from {spike[0]:.2f} to {spike[1]:.2f}", "a smaller --lr, or more --warmup")
    failed = beyond(record)
    if failed is not None:
        return Cause("positions", f"the lengths of training are learnt, length {failed} is not", "--positions")
    if len(nll) and ends_memorised(nll[-quarter:].mean(), loss[-quarter:].mean()):
        return Cause("data", f"the batches' loss is {loss[-quarter:].mean():.2g}, the held-out nll {nll[-quarter:].mean():.2g}",
                     "a larger --train-fraction, or more --weight-decay")
    fell = 1 - nll[-quarter:].min() / nll[-quarter - 1] if len(nll) > quarter else 0.0
    if fell > FALLING:
        return Cause("steps", f"held-out nll still fell by {fell:.0%} over the last quarter", "more --steps")
    for name, dial in (("width", "dim"), ("depth", "layers")):
        larger = learnt_with_more(record, learnt, dial)
        if larger is not None:
            return Cause(name, f"progress has stopped, and {dial} {larger} learnt it", f"a larger --{dial}")
    return Cause("unknown", "progress has stopped, and no larger model of the ledger learnt it", "--dim, --layers, --lr, --steps")


def value(point, name):
    found = point.get(name)
    return np.nan if found is None else found


def comparable(loss, nll, quarter):
    """The batches' loss, as if it were a mean over the same tokens as the held-out nll"""
    if not len(nll) or not nll[:quarter].mean() > 0:
        return loss
    return loss / np.clip(loss[:quarter].mean() / nll[:quarter].mean(), 0.3, 1)


def spiked(nll, loss):
    """(lowest so far, the height) of a rise of the held-out nll that is no memorising, or None"""
    for i in range(1, len(nll)):
        low = np.min(nll[:i])
        if nll[i] > max(SPIKE * low, low + GAP) and not ends_memorised(nll[i], loss[i]):
            return low, nll[i]
    return None


def ends_memorised(nll, loss):
    return loss < MEMORISED * nll and nll - loss > GAP


def beyond(record):
    """The first length beyond training's that is not learnt, where the dial's is; else None"""
    c = record["config"]
    if (phase.way(record) or 0) < phase.LEARNT:
        return None
    longer = sorted(int(length) for length in record["metrics"] if int(length) > c["length"])
    return next((length for length in longer if not_learnt(at(record, length))), None)


def at(record, length):
    """The record as if its dial stood at one of the lengths that it was tested on"""
    return record | {"config": record["config"] | {"length": length}}


def not_learnt(record):
    came = phase.way(record)
    return came is not None and came < phase.LEARNT


def learnt_with_more(record, learnt, dial):
    """The smallest larger setting of a dial among runs that learnt it and are alike in all but what follows from size"""
    c = record["config"]
    same = [name for name in c if name not in SIZES] + [name for name in ("dim", "layers") if name != dial]
    larger = [other["config"] for other in learnt if other["config"][dial] > c[dial]]
    return min((other[dial] for other in larger if all(other.get(name) == c[name] for name in same)), default=None)
