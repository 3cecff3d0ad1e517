"""A sweep's cells: lists and ranges of values, every combination once, estimated times."""
import itertools

import pytest
from helpers import refused

from minitron.data import batches
from minitron.data.config import Config
from minitron.sweep import grid
from minitron.training.cells import step_seconds


@pytest.mark.parametrize("name, given, values", [
    ("dim", "8,16,32", [8, 16, 32]),
    ("dim", "1-4", [1, 2, 3, 4]),
    ("dim", "2, 4-6", [2, 4, 5, 6]),
    ("dim", [8, "10-11"], [8, 10, 11]),
    ("dim", 8, [8]),
    ("lr", "0.001,1e-2", [0.001, 0.01]),
    ("lr", [1, 0.5], [1.0, 0.5]),
    ("lr", 3, [3.0]),
    ("variant", "plain, reversed", ["plain", "reversed"]),
    ("qk_norm", "yes,no", [True, False]),
    ("tied", [True, "no"], [True, False]),
    ("tied", False, [False]),
    ("options", "k=2;k=3,world=1", ["k=2", "k=3,world=1"]),
    ("options", "k=2", ["k=2"]),
    ("data", '"a,b.txt"', ["a,b.txt"]),
    ("data", 'c.txt, "a,b ""1"".txt"', ["c.txt", 'a,b "1".txt']),
    ("data", ["a,b.txt", "c.txt"], ["a,b.txt", "c.txt"]),
])
def test_values_are_the_ones_given(name, given, values):
    assert grid.dial_values(name, given) == values
    assert all(type(value) is grid.dials()[name] for value in values)


@pytest.mark.parametrize("name, given, words", [
    ("dim", "8,8", "once"),
    ("dim", "", "--dim '' is not a whole number"),
    ("dim", "8,,9", "--dim ''"),
    ("dim", "x", "--dim 'x'"),
    ("dim", "9-8", "not an increasing range"),
    ("dim", "1-2000", "at most 1,000 numbers"),
    ("dim", "8.5", "8.5"),
    ("dim", 8.5, "8.5"),
    ("dim", True, "True"),
    ("dim", [], "no value"),
    ("dim", [[1]], r"\[1\]"),
    ("dim", {"a": 1}, "a"),
    ("lr", "fast", "'fast' is not a number"),
    ("lr", True, "True"),
    ("qk_norm", "maybe", "yes or no"),
    ("qk_norm", 1, "yes or no"),
    ("variant", 3, "not a name"),
    ("data", '"a,b', "is not a list: unexpected end of data"),
    ("lr", 10**400, "not a number"),
    ("head_dim", "0x10", "--head-dim '0x10'"),
])
def test_wrong_values_are_refused(name, given, words):
    refused(words, grid.dial_values, name, given)


def test_cells_are_every_combination_once_and_the_cheapest_first():
    axes = {"task": ["addition"], "dim": [16, 4, 8], "length": [2, 1], "steps": [20],
            "seed": [0, 1]}
    cells = grid.cells(axes)
    places = [(config.dim, config.length, config.seed) for _, config in cells]
    assert sorted(places) == sorted(itertools.product([4, 8, 16], [1, 2], [0, 1]))
    assert len({key for key, _ in cells}) == 12
    costs = [grid.run_flops(config) for _, config in cells]
    assert costs == sorted(costs) and costs[0] < costs[-1]
    backwards = {name: values[::-1] for name, values in axes.items()}
    assert cells == grid.cells(backwards), "whatever the order they are given in"


def test_flops_are_counted_once_for_all_seeds(monkeypatch):
    """Else a thousand cells would wait for seconds."""
    counted, count = [], batches.longest_batch
    monkeypatch.setattr(batches, "longest_batch",
                        lambda task, config: counted.append(config) or count(task, config))
    grid.step_flops.cache_clear()
    cells = grid.cells({"task": ["addition"], "dim": [4, 8], "steps": [20], "seed": [0, 1, 2]})
    grid.estimate([config for _, config in cells], lambda config: 1e-3)
    assert len(cells) == 6 and len(counted) == 2


def test_configurations_that_resolve_alike_are_one_cell():
    axes = {"task": ["parity"], "dim": [64], "seed": [0]}
    assert len(grid.cells(axes | {"variant": ["plain"], "heads": [2]})) == 1
    by_default = Config(task="parity", dim=64).resolve()
    [(_, config)] = grid.cells(axes | {"head_dim": [by_default.head_dim]})
    assert config == by_default


def test_impossible_cell_is_named():
    refused(r"cell --task addition --length 65: length 65 is out of range", grid.cells,
            {"task": ["addition"], "length": [1, 65], "steps": [10]})
    refused("more than 100,000", grid.cells,
            {"task": ["addition"], "seed": list(range(1000)), "dim": list(range(1, 200))})


def test_estimates_grow_with_work_and_steps():
    settings = itertools.product((4, 128), (10, 20))
    configs = [Config(dim=dim, length=1, steps=steps, batch=16).resolve()
               for dim, steps in settings]
    small, small_twice, large, large_twice = grid.estimate(configs, step_seconds)
    assert small_twice == pytest.approx(2 * small) and large_twice == pytest.approx(2 * large)
    assert 0 < small < large
