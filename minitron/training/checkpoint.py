"""Where a run stands, on disk: enough to go on with the bits that an uninterrupted run would have.

Weights, both moments and the number of steps.  Random streams are named by the step (rng.py), so there is no state of theirs.
The file is NumPy's npz, a zip whose checksums show damage, without pickle.
"""
import dataclasses
import io
import json
import os

import numpy as np

from ..base.errors import MinitronError
from ..base.files import write_atomically
from ..data import tasks
from ..data.config import Config, restored


def new_progress():
    """Where a run begins.  curve: points of (step, loss, ...); solved: evaluations in a row that found the task solved."""
    return {"step": 0, "solved": 0, "tokens": 0, "flops": 0.0, "seconds": 0.0, "curve": []}


def save(path, config, key, p, m, v, progress):
    """key: the run's name; p, m, v: Params; progress: a dict of numbers and lists.  Raises MinitronError."""
    about = json.dumps({"config": dataclasses.asdict(config), "key": key, "progress": progress})
    buffer = io.BytesIO()
    np.savez(buffer, about=np.frombuffer(about.encode(), np.uint8), p=p.flat, m=m.flat, v=v.flat)
    write_atomically(path, buffer.getbuffer())


def read(path):
    """-> dict of the arrays p, m, v and of about, what JSON holds.  Raises MinitronError."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            content = {name: arrays[name] for name in ("p", "m", "v")}
            content |= {name: about[name] for name in ("config", "key", "progress")}
    except FileNotFoundError:
        raise MinitronError(f"there is no checkpoint {path} to go on from: start without --resume") from None
    except Exception as error:      # damage can surface as nearly anything in zipfile, zlib, numpy and json
        raise MinitronError(f"checkpoint {path} cannot be read ({error}): delete it and start without --resume") from None
    fields = {field.name for field in dataclasses.fields(Config)}
    if set(content["config"]) != fields or set(content["progress"]) != set(new_progress()):
        raise MinitronError(f"checkpoint {path} is of another version of minitron: delete it and start without --resume")
    return content


def saved_config(path, flags):
    """The Config of the run that a checkpoint belongs to.  Raises MinitronError where flags, {name: value}, say otherwise."""
    saved = read(path)["config"]
    refuse_difference(path, saved, flags)
    return restored(saved | flags)


def load(path, config, key, p, m, v):
    """Fill p, m and v from a checkpoint of the run of this name -> progress.  Raises MinitronError where it is of another."""
    content = read(path)
    refuse_difference(path, content["config"], dataclasses.asdict(config))
    if content["key"] != key:
        refuse(path, f"on other data or an older version of task {config.task}: put them back")
    if any(content[name].shape != p.flat.shape for name in ("p", "m", "v")):
        refuse(path, "as a model of another shape")
    for params, name in ((p, "p"), (m, "m"), (v, "v")):
        params.flat[:] = content[name]
    return content["progress"]


def refuse_difference(path, saved, given):
    """Raises MinitronError where a value given is not the saved one.

    Not for vocab, which follows from the data, nor for a task's file that has moved: the key has both contents.
    """
    for name, value in given.items():
        has_moved = name == "task" and tasks.is_file(saved[name]) and tasks.is_file(value)
        if saved[name] != value and name != "vocab" and not has_moved:
            refuse(path, f"with {name.replace('_', '-')} {saved[name]}, not {value}: leave the flag out to go on")


def refuse(path, why):
    raise MinitronError(f"{path} was trained {why}, or delete it to start anew")


def refuse_to_overwrite(path):
    """Raises MinitronError where a stopped run would be lost."""
    if os.path.exists(path):
        raise MinitronError(f"{path} is the checkpoint of a run that was stopped: go on with --resume, or delete it")
