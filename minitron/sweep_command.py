"""`python -m minitron sweep` and `report`: from flags or a spec file to a ledger, and from ledgers to a phase diagram.

    python -m minitron sweep addition --dim 8,16,32,64 --length 1-4 --seeds 3 --out results/addition.jsonl
    python -m minitron sweep sweeps/addition.toml
    python -m minitron report results/addition.jsonl
"""
import argparse
import dataclasses
import re
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import tasks

from . import cli, grid, ledger, page, phase, report, sweep
from .board import Board
from .environment import available_cpus
from .errors import MinitronError
from .picture import PICTURES, draw

SPEC = ("seeds", "out")      # what a spec file may say beside the dials


DIALS = """Every flag of train.py is a dial here and takes a list, a range of whole numbers or both: --dim 8,16,32 --length 1-4,6
--qk-norm yes,no --options "k=2;k=3".  Of several --lr the best for each cell, by problems that are not the test's, is reported.
A spec file has the same as lines of TOML: dim = [8, 16, 32].  What the ledger has already is not run again."""


def add_commands(commands):
    run = commands.add_parser("sweep", help="train a grid of configurations, into a ledger", description=__doc__, epilog=DIALS)
    run.add_argument("what", metavar="TASK|SPEC", help="a task, or a spec file (TOML) that names one")
    for name in grid.dials():
        if name != "task":
            run.add_argument(cli.flag(name), default=argparse.SUPPRESS, metavar="LIST", help=argparse.SUPPRESS)
    run.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 of each cell (default 3, or --seed LIST)")
    run.add_argument("--out", metavar="LEDGER", help="where the records go (default results/TASK.jsonl)")
    run.add_argument("--jobs", type=int, default=available_cpus(), metavar="N", help="cells at a time (default: one a core)")
    run.add_argument("--budget", metavar="TIME", help="run the cheapest cells that fit into this, such as 10m; say what does not")
    run.add_argument("--timeout", metavar="TIME", help="stop a cell after this, such as 90s")
    run.add_argument("--models", metavar="DIR", help="keep each cell's model there, as KEY.bin")
    run.add_argument("--shard", metavar="I/N", help="run only every Nth cell, from the Ith (0 to N-1) on")
    run.add_argument("--redo", action="store_true", help="run cells again that the ledger has")
    run.add_argument("--retry", choices=["failed"], help="run cells again that were killed or took too long")
    run.add_argument("--cluster", metavar="ADDRESS", help="run the cells on dask.distributed: tcp://host:8786, or local")
    run.add_argument("--list", action="store_true", help="print the cells and what they should take; run nothing")
    show = commands.add_parser("report", help="the phase diagram of ledgers, with a verdict")
    show.add_argument("ledgers", nargs="+", metavar="LEDGER")
    show.add_argument("--y", metavar="DIAL", help="the dial of the rows (default dim)")
    show.add_argument("--x", metavar="DIAL", help="the dial of the columns (default length)")
    show.add_argument("--html", metavar="FILE", help="write it as one page that opens in any browser, without network")
    for kind in PICTURES:
        show.add_argument(f"--{kind}", metavar="FILE", help=f"draw the phase diagrams as {kind.upper()}; needs matplotlib")


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
    found = {name: grid.values(name, value) for name, value in spec.items() if name not in SPEC}
    return {"task": found.pop("task")} | found | ({} if "seed" in found else {"seed": list(range(seeds))}), spec


def seconds(name, text):
    """"90s", "10m", "2h" -> seconds"""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    found = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0
    if not 0 < found <= sweep.YEAR:
        raise MinitronError(f"--{name} {text!r} is no time up to a year: use a number with s, m or h, such as 10m")
    return found


def clock(value):
    return f"{value:.0f} s" if value < 100 else f"{value / 60:.0f} min" if value < 6000 else f"{value / 3600:.1f} h"


def take_shard(cells, text):
    """Every Nth cell, from the Ith on, "I/N"; of cells in their fixed order, so that shards are disjoint and cover all"""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not int(match[1]) < int(match[2]):
        raise MinitronError(f"--shard {text!r} is not I/N with I from 0 to N-1, such as 0/2")
    return cells[int(match[1])::int(match[2])]


def within(cells, costs, jobs, budget):
    """The cheapest cells that fit into a budget, each by itself and all together, and the others"""
    fitting, total = [], 0.0
    for cell in sorted(cells, key=lambda cell: costs[cell[0]]):
        cost = costs[cell[0]]
        if cost <= budget and total + cost <= budget * jobs:
            fitting.append(cell)
            total += cost
    there = {key for key, _ in fitting}
    return fitting, [cell for cell in cells if cell[0] not in there]


def plan(flags, cells, budget, out):
    """cells [(key, Config)]; budget: seconds, or None; out: the ledger -> cells to run, {key: seconds that each should take},
    records that are there.  Says what it found.  Raises MinitronError.
    """
    # What is no file, a pipe or a device, is only written: nothing can be read back, or no end of it.
    records = usable(out, {key for key, _ in cells}) if Path(out).is_file() else {}
    todo = sweep.todo(cells, records, flags["redo"], flags["retry"] == "failed")
    print(f"{len(cells)} cells, {len(records)} of them in {out}")
    costs = estimated(todo)
    if budget is not None:
        all_of_them = together(costs, flags["jobs"])
        todo, left_out = within(todo, costs, flags["jobs"], budget)
        if left_out:
            print(f"{len(left_out)} do not fit into {flags['budget']}; all would take about {clock(all_of_them)}")
    costs = {key: costs[key] for key, _ in todo}
    print(f"{len(todo)} to run, in about {clock(together(costs, flags['jobs']))} with {flags['jobs']} at a time, "
          "less where runs stop early", flush=True)
    return todo, costs, [record for key, record in records.items() if key not in costs]


def usable(path, keys):
    """Those records of a ledger that have these keys: {key: record}.  Says what is wrong with its lines."""
    records, complaints = ledger.read(path)
    sound, left_out = page.sound(record for key, record in records.items() if key in keys)
    left_out = [f"{path}: {why}, {count} record{'s' * (count > 1)} to run again" for why, count in left_out.items()]
    for complaint in complaints + left_out:
        print(f"minitron: {complaint}", file=sys.stderr)
    return {record["key"]: record for record in sound}


def together(costs, jobs):
    """Seconds that cells take, so many at a time: never less than the dearest"""
    return max(sum(costs.values()) / jobs, max(costs.values(), default=0.0))


def estimated(cells):
    """[(key, Config)] -> {key: seconds on one core}; tried in a process of its own, which may run out of memory"""
    if not cells:
        return {}
    worker = sweep.Worker()
    try:
        return dict(zip((key for key, _ in cells), grid.estimate([config for _, config in cells], worker.step_seconds)))
    finally:
        worker.close()


def run_sweep(flags):
    if flags["jobs"] < 1:
        raise MinitronError(f"--jobs {flags['jobs']} is out of range: use 1 or more")
    timeout, budget = (None if flags[name] is None else seconds(name, flags[name]) for name in ("timeout", "budget"))
    if flags["models"] is not None and not Path(flags["models"]).is_dir():
        raise MinitronError(f"{flags['models']!r} is no directory: make it, or give --models another place")
    turned, spec = axes(flags["what"], {name: flags[name] for name in grid.dials() if name in flags}, flags["seeds"])
    out = flags["out"] or spec.get("out") or f"results/{turned['task'][0]}.jsonl"
    cells = grid.cells(turned)
    cells = cells if flags["shard"] is None else take_shard(cells, flags["shard"])
    with nullcontext() if flags["list"] else ledger.claimed(out):
        todo, costs, there = plan(flags, cells, budget, out)
        if not flags["list"]:
            return run_cells(todo, costs, there, out, flags, timeout)
    for key, config in todo:
        print(f"{key}  {clock(costs[key]):>8}  {phase.command(dataclasses.asdict(config))}")
    return 0


def run_cells(todo, costs, there, out, flags, timeout):
    board = Board(costs, there)
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)       # as Ctrl-C: batch systems send it
        counts = sweep.run(todo, out, board, flags["jobs"], timeout, flags["models"], flags["cluster"])
    except KeyboardInterrupt:
        print(f"minitron: stopped; {out} has what was finished, and the same command goes on from there", file=sys.stderr)
        return 130
    if counts:
        print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())) + f"; report: "
              f"python -m minitron report {out}")
    return 0 if not set(counts) - {"ok", "diverged"} else 1


def refuse_to_overwrite(ledgers, written):
    """Raises MinitronError where a page or a picture would take the place of a ledger or of each other."""
    for path in written:
        if Path(path).resolve() in [Path(ledger).resolve() for ledger in ledgers] or written.count(path) > 1:
            raise MinitronError(f"{path} is asked to be two files: give each of ledger, page and picture a name of its own")


def chosen_axes(*names):
    """--y and --x as fields of Config.  Raises MinitronError."""
    for name in names:
        if name is not None and name.replace("-", "_") not in grid.dials():
            raise MinitronError(f"{name!r} is no dial: use one of {', '.join(grid.dials())}")
    y, x = (None if name is None else name.replace("-", "_") for name in names)
    if y is not None and y == x:
        raise MinitronError(f"{y!r} cannot be both --y and --x: give one of them another dial")
    return y, x


def show_report(ledgers, y, x, html, **pictures):
    records, complaints = ledger.read(*ledgers)
    for complaint in complaints:
        print(f"minitron: {complaint}", file=sys.stderr)
    refuse_to_overwrite(ledgers, [path for path in (html, *pictures.values()) if path is not None])
    y, x = chosen_axes(y, x)
    records, left_out = page.sound(records.values())
    for reason, count in left_out.items():
        print(f"minitron: {count} record{'s' * (count > 1)} left out: {reason}", file=sys.stderr)
    if not records:
        raise MinitronError(f"{', '.join(ledgers)}: no record of a run that this version knows: run a sweep first")
    print("\n".join(report.lines(records, y, x, report.can_colour())))
    if html is not None:
        page.write(html, records, ", ".join(Path(path).stem for path in ledgers), left_out)
        print(f"{html}: the same as a page, with curves")
    for kind, path in pictures.items():
        if path is not None:
            draw(path, kind, records, y, x)
            print(f"{path}: the phase diagrams")
    return 0
