"""The shortest `python train.py` command that trains a configuration."""
import dataclasses
import shlex
from functools import cache

from ..base.cli import flag
from ..base.errors import MinitronError
from .config import Config

OPTIONAL = ("position_range", "data")       # fields that may be None in a resolved configuration


def training_command(config):
    """The shortest `python train.py` that trains this configuration, a dict of a resolved Config"""
    return written(needed(config))


def written(chosen):
    return "python train.py " + shlex.join(word for name, value in chosen.items() for word in words(name, value))


def needed(config, given=()):
    """{field: value} from which Config resolves to this configuration: the task, the fields that are given anyway, and no more

    Where it does not resolve here, for its data is elsewhere, say, or a field came after it: all that are not at their default.
    """
    default = {field.name: field.default for field in dataclasses.fields(Config) if field.metadata["help"] is not None}
    there = [name for name in default if config[name] is not None or name in OPTIONAL]
    chosen = {name: config[name] for name in ("task", *given)}
    try:
        for name in there:
            if getattr(resolved(tuple(chosen.items())), name) != config[name]:
                chosen[name] = config[name]
    except MinitronError:
        chosen |= {name: config[name] for name in there if config[name] not in (None, default[name])}
    return chosen


@cache
def resolved(chosen):
    return Config(**dict(chosen)).resolve()


def words(name, value):
    """A setting as train.py's flags have it"""
    if isinstance(value, bool):
        return [flag(name if value else f"no_{name}")]
    return [flag(name), str(value)]
