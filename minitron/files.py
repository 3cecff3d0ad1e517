"""Files that are there whole or not at all."""
import os
import tempfile
from pathlib import Path

from .errors import MinitronError


def write_atomically(path, *parts):
    """Write bytes to a file so that whoever looks, even after a power cut, finds the old content or the new, never a part.

    Written beside the target, forced to the disk, then renamed over it.  Raises MinitronError where that fails; the old
    content is still there then.
    """
    path = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~current_umask())       # NamedTemporaryFile makes files only their owner may read
        os.replace(temporary, path)
        temporary = None
        sync_directory(path.parent)
    except OSError as error:
        raise MinitronError(f"{path} cannot be written: {error.strerror}; what was there before is unharmed") from None
    finally:
        if temporary is not None:
            os.unlink(temporary)


def append_line(path, line):
    """Append one line in one write, so that lines of several writers do not mix.  Raises MinitronError where that fails.

    A file that a crash left without a final newline gets one first, so that the torn line stays alone.
    """
    try:
        with open(path, "ab+") as file:
            torn = file.tell() > 0 and not ends_with_newline(file)
            file.write(b"\n" * torn + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise MinitronError(f"{path} cannot be written: {error.strerror}") from None


def ends_with_newline(file):
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_directory(path):
    """Force a rename itself to the disk.  Not every system lets a directory be opened; there it is the system's affair."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
