"""Ledgers: one JSON record a line, the last of a key counts; and the right to sweep into one, which one sweep has at a time."""
import contextlib
import json

from ..base.errors import MinitronError

try:
    import fcntl
except ImportError:         # Windows: there nothing keeps a second sweep away
    fcntl = None

FINISHED = ("ok", "diverged")       # statuses of runs that came to an end of their own; others can be tried again


def read(*paths):
    """-> {key: record}, and complaints about lines that are no records.  Raises MinitronError where a file cannot be read.

    The last of a key counts, except that a run which was killed or took too long does not take the place of one that ended.
    A line that a crash has torn, or that was never a record, is skipped and named; it is never a reason to lose the others.
    """
    records, complaints = {}, []
    for path in paths:
        try:
            with open(path, "rb") as file:
                lines = file.read().split(b"\n")
        except OSError as error:
            raise MinitronError(f"ledger {path} cannot be read: {error.strerror}") from None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                before = records.get(record["key"])
                if before is None or before.get("status") not in FINISHED or record.get("status") in FINISHED:
                    records[record["key"]] = record
            except (ValueError, TypeError, KeyError, RecursionError):
                complaints.append(f"{path}, line {number}: no record, skipped: {line[:40]!r}")
    return records, complaints


@contextlib.contextmanager
def claimed(path):
    """The ledger is one sweep's while this lasts; it is made if need be.  Raises MinitronError where another has it.

    Two sweeps in one ledger would run the same cells twice.  The lock ends with its process, however that ends.
    """
    try:
        file = open(path, "ab")
    except OSError as error:
        raise MinitronError(f"ledger {path} cannot be written: {error.strerror}: give --out another place") from None
    with file:
        if fcntl is not None and file.seekable():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MinitronError(f"another sweep is writing {path}: let it finish, or share the work by --shard 0/2 and 1/2 "
                                    "into two ledgers, which `cat` makes one") from None
            except OSError:             # a file system without locks
                pass
        yield
