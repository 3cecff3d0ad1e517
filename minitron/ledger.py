"""Reading ledgers: one JSON record a line, the last of a key counts."""
import json

from .errors import MinitronError


def read(*paths):
    """-> {key: record}, and a list of complaints about lines that are no records.  Raises MinitronError where a file cannot be read.

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
                records[record["key"]] = record
            except (ValueError, TypeError, KeyError, RecursionError):
                complaints.append(f"{path}, line {number}: no record, skipped: {line[:40]!r}")
    return records, complaints
