"""Ledgers: one JSON record per line; the last of a key counts.  One sweep at a time writes one."""
import contextlib
import json

from ..base.errors import MinitronError
from ..base.files import read_regular, try_lock

FINISHED = ("ok", "diverged")       # statuses of runs that ended by themselves
MOST_NAMED = 3                      # lines of a ledger that are complained about one by one


def read_records(*paths):
    """-> {key: record}, [complaint about lines].  Raises MinitronError for an unreadable file.

    The last record of a key counts, but a run that failed does not replace one that ended.  A line
    that a crash has torn, or that is not a record, is skipped and named.
    """
    records, complaints = {}, []
    for path in paths:
        skipped = []
        for number, line in enumerate(read_lines(path), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line, parse_int=short_int)
                before = records.get(record["key"])
                if before is None or not is_finished(before) or is_finished(record):
                    records[record["key"]] = record
            except (ValueError, TypeError, KeyError, RecursionError):
                skipped.append(f"{path}, line {number}: not a record, skipped: {line[:40]!r}")
        complaints += skipped[:MOST_NAMED]
        if len(skipped) > MOST_NAMED:
            complaints.append(f"{path}: {len(skipped) - MOST_NAMED} more lines are not records")
    return records, complaints


def short_int(digits):
    """An integer of JSON, of a size that any field can have.  Raises ValueError."""
    if len(digits) > 20:
        raise ValueError("more than 64 bits")
    return int(digits)


def read_lines(path):
    try:
        return read_regular(path).split(b"\n")
    except MinitronError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise MinitronError(f"ledger {path} cannot be read: {reason}") from None


def is_finished(record):
    return record.get("status") in FINISHED


@contextlib.contextmanager
def locked(path):
    """While entered, the ledger is this sweep's; it is made if need be.  Raises MinitronError.

    Two sweeps in one ledger would run the same cells twice.  The lock ends with its process,
    however that ends.
    """
    try:
        file = open(path, "ab")
    except OSError as error:
        raise MinitronError(f"ledger {path} cannot be written: {error.strerror}: "
                            "give another --out") from None
    with file:
        if file.seekable() and not try_lock(file):
            raise MinitronError(
                f"another sweep is writing {path}: wait for it, or share the work by --shard 0/2 "
                "and --shard 1/2 into two ledgers, and join them with cat")
        yield
