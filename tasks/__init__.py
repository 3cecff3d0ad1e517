"""What tasks share: putting rows together, splits, batches, the measured chance level, the gallery.

A task is a module in this folder; its file name is its name.  It has

    a docstring     the story, a worked example, and the lines `Length:` `Source:` `Expect:`
    VOCAB           its pieces, one a token (a token's id is its index), or a function (variant, **options) that lists them
    LENGTHS         the smallest and largest value of the length dial
    sample(rng, length, batch, variant, **options) -> tokens (B, S) and what is scored, in one of two forms:
                    bool (B, S)     the tokens that are predicted, each from those before it
                    int (B, S)      at each token what is to be said there, which is no token of the row; -1 for nothing

and, where the DEFAULTS below do not fit, any of those.  All rows of a batch have one length, so nothing is ever padded.  The
random stream is an argument and the only source of chance.  A task may also have

    mirror(tokens, variant)                     turns each row into its twin, a problem with the same answer, for the same split
    positions(length, variant, **options)       position ids (S,), for --positions coupled
    reference(tokens, variant, **options)       {name: nats} a scored token that the best predictors of some kind reach on rows
    group(tokens, length, **options)            a number for each row, by which evaluation tells kinds of problems apart
    prepare(length, variant, train_fraction, data, **options)
                                                in place of VOCAB and sample, where something is to be read or made first:
                                                -> pieces, draw(rng, length, batch, split), fingerprint; the splits are its own
"""
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import numpy as np

from minitron.errors import MinitronError
from minitron.rng import CHANCE, GALLERY, Random

DEFAULTS = {
    "LENGTH": 3,            # the length dial, where the user leaves it alone
    "VARIANTS": ("plain",),
    "OPTIONS": {},          # further dials: name -> default, smallest, largest value
    "STEP": 1,              # between two lengths
    "MIXED": True,          # unless --mixed says otherwise: training draws lengths from LENGTHS[0] up to the dial, or the dial's
    "EXTRAPOLATES": True,   # whether longer rows ask for the same ability: they may be mixed then, and tested beyond training's
    "ENDS": True,           # whether END follows a row, which is learnt and not scored; never after labels of type int
    "EXACT": True,          # whether there is one right answer; False: what is learnt is a distribution
    "DISTINCT": True,       # whether a test asks no problem twice; False: its problems are as frequent as in training
    "BOS": None,            # the piece that stands for an empty prompt
    "BATCH": 128,           # sequences a step
    "VERSION": 1,           # raised when sample() changes: a run's key holds it
    "TEMPERATURE": 0.0,     # what run.c samples with unless told: 0 where there is one answer
    "DATA": False,          # whether --data names a file for it
    "WATCH": (),            # instruments to look through while training: "heads", "fourier" (train.py)
}
SPLITS = ("train", "valid", "test")
END = b""                   # the piece after an answer, at which generation stops; no text can spell it
BEYOND = 12                 # test lengths beyond training's at the most: enough for a curve


@dataclass(frozen=True)
class Task:
    """A task with its options bound."""

    name: str
    module: ModuleType
    variant: str
    options: dict
    length: int
    mixed: bool             # whether training draws shorter ones too
    lengths: tuple          # the lengths that training draws from, those without a problem for it left out
    beyond: tuple           # longer ones, which only the test has
    pieces: list            # token id -> bytes
    draw: Callable          # (rng, length, batch, split) -> tokens (B, S), what is scored (B, S)
    ends: bool              # whether a row is followed by END
    exact: bool             # whether there is one right answer
    bos: int | None         # the token that stands for an empty prompt
    width: int              # tokens of a row at `length`, END included
    longest: int            # the same at the longest length that is tested
    context: int            # the same at the longest length that the dial allows: what run.c makes room for
    batch: int
    version: str
    temperature: float


def names():
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


@lru_cache
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
    longest = length if config.test_length is None else config.test_length
    check_choice(m, config, variant, length, longest)
    options = parse_options(config.task, m.OPTIONS, config.options)

    pieces, draw, rows, fingerprint = bind(m, config, length, variant, options)
    low, high = m.LENGTHS
    ends = rows(length)[1].dtype == bool and m.ENDS
    mixed = m.MIXED if config.mixed is None else config.mixed
    lengths = tuple(each for each in range(low if mixed else length, length + 1, m.STEP)
                    if has_problem(draw, each))
    if length not in lengths:
        raise MinitronError(f"length {length} has no problem in the share for training, {config.train_fraction}: "
                            "use another --train-fraction or --length")

    def width(length):
        tokens, answer = rows(length)
        return tokens.shape[1] + 1 if ends else tokens.shape[1] - (answer.dtype == bool)

    return Task(
        name=config.task, module=m, variant=variant, options=options, length=length, mixed=mixed, lengths=lengths,
        beyond=thinned(range(length + m.STEP, longest + 1, m.STEP)), pieces=pieces + [END] * ends, draw=draw, ends=ends,
        exact=m.EXACT, bos=None if m.BOS is None else pieces.index(m.BOS) if m.BOS in pieces else 0,
        width=width(length), longest=width(longest), context=width(high if m.MIXED else longest),
        batch=m.BATCH, version=f"{config.task} {m.VERSION} {fingerprint}".rstrip(), temperature=m.TEMPERATURE)


def has_problem(draw, length):
    """Whether training has a problem of this length: the options may ask for longer ones, or the split hold none."""
    try:
        return len(draw(Random(GALLERY), length, 1, "train")[0]) > 0
    except MinitronError:
        return False


def bind(m, config, length, variant, options):
    """-> pieces, draw(rng, length, batch, split), rows(length), which shows what a row looks like, fingerprint"""
    if hasattr(m, "prepare"):
        pieces, draw, fingerprint = m.prepare(length, variant, config.train_fraction, config.data, **options)
        return as_bytes(pieces), draw, lambda length: draw(Random(GALLERY), length, 1, "train"), fingerprint

    def sample(rng, length, batch):
        return m.sample(rng, length, batch, variant, **options)

    twin = (lambda tokens: m.mirror(tokens, variant)) if hasattr(m, "mirror") else None
    draw = split_by_hash(sample, config.train_fraction, twin)
    pieces = m.VOCAB(variant, **options) if callable(m.VOCAB) else m.VOCAB
    return as_bytes(pieces), draw, lambda length: sample(Random(GALLERY), length, 1), ""


def as_bytes(pieces):
    return [piece if isinstance(piece, bytes) else piece.encode() for piece in pieces]


def thinned(lengths):
    """At most BEYOND of them, evenly spread, the last always among them."""
    if len(lengths) <= BEYOND:
        return tuple(lengths)
    return tuple(lengths[(i + 1) * len(lengths) // BEYOND - 1] for i in range(BEYOND))


def check_choice(m, config, variant, length, longest):
    """Raises MinitronError where a task has no such variant, no such length, or no use for a file."""
    low, high = m.LENGTHS
    if variant not in m.VARIANTS:
        raise MinitronError(f"variant {variant!r} of task {config.task} is unknown: use one of {', '.join(m.VARIANTS)}")
    if not low <= length <= high:
        raise MinitronError(f"length {length} is out of range for task {config.task}: use {low} to {high}")
    if not m.EXTRAPOLATES and (longest != length or config.mixed):
        flag = "mixed" if config.mixed else f"test-length {longest}"
        raise MinitronError(f"{flag} has no use in task {config.task}, whose length is part of what is learnt")
    if not length <= longest <= high:
        raise MinitronError(f"test-length {longest} is out of range for task {config.task} trained to {length}: "
                            f"use {length} to {high}")
    if config.data is not None and not m.DATA:
        raise MinitronError(f"data {config.data!r} has no use in task {config.task}: it is for --task text")


def parse_options(task, known, text):
    """"pairs=8,symbols=32" -> {name: number}, every known option with its default.  Raises MinitronError."""
    options, seen = {name: default for name, (default, low, high) in known.items()}, set()
    for part in (text or "").split(","):
        name, equals, value = part.partition("=")
        if not part:
            continue
        if name in seen:
            raise MinitronError(f"option {name} is given twice in {text!r}: give it once")
        if name not in known:
            there = ", ".join(f"{name}={default}" for name, default in options.items()) or "none"
            raise MinitronError(f"option {part!r} is unknown to task {task}, whose options are: {there}")
        seen.add(name)
        default, low, high = known[name]
        try:
            options[name] = type(default)(value)
        except ValueError:
            raise MinitronError(f"option {name} {value!r} is not a number: use {low} to {high}") from None
        if not low <= options[name] <= high:
            raise MinitronError(f"option {name} {value} is out of range for task {task}: use {low} to {high}")
    return options


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


def swap_numbers(tokens, sign):
    """Rows "a SIGN b = c" -> "b SIGN a = c"; sign: the token between the two numbers, which have one length"""
    length = (tokens[0] == sign).argmax()
    twin = tokens.copy()
    twin[:, :length], twin[:, length + 1:2 * length + 1] = tokens[:, length + 1:2 * length + 1], tokens[:, :length]
    return twin


def by_weight(rng, weights, batch):
    """Indices (batch,) into weights, each drawn in proportion to its weight"""
    ends = weights.cumsum()
    return np.searchsorted(ends, rng.uniform(batch) * ends[-1], side="right").clip(0, len(weights) - 1)


def row_hash(tokens):
    """One number in [0, 1) a row, spread evenly, equal for equal rows on every machine.      tokens (B, S) -> (B,)

    A sum with a random odd factor for each column, modulo 2^64 (Dietzfelbinger 1996), mixed.
    """
    factors = mix(np.arange(1, tokens.shape[1] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
    return (mix((tokens.astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64)) >> np.uint64(11)) * 2.0**-53


def mix(h):
    """uint64 -> uint64, one to one: each bit of the result depends on all of h.  SplitMix64's (Steele, Lea & Flood 2014)."""
    h = (h ^ h >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ h >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return h ^ h >> np.uint64(31)


def shares(train_fraction):
    """Where each split ends on the way from 0 to 1, with the 0: the share for training, a fifth of the rest, the test."""
    return 0, train_fraction, train_fraction + 0.2 * (1 - train_fraction), 1


def split_by_hash(sample, train_fraction, mirror):
    """Wrap sample(rng, length, batch) so that it draws from one split: no row is ever in two.

    Where a problem belongs follows from its tokens alone: the lowest `train_fraction` of hashes are for training, the next
    fifth of the rest decides when training stops, and the others are the test, which nothing looks at before the end.
    """
    ends = shares(train_fraction)

    def draw(rng, length, batch, split):
        low, high = ends[SPLITS.index(split)], ends[SPLITS.index(split) + 1]
        found, rows, attempt = [], 0, 0
        while rows < batch and (rows or attempt < 7):
            wanted = min(max(int(1.1 * (batch - rows) / (high - low)) + 16, 64 * 4**attempt), 2**18)
            tokens, answer = sample(rng, length, wanted)
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

    After an answer comes END, which is learnt too.
    """
    tokens, answer = task.draw(rng, length, size, split)
    return shift(task, tokens, answer, score_end=True)


def shift(task, tokens, answer, score_end):
    """tokens, answer (B, S) -> inputs (B, T), targets (B, T).  The only place where inputs meet the targets one step ahead."""
    if answer.dtype != bool:
        return tokens, answer                   # labels, which stand at their tokens already
    if task.ends:
        end = np.full((len(tokens), 1), len(task.pieces) - 1)
        tokens = np.concatenate([tokens, end], axis=1)
        answer = np.concatenate([answer, np.full(end.shape, score_end)], axis=1)
    return tokens[:, :-1], scored(tokens, answer)[:, 1:]


def scored(tokens, answer):
    """tokens, answer (B, S) -> what is scored (B, S): the tokens where answer is True, or the labels; -1 elsewhere"""
    return np.where(answer, tokens, -1) if answer.dtype == bool else answer


def problems(task, rng, length, limit, split="test"):
    """Up to `limit` different problems of a split; where the split has fewer, all of them.  Just as drawn where the task is not
    DISTINCT: without repeats, a mean over them would not be that of the stream, which is what the task's reference is of.

    Drawn until there are enough, or until 16 draws for each one known find no new one: were one missing, and as likely as the
    others, the odds of that would be about e^-16.
    """
    if not task.module.DISTINCT:
        return task.draw(rng, length, limit, split)
    tokens, answer = task.draw(rng, length, limit, split)
    known, drawn = 0, limit
    while True:
        _, first = np.unique(tokens, axis=0, return_index=True)
        first.sort()                                            # in the order drawn, which is a random one
        tokens, answer = tokens[first], answer[first]
        if len(tokens) >= limit or len(tokens) == known and drawn >= 16 * known:
            return tokens[:limit], answer[:limit]
        drawn = 16 * known or limit                             # once more the same, for the few that a large split repeats
        known = len(tokens)
        more_tokens, more_answer = task.draw(rng, length, drawn, split)
        tokens, answer = np.concatenate([tokens, more_tokens]), np.concatenate([answer, more_answer])


def chance(task, length, asked=None, size=2048):
    """What a guesser reaches that knows only the position: (token accuracy, exact match).  Measured, never typed in.

    For each place of the answer it says the token most frequent there in a sample of training.  For the exact match it says the
    most frequent whole answer, and where that has nothing, the former.  `asked`, targets (B, T) of test problems, tell how often
    that is right; where they are not given, other training problems do.
    """
    seen = shift(task, *task.draw(Random(CHANCE, length), length, size, "train"), score_end=False)[1]
    if asked is None:
        asked = shift(task, *task.draw(Random(CHANCE, length, 1), length, size, "train"), score_end=False)[1]
    guess = np.array([np.bincount(column[column >= 0]).argmax() if (column >= 0).any() else -1 for column in seen.T])
    whole, counts = np.unique(seen, axis=0, return_counts=True)
    best = whole[counts.argmax()]
    exact = ((asked == np.where(best < 0, guess, best)) | (asked < 0)).all(axis=1).mean()
    return float(((asked == guess) & (asked >= 0)).sum() / (asked >= 0).sum()), float(exact)


def spell(task, tokens):
    """The characters that a row of token ids spells."""
    return b"".join(task.pieces[token] for token in tokens).decode(errors="replace")


def example(task):
    """A prompt to try on a trained model, and how many tokens answer it, None where the model knows or there is no end.

    The prompt is a test problem up to what is scored first; "" where the model needs none.
    """
    if task.bos is not None:
        return "", None
    tokens, answer = task.draw(Random(GALLERY), task.length, 1, "test")
    if len(tokens) == 0:
        tokens, answer = task.draw(Random(GALLERY), task.length, 1, "train")
    there = scored(tokens, answer)[0] >= 0
    first = there.argmax()
    if answer.dtype != bool:
        return spell(task, tokens[0][:first + 1]), 1
    return spell(task, tokens[0][:first]), None if task.ends else int(there.sum())
