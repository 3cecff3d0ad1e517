"""A task in a file of the user's own: read, run as a module, its errors told in one line.

The file runs as a part of minitron.tasks, so that `from . import join` works, under a name that its
content makes unique: it is never mixed up with one of minitron's tasks, or another file's.
"""
import hashlib
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from ..base.errors import MinitronError


def own_module(path):
    """The module that a file defines, run once per content.  Raises MinitronError."""
    return run_file(path, read_source(path))


def read_source(path):
    """The bytes of a file, which are UTF-8.  Raises MinitronError."""
    try:
        source = Path(path).read_bytes()
        source.decode()
    except UnicodeDecodeError as error:
        raise MinitronError(f"task {path} is not UTF-8 (byte {error.start}): "
                            "save it as UTF-8") from None
    except (OSError, ValueError) as error:      # a ValueError if the path has a NUL
        reason = getattr(error, "strerror", error)
        raise MinitronError(f"task {path} cannot be read: {reason}") from None
    return source


@lru_cache(maxsize=64)
def run_file(path, source):
    """The module of a file with this content.  Raises MinitronError where it fails to run."""
    digest = hashlib.sha256(source).hexdigest()[:12]
    module = ModuleType(f"minitron.tasks.{Path(path).stem} {digest}")
    module.__file__, module.__package__ = path, "minitron.tasks"
    module.DIGEST = digest
    sys.modules[module.__name__] = module           # where dataclasses, say, look for their module
    try:
        exec(compile(source, path, "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise MinitronError(f"task {path}{error_line(error, path)}: {error_text(error)}") from error
    return module


def error_line(error, path):
    """", line 7": the deepest line of the file at `path` that an exception passed; "" if none"""
    if isinstance(error, SyntaxError) and error.filename == path:
        return f", line {error.lineno}"
    step, line = error.__traceback__, ""
    while step is not None:
        if step.tb_frame.f_code.co_filename == path:
            line = f", line {step.tb_lineno}"
        step = step.tb_next
    return line


def error_text(error):
    """"NameError: name 'x' is not defined", in one line"""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(f"{type(error).__name__}: {message}".split()).rstrip(":")
