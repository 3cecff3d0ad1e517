"""What a sweep is told: a spec file or flags, as {dial: values}."""
from ..base.errors import MinitronError
from ..data import tasks
from . import grid

SPEC = ("seeds", "out")      # lines of a spec file that are not dials


def read_spec(path):
    """A spec file -> {name: value}.  Raises MinitronError."""
    try:
        import tomllib
    except ImportError:
        try:
            import tomli as tomllib
        except ImportError:
            raise MinitronError("spec files need Python 3.11 or newer, or pip install tomli") from None
    try:
        with open(path, "rb") as file:
            spec = tomllib.load(file)
    except OSError as error:
        raise MinitronError(f"spec {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MinitronError(f"spec {path} is not TOML: {error}") from None
    known = set(grid.dials()) | set(SPEC)
    for name in spec:
        if name not in known:
            raise MinitronError(f"spec {path}: {name!r} is unknown: use {', '.join(sorted(known))}")
    if not isinstance(spec.get("out", ""), str):
        raise MinitronError(f"spec {path}: out {spec['out']!r} is not the name of a file: write it in quotes")
    return spec


def axes(what, flags, seeds):
    """-> {name: values} of what is turned and what is set, and the spec file's other lines"""
    spec = read_spec(what) if what.endswith(".toml") else {"task": what}
    if seeds is not None:
        if "seed" in flags:
            raise MinitronError(f"--seeds {seeds} and --seed {flags['seed']} say both which seeds: give one of them")
        spec.pop("seed", None)
    spec |= flags
    if "task" not in spec:
        raise MinitronError(f"spec {what} names no task: give it a line such as task = \"addition\"")
    tasks.module(str(spec["task"]))
    seeds = seeds if seeds is not None else spec.get("seeds", 3)
    if type(seeds) is not int or not 1 <= seeds <= 10_000:          # True is an int
        raise MinitronError(f"--seeds {seeds!r} is out of range: use 1 to 10000")
    found = {name: grid.dial_values(name, value) for name, value in spec.items() if name not in SPEC}
    return {"task": found.pop("task")} | found | ({} if "seed" in found else {"seed": list(range(seeds))}), spec
