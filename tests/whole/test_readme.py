"""The README is true: each command in it runs, in its order, in a copy of the repository, and so do the examples of docs/.

Training commands get --steps 20 here, and sweeps that would train smaller dials: what is tested is that they are right, not what
they reach.
"""
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text):
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


BLOCKS = blocks(README)
COMMANDS = [line[2:] for kind, block in BLOCKS if kind == "console" for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository's files in a new folder, with an own file my.txt and `python` the one that runs the tests."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("Makefile", "pyproject.toml", "run.c", "train.py", "minitron", "tasks", "sweeps"):
        source = ROOT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder / name)
    (folder / "results").mkdir()
    shutil.copy(ROOT / "results" / "addition.jsonl", folder / "results")
    (folder / "my.txt").write_text("It was the best of times, it was the worst of times.\n" * 400)
    return folder


def run(command, folder):
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    return subprocess.run(command, shell=True, cwd=folder, env={"PATH": path}, capture_output=True, text=True, timeout=240)


def test_commands_and_examples_run(copy):
    assert {"make", "python train.py --dim 128", "python train.py --dim 8 --out small.bin"} <= set(COMMANDS)
    documented = [block for name in ("engine", "sweeps") for block in blocks((ROOT / "docs" / f"{name}.md").read_text("utf-8"))]
    for kind, block in BLOCKS + documented:
        if kind == "console":
            for command in (line[2:] for line in block.splitlines() if line.startswith("$ ")):
                steps = " --steps 20 --eval-every 10 --test-items 50" if "train.py" in command and "-h" not in command else ""
                if " sweep " in command and "--out small.jsonl" in command:
                    steps = " --steps 5 --seeds 1"
                done = run(command + steps, copy)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                assert done.stdout
        elif kind == "python":
            done = run(f"{sys.executable} - <<'END'\n{block}\nEND", copy)
            assert done.returncode == 0, done.stderr


def test_gallery_is_as_printed():
    printed = next(block for kind, block in BLOCKS if "$ python -m minitron tasks parity" in block)
    done = run(f"{sys.executable} -m minitron tasks parity", ROOT)
    assert done.stdout.strip() == printed.partition("\n")[2].strip()


def test_report_is_as_printed(tmp_path):
    printed = next(block for kind, block in BLOCKS if "$ python -m minitron report results/addition.jsonl" in block)
    command, _, said = printed.partition("\n")
    done = run(command[2:].replace("addition.html", str(tmp_path / "addition.html")).replace("python", sys.executable, 1), ROOT)
    assert done.stdout.replace(str(tmp_path) + "/", "").strip() == said.strip()


def test_results_quoted_are_in_the_ledger():
    """Each percentage of a results row in the README comes from a record in results/."""
    rows = re.findall(r"^ +(\d+) +([\d.]+)% +\([\d.-]+\) +[\d.]+% +[\d.]+% +([\d.]+)%", README, re.MULTILINE)
    assert rows
    ledger = "".join(path.read_text() for path in (ROOT / "results").glob("*.jsonl"))
    recorded = {(length, f"{r['exact']:.2%}", f"{r['token']:.2%}")
                for line in ledger.splitlines() for length, r in json.loads(line).get("metrics", {}).items() if r["n"]}
    for length, exact, token in rows:
        assert (length, f"{exact}%", f"{token}%") in recorded
