"""Why a run may not have learnt its task: the first of these causes that fits its record

    error       an exception ended the run
    unfinished  the run was killed or timed out
    lr          it diverged, or the held-out nll once rose by half and by 0.1 nats, and the loss of
                the batches rose with it
    positions   the length of the dial is learnt, and one that training did not see is not
    data        over the last quarter of the curve the batch loss is below half of the held-out
                nll, and 0.1 nats below: the training problems are memorised
    steps       the held-out nll fell by more than 5% over the last quarter of the curve
    width       progress has stopped, and a run of larger dim, otherwise the same, learnt it
    depth       the same of layers
    unknown     none of these

A cause is a suspicion, to be tested with the dial that it names.  The order is by what would make
the later ones meaningless.  The batch loss is noisy, of single batches of mixed lengths, so only
its means are used.  It includes the token END, which costs next to nothing: with one answer token
the loss is half of the nll from the beginning.  So it is divided by the ratio of the two over the
first quarter of the curve, where that is below 1.
"""
from typing import NamedTuple

import numpy as np

from ..measure import learnt

SPIKE, MEMORISED, FALLING = 1.5, 0.5, 0.05
GAP = 0.1                   # nats: smaller differences are noise near 0, whatever their ratio
# Fields that follow from the model's size, and may differ between a run and a larger one
SIZES = ("dim", "layers", "heads", "kv_heads", "head_dim", "ffn_dim", "lr", "seed", "shards")


class Cause(NamedTuple):
    name: str
    evidence: str           # in the record
    remedy: str             # what to try


def cause(record, successes=()):
    """record -> Cause.      successes: the records of its ledger that learnt the task"""
    if record["status"] == "failed":
        return Cause("error", record.get("reason") or "no reason is recorded",
                     "sweep --retry failed, once it is mended")
    if record["status"] in ("killed", "timeout"):
        return Cause("unfinished", f"the run ended as {record['status']}",
                     "sweep --retry failed, with more time")
    if record["status"] == "diverged":
        return Cause("lr", "the loss became infinite or NaN", "a smaller --lr")
    return (cause_in_curve(record) or cause_in_size(record, successes)
            or Cause("unknown", "progress has stopped, and no larger model in the ledger learnt it",
                     "--dim, --layers, --lr, --steps"))


def cause_in_curve(record):
    """lr, positions, data or steps, by the learning curve and the test; else None"""
    nll, loss = (np.array([value(point, name) for point in record["curve"]])
                 for name in ("nll", "loss"))
    quarter = max(1, len(nll) // 4)
    loss = comparable(loss, nll, quarter)
    spike = nll_spike(nll, loss)
    if spike is not None:
        return Cause("lr", f"held-out nll rose from {spike[0]:.2f} to {spike[1]:.2f}",
                     "a smaller --lr, or more --warmup")
    unlearnt = unlearnt_length(record)
    if unlearnt is not None:
        length = record["config"]["length"]
        return Cause("positions", f"length {length} is learnt, but length {unlearnt} is not",
                     "--positions")
    if len(nll) and is_memorised(nll[-quarter:].mean(), loss[-quarter:].mean()):
        return Cause("data", f"the batch loss is {loss[-quarter:].mean():.2g}, "
                     f"the held-out nll {nll[-quarter:].mean():.2g}",
                     "a larger --train-fraction, or more --weight-decay")
    fall = 1 - nll[-quarter:].min() / nll[-quarter - 1] if len(nll) > quarter else 0.0
    if fall > FALLING:
        return Cause("steps", f"held-out nll still fell by {fall:.0%} over the last quarter",
                     "more --steps")
    return None


def cause_in_size(record, successes):
    """width or depth, by the runs that learnt the task; else None"""
    for name, dial in (("width", "dim"), ("depth", "layers")):
        larger = smallest_larger(record, successes, dial)
        if larger is not None:
            return Cause(name, f"progress has stopped, and {dial} {larger} learnt it",
                         f"a larger --{dial}")
    return None


def value(point, name):
    """A number of a point of the curve, NaN where it has none"""
    number = point.get(name)
    return np.nan if number is None else number


def comparable(loss, nll, quarter):
    """The batch loss, as if it were a mean over the same tokens as the held-out nll"""
    if not len(nll) or not nll[:quarter].mean() > 0:
        return loss
    return loss / np.clip(loss[:quarter].mean() / nll[:quarter].mean(), 0.3, 1)


def nll_spike(nll, loss):
    """(lowest before, height) of a rise of the held-out nll that is not memorising, or None"""
    for i in range(1, len(nll)):
        low = np.min(nll[:i])
        if nll[i] > max(SPIKE * low, low + GAP) and not is_memorised(nll[i], loss[i]):
            return low, nll[i]
    return None


def is_memorised(nll, loss):
    return loss < MEMORISED * nll and nll - loss > GAP


def unlearnt_length(record):
    """The first length beyond the dial's that is not learnt, where the dial's is; else None"""
    if not learnt.has_learnt(record):
        return None
    lengths = sorted(map(int, record["metrics"]))
    longer = [length for length in lengths if length > record["config"]["length"]]
    return next((length for length in longer
                 if learnt.has_learnt(learnt.at_length(record, length)) is False), None)


def smallest_larger(record, successes, dial):
    """The smallest larger setting of a dial that learnt the task, None if there is none

    Only runs that differ in nothing but what follows from size are compared.
    """
    c = record["config"]
    same = [name for name in c if name not in SIZES]
    same += [name for name in ("dim", "layers") if name != dial]
    larger = [other["config"] for other in successes if other["config"][dial] > c[dial]]
    return min((other[dial] for other in larger
                if all(other.get(name) == c[name] for name in same)), default=None)
