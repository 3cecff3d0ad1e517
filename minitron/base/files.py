"""Writing files so that a crash, a full disk or a power cut never leaves half of one."""
import contextlib
import os
import stat
from pathlib import Path

from .errors import MinitronError


def write_atomically(path, *parts):
    """Write a file's content, given as parts, bytes each: readers see the old content or the new.

    The new content goes to a file beside it, is forced to the disk, and that file is renamed.
    Raises MinitronError if this fails; the old content is then unharmed.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise MinitronError(f"{path} cannot be written: it is not a regular file")
    # The same name every time: the next write replaces a file that a kill left.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise MinitronError(f"{path} cannot be written: {error.strerror or error}; "
                            "nothing was changed") from None
    finally:
        with contextlib.suppress(OSError):      # renamed, or never made
            temporary.unlink()
    sync_directory(path.parent)


def read_regular(path, most=2**40):
    """The bytes of a regular file of up to `most` bytes.  Raises MinitronError.

    A pipe may hang for ever and a device never end; some files of /proc do, and have no size.
    """
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            raise MinitronError(f"{path}: not a regular file")
        if about.st_size > most:
            raise MinitronError(f"{path}: {about.st_size} bytes, but at most {most} are read")
        with open(path, "rb") as file:
            return file.read(about.st_size)
    except (OSError, ValueError) as error:          # ValueError: a zero byte in the path
        raise MinitronError(f"{path}: {getattr(error, 'strerror', error)}") from None


def append_line(path, line):
    """Append a line in one write, so that lines of several writers do not mix.

    A file that a crash left without a final newline gets one first: the torn line stays alone.
    Raises MinitronError.
    """
    path = Path(path)
    try:
        with open(path, "ab+" if path.is_file() else "ab") as file:
            torn = path.is_file() and file.tell() > 0 and not ends_with_newline(file)
            file.write(b"\n" * torn + line.encode() + b"\n")
            file.flush()
            if path.is_file():              # not a device such as /dev/stdout
                os.fsync(file.fileno())
    except OSError as error:
        raise MinitronError(f"{path} cannot be written: {error.strerror or error}; "
                            "make room, then resume") from None


def ends_with_newline(file):
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def sync_directory(path):
    """Force a rename to the disk; do nothing where the system cannot open or sync a directory."""
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
