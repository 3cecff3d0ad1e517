"""`python -m minitron tasks`: each task with examples, carets under the answer, and the chance level."""
import inspect

from ..base.rng import GALLERY, Random
from ..data import batches, tasks
from ..data.config import Config

WIDTH = 72      # characters of an example shown


def add_parser(commands):
    parser = commands.add_parser("tasks", help="show the tasks: examples, what is scored, chance level, source")
    parser.add_argument("names", nargs="*", metavar="TASK", help="only these")


def run(flags):
    for name in flags["names"] or tasks.names():
        print(show(name))
    return 0


def show(name, examples=3):
    """The entry of one task, several lines.  Raises MinitronError for an unknown name."""
    module = tasks.module(name)
    low, high = module.LENGTHS
    lines = [f"== {name}: length {low} to {high} (default {module.LENGTH}) ==", inspect.getdoc(module), ""]
    for variant in module.VARIANTS:
        config = Config(task=name, variant=variant).resolve()
        task = tasks.load(config)
        token, exact = batches.chance(task, task.length)
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
    texts = [batches.spell(task, [token]).replace("\n", " ") for token in row]
    if answer.dtype == bool:
        below = [("^" if mark else " ") * len(text) for text, mark in zip(texts, answer)]
    else:
        below = ["" if label < 0 else batches.spell(task, [label]) for label in answer]
        widths = [max(len(text), len(label)) for text, label in zip(texts, below)]
        texts, below = ([text.ljust(width) for text, width in zip(column, widths)] for column in (texts, below))
    return "".join(texts)[:WIDTH].rstrip(), "".join(below)[:WIDTH].rstrip()
