"""Arguments of Engine: each comes back in the form that run.c takes, or is refused in one line."""
import math
import numbers
import operator
import os

import numpy as np

from ..base.errors import MinitronError

TEXT = (str, bytes, bytearray)
INT32 = (-2**31, 2**31 - 1)
SHOWN = 60          # characters of a value in a message, at most


def shown(value):
    """A value for a message, in one short line"""
    try:
        text = " ".join(repr(value).split())
    except ValueError:              # an integer of more digits than Python writes
        text = f"of type {type(value).__name__}"
    return text if len(text) <= SHOWN else text[:SHOWN - 3] + "..."


def whole(name, value, low=-math.inf, high=math.inf):
    """An integer from low to high, NumPy's included, as a Python int.  Raises MinitronError."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise MinitronError(f"{name} {shown(value)} is not a whole number")
    if not low <= number <= high:
        limit = "or more" if high == math.inf else f"to {high}"
        raise MinitronError(f"{name} {shown(number)} is out of range: use {low} {limit}")
    return number


def int32(name, value):
    """whole() of 32 bits; run.c says which of these it takes"""
    return whole(name, value, *INT32)


def real(name, value, low, high):
    """A number from low to high as a float.  Raises MinitronError."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise MinitronError(f"{name} {shown(value)} is not a number")
    if not low <= value <= high:                # a NaN too
        raise MinitronError(f"{name} {shown(value)} is out of range: use {low:g} to {high:g}")
    return float(value)


def path_bytes(path):
    """The name of a file as the system takes it.  Raises MinitronError."""
    try:
        name = os.fsencode(path)
    except (TypeError, UnicodeEncodeError):
        raise MinitronError(f"path {shown(path)} is not the name of a file") from None
    if b"\0" in name:
        raise MinitronError(f"path {shown(path)} holds a zero byte, which no file's name does")
    return name


def text_bytes(text):
    """str or bytes -> bytes.  Raises MinitronError."""
    if not isinstance(text, TEXT):
        raise MinitronError(f"text {shown(text)} is neither str nor bytes")
    try:
        return text.encode() if isinstance(text, str) else bytes(text)
    except UnicodeEncodeError as error:
        raise MinitronError(f"text {shown(text)} cannot be written as UTF-8: character "
                            f"{error.start} is half of a pair") from None


def listed(name, values):
    """A list of any iterable but a text.  Raises MinitronError."""
    if isinstance(values, TEXT):
        raise MinitronError(f"{name} {shown(values)}: give a list, not one text")
    try:
        return list(values)
    except TypeError:
        raise MinitronError(f"{name} {shown(values)}: give a list") from None


def integers(name, values):
    """int32 array of any values.  Raises MinitronError unless they are whole numbers of 32 bits."""
    array = as_array(name, values)
    if array.size == 0:
        array = array.astype(np.int32)
    if array.dtype.kind not in "iu":
        raise MinitronError(f"the {name}s are {array.dtype}, not whole numbers")
    for value in (array.min(initial=0), array.max(initial=0)):
        if not INT32[0] <= value <= INT32[1]:
            raise MinitronError(f"{name} {value} does not exist: it has more than 32 bits")
    return np.asarray(array, np.int32, order="C")


def as_array(name, values):
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError):
        raise MinitronError(
            f"the {name}s are in rows of different lengths: give rows of one length") from None


def token_list(values):
    """int32 array (n,) of token ids.  Raises MinitronError."""
    tokens = integers("token", values)
    if tokens.ndim != 1:
        raise MinitronError(f"tokens of shape {tokens.shape}: give one row, (n,)")
    return tokens


def token_rows(values):
    """int32 array (B, T) of token ids.  Raises MinitronError."""
    tokens = integers("token", values)
    if tokens.ndim != 2 or tokens.size == 0:
        raise MinitronError(f"tokens of shape {tokens.shape}: give (B, T), neither of them 0")
    return tokens


def each(name, values, tokens):
    """int32 array of one value for each token; None of None.  Raises MinitronError."""
    return None if values is None else same_shape(name, integers(name, values), tokens)


def each_flag(name, values, tokens):
    """bool array of one value for each token; None of None.  Raises MinitronError."""
    if values is None:
        return None
    array = same_shape(name, as_array(name, values), tokens)
    if array.dtype.kind not in "biuf":
        raise MinitronError(f"the {name}s are {array.dtype}: give True or False")
    return np.ascontiguousarray(array, bool)


def same_shape(name, array, tokens):
    if array.shape != tokens.shape:
        raise MinitronError(f"{name}s of shape {array.shape} for tokens of shape {tokens.shape}: "
                            "give one each")
    return array
