"""Where a run stands, on disk: enough to go on with the bits that an uninterrupted run would have.

Weights, both moments and the number of steps.  Random streams are named by the step (rng.py), so there is no state of theirs.
The file is NumPy's npz, a zip whose checksums show damage, without pickle.
"""
import dataclasses
import io
import json
import zipfile

import numpy as np

from .config import Config
from .errors import MinitronError
from .files import write_atomically


def save(path, config, key, p, m, v, progress):
    """key: the run's name; p, m, v: Params; progress: a dict of numbers and lists.  Raises MinitronError."""
    about = json.dumps({"config": dataclasses.asdict(config), "key": key, "progress": progress})
    buffer = io.BytesIO()
    np.savez(buffer, about=np.frombuffer(about.encode(), np.uint8), p=p.flat, m=m.flat, v=v.flat)
    write_atomically(path, buffer.getbuffer())


def read(path):
    """-> dict of the arrays p, m, v and of about, what JSON holds.  Raises MinitronError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ("p", "m", "v")} | {"about": json.loads(file["about"].tobytes())}
    except FileNotFoundError:
        raise MinitronError(f"there is no checkpoint {path} to go on from: start without --resume") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise MinitronError(f"checkpoint {path} cannot be read ({error}): delete it and start without --resume") from None


def saved_config(path):
    """The resolved Config of the run that a checkpoint belongs to.  Raises MinitronError."""
    return Config(**read(path)["about"]["config"])


def load(path, config, key, p, m, v):
    """Fill p, m and v from a checkpoint of the run of this name -> progress.  Raises MinitronError where it is of another."""
    content = read(path)
    before, now = content["about"]["config"], dataclasses.asdict(config)
    for name in now:
        if before[name] != now[name]:
            raise MinitronError(f"{path} was trained with {name} {before[name]}, not {now[name]}: leave the flag out to go on, "
                                "or delete the checkpoint to start anew")
    if content["about"]["key"] != key:
        raise MinitronError(f"{path} was trained on other data or an older version of task {config.task}: "
                            "delete the checkpoint to start anew")
    for params, name in ((p, "p"), (m, "m"), (v, "v")):
        params.flat[:] = content[name]
    return content["about"]["progress"]


def refuse_to_overwrite(path):
    """Raises MinitronError where a stopped run would be lost."""
    if path.exists():
        raise MinitronError(f"{path} is the checkpoint of a run that was stopped: go on with --resume, or delete it")
