"""A model file to be measured: run by run.c, or by NumPy where the engine is not built, with the task it learnt."""
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
FIELDS = ("task", "variant", "options", "data", "train_fraction", "positions", "position_range", "seed", "test_items")


class LoadedModel:
    """A model file, run by run.c, or by NumPy where the engine is not built."""

    def __init__(self, path):
        self.config, self.p, self.vocabulary, self.provenance = read_model(path)
        try:
            self.engine = Engine(path, threads=available_cpus())
            self.score, self.attention = evaluate.engine_scorer(self.engine), self.attention_by_engine
        except EngineMissing:
            self.score = evaluate.numpy_scorer(self.p, self.config)
            self.attention = lambda tokens, positions: heads.attention_weights(self.p, self.config, tokens, positions)

    def attention_by_engine(self, tokens, positions):
        return np.array([[self.engine.attention(tokens, layer, head, positions) for head in range(self.config.heads)]
                         for layer in range(self.config.layers)]).swapaxes(1, 2)

    def task_config(self, flags):
        """The resolved Config of the run that made the model, with what flags, {name: value}, say otherwise, and its task.

        Raises MinitronError where they do not fit the model.
        """
        saved = saved_fields(self.provenance)
        if "task" not in saved | flags:
            raise MinitronError("the model file does not say what it was trained on: name a --task")
        if flags.get("task", saved.get("task")) != saved.get("task"):
            saved = {}
        elif flags.get("variant", saved.get("variant")) != saved.get("variant"):
            saved |= {"options": None}
        shape = {field.name: getattr(self.config, field.name) for field in dataclasses.fields(self.config)}
        config = Config(**saved | shape | {"vocab": None} | flags).resolve()
        task = tasks.load(config)
        if task.pieces != self.vocabulary.pieces:
            raise MinitronError(f"task {task.name} at length {task.length} has another vocabulary, {len(task.pieces)} pieces, "
                                f"than the model, {len(self.vocabulary.pieces)}: name the --task and --options of its training")
        return config, task


def saved_fields(provenance):
    """What a model file tells of its run's Config, {name: value}; {} where nothing.  Raises MinitronError for nonsense."""
    saved = provenance.get("config") if isinstance(provenance, dict) else None
    found = {}
    for name, kind in typing.get_type_hints(Config).items():
        if isinstance(saved, dict) and name in saved:
            kinds = kind.__args__ if isinstance(kind, types.UnionType) else (kind,)
            if type(saved[name]) not in kinds and not (type(saved[name]) is int and float in kinds):
                raise MinitronError(f"the model file says that its {name.replace('_', '-')} was {saved[name]!r}, which cannot "
                                    "be: it was not written by train.py")
            found[name] = saved[name]
    return found
