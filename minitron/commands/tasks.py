"""`python -m minitron tasks`: each task with examples, their answers, its chance level."""
import inspect

from ..base.rng import GALLERY, Random
from ..data import batches, tasks
from ..data.config import Config

WIDTH = 72      # characters of an example that are shown


def add_parser(commands):
    parser = commands.add_parser(
        "tasks", help="show the tasks: examples, the scored tokens, chance level, source")
    parser.add_argument("names", nargs="*", metavar="TASK",
                        help="only these; the path of a file shows a task of yours")


def run(flags):
    for name in flags["names"] or tasks.names():
        print(describe(name))
    return 0


def describe(name, examples=3):
    """The entry of one task, several lines.  Raises MinitronError for an unknown name."""
    module = tasks.module(name)
    low, high = module.LENGTHS
    lines = [f"== {name}: length {low} to {high} (default {module.LENGTH}) ==",
             inspect.getdoc(module) or "(The file has no docstring.)", ""]
    for variant in module.VARIANTS:
        config = Config(task=name, variant=variant).resolve()
        task = tasks.load(config)
        token, exact = batches.chance(task, task.length)
        options = f" ({config.options})" if config.options else ""
        lines.append(f"variant {variant}{options}, {len(task.pieces)} tokens, "
                     f"chance: token {token:.1%}, exact {exact:.2%}")
        tokens, answer = task.draw(Random(GALLERY), task.length, examples, "train")
        for row, row_answer in zip(tokens, answer):
            lines += [f"    {line}" for line in marked_row(task, row, row_answer)]
        lines.append("")
    return "\n".join(lines)


def marked_row(task, row, answer):
    """Two lines: a row's text, and under it carets at the answer, or the labels at their tokens

    Line breaks are shown as spaces.
    """
    texts = [batches.spell(task, [token]).replace("\n", " ") for token in row]
    if answer.dtype == bool:
        below = [("^" if mark else " ") * len(text) for text, mark in zip(texts, answer)]
    else:
        below = ["" if label < 0 else batches.spell(task, [label]) for label in answer]
        widths = [max(len(text), len(label)) for text, label in zip(texts, below)]
        texts = [text.ljust(width) for text, width in zip(texts, widths)]
        below = [label.ljust(width) for label, width in zip(below, widths)]
    return "".join(texts)[:WIDTH].rstrip(), "".join(below)[:WIDTH].rstrip()
