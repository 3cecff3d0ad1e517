"""Spec files: the same as flags, unions of small grids, and one line for whatever is wrong."""
import itertools
import subprocess

import pytest
from helpers import refused

from minitron.base.environment import ROOT
from minitron.sweep import grid
from minitron.sweep.spec import grids, ledger_of, new_ledger, read_spec


@pytest.fixture
def spec(tmp_path):
    """spec(text or bytes) -> the path of a spec file"""
    def spec(content):
        path = tmp_path / "spec.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return spec


def cells(path, flags=None, seeds=1):
    """{(layers, ffn_dim, lr, seed)} of a sweep"""
    return {(c.layers, c.ffn_dim, c.lr, c.seed)
            for _, c in grid.cells(*grids(path, flags or {}, seeds))}


def test_a_spec_file_is_the_same_as_flags(spec):
    path = spec('task = "addition"\ndim = [8, "16-17"]\nlength = "1-2"\nqk_norm = false\n'
                'lr = [0.001, 1e-2]\nseeds = 2\n')
    flags = {"dim": "8,16-17", "length": "1,2", "qk_norm": "no", "lr": "0.001,0.01"}
    [by_file] = grids(path, {}, None)
    assert [by_file] == grids("addition", flags, 2)
    assert by_file["seed"] == [0, 1] and by_file["dim"] == [8, 16, 17]
    assert next(iter(by_file)) == "task", "a message about a cell names its task first"


def test_flags_take_precedence_over_a_spec_file(spec):
    path = spec('task = "addition"\ndim = [8, 16]\nlayers = 3\nseed = [5, 7]\n')
    [by_file], [by_flags] = grids(path, {}, None), grids(path, {"dim": "4"}, 2)
    assert by_file["seed"] == [5, 7]
    assert by_flags == by_file | {"dim": [4], "seed": [0, 1]}
    assert grids("addition", {"seed": "5,7"}, None)[0]["seed"] == [5, 7]
    assert grids("addition", {}, None)[0]["seed"] == [0, 1, 2]


UNION = '''
task = "addition"
dim = 16
ffn_dim = 8
lr = [0.1, 0.2]
cells = [{layers = 1}, {layers = "2-3", ffn_dim = [0, 4]}, {layers = 4, lr = 0.5}]
'''


def test_cells_are_a_union_of_grids(spec):
    """A table joins the common dials, and replaces those that it names."""
    expected = {*itertools.product([1], [8], [0.1, 0.2], [0]),
                *itertools.product([2, 3], [0, 4], [0.1, 0.2], [0]), (4, 8, 0.5, 0)}
    assert cells(spec(UNION)) == expected
    assert len(cells(spec(UNION), seeds=3)) == 3 * len(expected)


def test_flags_take_precedence_over_cells(spec):
    """Cells that become equal are one."""
    assert cells(spec(UNION), {"layers": "5", "lr": "0.3"}) == {(5, 8, 0.3, 0), (5, 0, 0.3, 0),
                                                                (5, 4, 0.3, 0)}


@pytest.mark.parametrize("content, words", [
    ("task = addition", "is not TOML"),
    (b"\xff\xfe", "is not TOML"),
    ("dim = 8", "names no task"),
    ('task = "addition"\nwidth = 8', "'width' is unknown: use"),
    ('task = "addition"\nout = "x.jsonl"', "'out' is unknown: use"),
    ('task = "dancing"', "task 'dancing' is unknown"),
    ("a = " + "[" * 3000 + "]" * 3000, "is not TOML"),
    ('task = "addition"\ndim = ' + 5000 * "9", "is not TOML"),
    ('task = "addition"\nlr = ' + 400 * "9", "is not a number"),
    ('task = "addition"\ndim = ' + 400 * "9", "too large to convert"),
    ('task = "addition"\nseeds = ' + 400 * "9", "is out of range"),
    ('task = "addition"\ndim = 1979-05-27', "is not a whole number"),
    ('task = "addition"\ndim = [nan, inf]', "is not a whole number"),
    ('task = "addition"\nlr = nan', "lr nan"),
    ('task = ["addition"]', "is unknown"), ("task = 5", "task '5' is unknown"),
    ('task = "addition"\ndata = {a = 1}', "is not a name"),
    ('task = "a\\u0000.py"', "cannot be read: embedded null byte"),
    ('task = "text"\ndata = "\\u0000"', "null"),
    ('task = "addition"\n'.encode("utf-16"), "is not TOML"),
    ('task = "addition"\ndim = "wide"', "--dim 'wide' is not a whole number"),
    ('task = "addition"\nseeds = 0', "--seeds 0 is out of range"),
    ('task = "addition"\nseeds = true', "--seeds True is out of range"),
    ('task = "addition"\nseeds = "3"', "seeds '3' is not a whole number"),
    ('task = "addition"\nseeds = 3\nseed = 1', "seed and seeds cannot both be given"),
    ('task = "addition"\nshow = 5', "show 5 is not a text in quotes"),
    ('task = "addition"\ncurve = "dim"', "curve 'dim' is not a table"),
    ('task = "addition"\ncurve = {width = 8}', "'width' is unknown: use"),
    ('task = "addition"\ncells = {dim = 8}', "is not a list of tables"),
    ('task = "addition"\ncells = []', "cells is empty: leave it out"),
    ('task = "addition"\ncells = [8]', r"cell 8 is not a table such as {dim = 8}"),
    ('task = "addition"\ncells = [{width = 8}]', "'width' is unknown: use"),
    ('task = "addition"\ncells = [{seed = 8}]', "'seed' is unknown: use"),
    ('task = "addition"\ncells = [{task = "parity"}]', "'task' is unknown: use"),
    ('task = "addition"\ncells = [{dim = 8}, {dim = "wide"}]', "--dim 'wide' is not a whole"),
    ('task = "addition"\ncells = [{dim = 8}, {length = 65}]',
     "cell --task addition --seed 0: length"),
])
def test_wrong_spec_files_are_refused_in_one_line(spec, content, words):
    refused(words, cells, spec(content), seeds=None)


def test_a_missing_spec_file_is_named(tmp_path):
    refused("nowhere.toml cannot be read: No such file", read_spec, tmp_path / "nowhere.toml")


@pytest.mark.parametrize("what, shard, ledger", [
    ("results/gallery/markov.toml", None, "markov.jsonl"), ("v1.2/a.b.toml", None, "a.b.jsonl"),
    ("addition", None, "addition.jsonl"), ("path/to/mine.py", None, "mine.jsonl"),
    ("results/addition.toml", "0/16", "addition.0-of-16.jsonl"),
    ("addition", "3/4", "addition.3-of-4.jsonl"),
])
def test_a_sweep_writes_into_the_current_folder_and_a_shard_into_its_own_ledger(
        what, shard, ledger):
    assert new_ledger(what, shard) == ledger


def test_a_published_ledger_is_beside_its_spec():
    assert ledger_of("v1.2/a.b.toml") == "v1.2/a.b.jsonl"


@pytest.mark.parametrize("target, folder", [("sweeps", "results"), ("gallery", "results/gallery")])
def test_make_writes_into_the_published_ledgers(target, folder):
    command = ["make", "--no-print-directory", "-o", "engine", target, "PYTHON=echo"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    specs = sorted((ROOT / folder).glob("*.toml"))
    assert specs and printed.splitlines()[-len(specs):] == [
        f"-m minitron sweep {folder}/{spec.name} --out {folder}/{spec.stem}.jsonl"
        for spec in specs]
