"""The README is true: its commands run, in order, in a copy of the repository, then those of docs/.

Training commands get --steps 20 here, and sweeps that would train use smaller dials: the test is
that they run, not how far they get.  Outputs that do not depend on a trained model are compared
with the printed ones.
"""
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = next(up for up in Path(__file__).resolve().parents if (up / "run.c").exists())
PAGES = ("README.md", "docs/tour.md", "docs/engine.md", "docs/sweeps.md")   # in order of reading
FILES = ("Makefile", "pyproject.toml", "run.c", "train.py", "minitron", "tasks", "bench", "docs")
SHORT = " --steps 20 --eval-every 10 --test-items 50"
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)`")
ROW = re.compile(r"^ +(\d+) +[\d,]+ +([\d.]+)% +\([\d.-]+\) +[\d.]+% +[\d.]+% +([\d.]+)%",
                 re.MULTILINE)
LINES = re.compile(r"^\| `([\w/.]+)`(.*?) \| (\d+) \|", re.MULTILINE)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text):
    """-> (language, content) of each block of code"""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(block):
    """The commands of a block, each with the lines of its here-document, if it has one"""
    return re.findall(r"^\$ (.*<<'END'\n(?s:.*?)^END|.*)$", block, re.MULTILINE)


BLOCKS = [block for page in PAGES for block in blocks(read(page))]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository's files in a new folder."""
    folder = tmp_path_factory.mktemp("readme")
    for name in FILES:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    (folder / "results").mkdir()
    shutil.copy(ROOT / "results" / "addition.jsonl", folder / "results")
    return folder


def run(command, folder):
    """`python` is the one that runs the tests."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    return subprocess.run(command, shell=True, cwd=folder, env={"PATH": path}, timeout=240,
                          capture_output=True, text=True)


def shortened(command):
    """The command with flags that make it take seconds."""
    if " sweep " in command and "--out small.jsonl" in command:
        return command + " --steps 5 --seeds 1"
    return command + SHORT if "train.py" in command and "-h" not in command else command


def test_commands_and_examples_run(copy):
    first = [command for kind, block in blocks(read("README.md")) if kind == "console"
             for command in commands(block)]
    train = "python train.py --dim"
    assert {"make", f"{train} 128", f"{train} 4 --out small.bin"} <= set(first)
    for kind, block in BLOCKS:
        if kind == "console":
            for command in map(shortened, commands(block)):
                done = run(command, copy)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                assert done.stdout or "<<" in command, command
        elif kind == "python":
            done = run(f"{sys.executable} - <<'END'\n{block}\nEND", copy)
            assert done.returncode == 0, done.stderr


def printed(command):
    """-> the whole command of the block that begins with `command`, and the output below it"""
    [block] = [block for kind, block in BLOCKS
               if kind == "console" and block.startswith(f"$ {command}")]
    first, _, output = block.partition("\n")
    assert len(commands(block)) == 1 and output.strip()
    return first[2:], output.strip()


def test_tasks_are_as_printed():
    command, output = printed("python -m minitron tasks parity")
    assert run(command, ROOT).stdout.strip() == output


def test_report_is_as_printed(tmp_path):
    command, output = printed("python -m minitron report results/addition.jsonl")
    done = run(command.replace("addition.html", str(tmp_path / "addition.html")), ROOT)
    assert done.stdout.replace(str(tmp_path) + "/", "").strip() == output


@pytest.mark.parametrize("page", PAGES[:2])
def test_results_quoted_are_in_the_ledger(page):
    """Each percentage of a row of results comes from a record in results/."""
    rows = ROW.findall(read(page))
    assert rows
    ledger = "".join(path.read_text() for path in (ROOT / "results").glob("*.jsonl"))
    recorded = {(length, f"{r['exact']:.2%}", f"{r['token']:.2%}")
                for line in ledger.splitlines()
                for length, r in json.loads(line).get("metrics", {}).items() if r["n"]}
    for length, exact, token in rows:
        assert (length, f"{exact}%", f"{token}%") in recorded


def test_files_that_are_named_exist():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = {(page.name, path) for page in pages for path in PATH.findall(page.read_text("utf-8"))}
    made = re.compile("build/|\\./run$|path/to/|results/NAME")
    assert len(named) > 50
    assert not [(page, path) for page, path in sorted(named)
                if not made.match(path) and not (ROOT / path).exists()]


def test_reading_list_counts_lines():
    """To a tenth; a part of `run.c` begins at its heading and ends at the next one"""
    listed = [(path, part, int(count)) for path, part, count in LINES.findall(read("README.md"))]
    assert len(listed) == 7
    for path, part, count in listed:
        text = read(path)
        if part:
            number = int(re.search(r"part (\d)", part)[1])
            text = text[text.index(f"// {number}  "):text.index(f"// {number + 1}  ")]
        assert abs(text.count("\n") - count) <= 0.1 * count, path
    total = sum(count for _, _, count in listed)
    assert f"about {round(total, -2):,} lines" in read("README.md")
