"""The contract of tasks/__init__.py, checked for a task in a user's own file.

Each check raises ValueError with the value and the rule; the loader adds the task's name.
"""
import inspect

import numpy as np

from ..base.rng import GALLERY, Random

# function -> the arguments that come before the options
CALLS = {
    "VOCAB": "variant",
    "sample": "rng length batch variant",
    "mirror": "tokens variant",
    "positions": "length variant",
    "reference": "tokens variant",
    "group": "tokens length",
    "sampled": "temperature length variant",
    "prepare": "world length variant train_fraction data",
}


def check_attributes(module, defaults):
    """Whether a module has all that a task needs, of the kinds of the defaults, {name: value}"""
    needed = ("LENGTHS",) if hasattr(module, "prepare") else ("LENGTHS", "VOCAB", "sample")
    for name in needed:
        if not hasattr(module, name) or name == "sample" and not callable(module.sample):
            raise ValueError(f"{name} is missing: a task needs VOCAB, LENGTHS and sample()")
    for name, default in defaults.items():
        check_kind(name, getattr(module, name), default)
    check_lengths(module.LENGTHS, module.LENGTH)
    if not module.VARIANTS or not all(isinstance(variant, str) for variant in module.VARIANTS):
        raise ValueError(f"VARIANTS is {module.VARIANTS!r}: it must be one name or more")
    for name, option in module.OPTIONS.items():
        check_option(name, option)
    for name, arguments in CALLS.items():
        check_call(module, name, arguments.split())


def check_kind(name, value, default):
    """Whether a setting is of its default's type"""
    kinds = {"BOS": (bytes, type(None)), "TEMPERATURE": (float, int)}.get(name, (type(default),))
    if type(value) not in kinds:                # isinstance would take True for a number
        raise ValueError(f"{name} is {value!r}: it must be of type {kinds[0].__name__}")
    if name in ("STEP", "BATCH") and value < 1:
        raise ValueError(f"{name} is {value}: it must be at least 1")


def check_lengths(lengths, default):
    """Whether LENGTHS is a range that has the default length, LENGTH"""
    is_pair = isinstance(lengths, (tuple, list)) and [type(x) for x in lengths] == [int, int]
    if not is_pair or not 1 <= lengths[0] <= lengths[1]:
        raise ValueError(f"LENGTHS is {lengths!r}: it must be two whole numbers, "
                         "the smallest length, at least 1, and the largest")
    if not lengths[0] <= default <= lengths[1]:
        raise ValueError(f"LENGTH is {default}, outside LENGTHS {lengths}: set LENGTH, "
                         "the default of the dial")


def check_option(name, option):
    """Whether an option is (default, smallest, largest)"""
    is_triple = isinstance(option, (tuple, list)) and len(option) == 3
    if not is_triple or not all(type(x) in (int, float) for x in option):
        raise ValueError(f"OPTIONS[{name!r}] is {option!r}: it must be three numbers, "
                         "the default, the smallest and the largest")
    default, low, high = option
    if not low <= default <= high:
        raise ValueError(f"OPTIONS[{name!r}] is {option!r}: its default must be {low} to {high}")


def check_call(module, name, arguments):
    """Whether a function of the module, if it has it, takes these arguments and the options"""
    function = getattr(module, name, None)
    if not callable(function):
        return
    options = () if name == "mirror" else module.OPTIONS
    options = [option for option in options if (name, option) != ("prepare", "world")]
    try:
        inspect.signature(function).bind(*arguments, **dict.fromkeys(options))
    except TypeError as error:
        call = ", ".join([*arguments, *options])
        raise ValueError(f"{name}() cannot be called as {name}({call}): {error}") from None


def check_prepared(parts):
    """Whether prepare() gives pieces, draw() and a fingerprint"""
    is_triple = isinstance(parts, tuple) and len(parts) == 3
    if not is_triple or not callable(parts[1]) or not isinstance(parts[2], str):
        raise ValueError(f"prepare() gives {kind(parts)}: it must give pieces, draw() "
                         "and a fingerprint, which is text")


def measure(name, function):
    """reference(), group() or sampled() of a module: errors name it, and its result is checked"""
    def call(*arguments, **options):
        try:
            return RESULTS[name](function(*arguments, **options), arguments[0])
        except ResultError as error:
            raise ValueError(f"{name}() gives {error}") from None
        except Exception as error:          # with the traceback, which has the line of the file
            reason = ValueError(f"{name}() raises {type(error).__name__}: {error}")
            raise reason.with_traceback(error.__traceback__) from error

    return call


class ResultError(ValueError):
    """A result that the contract does not allow."""


def reference_result(numbers, tokens):
    """{name: nats} as finite floats"""
    if not isinstance(numbers, dict):
        raise ResultError(f"{kind(numbers)}: it must give a dict, name -> nats per token")
    return {str(name): finite(value, name) for name, value in numbers.items()}


def group_result(groups, tokens):
    """A number per row"""
    if getattr(groups, "shape", None) != (len(tokens),) or groups.dtype.kind not in "biu":
        raise ResultError(f"{kind(groups)}: it must give integers ({len(tokens)},), one per row")
    return groups


def sampled_result(share, temperature):
    """A probability"""
    return finite(share, f"temperature {temperature:g}")


def finite(value, name):
    """A number as a float"""
    if not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
        raise ResultError(f"{value!r} for {name}: it must be a finite number")
    return float(value)


RESULTS = {"reference": reference_result, "group": group_result, "sampled": sampled_result}


def check_pieces(pieces):
    """Whether a vocabulary is different texts, none of them empty"""
    numbers = {}                                # piece -> its place
    for number, piece in enumerate(pieces):
        if not isinstance(piece, (str, bytes)) or not piece:
            raise ValueError(f"piece {number} of VOCAB is {piece!r}: it must be text, not empty")
        encoded = piece.encode() if isinstance(piece, str) else piece
        if encoded in numbers:
            raise ValueError(f"pieces {numbers[encoded]} and {number} of VOCAB are both {piece!r}: "
                             "pieces must differ")
        numbers[encoded] = number


def checked(name, function, vocab, exact):
    """sample() or draw(), whose rows are checked at each call; exact: `batch` rows, not fewer"""
    def call(rng, length, batch, *split):
        rows = function(rng, length, batch, *split)
        try:
            check_rows(rows, vocab)
            if len(rows[0]) > batch or exact and len(rows[0]) < batch:
                raise ValueError(f"{len(rows[0])} rows: it must give batch rows, here {batch}")
        except ValueError as error:
            raise ValueError(f"{name}() at length {length} gives {error}") from None
        return rows

    return call


def check_rows(rows, vocab):
    """Whether rows are tokens (B, S) and an answer (B, S), bool or labels"""
    if not isinstance(rows, tuple) or [type(part) for part in rows] != [np.ndarray, np.ndarray]:
        raise ValueError(f"{kind(rows)}: it must give two arrays, tokens and the answer")
    tokens, answer = rows
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        raise ValueError(f"tokens that are {kind(tokens)}: they must be integers (B, S)")
    if answer.shape != tokens.shape or answer.dtype.kind not in "bi":
        raise ValueError(f"an answer that is {kind(answer)}: it must be bool or int "
                         f"{tokens.shape}, as the tokens")
    check_ids("token", tokens, 0, vocab)
    if answer.dtype != bool:
        check_ids("label", answer, -1, vocab)
    elif answer[:, 0].any():
        raise ValueError("an answer that is True at a row's first token: "
                         "there is no token before to predict it from")
    if not (answer if answer.dtype == bool else answer >= 0).any(axis=1).all():
        raise ValueError("a row without an answer: each row must have one")


def kind(value):
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return f"({', '.join(map(kind, value))})" if isinstance(value, tuple) else type(value).__name__


def check_ids(name, ids, low, vocab):
    """Whether all ids are low to vocab - 1"""
    outside = ids[(ids < low) | (ids >= vocab)]
    if outside.size:
        raise ValueError(f"{name} {outside[0]}: {name}s must be {low} to {vocab - 1}, "
                         f"for VOCAB has {vocab} pieces")


def check_repeats(rows, length):
    """Whether a stream gives the same rows twice"""
    first, again = (rows(Random(GALLERY), length, 16) for _ in range(2))
    if not all(np.array_equal(a, b) for a, b in zip(first, again)):
        raise ValueError("the same rng gives different rows: it must be the only source of chance")
