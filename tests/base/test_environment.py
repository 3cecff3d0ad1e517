"""From a fresh clone to a Python that can train and an engine that runs, on machines unlike this.

Functions here play pip, venv and the system, so that no test needs the network or installs
anything; the Makefile is run for real, in copies of its files.
"""
import importlib.metadata
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
    """The commands that environment would start; `-m venv FOLDER` makes a folder with a Python."""
    started = []

    def run(command, check, stdout=None):
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
    """Play a machine: the modules that this Python lacks, and whether pip may install into it.

    The repository is tmp_path.
    """
    monkeypatch.setattr(environment, "ROOT", tmp_path)

    def play(lacks, pip=True, old_numpy=False, venv=()):
        """venv: packages that .venv lacks before pip has been called in it"""
        lacking = {sys.executable: set(lacks), str(environment.python_of(tmp_path / ".venv")): venv}

        def missing_packages(names=environment.CORE):
            return [name for name in names if name in lacks]

        def pip_install(python, packages):
            original(python, packages)
            lacking[str(python)] = set(lacking[str(python)]) - {*packages, "pip"}

        def missing_in(python, *arguments):
            return " ".join(sorted(lacking[str(python)]))

        def is_complete(python):
            return os.path.exists(python) and not lacking[str(python)]

        original = environment.pip_install
        monkeypatch.setattr(environment, "missing_packages", missing_packages)
        monkeypatch.setattr(environment, "numpy_is_too_old", lambda: old_numpy)
        monkeypatch.setattr(environment, "pip_may_install", lambda: pip)
        monkeypatch.setattr(environment, "pip_install", pip_install)
        monkeypatch.setattr(environment, "answer_of", missing_in)
        monkeypatch.setattr(environment, "is_complete", is_complete)

    return play


def fail_at(monkeypatch, word, error):
    """Make the command that has a word in it end with an error, after it has done its work."""
    play = subprocess.run

    def run(command, check, stdout=None):
        play(command, check)
        if word in command:
            raise error

    monkeypatch.setattr(subprocess, "run", run)


PIP_FAILED = subprocess.CalledProcessError(1, "pip")


def test_core_is_what_pyproject_depends_on():
    text = (ROOT / "pyproject.toml").read_text()
    [line] = re.findall(r"^dependencies = (.*)$", text, re.MULTILINE)
    assert re.findall(r'"(\w+)', line) == list(environment.CORE)
    assert f'"numpy>={".".join(map(str, environment.OLDEST_NUMPY))}"' in line


@pytest.mark.parametrize("version, old", [
    ("1.25.2", True), ("1.26.0", False), ("1.26.4rc1", False), ("2.0.0", False), ("0.99.1", True),
])
def test_numpy_that_is_too_old_is_missing(monkeypatch, version, old):
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    assert environment.missing_packages() == ["numpy"] * old


def test_missing_packages_are_those_that_cannot_be_imported():
    assert environment.missing_packages(["os", "no_such_module", "re"]) == ["no_such_module"]
    assert environment.missing_packages() == []


def test_a_package_without_a_version_is_missing(monkeypatch):
    """pip writes it last: its install was interrupted."""
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    assert environment.missing_packages() == list(environment.CORE)
    assert not environment.numpy_is_too_old()


def test_nothing_is_installed_if_nothing_is_missing(machine, calls):
    machine(lacks=[])
    assert environment.python_with_packages() == sys.executable and calls == []


def test_missing_packages_are_installed_where_pip_may(machine, calls, tmp_path):
    machine(lacks=["cffi", "tqdm"])
    assert environment.python_with_packages() == sys.executable
    [command] = calls
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[-2:] == ["cffi", "tqdm"]
    assert "--upgrade" not in command, "what is there stays as it is"
    assert list(tmp_path.iterdir()) == []


def test_a_numpy_that_is_too_old_stays(machine, calls, tmp_path):
    """Other packages of that Python may need it: minitron takes .venv."""
    machine(lacks=["numpy"], old_numpy=True)
    python = tmp_path / ".venv/bin/python"
    assert environment.python_with_packages() == str(python)
    assert all(command[:1] != [sys.executable] or command[2] == "venv" for command in calls)


@pytest.mark.parametrize("lacks, commands", [
    ([], []),
    (["cffi", "numpy", "tqdm"], ["pip"]),                   # python3 -m venv .venv && make
    (["cffi", "numpy", "pip", "tqdm"], ["ensurepip", "pip"]),           # uv venv && make
    (["numpy"], ["pip"]),                                   # an install that was interrupted
])
def test_an_environment_that_is_there_is_completed(machine, calls, tmp_path, lacks, commands):
    machine(lacks=["numpy"], pip=False, venv=lacks)
    python = environment.python_of(tmp_path / ".venv")
    python.parent.mkdir(parents=True)
    python.touch()
    assert environment.python_with_packages() == str(python)
    assert [command[:3] for command in calls] == [[str(python), "-m", name] for name in commands]
    if commands:
        assert calls[-1][-1] == ("numpy" if lacks == ["numpy"] else "tqdm")


def test_an_environment_that_cannot_be_used_is_said_so(machine, calls, tmp_path):
    """Its Python is gone, which a new version of the system does."""
    machine(lacks=["numpy"], pip=False)
    (tmp_path / ".venv").mkdir()
    with pytest.raises(SystemExit, match=r"\.venv cannot be used .*: delete it and run make again"):
        environment.python_with_packages()


def test_only_a_python_that_imports_the_packages_is_complete(tmp_path, monkeypatch):
    assert environment.is_complete(sys.executable)
    assert not environment.is_complete(tmp_path / "nosuch")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "cffi.py").write_text("raise ImportError('libffi is gone')")
    assert not environment.is_complete(sys.executable)


def test_an_environment_is_made_where_the_system_manages_python(machine, calls, tmp_path):
    machine(lacks=["numpy"], pip=False)
    python = tmp_path / ".venv/bin/python"
    assert environment.python_with_packages() == str(python) and python.exists()
    make, install = calls
    assert make == [sys.executable, "-m", "venv", str(tmp_path / ".venv")]
    assert install[:4] == [str(python), "-m", "pip", "install"]
    assert install[-3:] == list(environment.CORE)
    assert environment.python_with_packages() == str(python)
    assert len(calls) == 2, "the second time it exists"


def test_without_ensurepip_the_remedy_is_the_exact_command(machine, calls, tmp_path):
    machine(lacks=["numpy", "ensurepip"], pip=False)
    with pytest.raises(SystemExit) as left:
        environment.python_with_packages()
    assert left.value.code.splitlines()[-1].strip() == f"sudo apt install python{VERSION}-venv"
    assert calls == [] and list(tmp_path.iterdir()) == []


def test_pip_that_fails_ends_in_one_line(machine, calls, monkeypatch):
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


def test_an_existing_folder_is_not_harmed(machine, calls, monkeypatch, tmp_path):
    machine(lacks=[])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    fail_at(monkeypatch, "install", PIP_FAILED)
    with pytest.raises(SystemExit):
        environment.create_environment(tmp_path / "mine", ["numpy"])
    assert (tmp_path / "mine/thesis.txt").exists()


@pytest.mark.parametrize("own, managed, pip, may", [
    (True, True, True, True),           # a virtual environment, made from a managed Python
    (False, False, True, True),         # a Python built by hand
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


def test_ensure_packages_does_nothing_if_none_is_missing(machine, monkeypatch):
    machine(lacks=[])
    monkeypatch.setattr(os, "execv", lambda *command: pytest.fail("restarted"))
    environment.ensure_packages()


def test_ensure_packages_restarts_in_the_environment(machine, monkeypatch, tmp_path, capsys):
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
    assert str(program) == str(python)
    assert arguments == [str(python), "-X", "dev", "train.py", "--dim", "8"]
    [line] = capsys.readouterr().err.splitlines()
    assert "lacks numpy" in line and str(python) in line


@pytest.mark.parametrize("inside", [False, True])
def test_without_an_environment_the_remedy_is_named(machine, monkeypatch, tmp_path, inside):
    """Also inside an environment that lacks packages itself: restarting in it would never end."""
    machine(lacks=["numpy"])
    if inside:
        monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
        (tmp_path / ".venv/bin").mkdir(parents=True)
        (tmp_path / ".venv/bin/python").touch()
    with pytest.raises(SystemExit) as left:
        environment.ensure_packages()
    assert "lacks numpy" in left.value.code and "run make" in left.value.code


@pytest.mark.parametrize("arguments", [["train.py", "--dim", "8"], ["-m", "minitron", "tasks"]])
def test_python_without_numpy_restarts_in_the_environment_for_real(tmp_path, arguments):
    """-S hides installed packages.  A script that prints its arguments plays the new Python."""
    def run():
        return subprocess.run([sys.executable, "-S", *arguments], cwd=tmp_path,
                              capture_output=True, text=True)
    for name in ("minitron", "tasks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", tmp_path)
    before = run()
    assert before.returncode == 1 and before.stdout == ""
    assert "lacks numpy, cffi, tqdm: run make in" in before.stderr
    assert "Traceback" not in before.stderr

    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "restarted with $@"\n')
    python.chmod(0o755)
    after = run()
    assert after.returncode == 0
    assert after.stdout == f"restarted with -S {' '.join(arguments)}\n"


@pytest.mark.parametrize("arguments", [[], ["create"], ["create", "folder"], ["nosuch"]])
def test_wrong_command_prints_the_usage(arguments):
    with pytest.raises(SystemExit, match=r"^usage: .* ensure \| which \| .*create DIR"):
        environment.main(arguments)


# ---- commands that are printed ---------------------------------------------------------------


@pytest.fixture
def path_with(tmp_path, monkeypatch):
    """path_with(names): PATH has only these commands, which are this Python."""
    def path_with(*names, python=sys.executable):
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        (tmp_path / "bin").mkdir(exist_ok=True)
        for name in names:
            (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec {python} "$@"\n')
            (tmp_path / "bin" / name).chmod(0o755)
    return path_with


@pytest.mark.parametrize("names, command", [
    (["python", "python3"], "python"), (["python3"], "python3"), ([], None)])
def test_a_printed_command_exists_and_is_this_python(path_with, names, command):
    path_with(*names)
    expected = command or environment.shown_path(sys.executable)
    assert environment.command_for(sys.executable) == expected


def test_a_python_without_the_packages_is_not_printed(path_with):
    path_with("python3", python=f"{sys.executable} -S")
    assert environment.command_for(sys.executable) == environment.shown_path(sys.executable)


def test_a_remedy_installs_where_this_python_looks(path_with, monkeypatch, tmp_path):
    path_with("python")             # another Python's, as far as pip is concerned
    monkeypatch.setattr(environment, "pip_may_install", lambda: True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my venv/bin/python"))
    monkeypatch.chdir(ROOT)
    assert environment.pip_command("scipy") == f"'{sys.executable}' -m pip install scipy"
    monkeypatch.chdir(tmp_path)
    assert environment.pip_command("a[b]") == "'my venv/bin/python' -m pip install 'a[b]'"
    monkeypatch.setattr(environment, "pip_may_install", lambda: False)
    assert "-m ensurepip && " in environment.pip_command("scipy")           # made by uv
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    assert " -m venv --system-site-packages " in environment.pip_command("scipy")     # Debian


def test_commands_work_from_other_folders(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "ROOT", tmp_path / "mini")
    monkeypatch.setattr(environment, "python_command", lambda: "python3")
    monkeypatch.setattr(environment, "package_version", lambda name: None)
    (tmp_path / "mini").mkdir()
    monkeypatch.chdir(tmp_path / "mini")
    assert environment.run_command() == "", "without a compiler there is none"
    (tmp_path / "mini/run").touch()
    assert environment.run_command() == "./run"
    assert environment.train_command() == "python3 train.py"
    assert environment.minitron_command() == "python3 -m minitron"
    monkeypatch.chdir(tmp_path)
    assert environment.run_command() == "mini/run"
    assert environment.train_command() == "python3 mini/train.py"
    assert environment.minitron_command() == f"PYTHONPATH={tmp_path}/mini python3 -m minitron"


# ---- the Makefile ----------------------------------------------------------------------------

@pytest.fixture
def clone(tmp_path):
    """The Makefile's files of a fresh clone, and a function that calls make in it

    make(*arguments) -> status, output
    """
    for name in ("Makefile", "run.c", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "minitron/base").mkdir(parents=True)
    for name in ("__init__.py", "base/__init__.py", "base/environment.py"):
        shutil.copy(ROOT / "minitron" / name, tmp_path / "minitron" / name)
    variables = {name: value for name, value in os.environ.items()
                 if name not in ("MAKEFLAGS", "MAKELEVEL", "CC", "CFLAGS")}

    def make(*arguments):
        process = subprocess.run(
            ["make", f"PYTHON={sys.executable}", *arguments], cwd=tmp_path, env=variables,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return process.returncode, process.stdout

    make.folder = tmp_path
    return make


def test_make_without_a_compiler_says_so_and_continues(clone):
    status, output = clone("CC=no-such-compiler")
    notice, python, next_step = output.splitlines()
    assert status == 0
    assert notice.startswith("no C compiler (no-such-compiler): training works, ./run does not")
    assert "sudo apt install" in notice
    assert python.endswith(f": {sys.executable}")
    [command] = re.findall("^next: (.*) train.py --dim 128$", next_step)
    assert environment.python_for_training(command.strip("'")) == environment.identity()
    assert not (clone.folder / "run").exists() and not (clone.folder / "build").exists()


def test_make_takes_a_python_whose_path_has_a_space(clone, tmp_path):
    folder = tmp_path / "my python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages",
                    folder], check=True)
    [packages] = folder.glob("lib/*/site-packages")
    (packages / "of_the_tests.pth").write_text("\n".join(map(str, sys.path[1:])))
    python = environment.python_of(folder)
    status, output = clone("CC=no-such-compiler", f"PYTHON={python}")
    assert status == 0, output
    assert output.splitlines()[-1] == "next: 'my python/bin/python' train.py --dim 128"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_make_in_a_folder_that_is_read_only_is_one_line(clone):
    clone.folder.chmod(0o555)
    for goal in ("all", "lib"):
        status, output = clone(goal)
        assert status == 2 and output.count("\n") == 1
        assert f"{clone.folder} cannot be written: copy minitron" in output


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
    flags = "CFLAGS=-std=c11 -O0"           # -O0 compiles ten times faster, with the same probes
    status, output = clone("engine", f"CC={compiler}", flags)
    assert status == 0, output
    probed = (clone.folder / f"build/flags-{compiler}.mk").read_text()
    native, openmp = probed.splitlines()
    assert re.fullmatch(r"NATIVE = (-m(arch|cpu)=native)?", native)
    assert re.fullmatch(r"OPENMP = (-Xpreprocessor )?(-fopenmp)?( -lomp)?", openmp)
    assert probed.endswith("\n")
    files = sorted(path.name for path in (clone.folder / "build").iterdir())
    assert files == [f"flags-{compiler}.mk", LIBRARY]
    engine = subprocess.run([clone.folder / "run"], capture_output=True, text=True)
    assert engine.returncode == 1 and "./run -h" in engine.stderr
    status, output = clone("engine", f"CC={compiler}", flags)
    assert status == 0 and compiler not in output, "files that are up to date are not built again"


@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("clang")), reason="no C compiler")
def test_lint_works_in_a_fresh_clone(clone):
    """A check of a change calls it first, before anything is built."""
    python = clone.folder / ".venv-test/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 0\n")        # ruff has nothing to say
    python.chmod(0o755)
    (clone.folder / ".venv-test/ready").touch()
    status, output = clone("lint", "CFLAGS=-std=c11 -O0")
    assert status == 0, output


def test_makefile_needs_no_more_than_make_3_81():
    text = (ROOT / "Makefile").read_text()
    for newer in (r"!=", r"\.ONESHELL", r"\$\(file", r"&:", r"::=", r"\$\(guile", r"^undefine",
                  r"^private"):
        assert not re.search(newer, text, re.MULTILINE), newer


# ---- cores -------------------------------------------------------------------------------------


@pytest.mark.parametrize("line, files, cpus", [
    ("0::/job/step", {"job/step/cpu.max": "max 100000", "job/cpu.max": "150000 100000"}, [1.5]),
    ("0::/", {"cpu.max": "400000 200000"}, [2]),
    ("0::/", {"cpu.max": "max 100000"}, []),
    ("3:cpu,cpuacct:/docker/a", {"cpu,cpuacct/cpu.cfs_quota_us": "300000",
                                 "cpu,cpuacct/cpu.cfs_period_us": "100000"}, [3]),
    ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
    ("", {}, []),
])
def test_quotas_of_control_groups(tmp_path, line, files, cpus):
    """Of versions 2 and 1; a container may not see the group that it is said to be in."""
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    (tmp_path / "groups").write_text(line + "\n" if line else "")
    assert list(environment.cgroup_cpus(tmp_path / "groups", tmp_path)) == cpus


@pytest.mark.parametrize("cores, slurm, quotas, cpus", [
    (8, None, [], 8), (8, "2", [], 2), (8, "", [], 8), (8, "x", [], 8), (2, "16", [], 2),
    (8, "4", [3.9, 6], 3), (8, None, [0.5], 1),
])
def test_cores_are_the_least_of_all_limits(monkeypatch, cores, slurm, quotas, cpus):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    if slurm is not None:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", slurm)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(cores), raising=False)
    monkeypatch.setattr(environment, "cgroup_cpus", lambda: quotas)
    assert environment.available_cpus() == cpus
