"""Records as train.py writes them, without training: for tests of the report."""
import dataclasses
import random

from minitron.data.config import Config

SOLVED, GUESSED = 0.99, 0.01


def synthetic_record(exact=SOLVED, status="ok", points=20, **config):
    """A record whose curve and numbers come to `exact`; without numbers where status is not ok"""
    c = Config(**{"task": "addition", "dim": 8, "length": 2} | config).resolve()
    r = random.Random(repr(sorted(config.items())))
    record = {"key": f"{r.getrandbits(48):012x}", "status": status, "seed": c.seed,
              "config": dataclasses.asdict(c)}
    if status != "ok":
        return record | {"reason": "as the test says", "metrics": {}, "curve": [], "seconds": 1.0}
    nll = 2 * (1 - exact) + 1e-3 * r.random()
    metrics = {"n": 2000, "token": exact**0.3, "exact": exact, "nll": nll, "brier": 0.4 * nll,
               "edit": 0.3 * nll, "p_length": exact**1.1, "icl": None, "chance_token": 0.2,
               "chance_exact": 0.004}
    return record | {"curve": [curve_point(i, exact, nll, r) for i in range(points)],
                     "metrics": {str(length): metrics for length in range(1, c.length + 1)},
                     "steps": 2500, "parameters": 24 * c.dim**2, "flops": 1e8 * c.dim**2,
                     "seconds": 12.3456}


def curve_point(i, exact, nll, r):
    return {"step": 125 * (i + 1), "loss": nll + 2 / (i + 1)**2 + 0.01 * r.random(), "n": 600,
            "nll": nll + 2 / (i + 1)**2, "token": exact**0.3, "exact": exact * min(1, i / 9),
            "norm": 15 + r.random(), "distance": i**0.5 + r.random(),
            "previous": [[r.random(), 0.1], [0.2, 0.1]],
            "induction": [[0.0, 0.1], [r.random(), 0.4]]}


def synthetic_ledger():
    """dim x length x 3 seeds

    Length 1 is learnt from dim 16 on, length 2 from 32 on, length 3 at 16 alone; two runs failed.
    """
    def exact(dim, length):
        return SOLVED if (dim == 16 if length == 3 else dim > 4 * 2**length) else GUESSED

    records = [synthetic_record(exact(dim, length), dim=dim, length=length, seed=seed)
               for dim in (8, 16, 32, 64) for length in (1, 2, 3) for seed in range(3)]
    records[0] = synthetic_record(status="timeout", dim=8, length=1, seed=0)
    records[-1] = synthetic_record(status="diverged", dim=64, length=3, seed=2)
    return records


def random_ledger(r):
    """Runs of every status over dims, lengths, learning rates and seeds, some of them missing

    Layers vary in half of the ledgers: then there is more than one diagram.
    """
    settings = [{"dim": dim, "length": length, "layers": layers, "lr": lr, "seed": seed}
                for dim in (8, 16, 32) for length in (1, 2, 3)
                for layers in r.choice([(2,), (1, 2)]) for lr in (0.001, 0.01)
                for seed in range(r.randint(1, 3))]
    records = []
    for setting in settings:
        if r.random() < 0.2:
            continue
        status = r.choice(("ok", "ok", "ok", "diverged", "killed", "timeout"))
        record = synthetic_record(r.choice((SOLVED, 0.904, 0.5, GUESSED)), status, 6, **setting)
        if status == "ok":
            record["curve"][-1]["exact"] = r.choice((0.2, 0.8))
            chance = {"chance_exact": round(0.05 * r.random(), 3)}
            record["metrics"] = {length: metrics | chance
                                 for length, metrics in record["metrics"].items()}
        records.append(record)
    return records
