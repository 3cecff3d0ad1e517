"""The Python that runs minitron, and its packages.  Needs the standard library alone.

    python -m minitron.base.environment ensure         install missing packages; make calls this
    python -m minitron.base.environment create DIR PACKAGE...       make a virtual environment
    python -m minitron.base.environment which          name the Python in which train.py would run
    python -m minitron.base.environment missing        name the packages that this Python lacks

Nothing that is there is replaced: only missing packages are installed.  They go where pip may
install: into an active virtual environment, or into a Python that the system does not manage.
Where it may not (PEP 668: Debian, Ubuntu, Homebrew), where pip is missing, or where NumPy is too
old, they go to .venv, which train.py finds.
"""
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = PACKAGE / "source"        # pip installs train.py, run.c and tasks/ there (pyproject.toml)
ROOT = SHIPPED if SHIPPED.is_dir() else PACKAGE.parent          # the folder that has these
CORE = ("numpy", "cffi", "tqdm")
OLDEST_PYTHON, OLDEST_NUMPY = (3, 10), (1, 26)          # as in pyproject.toml


def missing_packages(names=CORE):
    """Those names that are not installed, or not whole, and numpy if it is too old"""
    return [name for name in names if importlib.util.find_spec(name) is None
            or name in CORE and package_version(name) is None
            or name == "numpy" and numpy_is_too_old()]


def package_version(name):
    """The version of a package, None where it has none: an install that was interrupted"""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def numpy_is_too_old():
    """Whether a NumPy is installed that minitron cannot use"""
    major, minor, *_ = (package_version("numpy") or "999.0").split(".")
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


# ---- the Python that runs --------------------------------------------------------------------


def ensure_packages():
    """Restart in .venv if this Python lacks a package, or exit and say what to do."""
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(f"minitron: Python {sys.version.split()[0]} is too old: use 3.10 or newer")
    if not missing_packages():
        return
    lack = f"minitron: {sys.executable} lacks {', '.join(missing_packages())}"
    python = python_of(ROOT / ".venv")
    if python.exists() and Path(sys.prefix) != ROOT / ".venv":
        print(f"{lack}; continuing with {python}", file=sys.stderr)
        os.execv(python, [str(python), *sys.orig_argv[1:]])
    sys.exit(f"{lack}: run make in {ROOT}")


def identity():
    """A text that is the same only for the same interpreter and environment"""
    return f"{sys.prefix} {sys.version}"


def answer_of(python, *arguments):
    """The standard output of a Python, started in the folder of minitron; "" if it fails"""
    try:
        done = subprocess.run([str(python), *arguments], cwd=ROOT, check=False, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def python_for_training(python):
    """The identity of the Python in which `PYTHON train.py` would run, "" if in none"""
    return answer_of(python, "-m", "minitron.base.environment", "which")


def command_for(python):
    """The shortest command by which train.py runs in a Python, quoted for a shell"""
    names = [name for name in ("python", "python3") if shutil.which(name)]
    for name in names:
        if shutil.which(name) == str(python):
            return name
    wanted = python_for_training(python)
    for name in names:
        if wanted and python_for_training(name) == wanted:
            return name
    return shown_path(python)


@cache
def python_command():
    """The shortest command that runs minitron in this Python, for commands that are printed"""
    return command_for(sys.executable)


def pip_command(*packages):
    """A command that installs packages for this Python, for remedies that are printed"""
    names = (name for name in ("python", "python3") if shutil.which(name) == sys.executable)
    python, wanted = next(names, shown_path(sys.executable)), shlex.join(packages)
    if pip_may_install():
        return f"{python} -m pip install {wanted}"
    if sys.prefix != sys.base_prefix:           # an environment without pip, as uv makes it
        return f"{python} -m ensurepip && {python} -m pip install {wanted}"
    new = shown_path(python_of(ROOT / ".venv"))
    return (f"{python} -m venv --system-site-packages {shown_path(ROOT / '.venv')} && "
            f"{new} -m pip install {wanted}, then use {new}")


def train_command():
    """The command that runs train.py from the current folder, for commands that are printed"""
    return f"{python_command()} {shown_path(ROOT / 'train.py')}"


def minitron_command():
    """The command `python -m minitron`, as it works from the current folder"""
    is_found = Path.cwd() == ROOT or package_version("minitron")
    prefix = "" if is_found else f"PYTHONPATH={shlex.quote(str(ROOT))} "
    return f"{prefix}{python_command()} -m minitron"


def run_command():
    """The command that runs the engine, ./run where it is in the current folder; "" without it"""
    program = ROOT / "run"
    if not program.exists():
        return ""
    return "./run" if Path.cwd() == ROOT else shown_path(program)


def shown_path(path):
    """A path as a user types it: relative to the current folder if it is inside, quoted"""
    path, here = Path(path), Path.cwd()
    inside = path.is_relative_to(here)
    return shlex.quote(str(path.relative_to(here) if inside else path))


# ---- packages --------------------------------------------------------------------------------


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
    """Install packages beside those that are there, which stay as they are."""
    options = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([str(python), "-m", "pip", "install", *options, *packages], check=True)


def python_with_packages():
    """The path of a Python that can import the core packages, which are installed if needed"""
    environment = ROOT / ".venv"
    python = python_of(environment)
    for candidate in (sys.executable, python):
        if is_complete(candidate):
            return str(candidate)
    if pip_may_install() and not numpy_is_too_old():
        return complete_environment(sys.executable, sys.prefix)
    if environment.exists():
        return complete_environment(python, environment)
    reason = "NumPy is too old in" if numpy_is_too_old() else "pip may not install into"
    print(f"making {environment} with {', '.join(CORE)}: {reason} {sys.prefix}", flush=True)
    create_environment(environment, CORE)
    return complete_environment(python, environment)


def is_complete(python):
    """Whether train.py would run in a Python, which really imports the core packages"""
    code = f"import sys, {', '.join(CORE)}, minitron.base.environment as e; " \
           "print(sys.version_info >= e.OLDEST_PYTHON, e.missing_packages())"
    return answer_of(python, "-c", code) == "True []"


def complete_environment(python, folder):
    """Install the packages that a Python lacks, or exit -> its path

    folder: its environment, for messages
    """
    lacking = answer_of(python, "-m", "minitron.base.environment", "missing").split()
    missing = [name for name in lacking if name != "pip"]
    try:
        if missing and "pip" in lacking:            # an environment that uv has made
            subprocess.run([str(python), "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
        if missing:
            print(f"installing {', '.join(missing)} into {folder}", flush=True)
            pip_install(python, missing)
    except subprocess.CalledProcessError:
        sys.exit(f"minitron: pip could not install {', '.join(missing)} (see above)")
    if not is_complete(python):
        own = Path(folder) == ROOT / ".venv"
        remedy = "delete it and run make again" if own else "make PYTHON=/path/to/python3"
        sys.exit(f"minitron: {folder} cannot be used (its Python is older than 3.10 or gone, its "
                 f"NumPy is older than 1.26, or a package does not import): {remedy}")
    return str(python)


def ensure():
    """Install missing packages, and print a command that trains, which has been verified."""
    python = python_with_packages()
    print(f"Python with {', '.join(CORE)}: {python}")
    print(f"next: {command_for(python)} train.py --dim 128")


def main(argv):
    if argv == ["ensure"]:
        ensure()
    elif argv == ["which"]:
        ensure_packages()
        print(identity())
    elif argv == ["missing"]:
        print(*missing_packages([*CORE, "pip"]))
    elif len(argv) > 2 and argv[0] == "create":
        create_environment(argv[1], argv[2:])
    else:
        sys.exit("usage: python -m minitron.base.environment "
                 "ensure | which | missing | create DIR PACKAGE...")


if __name__ == "__main__":
    main(sys.argv[1:])
