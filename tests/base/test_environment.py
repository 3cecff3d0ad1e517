"""Getting from a fresh clone to a Python that can train and an engine that runs, on machines unlike this one.

What pip, venv and the system would do is played by functions here, so that no test needs the network or installs anything; the
Makefile is run for real, in copies of what it needs.
"""
import os
import re
import shutil
import subprocess
import sys

import pytest

from minitron.base import environment

ROOT = environment.ROOT
LIBRARY = "libminitron." + ("dylib" if sys.platform == "darwin" else "so")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def calls(monkeypatch):
    """Commands that environment starts; none is, but `-m venv FOLDER` makes a folder with a Python in it."""
    started = []

    def run(command, check):
        assert check, "a command that fails must not go unnoticed"
        started.append(command)
        if command[1:3] == ["-m", "venv"]:
            python = environment.python_of(command[3])
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()

    monkeypatch.setattr(subprocess, "run", run)
    return started


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Play a machine: which modules this Python lacks, and whether pip may install into it.  The repository is tmp_path."""
    monkeypatch.setattr(environment, "ROOT", tmp_path)

    def play(lacks, pip=True):
        lacks = set(lacks)
        monkeypatch.setattr(environment, "missing_packages", lambda modules=environment.CORE: [m for m in modules if m in lacks])
        monkeypatch.setattr(environment, "pip_may_install", lambda: pip)

    return play


def fail_at(monkeypatch, word, error):
    """Make the command that has a word in it end with an error, after it has done its work."""
    play = subprocess.run

    def run(command, check):
        play(command, check)
        if word in command:
            raise error

    monkeypatch.setattr(subprocess, "run", run)


PIP_FAILED = subprocess.CalledProcessError(1, "pip")


def test_core_is_what_pyproject_depends_on():
    [line] = re.findall(r"^dependencies = (.*)$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert re.findall(r'"(\w+)', line) == list(environment.CORE)


def test_missing_names_what_cannot_be_imported():
    assert environment.missing_packages(["os", "no_such_module", "re"]) == ["no_such_module"]
    assert environment.missing_packages() == []


def test_ensure_does_nothing_where_all_is_there(machine, calls):
    machine(lacks=[])
    assert environment.python_with_packages() == sys.executable and calls == []


def test_ensure_installs_what_is_missing_where_pip_may(machine, calls, tmp_path):
    machine(lacks=["cffi", "tqdm"])
    assert environment.python_with_packages() == sys.executable
    [command] = calls
    assert command[:4] == [sys.executable, "-m", "pip", "install"] and command[-2:] == ["cffi", "tqdm"]
    assert list(tmp_path.iterdir()) == []


def test_ensure_makes_an_environment_where_the_system_manages_python(machine, calls, tmp_path):
    machine(lacks=["numpy"], pip=False)
    python = tmp_path / ".venv/bin/python"
    assert environment.python_with_packages() == str(python) and python.exists()
    make, install = calls
    assert make == [sys.executable, "-m", "venv", str(tmp_path / ".venv")]
    assert install[:4] == [str(python), "-m", "pip", "install"] and install[-3:] == list(environment.CORE)
    assert environment.python_with_packages() == str(python) and len(calls) == 2, "the second time it is there"


def test_without_ensurepip_the_remedy_is_the_exact_command(machine, calls, tmp_path):
    machine(lacks=["numpy", "ensurepip"], pip=False)
    with pytest.raises(SystemExit) as left:
        environment.python_with_packages()
    assert left.value.code.splitlines()[-1].strip() == f"sudo apt install python{VERSION}-venv"
    assert calls == [] and list(tmp_path.iterdir()) == []


def test_pip_that_fails_is_said_so(machine, calls, monkeypatch):
    machine(lacks=["numpy"])
    fail_at(monkeypatch, "install", PIP_FAILED)
    with pytest.raises(SystemExit, match="minitron: pip could not install numpy"):
        environment.python_with_packages()


@pytest.mark.parametrize("word, error", [
    ("venv", subprocess.CalledProcessError(1, "venv")),
    ("venv", OSError("no room")),
    ("install", PIP_FAILED),
    ("install", KeyboardInterrupt()),           # Ctrl-C while pip downloads
])
def test_no_half_made_environment_is_left(machine, calls, monkeypatch, tmp_path, word, error):
    """One without NumPy would be taken for a whole one by the next call."""
    machine(lacks=["numpy"], pip=False)
    fail_at(monkeypatch, word, error)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        environment.python_with_packages()
    assert list(tmp_path.iterdir()) == []


def test_create_harms_no_folder_that_was_there(machine, calls, monkeypatch, tmp_path):
    machine(lacks=[])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    fail_at(monkeypatch, "install", PIP_FAILED)
    with pytest.raises(SystemExit):
        environment.create_environment(tmp_path / "mine", ["numpy"])
    assert (tmp_path / "mine/thesis.txt").exists()


@pytest.mark.parametrize("own, managed, pip, may", [
    (True, True, True, True),           # a virtual environment, made from a managed Python
    (False, False, True, True),         # a Python that someone built
    (False, True, True, False),         # PEP 668
    (False, False, False, False),       # no pip
    (True, False, False, False),
])
def test_pip_may_install(monkeypatch, tmp_path, own, managed, pip, may):
    monkeypatch.setattr(sys, "prefix", "/own" if own else "/system")
    monkeypatch.setattr(sys, "base_prefix", "/system")
    monkeypatch.setattr("sysconfig.get_path", lambda name, scheme: str(tmp_path))
    monkeypatch.setattr(environment, "missing_packages", lambda modules: [] if pip else modules)
    if managed:
        (tmp_path / "EXTERNALLY-MANAGED").touch()
    assert environment.pip_may_install() == may


def test_use_goes_on_where_all_is_there(machine, monkeypatch):
    machine(lacks=[])
    monkeypatch.setattr(os, "execv", lambda *command: pytest.fail("nothing to go on in"))
    environment.ensure_packages()


def test_use_goes_on_in_the_environment(machine, monkeypatch, tmp_path, capsys):
    machine(lacks=["numpy"])
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()

    class Replaced(Exception):
        pass

    def execv(program, arguments):
        raise Replaced(program, arguments)

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-X", "dev", "train.py", "--dim", "8"])
    with pytest.raises(Replaced) as replaced:
        environment.ensure_packages()
    program, arguments = replaced.value.args
    assert str(program) == str(python) and arguments == [str(python), "-X", "dev", "train.py", "--dim", "8"]
    [line] = capsys.readouterr().err.splitlines()
    assert "lacks numpy" in line and str(python) in line


@pytest.mark.parametrize("inside", [False, True])
def test_use_says_what_to_do_where_there_is_nothing_to_go_on_in(machine, monkeypatch, tmp_path, inside):
    """Also inside an environment that lacks the packages itself, where going on in it would never end."""
    machine(lacks=["numpy"])
    if inside:
        monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
        (tmp_path / ".venv/bin").mkdir(parents=True)
        (tmp_path / ".venv/bin/python").touch()
    with pytest.raises(SystemExit) as left:
        environment.ensure_packages()
    assert "lacks numpy" in left.value.code and "run make" in left.value.code
    assert f"{sys.executable} -m pip install numpy cffi tqdm" in left.value.code


@pytest.mark.parametrize("arguments", [["train.py", "--dim", "8"], ["-m", "minitron", "tasks"]])
def test_python_without_numpy_goes_on_in_the_environment_for_real(tmp_path, arguments):
    """-S hides what is installed.  The environment's Python is played by a script that says what it is asked to do."""
    for name in ("minitron", "tasks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", tmp_path)
    without = subprocess.run([sys.executable, "-S", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert without.returncode == 1 and without.stdout == ""
    assert "lacks numpy, cffi, tqdm: run make, or" in without.stderr and "Traceback" not in without.stderr

    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "went on with $@"\n')
    python.chmod(0o755)
    went_on = subprocess.run([sys.executable, "-S", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert went_on.returncode == 0 and went_on.stdout == f"went on with -S {' '.join(arguments)}\n"


@pytest.mark.parametrize("arguments", [[], ["create"], ["create", "folder"], ["nosuch"]])
def test_wrong_command_shows_the_right_ones(arguments):
    with pytest.raises(SystemExit, match="^usage: .* ensure | create DIR"):
        environment.main(arguments)


# The Makefile

@pytest.fixture
def clone(tmp_path):
    """What the Makefile needs of a fresh clone, and a function that calls make in it -> status, output."""
    for name in ("Makefile", "run.c", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "minitron/base").mkdir(parents=True)
    for name in ("__init__.py", "base/__init__.py", "base/environment.py"):
        shutil.copy(ROOT / "minitron" / name, tmp_path / "minitron" / name)
    variables = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "CC", "CFLAGS")}

    def make(*arguments):
        done = subprocess.run(["make", *arguments, f"PYTHON={sys.executable}"], cwd=tmp_path, env=variables, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout

    make.folder = tmp_path
    return make


def test_make_without_a_compiler_says_so_and_goes_on(clone):
    status, output = clone("CC=no-such-compiler")
    notice, python, next_step = output.splitlines()
    assert status == 0
    assert notice.startswith("no C compiler (no-such-compiler): training works, ./run does not") and "sudo apt install" in notice
    assert python.endswith(f": {sys.executable}") and next_step.endswith("train.py --dim 128")
    assert not (clone.folder / "run").exists() and not (clone.folder / "build").exists()


def test_make_can_be_shown_without_a_compiler(clone):
    status, output = clone("-n", "CC=no-such-compiler")
    assert status == 0 and "minitron.base.environment ensure" in output
    assert not (clone.folder / "build").exists()


@pytest.mark.parametrize("goal", ["clean", "help"])
def test_goals_that_compile_nothing_probe_nothing(clone, goal):
    status, _ = clone(goal, "CC=no-such-compiler")
    assert status == 0 and not (clone.folder / "build").exists()


@pytest.mark.parametrize("compiler", [cc for cc in ("gcc", "clang") if shutil.which(cc)])
def test_engine_builds_with_flags_that_were_found_out(clone, compiler):
    flags = "CFLAGS=-std=c11 -O0"           # -O0 compiles ten times faster; what is probed stays
    status, output = clone("engine", f"CC={compiler}", flags)
    assert status == 0, output
    probed = (clone.folder / f"build/flags-{compiler}.mk").read_text()
    assert re.fullmatch(r"NATIVE = (-m(arch|cpu)=native)?\nOPENMP = (-Xpreprocessor )?(-fopenmp)?( -lomp)?\n", probed)
    assert sorted(path.name for path in (clone.folder / "build").iterdir()) == [f"flags-{compiler}.mk", LIBRARY]
    shown = subprocess.run([clone.folder / "run"], capture_output=True, text=True)
    assert shown.returncode == 1 and "./run -h" in shown.stderr
    status, output = clone("engine", f"CC={compiler}", flags)
    assert status == 0 and compiler not in output, "what is up to date is not built again"


@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("clang")), reason="no C compiler")
def test_lint_works_in_a_fresh_clone(clone):
    """It is the first thing that a check of a change calls, before anything is built."""
    python = clone.folder / ".venv-test/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 0\n")        # ruff has nothing to say
    python.chmod(0o755)
    (clone.folder / ".venv-test/ready").touch()
    status, output = clone("lint", "CFLAGS=-std=c11 -O0")
    assert status == 0, output


def test_makefile_needs_no_more_than_make_3_81():
    text = (ROOT / "Makefile").read_text()
    for newer in (r"!=", r"\.ONESHELL", r"\$\(file", r"&:", r"::=", r"\$\(guile", r"^undefine", r"^private"):
        assert not re.search(newer, text, re.MULTILINE), newer
