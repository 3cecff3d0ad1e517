"""Tasks: one file each, and the few functions that their authors share.

A task is a module in this folder; its file name is its name.  One of your own works the same from
anywhere: `python train.py --task path/to/mine.py`.  It imports NumPy, these functions
(`from minitron.tasks import join`) and nothing else of minitron.  It has

    a docstring     the story, a worked example, and the lines `Length:` `Source:` `Expect:`
    VOCAB           its pieces, one per token (a token's id is its index), or a function
                    (variant, **options) that lists them
    LENGTHS         the smallest and largest value of the length dial
    sample(rng, length, batch, variant, **options)
                    -> tokens (B, S) and the answer, in one of two forms:
                    bool (B, S)     True at the tokens to predict, each from those before it
                    int (B, S)      a label at each token, not a token of the row; -1 for none

and, where the defaults of minitron/data/tasks.py do not fit, any of those.  All rows of a batch
have one length, so nothing is ever padded.  The random stream is an argument and the only source
of chance; an option named `world` arrives as a function that opens one: world(*numbers) is a fresh
stream with these numbers in its name, the same in every run.  A combination of options without
problems raises ValueError.  A task may also have

    mirror(tokens, variant)
                    turns each row into its twin, a problem with the same answer, which then
                    belongs to the same split
    positions(length, variant, **options)
                    position ids (S,), for --positions coupled
    reference(tokens, variant, **options)
                    {name: nats per scored token} of the best predictors of some kind on these rows
    group(tokens, length, **options)
                    a number per row; evaluation reports each group of rows apart
    sampled(temperature, length, variant, **options)
                    how often a perfect model draws the right answer
    prepare(world, length, variant, train_fraction, data, **options)
                    in place of VOCAB and sample, if a table or a file has to be read or made first
                    -> pieces, draw(rng, length, batch, split), fingerprint; its splits are its own
"""
import numpy as np

SPLITS = ("train", "valid", "test")


def join(vocab, *parts):
    """Rows from their parts -> tokens (B, S) int64, answer (B, S) bool

    A part is an array (B, n) of token ids, or text, the same in each row.  In a list, [part], it
    belongs to the answer.
    """
    contents = [part[0] if isinstance(part, list) else part for part in parts]
    batch = next(len(content) for content in contents if not isinstance(content, str))

    columns, marks = [], []                         # tokens and answer of a part, (B, n) each
    for part, content in zip(parts, contents):
        if isinstance(content, str):
            content = np.tile([token_of(vocab, character) for character in content], (batch, 1))
        columns.append(content)
        marks.append(np.full(content.shape, isinstance(part, list)))
    return np.concatenate(columns, axis=1).astype(np.int64), np.concatenate(marks, axis=1)


def token_of(vocab, character):
    if character not in vocab:
        raise ValueError(f"{character!r} is not in VOCAB")
    return vocab.index(character)


def digits(numbers, width, base=10):
    """(B,) -> (B, width): the digits of each number, most significant first, with leading zeros"""
    return numbers[:, None] // base ** np.arange(width - 1, -1, -1, dtype=np.int64) % base


def swap_numbers(tokens, sign):
    """Rows "a SIGN b = c" -> "b SIGN a = c", a and b of one length; sign: the token between them"""
    length = (tokens[0] == sign).argmax()
    first, second = slice(0, length), slice(length + 1, 2 * length + 1)
    twin = tokens.copy()
    twin[:, first], twin[:, second] = tokens[:, second], tokens[:, first]
    return twin


def by_weight(rng, weights, batch):
    """Indices (batch,) into weights, each drawn in proportion to its weight"""
    ends = weights.cumsum()
    indices = np.searchsorted(ends, rng.uniform(batch) * ends[-1], side="right")
    return indices.clip(0, len(weights) - 1)


def shares(train_fraction):
    """The borders of the splits between 0 and 1: training, a fifth of the rest, the test"""
    return 0, train_fraction, train_fraction + 0.2 * (1 - train_fraction), 1
