"""Ledgers: a new one is on the disk with its first record, in its folder too."""
from minitron.base import files
from minitron.measure.record import append_record
from minitron.sweep import ledger


def test_the_folder_of_a_new_ledger_is_forced_to_the_disk_once(tmp_path, monkeypatch):
    """... although the sweep's lock has made the file before."""
    synced, path = [], tmp_path / "l.jsonl"
    monkeypatch.setattr(files, "sync_directory", synced.append)
    with ledger.locked(path):
        append_record(path, {"key": "a"})
        append_record(path, {"key": "b"})
    assert synced == [tmp_path] and list(ledger.read_records(path)[0]) == ["a", "b"]
