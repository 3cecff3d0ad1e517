"""The house rule: rooms import only earlier rooms, tasks import NumPy, nothing imports train.py."""
import ast
import sys

import pytest

from minitron.base.environment import ROOT

ORDER = ("base", "model", "engine data", "measure", "training", "sweep", "report", "commands")
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms.split()}
PACKAGE = sorted((ROOT / "minitron").rglob("*.py"))
TASKS = sorted((ROOT / "tasks").glob("*.py"))


def imported_names(path):
    """Absolute dotted names of all that a file imports, inside functions too."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[:len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *([node.module] if node.module else [])))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def arrows():
    """(from, to): every pair of rooms of which one imports the other."""
    pairs = set()
    for path in PACKAGE:
        room = path.parent.name
        rooms = {name.split(".")[1] for name in imported_names(path)
                 if name.startswith("minitron.")}
        pairs |= {(room, other) for other in rooms & set(LEVEL) if other != room}
    return pairs


def test_every_folder_is_a_room():
    folders = {path.parent.name for path in PACKAGE} - {"minitron"}
    assert folders == set(LEVEL)


def test_rooms_import_only_rooms_that_stand_before_them():
    upwards = {(room, other) for room, other in arrows() - {("minitron", other) for other in LEVEL}
               if LEVEL[other] >= LEVEL[room]}
    assert upwards == set()


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.name)
def test_tasks_import_numpy_and_nothing_else(path):
    roots = {name.split(".")[0] for name in imported_names(path)}
    assert roots <= {"numpy", "tasks", *sys.stdlib_module_names}


@pytest.mark.parametrize("path", PACKAGE + TASKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_train(path):
    assert not {name.split(".")[0] for name in imported_names(path)} & {"train"}


@pytest.mark.parametrize("room", LEVEL)
def test_every_room_names_the_file_to_read_first(room):
    text = ast.get_docstring(ast.parse((ROOT / "minitron" / room / "__init__.py").read_text()))
    first = text.split("Read first: ")[1].split(".py")[0]
    assert (ROOT / "minitron" / room / f"{first}.py").is_file()
