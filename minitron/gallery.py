"""The tasks as a reader wants to see them: examples, under them what is scored, and the measured chance level."""
import inspect

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
        config = Config(task=name, variant=variant).resolve()
        task = tasks.load(config)
        token, exact = tasks.chance(task, task.length)
        options = f" ({config.options})" if config.options else ""
        lines.append(f"variant {variant}{options}, {len(task.pieces)} tokens, chance: token {token:.1%}, exact {exact:.2%}")
        tokens, answer = task.draw(Random(GALLERY), task.length, examples, "train")
        for row, scored in zip(tokens, answer):
            lines += [f"    {line}" for line in carets(task, row, scored)]
        lines.append("")
    return "\n".join(lines)


def carets(task, row, answer):
    """Two lines: the text of a row, and under it a caret for each character that is scored, or the labels, each under its token.

    Line breaks are shown as spaces.
    """
    texts = [tasks.spell(task, [token]).replace("\n", " ") for token in row]
    if answer.dtype == bool:
        below = [("^" if mark else " ") * len(text) for text, mark in zip(texts, answer)]
    else:
        below = ["" if label < 0 else tasks.spell(task, [label]) for label in answer]
        widths = [max(len(text), len(label)) for text, label in zip(texts, below)]
        texts, below = ([text.ljust(width) for text, width in zip(column, widths)] for column in (texts, below))
    return "".join(texts)[:WIDTH].rstrip(), "".join(below)[:WIDTH].rstrip()
