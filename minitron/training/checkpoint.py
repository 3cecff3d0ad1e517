"""A run's state on disk: enough to resume with the bits of an uninterrupted run.

It holds the weights, both moments and the number of steps; random streams are named by the step
(base/rng.py) and have no state.  The file is NumPy's npz without pickle: a zip, whose checksums
show damage.
"""
import dataclasses
import io
import json
import os

import numpy as np

from ..base import blas
from ..base.cli import dashed
from ..base.errors import MinitronError
from ..base.files import write_atomically
from ..data import tasks
from ..data.config import Config, config_from_dict
from ..measure import record


def new_progress():
    """The progress of a run at its start

    solved: consecutive evaluations that solved the task; curve: points {step, loss, ...};
    numerics: those of its steps (base/blas.py), more than one only after --resume --anyway
    """
    return {"step": 0, "solved": 0, "tokens": 0, "flops": 0.0, "seconds": 0.0, "curve": [],
            "numerics": []}


def save(path, config, key, p, m, v, progress):
    """Write a checkpoint.      key: the run's name; p, m, v: Params.  Raises MinitronError."""
    state = {"config": dataclasses.asdict(config), "key": key, "progress": progress}
    about = np.frombuffer(json.dumps(state).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, about=about, p=p.flat, m=m.flat, v=v.flat)
    write_atomically(path, buffer.getbuffer())


def read(path):
    """The content of a checkpoint: the arrays p, m, v, and config, key and progress from JSON

    Raises MinitronError.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            state = json.loads(arrays["about"].tobytes())
            content = {name: arrays[name] for name in ("p", "m", "v")}
            content |= {name: state[name] for name in ("config", "key", "progress")}
            fields = {field.name for field in dataclasses.fields(Config)}
            is_of_this_version = (set(content["config"]) == fields
                                  and set(content["progress"]) == set(new_progress()))
            if is_of_this_version:
                check_content(content)
    except FileNotFoundError:
        reason = (f"checkpoint {path} does not exist: start without --resume, "
                  "or train a finished model on with --init")
        raise MinitronError(reason) from None
    except Exception as error:      # of any kind: zipfile, zlib, numpy, json and we meet damage
        raise MinitronError(f"checkpoint {path} cannot be read ({' '.join(str(error).split())}): "
                            "delete it and start without --resume") from None
    if not is_of_this_version:
        raise MinitronError(f"checkpoint {path} is from another version of minitron: "
                            "delete it and start without --resume")
    return content


def check_content(content):
    """Raises an exception, whose text is the reason, for what save() cannot have written."""
    config, progress = Config(**content["config"]), content["progress"]
    for name, default in new_progress().items():
        if type(progress[name]) is not type(default):
            raise ValueError(f"{name} is not of type {type(default).__name__}")
    if not 0 <= progress["step"] <= config.steps or record.finite_or_none(progress) != progress:
        raise ValueError("a number is out of range")
    for item in progress["curve"] + progress["numerics"]:
        if not isinstance(item, dict):
            raise ValueError("curve and numerics are not lists of objects")
    for point in progress["curve"]:
        if not all(isinstance(point[name], (int, float, type(None)))
                   for name in ("step", "loss", "nll", "token", "exact")):
            raise ValueError("a point of the curve is not made of numbers")
    if any(content[name].dtype != np.float32 for name in ("p", "m", "v")):
        raise ValueError("an array is not of type float32")


def saved_config(path, flags):
    """The Config of a checkpoint's run.  Raises MinitronError if flags, {field: value}, differ."""
    values = read(path)["config"]
    refuse_difference(path, values, flags)
    return config_from_dict(values | flags)


def restore(path, config, key, p, m, v, anyway=False):
    """Fill p, m, v from a checkpoint -> progress.  Raises MinitronError if it is another run's.

    anyway: even if the bits of its steps will not be those of the steps to come
    """
    content = read(path)
    refuse_difference(path, content["config"], dataclasses.asdict(config))
    if content["key"] != key:
        start = "from another --init, " if config.init else ""
        refuse(path, f"{start}on other data or an older version of task {config.task}: "
                     "put them back")
    if any(content[name].shape != p.flat.shape for name in ("p", "m", "v")):
        refuse(path, "as a model of another shape")
    for params, name in ((p, "p"), (m, "m"), (v, "v")):
        params.flat[:] = content[name]
    set_numerics(content["progress"], path, anyway)
    return content["progress"]


def set_numerics(progress, path=None, anyway=False):
    """Note those of the steps to come.  Raises MinitronError if they differ, unless `anyway`."""
    here, before = blas.numerics(), progress["numerics"]
    if before and before[-1] != here and not anyway:
        names = [name for name in here if here[name] != before[-1].get(name)]
        saved, now = (", ".join(f"{name.replace('_', ' ')} {values.get(name)}" for name in names)
                      for values in (before[-1], here))
        raise MinitronError(f"{path} was trained with {saved}; here is {now}, which may give "
                            "other bits: resume it where it was, or here with --anyway")
    if before[-1:] != [here]:
        before.append(here)


def refuse_difference(path, saved, given):
    """Raises MinitronError if a given value, {field: value}, is not the saved one.

    Except vocab, which follows from the data, and files that have moved: the key has the contents
    of all.
    """
    for name, value in given.items():
        are_files = (name in ("data", "init") and None not in (saved[name], value)
                     or name == "task" and tasks.is_file(saved[name]) and tasks.is_file(value))
        if saved[name] != value and name != "vocab" and not are_files:
            refuse(path, f"with {dashed(name)} {saved[name]}, not {value}: "
                         "leave the flag out to resume")


def refuse(path, difference):
    raise MinitronError(f"{path} was trained {difference}, or delete it to start again")


def refuse_to_overwrite(path, config, key):
    """Raises MinitronError if steps of a stopped run would be lost."""
    if not os.path.exists(path):
        return
    content = read(path)
    step = content["progress"]["step"]
    if step == 0:                   # stopped before its first step, say in a debugger
        return
    stopped = f"{path} is the checkpoint of a stopped run, after step {step}"
    if content["key"] == key:
        raise MinitronError(f"{stopped}: resume it with --resume, or delete it")
    given = dataclasses.asdict(config)
    differences = ", ".join(f"{dashed(name)} {value}, not {given[name]}"
                            for name, value in content["config"].items() if value != given[name])
    raise MinitronError(f"{stopped}, with {differences or 'other data'}: "
                        "resume it with --resume, or delete it, or give another --out")
