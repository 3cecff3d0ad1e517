"""`python -m minitron heads`: the patterns that each attention head of a model file follows."""
from pathlib import Path

import numpy as np

from ..base import cli
from ..base.errors import MinitronError
from ..base.rng import GALLERY, Random
from ..data.config import Config
from ..measure import evaluate, heads
from ..measure.loaded_model import FIELDS, LoadedModel


def add_parser(commands):
    parser = commands.add_parser("heads", help="what each head attends to: previous-token and induction scores")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--picture", metavar="FILE", help="draw the attention as PNG, SVG or PDF; needs matplotlib")
    cli.add_fields(parser, Config, FIELDS)


def run(flags):
    model, picture = flags.pop("model"), flags.pop("picture")
    for line in head_table(model, flags, picture):
        print(line)
    return 0


def head_table(path, flags, picture):
    """The scores of each head, line by line, on the problems of a task where flags name one, else on repeated random tokens."""
    model = LoadedModel(path)
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
