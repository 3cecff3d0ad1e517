"""The tasks as a reader wants to see them: examples with carets under what is scored, and the measured chance level."""
import inspect

import numpy as np

import tasks

from .config import Config
from .rng import GALLERY, Random

WIDTH = 72      # characters of an example shown


def show(name, examples=3):
    """The entry of one task, several lines.  Raises MinitronError for an unknown name."""
    module = tasks.module(name)
    low, high = module.LENGTHS
    lines = [f"== {name}: length {low} to {high} (default {module.LENGTH}) ==", inspect.getdoc(module), ""]
    for variant in module.VARIANTS:
        task = tasks.load(Config(task=name, variant=variant))
        token, exact = tasks.chance(task, task.length)
        lines.append(f"variant {variant}, {len(task.pieces)} tokens, chance: token {token:.1%}, exact {exact:.2%}")
        tokens, answer = task.draw(Random(GALLERY), task.length, examples, "train")
        for row, scored in zip(tokens, answer):
            lines += [f"    {line}" for line in carets(task, row, scored)]
        lines.append("")
    return "\n".join(lines)


def carets(task, row, scored):
    """Two lines: the text of a row, and a caret under each character that is scored.  Line breaks are shown as spaces."""
    texts = [tasks.spell(task, [token]).replace("\n", " ") for token in row]
    marks = [("^" if mark else " ") * len(text) for text, mark in zip(texts, np.asarray(scored))]
    return "".join(texts)[:WIDTH], "".join(marks)[:WIDTH].rstrip()
