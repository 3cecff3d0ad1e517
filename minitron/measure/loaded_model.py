"""A model file to be measured, with the task that it was trained on."""
import dataclasses
import types
import typing

import numpy as np

from ..base.environment import available_cpus
from ..base.errors import MinitronError
from ..data import tasks
from ..data.config import Config
from ..engine.engine import Engine, EngineMissing
from ..engine.model_file import read_model
from . import evaluate, heads

# Fields of Config that flags of eval and heads may set.
TASK_FIELDS = ("task", "variant", "options", "data", "train_fraction", "positions",
               "position_range", "seed", "test_items")


class LoadedModel:
    """A model file, run by run.c, or by NumPy if the engine is not built.

    score is a scorer (evaluate.py); attention(tokens (B, T), positions) -> weights (L, B, H, T, T).
    """

    def __init__(self, path):
        self.config, self.p, self.vocabulary, self.provenance = read_model(path)
        try:
            self.engine = Engine(path, threads=available_cpus())
            self.score = evaluate.engine_scorer(self.engine)
            self.attention = self.attention_by_engine
        except EngineMissing:
            self.score = evaluate.numpy_scorer(self.p, self.config)
            self.attention = self.attention_by_numpy

    def attention_by_engine(self, tokens, positions):
        c = self.config
        weights = [[self.engine.attention(tokens, layer, head, positions)
                    for head in range(c.heads)] for layer in range(c.layers)]
        return np.array(weights).swapaxes(1, 2)

    def attention_by_numpy(self, tokens, positions):
        return heads.attention_weights(self.p, self.config, tokens, positions)

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
