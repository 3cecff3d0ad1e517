"""Files that a crash, a full disk or a power cut never halves, and that one process writes."""
import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

from .errors import MinitronError

try:
    import fcntl
except ImportError:         # Windows, where a second process is not kept out
    fcntl = None

being_written = set()       # names of temporary files of this process


def write_atomically(path, *parts):
    """Write a file's content, given as parts, bytes each: readers see the old content or the new.

    The new content goes to a file beside it, is forced to the disk, and that file is renamed.
    Raises MinitronError if this fails; the old content is then unharmed.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise MinitronError(f"{path} cannot be written: it is not a regular file")
    remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    being_written.add(temporary.name)
    try:
        with open(temporary, "xb") as file:     # x: a new file, not one that a link leads to
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise MinitronError(f"{path} cannot be written: {error.strerror or error}; "
                            "nothing was changed") from None
    finally:
        being_written.discard(temporary.name)
        with contextlib.suppress(OSError):      # renamed, or never made
            temporary.unlink()
    sync_directory(path.parent)


def remove_leftovers(path):
    """Delete temporary files of this path whose processes were killed."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)-[0-9a-f]+\.tmp")
    with contextlib.suppress(OSError):          # no such folder, say: the write will tell
        for name in os.listdir(path.parent):
            match = pattern.fullmatch(name)
            if match and name not in being_written and is_gone(int(match[1])):
                path.with_name(name).unlink(missing_ok=True)


def is_gone(pid):
    """Whether a process, other than this one, does not exist on this machine any more

    In a container, a new process may have the id of a killed one.
    """
    try:
        if os.name == "posix" and pid != os.getpid():       # elsewhere, kill would end it
            os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:                     # another user's
        pass
    return pid == os.getpid()


@contextlib.contextmanager
def locked(path):
    """While entered, `path` is this run's to write.  Raises MinitronError if another has it.

    The lock is on a file beside it, .NAME.lock, which holds the process id; it ends with the
    process, however that ends.  On NFS, Linux keeps it among machines; where a file system has no
    locks, a second writer is not kept out.
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    with open_locked(path, lock):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()                   # while it is ours


def open_locked(path, lock):
    """The open file `lock`, locked.  Raises MinitronError."""
    def no_link(name, flags):
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)

    while True:
        try:
            file = open(lock, "a+", opener=no_link)
        except OSError as error:
            raise MinitronError(f"{path} cannot be written: {lock}: {error.strerror}") from None
        take_lock(file, path)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                return file
        file.close()                            # its owner deleted it just before it became ours


def take_lock(file, path):
    """Raises MinitronError, after closing the file, if another process has the lock."""
    if not try_lock(file):
        with file:
            file.seek(0)
            owner = f"process {file.read(20)}".strip()
        raise MinitronError(f"{path} is being written by {owner}: choose another --out")


def try_lock(file):
    """Lock an open file until it is closed or this process ends -> False if another has the lock

    True also where the system, or the file system, has no locks.
    """
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


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
            is_first = not path.is_file() or file.tell() == 0
            torn = not is_first and not ends_with_newline(file)
            file.write(b"\n" * torn + line.encode() + b"\n")
            file.flush()
            if path.is_file():              # not a device such as /dev/stdout
                os.fsync(file.fileno())
                if is_first:                # of a new file, whose name is not on the disk yet
                    sync_directory(path.parent)
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
