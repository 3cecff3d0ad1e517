"""One process writes a file: others are kept out, and no link or leftover is in its way."""
import os
import subprocess
import sys

import pytest
from training_helpers import ROOT, TINY, flags, run, start

import train
from minitron.base import files
from minitron.base.errors import MinitronError

GONE = 2**22 + 1        # above the largest process id of Linux


def test_a_temporary_file_does_not_follow_a_link(tmp_path, monkeypatch):
    """Nor is its name known before: a link there could lead to a file of somebody else."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "0000")
    (tmp_path / f".file.{os.getpid()}-0000.tmp").symlink_to(precious)
    files.being_written.add(f".file.{os.getpid()}-0000.tmp")        # so that it is not cleared away
    with pytest.raises(MinitronError, match="file cannot be written"):
        files.write_atomically(tmp_path / "file", b"content")
    assert precious.read_text() == "precious"


def test_names_differ_from_write_to_write(tmp_path, monkeypatch):
    names = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (names.append(old), replace(old, new)))
    for _ in range(3):
        files.write_atomically(tmp_path / "file", b"content")
    assert len(set(names)) == 3 and all(name.parent == tmp_path for name in names)


def test_leftovers_of_killed_processes_are_deleted_and_nothing_else(tmp_path):
    leftovers = [f".file.{GONE}-12ab.tmp", f".file.{os.getpid()}-0000.tmp"]
    others = [".file.tmp", f".file.{os.getppid()}-0.tmp", f".files.{GONE}-0.tmp", ".file.1-0.tmp"]
    for name in leftovers + others:
        (tmp_path / name).touch()
    files.write_atomically(tmp_path / "file", b"content")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "file"])


def test_a_new_file_of_lines_is_on_the_disk_with_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    for line in "ab":
        files.append_line(tmp_path / "new.jsonl", line)
    assert synced == [tmp_path] and (tmp_path / "new.jsonl").read_text() == "a\nb\n"


@pytest.mark.skipif(files.fcntl is None, reason="no locks on this system")
def test_a_second_writer_is_told_which_process_writes(tmp_path):
    out = tmp_path / "model.bin"
    line = f"{out} is being written by process {os.getpid()}: choose another --out"
    with files.locked(out):
        with pytest.raises(MinitronError, match=line):
            with files.locked(out):
                pass
        with files.locked(tmp_path / "other.bin"):
            pass
    with files.locked(out):
        pass
    assert not os.listdir(tmp_path)


def test_a_lock_ends_with_its_process(tmp_path):
    code = ("import os, sys; from minitron.base import files\n"
            "lock = files.locked(sys.argv[1]); lock.__enter__(); os.kill(os.getpid(), 9)")
    subprocess.run([sys.executable, "-c", code, tmp_path / "model.bin"], cwd=ROOT)
    assert os.listdir(tmp_path) == [".model.bin.lock"]
    with files.locked(tmp_path / "model.bin"):
        pass
    assert not os.listdir(tmp_path)


def test_a_lock_that_its_owner_deletes_meanwhile_is_not_one(tmp_path, monkeypatch):
    """Two processes would have one each: of the deleted file and of the new one."""
    lock, original = tmp_path / ".file.lock", files.take_lock

    def take_lock(file, path):
        monkeypatch.undo()
        lock.unlink()                       # by its owner, between our open and our lock
        original(file, path)

    monkeypatch.setattr(files, "take_lock", take_lock)
    with files.locked(tmp_path / "file"), pytest.raises(MinitronError, match="is being written"):
        with files.locked(tmp_path / "file"):
            pass


def test_a_lock_is_not_a_link(tmp_path):
    (tmp_path / ".file.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(MinitronError, match="file cannot be written"):
        with files.locked(tmp_path / "file"):
            pass
    assert not (tmp_path / "precious").exists()


def test_a_run_that_is_running_is_not_called_stopped(tmp_path):
    out = tmp_path / "model.bin"
    with start(*flags(TINY), "--steps", "1000000", "--out", out) as first:
        first.stderr.readline()                                     # progress: it is running
        for arguments in (flags(TINY), ["--resume"]):
            with pytest.raises(MinitronError, match=f"is being written by process {first.pid}: "):
                train.main([*arguments, "--out", str(out)])
        first.terminate()
        assert first.wait() == 130
    with pytest.raises(MinitronError, match="checkpoint of a stopped run"):
        run(tmp_path)
