"""Shared by the tests of tasks: tasks by name, their rows, and the bound of a measured share."""
import inspect
import math

from minitron.base.rng import Random
from minitron.data import batches, tasks
from minitron.data.config import Config

CASES = [(name, variant) for name in tasks.names() for variant in tasks.module(name).VARIANTS]


def load(name, variant=None, **options):
    return tasks.load(Config(task=name, variant=variant, **options))


def draw(task, batch, split="train", stream=5):
    """Rows of a split and their scored token ids or labels, -1 elsewhere"""
    tokens, answer = task.draw(Random(stream, task.length), task.length, batch, split)
    return tokens, batches.scored(tokens, answer)


def spelled(task, row):
    """A row's tokens as texts, without the spaces between them"""
    return [task.pieces[token].decode().strip() for token in row]


def near(share, expected, n):
    """Whether a share of n trials is within 4 deviations of its probability"""
    return abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def lines_with(name, sign):
    """The docstring's first line with a sign, and the one below it"""
    lines = inspect.getdoc(tasks.module(name)).splitlines()
    at = next(i for i, line in enumerate(lines) if sign in line)
    return lines[at:at + 2]
