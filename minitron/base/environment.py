"""Which Python runs minitron, and making sure that it has NumPy, cffi and tqdm.  Needs nothing but the standard library.

    python -m minitron.base.environment ensure         install what is missing, or say what to do; make calls this
    python -m minitron.base.environment create DIR     a virtual environment with everything the tests need

Where pip may install (an active virtual environment, or a Python that the system does not manage) packages go there.  Where it
may not (PEP 668: Debian, Ubuntu, Homebrew), or where pip is missing, they go to .venv, and train.py finds them there by itself.
"""
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ("numpy", "cffi", "tqdm")
NUMPY = (1, 26)         # the oldest version that will do, as in pyproject.toml


def missing(modules=CORE):
    """Those of the modules that are not there, NumPy also if it is too old."""
    return [name for name in modules if importlib.util.find_spec(name) is None or name == "numpy" and too_old(name)]


def too_old(name):
    return tuple(int(part) for part in importlib.metadata.version(name).split(".")[:2]) < NUMPY


def available_cpus():
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def python_of(folder):
    return Path(folder) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def use():
    """Go on in .venv where this Python lacks a package and .venv has been made; else say what to do."""
    if not missing():
        return
    python = python_of(ROOT / ".venv")
    if python.exists() and Path(sys.prefix) != ROOT / ".venv":
        print(f"minitron: {sys.executable} lacks {', '.join(missing())}; going on with {python}", file=sys.stderr)
        os.execv(python, [str(python), *sys.orig_argv[1:]])
    sys.exit(f"minitron: {sys.executable} lacks {', '.join(missing())}: run make, or\n"
             f"    {sys.executable} -m pip install {' '.join(CORE)}")


def pip_may_install():
    """Whether `python -m pip install` would go into this Python: it has pip, and is the user's or no system manages it."""
    in_environment = sys.prefix != sys.base_prefix
    managed = (Path(sysconfig.get_path("stdlib", "posix_prefix")) / "EXTERNALLY-MANAGED").exists()
    return not missing(["pip"]) and (in_environment or not managed)


def create(folder, packages):
    """Make a virtual environment with these packages.  Nothing half-made is left behind.  Exits with the remedy."""
    if missing(["ensurepip"]):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.exit(f"minitron: this Python cannot make virtual environments.  On Debian or Ubuntu:\n"
                 f"    sudo apt install python{version}-venv")
    if Path(folder).exists():
        sys.exit(f"minitron: {folder} is there already: delete it first")
    made = False
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install(python_of(folder), packages)
        made = True
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"minitron: {folder} could not be made: {error}")
    finally:
        if not made:
            shutil.rmtree(folder, ignore_errors=True)


def install(python, packages):
    options = ["--quiet", "--disable-pip-version-check", "--upgrade"]
    subprocess.run([str(python), "-m", "pip", "install", *options, *packages], check=True)


def ensure():
    """Make the core packages importable, and say with which command to go on."""
    environment = ROOT / ".venv"
    python = python_of(environment)
    if not missing():
        return sys.executable
    if pip_may_install():
        print(f"installing {', '.join(missing())} into {sys.prefix}", flush=True)
        try:
            install(sys.executable, missing())
        except subprocess.CalledProcessError:
            sys.exit(f"minitron: pip could not install {', '.join(missing())}; its reason stands above")
        return sys.executable
    if not python.exists():
        print(f"making {environment} with {', '.join(CORE)}: pip may not install into {sys.prefix}", flush=True)
        create(environment, CORE)
    return str(python)


def main(argv):
    if argv == ["ensure"]:
        print(f"Python with {', '.join(CORE)}: {ensure()}")
    elif len(argv) > 2 and argv[0] == "create":
        create(argv[1], argv[2:])
    else:
        sys.exit("usage: python -m minitron.base.environment ensure | create DIR PACKAGE...")


if __name__ == "__main__":
    main(sys.argv[1:])
