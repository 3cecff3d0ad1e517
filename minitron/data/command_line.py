"""The shortest `python train.py` command that trains a configuration.

Its first two words are always these: it stands in reports, pages and lists that are read on other
machines than this one.  Commands that are to be typed here are made by base/environment.py.
"""
import dataclasses
import shlex
from functools import cache

from ..base.cli import flag
from ..base.errors import MinitronError
from . import tasks
from .config import Config

OPTIONAL = ("position_range", "data", "init")       # that may be None in a resolved configuration


def training_command(config):
    """The shortest `python train.py` that trains `config`, a resolved Config as a dict"""
    return train_with(shortest_settings(config))


def train_with(settings):
    """The command line of settings, {field: value}"""
    words = (word for name, value in settings.items() for word in flag_words(name, value))
    return "python train.py " + shlex.join(words)


def shortest_settings(config, kept=()):
    """The fewest {field: value} from which Config resolves to `config`, the fields `kept` included

    All that are not at their default if it does not resolve here: its data may be elsewhere, or a
    field may have been added since.  Files are not opened for this: a ledger may be someone else's.
    """
    fields = [field for field in dataclasses.fields(Config) if field.metadata["help"] is not None]
    defaults = {field.name: field.default for field in fields}
    names = [name for name in defaults if config[name] is not None or name in OPTIONAL]
    settings = {name: config[name] for name in ("task", *kept)}
    not_default = {name: config[name] for name in names
                   if config[name] not in (None, defaults[name])}
    if tasks.is_file(config["task"]) or config["data"] is not None:
        return settings | not_default
    try:
        for name in names:
            if getattr(resolve(tuple(settings.items())), name) != config[name]:
                settings[name] = config[name]
    except MinitronError:
        settings |= not_default
    return settings


@cache
def resolve(settings):
    return Config(**dict(settings)).resolve()


def flag_words(name, value):
    """A setting as the words of a command line"""
    if isinstance(value, bool):
        return [flag(name if value else f"no_{name}")]
    return [flag(name), str(value)]
