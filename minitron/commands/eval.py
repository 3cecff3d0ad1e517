"""`python -m minitron eval`: the metrics of a model file, at any lengths.

The task and its options come from the model file, unless flags say otherwise.
"""
import re

from ..base import cli
from ..base.errors import MinitronError
from ..data.config import Config
from ..measure import evaluate, record
from ..measure.loaded_model import FIELDS, LoadedModel


def add_parser(commands):
    parser = commands.add_parser("eval", help="measure a model file: the panel of numbers, at any lengths")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--length", metavar="LIST", help="lengths to measure, such as 1-8,12 (default: those of its training)")
    parser.add_argument("--temperature", metavar="LIST", help="how often the right answer is sampled at these, such as 1,0.5")
    cli.add_fields(parser, Config, FIELDS)


def run(flags):
    model, length, temperature = flags.pop("model"), flags.pop("length"), flags.pop("temperature")
    for line in eval_model(model, flags, None if length is None else numbers(length),
                           None if temperature is None else temperatures(temperature)):
        print(line)
    return 0


def eval_model(path, flags, lengths, temperatures):
    """The panel of a model on its task, line by line.      flags: Config's; lengths: numbers, None for those of training"""
    model = LoadedModel(path)
    config, task = model.task_config(flags)
    yield f"{path}: {task.name} ({task.variant}) {config.options}".rstrip()
    metrics = {}
    for length in lengths or task.lengths + task.beyond:
        if not task.module.EXTRAPOLATES and length != task.length and "task" not in flags:
            raise MinitronError(f"length {length} of task {task.name} is another ability than that of length {task.length}, "
                                "which was learnt: leave --length out")
        config, task = model.task_config(flags | {"length": length, "test_length": None})
        problems = evaluate.problems(task, config, length, "test", config.test_items)
        metrics[length] = evaluate.panel(model.score, task, length, problems)
        if temperatures and len(problems.inputs):
            metrics[length]["sampled"] = {f"{t:g}": evaluate.sampled(model.score, problems, t) for t in temperatures}
            metrics[length]["sampled_reference"] = evaluate.sampled_reference(task, temperatures)
    yield from record.panel(metrics)


def numbers(text):
    """"1,3,8-10" -> [1, 3, 8, 9, 10]"""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        if not match:
            raise MinitronError(f"length {part[:40]!r} is neither a number nor a range such as 4-8")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last <= first + 1000:
            raise MinitronError(f"length {part!r} counts down or is too long a range")
        found += range(first, last + 1)
    return found


def temperatures(text):
    """"1,0.5" -> [1.0, 0.5]"""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise MinitronError(f"temperature {text!r} is not a list of numbers such as 1,0.5") from None
    if not all(0 <= t <= 100 for t in found):
        raise MinitronError(f"temperature {text} is out of range: use 0 to 100")
    return found
