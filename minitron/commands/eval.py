"""The metrics of a model file on test problems, at any lengths.

    python -m minitron eval model.bin                       the lengths of its training
    python -m minitron eval model.bin --length 1-8,12       others
    python -m minitron eval model.bin --variant reversed    another variant of its task

The task and its options are those of the model's training, except where flags differ.
"""
import re

from ..base import cli
from ..base.errors import MinitronError
from ..data.config import Config
from ..measure import evaluate, record
from ..measure.loaded_model import TASK_FIELDS, LoadedModel


def add_parser(commands):
    parser = commands.add_parser("eval", help="measure a model file on its task, by length",
                                 description=__doc__)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--length", metavar="LIST",
                        help="lengths, such as 1-8,12 (default: those of its training)")
    parser.add_argument("--temperature", metavar="LIST",
                        help="measure also how often sampling at these, such as 1,0.5, is right")
    cli.add_fields(parser, Config, TASK_FIELDS)


def run(flags):
    model, length, temperature = flags.pop("model"), flags.pop("length"), flags.pop("temperature")
    lengths = [] if length is None else parse_lengths(length)
    temperatures = [] if temperature is None else parse_temperatures(temperature)
    for line in eval_lines(model, flags, lengths, temperatures):
        print(line)
    return 0


def eval_lines(path, flags, lengths, temperatures):
    """The metrics of a model on its task, line by line

    flags: {field: value} of Config; lengths: numbers, or none for those of training
    """
    model = LoadedModel(path)
    config, task = model.task_config(flags)
    yield f"{path}: {task.name} ({task.variant}) {config.options}".rstrip()
    metrics = {}
    for length in lengths or task.lengths + task.beyond:
        if not task.module.EXTRAPOLATES and length != task.length and "task" not in flags:
            raise MinitronError(f"length {length} of task {task.name} is another ability than "
                                f"length {task.length}, that of training: leave --length out")
        config, task = model.task_config(flags | {"length": length, "test_length": None})
        problems = evaluate.problems(task, config, length, "test", config.test_items)
        metrics[length] = evaluate.metrics_at_length(model.score, task, length, problems)
        if temperatures and len(problems.inputs):
            metrics[length] |= evaluate.sampling_metrics(model.score, task, length, problems,
                                                         temperatures)
    yield from record.metrics_lines(metrics)


def parse_lengths(text):
    """"1,3,8-10" -> [1, 3, 8, 9, 10]"""
    lengths = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        if not match:
            raise MinitronError(f"length {part[:40]!r} is neither a number nor a range such as 4-8")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last <= first + 1000:
            raise MinitronError(f"length {part!r} counts down or is too long a range")
        lengths += range(first, last + 1)
    return lengths


def parse_temperatures(text):
    """"1,0.5" -> [1.0, 0.5]"""
    try:
        temperatures = [float(part) for part in text.split(",")]
    except ValueError:
        reason = f"temperature {text!r} is not a list of numbers such as 1,0.5"
        raise MinitronError(reason) from None
    if not all(0 <= temperature <= 100 for temperature in temperatures):
        raise MinitronError(f"temperature {text} is out of range: use 0 to 100")
    return temperatures
