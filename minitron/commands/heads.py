"""How much of each attention head's attention follows two patterns: previous token, induction.

    python -m minitron heads model.bin                      on random tokens, repeated
    python -m minitron heads model.bin --task addition      on the problems of a task
    python -m minitron heads model.bin --picture heads.png
"""
from pathlib import Path

import numpy as np

from ..base import cli
from ..base.errors import MinitronError
from ..base.rng import GALLERY, Random
from ..data.config import Config
from ..measure import evaluate, heads
from ..measure.loaded_model import TASK_FIELDS, LoadedModel
from ..report.picture import figure_class, save

LABELLED = 64       # tokens of a row, at most, that a picture labels


def add_parser(commands):
    parser = commands.add_parser("heads", help="score each head on two patterns of attention",
                                 description=__doc__)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--picture", metavar="FILE",
                        help="draw the attention as PNG, SVG or PDF; needs matplotlib")
    cli.add_fields(parser, Config, TASK_FIELDS)


def run(flags):
    model, picture = flags.pop("model"), flags.pop("picture")
    for line in head_lines(model, flags, picture):
        print(line)
    return 0


def head_lines(path, flags, picture):
    """The scores of each head, line by line      flags: {field: value} of Config"""
    model = LoadedModel(path)
    if flags:
        tokens, positions, scored, source = task_rows(model, flags)
    else:
        tokens, positions, scored, source = random_rows(model, path)
    weights = model.attention(tokens, positions)                            # (L, B, H, T, T)
    scores = heads.head_scores(weights, tokens, scored)
    yield f"{path}: share of attention on a pattern; {source}"
    yield "layer   head   previous token   induction"
    for layer, head in np.ndindex(*scores["previous"].shape):
        previous, induction = (scores[name][layer, head] for name in ("previous", "induction"))
        yield f"{layer:>5}   {head:>4}   {previous:>14.1%}   {induction:>9.1%}"
    even = heads.head_scores(even_attention(tokens), tokens, scored)
    previous, induction = even["previous"].item(), even["induction"].item()
    yield f"uniform attention would have {previous:.1%} and {induction:.1%}"
    if picture:
        labels = [model.vocabulary.pieces[token].decode(errors="replace") for token in tokens[0]]
        draw_attention(picture, weights[:, 0], labels)
        yield f"{picture}: attention of each head on the first row"


def task_rows(model, flags):
    """Test problems -> tokens (B, T), positions (B, T) or None, scored (B, T), their description"""
    config, task = model.task_config(flags)
    rows = heads.rows_to_sample(task.width)
    problems = evaluate.problems(task, config, task.length, "test", rows)
    if len(problems.inputs) == 0:
        raise MinitronError(f"task {task.name} has no test problems of length {task.length}: "
                            "use a smaller --train-fraction")
    source = f"{len(problems.inputs)} problems of {task.name}"
    return problems.inputs, problems.positions, problems.targets >= 0, source


def random_rows(model, path):
    """The same of random tokens, repeated, each of which counts as scored (None)"""
    spelled = np.array([token for token, piece in enumerate(model.vocabulary.pieces) if piece])
    if len(spelled) == 0:
        raise MinitronError(f"{path} has no token that spells a character: name a --task")
    size = max(2, min(heads.SIZE, model.vocabulary.context // heads.TIMES))
    tokens = spelled[heads.repeated(Random(GALLERY), len(spelled), size)]
    source = (f"{size} random tokens repeated {heads.TIMES} times, {heads.ROWS} rows, "
              "at positions 0, 1, 2, ...")
    return tokens, None, None, source


def even_attention(tokens):
    """Weights (1, B, 1, T, T) of a head that attends alike to the whole past"""
    batch, time = tokens.shape
    weights = np.tril(np.ones((time, time))) / np.arange(1, time + 1)[:, None]
    return np.broadcast_to(weights, (1, batch, 1, time, time))


def draw_attention(path, weights, labels):
    """A picture of attention, one square per head: weights (L, H, T, T), labels of the T tokens

    Raises MinitronError.
    """
    layers, count, time, _ = weights.shape
    figure = figure_class()(figsize=(3.2 * count + 0.6, 3.2 * layers + 0.6), layout="constrained")
    for layer, head in np.ndindex(layers, count):
        axes = figure.add_subplot(layers, count, layer * count + head + 1,
                                  title=f"layer {layer}, head {head}")
        image = axes.imshow(np.abs(weights[layer, head]), cmap="viridis", vmin=0)
        if time <= LABELLED:
            axes.set_xticks(range(time), labels, fontsize=5)
            axes.set_yticks(range(time), labels, fontsize=5)
        axes.set(xlabel="looks at", ylabel="token")
    figure.colorbar(image, ax=figure.axes, label="attention", shrink=0.6)
    kind = Path(path).suffix[1:]
    if not kind:
        raise MinitronError(f"picture {path} has no ending to say its format: "
                            "use .png, .svg or .pdf")
    save(figure, path, kind)
