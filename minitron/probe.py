"""`python -m minitron eval` and `heads`: a model file under the instruments.

Both take the task and its options from the model file, unless flags say otherwise.
"""
import dataclasses
import re
import types
import typing
from pathlib import Path

import numpy as np

import tasks

from . import cli, evaluate, heads, record
from .config import Config
from .engine import Engine, EngineMissing
from .environment import available_cpus
from .errors import MinitronError
from .export import read_model
from .rng import GALLERY, Random

FIELDS = ("task", "variant", "options", "data", "train_fraction", "positions", "position_range", "seed", "test_items")


class Model:
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


def eval_model(path, flags, lengths, temperatures):
    """The panel of a model on its task, line by line.      flags: Config's; lengths: numbers, None for those of training"""
    model = Model(path)
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


def head_table(path, flags, picture):
    """The scores of each head, line by line, on the problems of a task where flags name one, else on repeated random tokens."""
    model = Model(path)
    if flags:
        config, task = model.task_config(flags)
        problems = evaluate.problems(task, config, task.length, "test", heads.few(task.width))
        tokens, positions, what = problems.inputs, problems.positions, f"{len(problems.inputs)} problems of {task.name}"
        asked = problems.targets >= 0
        if len(tokens) == 0:
            raise MinitronError(f"task {task.name} has no test problems of length {task.length}: use a smaller --train-fraction")
    else:
        written = np.array([token for token, piece in enumerate(model.vocabulary.pieces) if piece])
        if len(written) == 0:
            raise MinitronError(f"{path} has no token that spells anything: name a --task")
        size = max(2, min(heads.SIZE, model.vocabulary.context // heads.TIMES))
        asked = None
        tokens, positions = written[heads.repeated(Random(GALLERY), len(written), size)], None
        what = f"{size} random tokens repeated {heads.TIMES} times, {heads.ROWS} rows, at positions 0, 1, 2, ..."
    weights = model.attention(tokens, positions)
    scores = heads.head_scores(weights, tokens, asked)
    yield f"{path}: share of attention on a pattern; {what}"
    yield "layer   head   previous token   induction"
    for layer, head in np.ndindex(*scores["previous"].shape):
        yield f"{layer:>5}   {head:>4}   {scores['previous'][layer, head]:>14.1%}   {scores['induction'][layer, head]:>9.1%}"
    even = np.tril(np.ones(2 * tokens.shape[1:])) / np.arange(1, tokens.shape[1] + 1)[:, None]
    even = heads.head_scores(np.broadcast_to(even, (1, len(tokens), 1, *even.shape)), tokens, asked)
    yield f"even attention would have {even['previous'][0, 0]:.1%} and {even['induction'][0, 0]:.1%}"
    if picture:
        draw(picture, weights[:, 0], [model.vocabulary.pieces[token].decode(errors="replace") for token in tokens[0]])
        yield f"{picture}: attention of each head on the first row"


def draw(path, weights, labels):
    """A picture of attention, weights (L, H, T, T), one square a head.  Raises MinitronError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MinitronError("a picture needs matplotlib: pip install matplotlib") from None
    layers, count, time, _ = weights.shape
    figure = Figure(figsize=(3.2 * count + 0.6, 3.2 * layers + 0.6), layout="constrained")
    for layer, head in np.ndindex(layers, count):
        axes = figure.add_subplot(layers, count, layer * count + head + 1, title=f"layer {layer}, head {head}")
        shown = axes.imshow(np.abs(weights[layer, head]), cmap="viridis", vmin=0)
        if time <= 64:
            axes.set_xticks(range(time), labels, fontsize=5)
            axes.set_yticks(range(time), labels, fontsize=5)
        axes.set(xlabel="looks at", ylabel="token")
    figure.colorbar(shown, ax=figure.axes, label="attention", shrink=0.6)
    if not Path(path).suffix:
        raise MinitronError(f"picture {path} has no ending that says what it is: use .png, .svg or .pdf")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise MinitronError(f"picture {path} cannot be written: {getattr(error, 'strerror', None) or error}") from None


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


def add_commands(commands):
    """Add `eval` and `heads` to the parser's commands."""
    panel = commands.add_parser("eval", help="measure a model file: the panel of numbers, at any lengths")
    panel.add_argument("model", metavar="MODEL")
    panel.add_argument("--length", metavar="LIST", help="lengths to measure, such as 1-8,12 (default: those of its training)")
    panel.add_argument("--temperature", metavar="LIST", help="how often the right answer is sampled at these, such as 1,0.5")
    show = commands.add_parser("heads", help="what each head attends to: previous-token and induction scores")
    show.add_argument("model", metavar="MODEL")
    show.add_argument("--picture", metavar="FILE", help="draw the attention as PNG, SVG or PDF; needs matplotlib")
    for parser in (panel, show):
        cli.add_fields(parser, Config, FIELDS)


def run(command, flags):
    """Print what a command finds."""
    model = flags.pop("model")
    if command == "eval":
        length, temperature = flags.pop("length"), flags.pop("temperature")
        lines = eval_model(model, flags, None if length is None else numbers(length),
                           None if temperature is None else temperatures(temperature))
    else:
        lines = head_table(model, flags, flags.pop("picture"))
    for line in lines:
        print(line)
    return 0
