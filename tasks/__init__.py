"""What tasks share: putting rows together, splits, batches, the measured chance level, the gallery.

A task is a module in this folder; its file name is its name.  It has

    a docstring     the story, a worked example, and the lines `Length:` `Source:` `Expect:`
    VOCAB           its characters (a token's id is its index), or a function of the length that lists its pieces
    LENGTHS         the smallest and largest value of the length dial
    sample(rng, length, batch, variant) -> tokens (B, S), answer (B, S) bool: the tokens that are scored

and, where the DEFAULTS below do not fit, any of those; also, where a problem has a twin with the same answer, mirror(tokens),
which turns each row into its twin: both will be in one split.  All rows of a batch have one length, so nothing is ever padded.
The random stream is an argument and the only source of chance.  tasks/text.py shows the one other form: a module with
`prepare`, for a task that has to read something first.
"""
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minitron.errors import MinitronError
from minitron.rng import CHANCE, GALLERY, Random

DEFAULTS = {
    "LENGTH": 3,            # the length dial, where the user leaves it alone
    "VARIANTS": ("plain",),
    "MIXED": True,          # training draws lengths from LENGTHS[0] up to the dial; False: only the dial's
    "BATCH": 128,           # sequences a step
    "VERSION": 1,           # raised when sample() changes: a run's key holds it
    "TEMPERATURE": 0.0,     # what run.c samples with unless told: 0 where there is one answer
}
SPLITS = ("train", "valid", "test")
END = b""                   # the piece after an answer, at which generation stops; no text can spell it


@dataclass(frozen=True)
class Task:
    """A task with its options bound."""

    name: str
    variant: str
    length: int
    lengths: tuple          # the lengths that training draws from, those without a problem for it left out
    pieces: list            # token id -> bytes
    draw: Callable          # (rng, length, batch, split) -> tokens (B, S), answer (B, S)
    ends: bool              # whether a row is followed by END
    bos: int | None         # the token that stands for an empty prompt
    width: int              # tokens of a row at `length`, END included
    context: int            # the same at the longest length that the dial allows: what run.c makes room for
    batch: int
    version: str
    temperature: float


def names():
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def module(name):
    """The module of a task.  Raises MinitronError where there is none of that name."""
    if name not in names():
        raise MinitronError(f"task {name!r} is unknown: use one of {', '.join(names())}")
    m = importlib.import_module(f"tasks.{name}")
    for attribute, default in DEFAULTS.items():
        if not hasattr(m, attribute):
            setattr(m, attribute, default)
    return m


def load(config):
    """The Task that a configuration names.  Raises MinitronError where its options do not fit."""
    m = module(config.task)
    variant = m.VARIANTS[0] if config.variant is None else config.variant
    length = m.LENGTH if config.length is None else config.length
    if variant not in m.VARIANTS:
        raise MinitronError(f"variant {variant!r} of task {config.task} is unknown: use one of {', '.join(m.VARIANTS)}")
    low, high = m.LENGTHS
    if not low <= length <= high:
        raise MinitronError(f"length {length} is out of range for task {config.task}: use {low} to {high}")
    reads_data = hasattr(m, "prepare")
    if config.data is not None and not reads_data:
        raise MinitronError(f"data {config.data!r} has no use in task {config.task}: it is for --task text")

    version = f"{config.task} {m.VERSION}"
    if reads_data:
        pieces, draw, fingerprint = m.prepare(config.data, length, variant, config.train_fraction)
        version += f" {fingerprint}"
        bos, width, context = pieces.index(b"\n") if b"\n" in pieces else 0, length, length
    else:
        pieces = [piece.encode() for piece in (m.VOCAB(length) if callable(m.VOCAB) else m.VOCAB)] + [END]
        draw = split_by_hash(m.sample, variant, config.train_fraction, getattr(m, "mirror", None))
        bos = None
        width, context = (m.sample(Random(GALLERY), each, 1, variant)[0].shape[1] + 1
                          for each in (length, high if m.MIXED else length))
    lengths = tuple(each for each in range(low if m.MIXED else length, length + 1)
                    if len(draw(Random(GALLERY), each, 1, "train")[0]))
    if length not in lengths:
        raise MinitronError(f"length {length} has no problem in the share for training, {config.train_fraction}: "
                            "use another --train-fraction or --length")
    return Task(name=config.task, variant=variant, length=length, lengths=lengths, pieces=pieces, draw=draw, ends=not reads_data,
                bos=bos, width=width, context=context, batch=m.BATCH, version=version, temperature=m.TEMPERATURE)


def join(vocab, *parts):
    """Rows from their parts: "+" is the same character in each row, an array (B, n) of token ids is part of the
    problem, and an array in a list, [array], is scored: the answer.      -> tokens (B, S) int64, answer (B, S) bool
    """
    columns = [part[0] if isinstance(part, list) else part for part in parts]
    widths = [len(column) if isinstance(column, str) else column.shape[1] for column in columns]
    batch = next(len(column) for column in columns if not isinstance(column, str))
    tokens, answer = np.empty((batch, sum(widths)), np.int64), np.zeros((batch, sum(widths)), bool)
    start = 0
    for part, column, width in zip(parts, columns, widths):
        there = slice(start, start + width)
        tokens[:, there] = [vocab.index(character) for character in column] if isinstance(column, str) else column
        answer[:, there] = isinstance(part, list)
        start += width
    return tokens, answer


def digits(numbers, width, base=10):
    """(B,) -> (B, width): the digits of each number, most significant first, with leading zeros."""
    return numbers[:, None] // base ** np.arange(width - 1, -1, -1, dtype=np.int64) % base


def row_hash(tokens):
    """One number in [0, 1) a row, spread evenly, equal for equal rows on every machine.      tokens (B, S) -> (B,)"""
    h = np.full(len(tokens), 0x9E3779B97F4A7C15, np.uint64)
    for column in np.ascontiguousarray(tokens.T, np.uint64):
        h = (h ^ column) * np.uint64(0xBF58476D1CE4E5B9)
        h ^= h >> np.uint64(29)
    return (h >> np.uint64(11)) * 2.0**-53


def split_by_hash(sample, variant, train_fraction, mirror):
    """Wrap a task's sample so that it draws from one split: no problem is ever in two.

    Where a problem belongs follows from its tokens alone: the lowest `train_fraction` of hashes are for training, the next
    fifth of the rest decides when training stops, and the others are the test, which nothing looks at before the end.
    """
    ends = (0, train_fraction, train_fraction + 0.2 * (1 - train_fraction), 1)

    def draw(rng, length, batch, split):
        low, high = ends[SPLITS.index(split)], ends[SPLITS.index(split) + 1]
        found, rows, attempt = [], 0, 0
        while rows < batch and (rows or attempt < 7):
            wanted = min(max(int(1.1 * (batch - rows) / (high - low)) + 16, 64 * 4**attempt), 2**18)
            tokens, answer = sample(rng, length, wanted, variant)
            h = row_hash(tokens)
            if mirror is not None:
                h = (h + row_hash(mirror(tokens))) % 1
            inside = (low <= h) & (h < high)
            found.append((tokens[inside], answer[inside]))
            rows += int(inside.sum())
            attempt += 1
        tokens, answer = (np.concatenate(part)[:batch] for part in zip(*found))
        return tokens, answer           # no rows where the split holds no problem of this length

    return draw


def batch(task, rng, length, size, split="train"):
    """Draw a batch and shift it: inputs (B, T), targets (B, T) with -1 where nothing is scored.

    The only place where inputs meet the targets one step ahead.  After an answer comes END, which is learnt too.
    """
    tokens, answer = task.draw(rng, length, size, split)
    return shift(task, tokens, answer, score_end=True)


def shift(task, tokens, answer, score_end):
    """tokens, answer (B, S) -> inputs (B, T), targets (B, T)"""
    if task.ends:
        end = np.full((len(tokens), 1), len(task.pieces) - 1)
        tokens = np.concatenate([tokens, end], axis=1)
        answer = np.concatenate([answer, np.full(end.shape, score_end)], axis=1)
    return tokens[:, :-1], np.where(answer[:, 1:], tokens[:, 1:], -1)


def problems(task, rng, length, limit, split="test"):
    """Up to `limit` different problems of a split; where the split has fewer, all of them.

    Drawn until there are enough, or until 16 draws for each one known find no new one: were one missing, the odds of that
    would be about e^-16.
    """
    tokens, answer = task.draw(rng, length, 2 * limit, split)
    known = 0
    while True:
        _, first = np.unique(tokens, axis=0, return_index=True)
        first.sort()                                            # in the order drawn, which is a random one
        tokens, answer = tokens[first], answer[first]
        if len(tokens) == known or len(tokens) >= limit:
            return tokens[:limit], answer[:limit]
        known = len(tokens)
        more_tokens, more_answer = task.draw(rng, length, 16 * known, split)
        tokens, answer = np.concatenate([tokens, more_tokens]), np.concatenate([answer, more_answer])


def chance(task, length, size=4096):
    """What a guesser reaches that knows only the position: (token accuracy, exact match).  Measured, never typed in.

    For each place of the answer it says the token most frequent there in one half of a sample; the other half tells how
    often that is right.  For the exact match it says the most frequent whole answer.
    """
    tokens, answer = task.draw(Random(CHANCE, length), length, size, "train")
    answers = np.where(answer, tokens, -1)
    seen, asked = answers[:len(answers) // 2], answers[len(answers) // 2:]
    guess = np.array([np.bincount(column + 1).argmax() - 1 for column in seen.T])
    scored = asked >= 0
    whole, counts = np.unique(seen, axis=0, return_counts=True)
    exact = (asked == whole[counts.argmax()]).all(axis=1).mean()
    return float(((asked == guess) & scored).sum() / scored.sum()), float(exact)


def spell(task, tokens):
    """The characters that a row of token ids spells."""
    return b"".join(task.pieces[token] for token in tokens).decode(errors="replace")


def example(task):
    """A prompt to try on a trained model: the unscored beginning of one test problem; none for running text."""
    if not task.ends:
        return ""
    tokens, answer = task.draw(Random(GALLERY), task.length, 1, "test")
    if len(tokens) == 0:
        tokens, answer = task.draw(Random(GALLERY), task.length, 1, "train")
    return spell(task, tokens[0][:answer[0].argmax()])
