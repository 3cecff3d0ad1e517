"""The Python that runs minitron, and its packages.  Needs the standard library alone.

    python -m minitron.base.environment ensure         install missing packages; make calls this
    python -m minitron.base.environment create DIR PACKAGE...       make a virtual environment

Packages go where pip may install: into an active virtual environment, or into a Python that the
system does not manage.  Where it may not (PEP 668: Debian, Ubuntu, Homebrew), or where pip is
missing, they go to .venv, which train.py finds.
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
OLDEST_NUMPY = (1, 26)          # as in pyproject.toml


def missing_packages(names=CORE):
    """Those names that cannot be imported, and numpy if it is too old"""
    return [name for name in names
            if importlib.util.find_spec(name) is None or name == "numpy" and numpy_is_too_old()]


def numpy_is_too_old():
    major, minor, *_ = importlib.metadata.version("numpy").split(".")
    return (int(major), int(minor)) < OLDEST_NUMPY


def available_cpus():
    """The number of cores that this process may use: the least of its limits, at least 1"""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    limits = [cores or 1, *([int(slurm)] if slurm.isdecimal() else []), *cgroup_cpus()]
    return max(1, int(min(limits)))


def cgroup_cpus(groups="/proc/self/cgroup", mount="/sys/fs/cgroup"):
    """The CPU quotas of the control groups of this process (Linux: containers, batch systems)

    Version 2 has "200000 100000" or "max 100000" in cpu.max, version 1 the same two numbers, or -1,
    in two files.  A group is limited by those above it too.
    """
    for line in file_text(groups).splitlines():
        _, controllers, group = line.split(":", 2)
        folder = Path(mount, controllers, group.lstrip("/"))
        for path in (folder, *folder.parents):
            numbers = (file_text(path / "cpu.max") or file_text(path / "cpu.cfs_quota_us")
                       + file_text(path / "cpu.cfs_period_us")).split()
            if len(numbers) == 2 and all(map(str.isdecimal, numbers)):
                yield int(numbers[0]) / int(numbers[1])


def file_text(path):
    """A file's content, or "" if it cannot be read"""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def python_of(folder):
    """The path of the Python in a virtual environment"""
    return Path(folder) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ensure_packages():
    """Restart in .venv if this Python lacks a package, or exit and say what to do."""
    if not missing_packages():
        return
    lack = f"minitron: {sys.executable} lacks {', '.join(missing_packages())}"
    python = python_of(ROOT / ".venv")
    if python.exists() and Path(sys.prefix) != ROOT / ".venv":
        print(f"{lack}; continuing with {python}", file=sys.stderr)
        os.execv(python, [str(python), *sys.orig_argv[1:]])
    sys.exit(f"{lack}: run make, or\n"
             f"    {sys.executable} -m pip install {' '.join(CORE)}")


def pip_may_install():
    """Whether `python -m pip install` would change this Python

    That takes pip, and a virtual environment or a Python that the system does not manage.
    """
    in_environment = sys.prefix != sys.base_prefix
    marker = Path(sysconfig.get_path("stdlib", "posix_prefix")) / "EXTERNALLY-MANAGED"
    return not missing_packages(["pip"]) and (in_environment or not marker.exists())


def create_environment(folder, packages):
    """Make a virtual environment with these packages, or leave nothing, exit and say what to do."""
    if missing_packages(["ensurepip"]):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.exit("minitron: this Python cannot make virtual environments.  On Debian or Ubuntu:\n"
                 f"    sudo apt install python{version}-venv")
    if Path(folder).exists():
        sys.exit(f"minitron: {folder} exists: delete it first")
    complete = False
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip_install(python_of(folder), packages)
        complete = True
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"minitron: {folder} could not be made: {error}")
    finally:
        if not complete:            # also after Ctrl-C
            shutil.rmtree(folder, ignore_errors=True)


def pip_install(python, packages):
    options = ["--quiet", "--disable-pip-version-check", "--upgrade"]
    subprocess.run([str(python), "-m", "pip", "install", *options, *packages], check=True)


def python_with_packages():
    """The path of a Python that has the core packages, which are installed if they are missing"""
    missing = missing_packages()
    if not missing:
        return sys.executable
    if pip_may_install():
        install_here(missing)
        return sys.executable
    environment = ROOT / ".venv"
    python = python_of(environment)
    if not python.exists():
        print(f"making {environment} with {', '.join(CORE)}: pip may not install into {sys.prefix}",
              flush=True)
        create_environment(environment, CORE)
    return str(python)


def install_here(packages):
    """Install packages into this Python, or exit."""
    print(f"installing {', '.join(packages)} into {sys.prefix}", flush=True)
    try:
        pip_install(sys.executable, packages)
    except subprocess.CalledProcessError:
        sys.exit(f"minitron: pip could not install {', '.join(packages)} (see above)")


def main(argv):
    if argv == ["ensure"]:
        print(f"Python with {', '.join(CORE)}: {python_with_packages()}")
    elif len(argv) > 2 and argv[0] == "create":
        create_environment(argv[1], argv[2:])
    else:
        sys.exit("usage: python -m minitron.base.environment ensure | create DIR PACKAGE...")


if __name__ == "__main__":
    main(sys.argv[1:])
