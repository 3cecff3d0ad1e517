"""A model file to be measured, with the task that it was trained on.

The file may be anyone's: a task or a text that it names by a path is used only if its content is
that of the training run.  A path on the command line is the user's own wish.
"""
import dataclasses
import hashlib
import os
import types
import typing

import numpy as np

from ..base.cli import flag
from ..base.errors import MinitronError
from ..base.files import read_regular
from ..data import tasks
from ..data.config import Config
from ..engine.engine import Engine, EngineMissing
from ..engine.model_file import read_model
from . import evaluate, heads

# Fields of Config that flags of eval and heads may set.
TASK_FIELDS = ("task", "variant", "options", "data", "train_fraction", "positions",
               "position_range", "seed", "test_items")
FILES = ("task", "data")    # of these, may be paths
LARGEST_FILE = 2**30        # bytes of a file that a model names


class LoadedModel:
    """A model file, run by run.c, or by NumPy if the engine is not built.

    A number that is not finite raises MinitronError: the largest of such logits would be called an
    answer.
    """

    def __init__(self, path):
        self.path = path
        self.config, self.p, self.vocabulary, self.provenance = read_model(path)
        try:
            self.engine = Engine(path)
            self.scorer = evaluate.engine_scorer(self.engine)
        except EngineMissing:
            self.engine, self.scorer = None, evaluate.numpy_scorer(self.p, self.config)

    def score(self, inputs, scored, positions):
        """A scorer (evaluate.py)"""
        with np.errstate(all="ignore"):
            return self.finite("logits", self.scorer(inputs, scored, counted(inputs, positions)))

    def attention(self, tokens, positions):
        """Attention weights (L, B, H, T, T)      tokens (B, T), positions (B, T) or None"""
        c, positions = self.config, counted(tokens, positions)
        if self.engine is None:
            with np.errstate(all="ignore"):
                weights = heads.attention_weights(self.p, c, tokens, positions)
        else:
            weights = np.array([[self.engine.attention(tokens, layer, head, positions)
                                 for head in range(c.heads)] for layer in range(c.layers)])
            weights = weights.swapaxes(1, 2)
        return self.finite("attention weights", weights)

    def finite(self, name, numbers):
        """The same numbers.  Raises MinitronError if one is not finite."""
        if not np.isfinite(numbers).all():
            raise MinitronError(f"{self.path}: {name} are not finite, so there is nothing to "
                                "measure: the model's weights have overflowed")
        return numbers

    def task_config(self, flags):
        """-> the resolved Config of the model's run, changed by flags, {field: value}; its task

        Raises MinitronError if they do not fit the model.
        """
        saved = saved_fields(self.provenance)
        if "task" not in saved | flags:
            raise MinitronError("the model file does not say what it was trained on: name a --task")
        if flags.get("task", saved.get("task")) != saved.get("task"):
            saved = {}
        elif flags.get("variant", saved.get("variant")) != saved.get("variant"):
            saved |= {"options": None}
        self.check_files(saved, flags)
        shape = {field.name: getattr(self.config, field.name)
                 for field in dataclasses.fields(self.config)}
        config = Config(**saved | shape | {"vocab": None} | flags).resolve()
        task = tasks.load(config)
        if task.pieces != self.vocabulary.pieces:
            raise MinitronError(f"task {task.name} at length {task.length} has another vocabulary, "
                                f"{len(task.pieces)} pieces, than the model, "
                                f"{len(self.vocabulary.pieces)}: name the --task and --options of "
                                "its training")
        return config, task

    def check_files(self, saved, flags):
        """Raises MinitronError where a file that is named should not be read, or run.

        saved: {field: value} of Config in the model file
        """
        version = str(self.provenance.get("task")) if isinstance(self.provenance, dict) else ""
        for name in FILES:
            path = flags.get(name, saved.get(name))
            if path is None or name == "task" and not tasks.is_file(path):
                continue
            if name in flags:
                if os.path.exists(path) and not os.path.isfile(path):
                    raise MinitronError(f"{name} {path} is not a regular file: copy it into one")
                continue
            try:
                content = read_regular(path, LARGEST_FILE)
            except MinitronError as error:
                raise MinitronError(f"{name} {error}; name yours with {flag(name)}") from None
            if hashlib.sha256(content).hexdigest()[:12] not in version.split():
                raise MinitronError(f"{name} {path} is not the file that the model was trained on: "
                                    f"name yours with {flag(name)}")


def counted(tokens, positions):
    """Positions (B, T), 0, 1, 2, ... where they are None: a model with its own wants them given"""
    return np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape) if positions is None \
        else positions


def saved_fields(provenance):
    """{field: value} of Config in a model file's provenance, {} if it has none

    Raises MinitronError if a value is not of its field's type.
    """
    saved = provenance.get("config") if isinstance(provenance, dict) else None
    if not isinstance(saved, dict):
        return {}
    fields = {name: kind for name, kind in typing.get_type_hints(Config).items() if name in saved}
    for name, kind in fields.items():
        if not has_type(saved[name], kind):
            raise MinitronError(f"the model file has {name.replace('_', '-')} {saved[name]!r}, "
                                "which cannot be: it was not written by train.py")
    return {name: saved[name] for name in fields}


def has_type(value, kind):
    """Whether a value from JSON has a type such as int or float | None"""
    kinds = kind.__args__ if isinstance(kind, types.UnionType) else (kind,)
    return type(value) in kinds or type(value) is int and float in kinds
