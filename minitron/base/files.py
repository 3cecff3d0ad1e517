"""Files that are there whole or not at all."""
import contextlib
import os
from pathlib import Path

from .errors import MinitronError


def write_atomically(path, *parts):
    """Write bytes to a file so that whoever looks, even after a power cut, finds the old content or the new, never a part.

    Written beside the target, forced to the disk, then renamed over it.  Raises MinitronError where that fails; the old
    content is still there then.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise MinitronError(f"{path} cannot be written: it is not a regular file")
    temporary = path.with_name(f".{path.name}.tmp")     # one name, so that what a kill leaves is overwritten the next time
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise MinitronError(f"{path} cannot be written: {error.strerror or error}; what was there before is unharmed") from None
    finally:
        with contextlib.suppress(OSError):          # after the rename, or where it never came into being, there is none
            temporary.unlink()
    sync_directory(path.parent)


def append_line(path, line):
    """Append one line in one write, so that lines of several writers do not mix.  Raises MinitronError where that fails.

    A file that a crash left without a final newline gets one first, so that the torn line stays alone.
    """
    path = Path(path)
    try:
        with open(path, "ab+" if path.is_file() else "ab") as file:
            torn = path.is_file() and file.tell() > 0 and not ends_with_newline(file)
            file.write(b"\n" * torn + line.encode() + b"\n")
            file.flush()
            if path.is_file():              # and not, say, /dev/stdout
                os.fsync(file.fileno())
    except OSError as error:
        raise MinitronError(f"{path} cannot be written: {error.strerror or error}; make room, then go on with the same "
                            "command") from None


def ends_with_newline(file):
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def sync_directory(path):
    """Force a rename itself to the disk.  Not every system lets a directory be opened or synced; there it is its own affair."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
