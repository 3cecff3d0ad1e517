"""Where the engine's library is: an installed minitron builds it at its first use, in a cache."""
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..base.environment import ROOT, SHIPPED
from ..base.errors import MinitronError


class EngineMissing(MinitronError):
    """The library is not there: no C compiler was at hand, or make has not run yet."""


def library_path():
    """The path of the library.  Raises EngineMissing."""
    folder = cached_build() if ROOT == SHIPPED else ROOT / "build"
    for suffix in (".so", ".dylib"):
        path = folder / f"libminitron{suffix}"
        if path.exists():
            return path
    raise EngineMissing("the C engine is not built: install a C compiler and run make")


def cached_build():
    """The folder in the user's cache with the library of this run.c, which is built if needed

    A library is for the processor that it was compiled on, so each machine has its own.  Raises
    EngineMissing.
    """
    sources = [ROOT / "run.c", ROOT / "Makefile"]
    digest = hashlib.sha256(platform.node().encode())
    for path in sources:
        digest.update(path.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minitron"
    folder = cache / digest.hexdigest()[:12]
    if not folder.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            build(sources, cache, folder)
        except (OSError, subprocess.CalledProcessError) as error:
            raise EngineMissing(f"the C engine is not built ({error}): install a C compiler "
                                "and make") from None
    return folder / "build"


def build(sources, cache, folder):
    """Copy the sources, make the library, and give it its name, unless another process was first.

    Raises OSError, CalledProcessError.
    """
    print(f"minitron: building the engine, this once, in {folder}", file=sys.stderr)
    new = tempfile.mkdtemp(dir=cache)
    variables = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    try:
        for path in sources:
            shutil.copy(path, new)
        subprocess.run(["make", "-C", new, "lib"], env=variables, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not folder.exists():
            os.rename(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
