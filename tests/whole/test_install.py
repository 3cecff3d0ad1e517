"""`pip install .` gives a whole minitron under one name: program, tasks, run.c and the engine."""
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from minitron.base.environment import ROOT, package_version

TINY = "--dim 8 --layers 1 --length 1 --batch 16 --steps 5 --test-items 50".split()


def succeeds(command, folder, **variables):
    """Run a command in a folder -> its output and errors"""
    done = subprocess.run(list(map(str, command)), cwd=folder, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=os.environ | variables, timeout=120)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the content of the wheel, as pip would install it"""
    # not imported: it would replace the distutils that cffi may have imported here
    major, minor, *_ = (package_version("setuptools") or "0.0").split(".")
    if (int(major), int(minor)) < (70, 1) or package_version("pip") is None:
        pytest.skip("setuptools 70.1 and pip are not installed")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source of it"
    source.mkdir()
    for name in ("minitron", "tasks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "run.c", "Makefile", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    # without optimization, the engine compiles in a tenth of the time
    makefile = (source / "Makefile").read_text()
    assert " -O3 " in makefile
    (source / "Makefile").write_text(makefile.replace(" -O3 ", " -O0 "))
    succeeds([sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps",
              "--no-index", "-w", folder, "."], source)
    [wheel] = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_minitron_is_the_only_name(site):
    [info] = site.glob("minitron-*.dist-info")
    assert {path.name for path in site.iterdir()} == {"minitron", info.name}
    assert "minitron = minitron.__main__:program" in (info / "entry_points.txt").read_text()


def test_every_file_is_there(site):
    for folder, installed in ((ROOT / "minitron", site / "minitron"),
                              (ROOT / "tasks", site / "minitron/source/tasks")):
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")
                 if path.suffix in (".py", ".html")}
        assert names and not [name for name in names if not (installed / name).is_file()]


def test_installed_program_trains_and_builds_its_engine_once(site, tmp_path):
    """... in another folder than the clone, where nothing but the package is."""
    program = [sys.executable, "-c", "from minitron.__main__ import program; program()"]
    where = {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    outputs = [succeeds([*program, "train", *TINY, "--out", f"{i}.bin"], tmp_path, **where)
               for i in range(2)]
    has_engine = shutil.which("make") and shutil.which("cc")
    assert outputs[0].count("minitron: building the engine, this once, in ") == 1
    assert outputs[1].count("building") == (0 if has_engine else 1)
    for output in outputs:
        assert f"measured by {'run.c' if has_engine else 'NumPy'}" in " ".join(output.split())
    assert "0.bin: " in succeeds([*program, "eval", "0.bin"], tmp_path, **where) or has_engine


def test_sources_have_the_same_digest_where_they_are_installed(site):
    """A cluster may have workers of both kinds."""
    code = "from minitron.training import cells; print(cells.software()['source'])"
    clone, installed = ([succeeds([sys.executable, "-c", code], "/", PYTHONPATH=str(folder))
                         for folder in (ROOT, site)])
    assert clone == installed
