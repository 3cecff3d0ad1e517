"""The lines and branches of run.c that the tests reach.      `make coverage`; needs gcc with gcov

    python tests/engine/coverage.py [FLAGS]        FLAGS for gcc, e.g. -march=native

Works in build/coverage/, on a copy of the repository whose program, library and attacks are
compiled to count.  Without OpenMP, so that one thread does the work of all and no count is lost;
and with no function forced into another, where gcov would list its branches once for each copy.
"""
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

TREE = ROOT / "build" / "coverage"
TESTS = ["test_shell.py", "test_engine.py", "test_model_file.py"]
COMPILE = ["gcc", "-std=c11", "-O0", "--coverage"]
SECTIONS = {"run.c": ("", ""), "loader": ("// 5  Loader", "// 6  Fast loops")}


def copy_tree():
    shutil.rmtree(TREE, ignore_errors=True)
    (TREE / "build").mkdir(parents=True)
    for name in ("minitron", "tasks", "tests"):
        shutil.copytree(ROOT / name, TREE / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, TREE)
    source = (ROOT / "run.c").read_text(encoding="utf-8")
    (TREE / "run.c").write_text(source.replace("__attribute__((always_inline))", ""),
                                encoding="utf-8")


def compile_all(flags):
    suffix = "dylib" if sys.platform == "darwin" else "so"
    for arguments in (["run.c", "-o", "run"],
                      ["-DMINITRON_LIB", "-shared", "-fPIC", "run.c", "-o",
                       f"build/libminitron.{suffix}"],
                      ["tests/engine/loader_attack.c", "-o", "build/loader_attack"],
                      ["tests/engine/shell_attack.c", "-o", "build/shell_attack"]):
        subprocess.run([*COMPILE, *flags, *arguments, "-lm"], cwd=TREE, check=True)


def attack():
    from tests.engine.test_loader import MODELS, content_of
    paths = [TREE / "build" / f"{i}.bin" for i in range(len(MODELS))]
    for i, path in enumerate(paths):
        path.write_bytes(content_of(*MODELS[i], i))
    subprocess.run([TREE / "build" / "loader_attack", *paths], check=True)
    subprocess.run([TREE / "build" / "shell_attack", TREE / "build", *paths], check=True)


def run_tests():
    """The tests of program and library, in the copy.  Their lines count even where one fails."""
    subprocess.run([sys.executable, "-m", "pytest", "-q", "--tb=no",
                    *(f"tests/engine/{name}" for name in TESTS)], cwd=TREE)


def count():
    """Line -> times it was run, and line -> times each of its branches was taken, over all that was
    compiled"""
    lines, branches = defaultdict(int), defaultdict(list)
    for data in TREE.rglob("*.gcda"):
        report = subprocess.run(["gcov", "--json-format", "--stdout", "--branch-probabilities",
                                 data], cwd=TREE, check=True,
                                capture_output=True, text=True).stdout
        for file in json.loads(report)["files"]:
            if Path(file["file"]).name != "run.c":
                continue
            for line in file["lines"]:
                number = line["line_number"]
                taken = [branch["count"] for branch in line["branches"]]
                lines[number] += line["count"]
                before = branches[number] or [0] * len(taken)
                branches[number] = [a + b for a, b in zip(before, taken)]
    return lines, branches


def share(part, whole):
    return f"{part} of {whole} ({100 * part / whole:.1f}%)"


def main():
    copy_tree()
    compile_all(sys.argv[1:])
    attack()
    run_tests()
    lines, branches = count()
    source = (ROOT / "run.c").read_text(encoding="utf-8").split("\n")
    for number, taken in sorted(branches.items()):
        missing = [str(i) for i, times in enumerate(taken) if not times]
        if missing:
            branches_of = f"branch {' '.join(missing)} of {len(taken)}"
            print(f"{number}: {branches_of}: {source[number - 1].strip()}")
    for number in sorted(number for number, times in lines.items() if not times):
        print(f"{number}: never run: {source[number - 1].strip()}")
    for name, (begin, end) in SECTIONS.items():
        first = next(i for i, text in enumerate(source, 1) if text.startswith(begin))
        last = next((i for i, text in enumerate(source, 1) if end and text.startswith(end)),
                    len(source))
        inside = [times for number, times in lines.items() if first <= number <= last]
        taken = [times for number,
                 all_of in branches.items() if first <= number <= last for times in all_of]
        print(f"{name}: lines {share(sum(map(bool, inside)), len(inside))}, "
              f"branches {share(sum(map(bool, taken)), len(taken))}")


if __name__ == "__main__":
    main()
