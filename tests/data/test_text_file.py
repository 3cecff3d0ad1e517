"""A text of one's own: a regular file of a bounded size, read once as long as it stays the same."""
import builtins
import os

import numpy as np
import pytest

import train
from minitron.base.errors import MinitronError
from minitron.base.rng import Random
from minitron.data import tasks
from minitron.data.config import Config

text = tasks.module("text")


def config(path, **options):
    return Config(task="text", data=path, length=4, dim=4, steps=1, batch=4, test_items=8,
                  **options)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(100 * "na\u00efve \U0001f600 caf\u00e9\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "/dev/null", "folder"])
def test_what_is_not_a_regular_file_is_refused(tmp_path, name):
    """A pipe without a writer would be waited for, /dev/zero would be read until memory ends."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MinitronError, match="data '.*' is not a regular file: save its text"):
        config(tmp_path / name).resolve()


def test_a_pipe_as_standard_input_is_refused():
    reader, writer = os.pipe()
    with pytest.raises(MinitronError, match="is not a regular file"):
        config(f"/dev/fd/{reader}").resolve()
    os.close(reader)
    os.close(writer)


def test_a_file_that_is_too_large_is_refused(path, monkeypatch):
    monkeypatch.setattr(text, "MOST_BYTES", 100)
    with pytest.raises(MinitronError, match=r"has 1,800 bytes: use a file of at most 100$"):
        config(path).resolve()


@pytest.mark.parametrize("variant, decode", [("chars", str), ("bytes", bytes)])
def test_tokens_spell_the_file(path, variant, decode):
    """Characters in the order of their code points, one of them beyond 16 bits"""
    content = path.read_bytes() if decode is bytes else path.read_text(encoding="utf-8")
    pieces, tokens, _ = text.read(str(path), variant)
    assert b"".join(pieces[token] for token in tokens) == path.read_bytes()
    if decode is str:
        assert [piece.decode() for piece in pieces] == sorted(set(content))
    rows, _ = tasks.load(config(path, variant=variant)).draw(Random(1), 4, 8, "train")
    assert rows.dtype == np.int64


def test_a_run_reads_the_file_once_and_again_when_it_has_changed(path, tmp_path, monkeypatch):
    opened, original = [], builtins.open

    def counting(name, *arguments, **options):
        opened.append(str(name))
        return original(name, *arguments, **options)

    text.read_file.cache_clear()
    monkeypatch.setattr(builtins, "open", counting)
    train.train(config(path), tmp_path / "model.bin", quiet=True)
    assert opened.count(str(path)) == 1
    before = tasks.load(config(path)).version
    path.write_text(100 * "nought one\n")
    assert tasks.load(config(path)).version != before
    assert opened.count(str(path)) == 2
