"""`python -m minitron sweep`: from flags or a spec file to a ledger.

    python -m minitron sweep addition --dim 8,16,32,64 --length 1-4 --seeds 3 --out results/addition.jsonl
    python -m minitron sweep results/addition.toml
"""
import argparse
import dataclasses
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

from ..base import cli
from ..base.environment import available_cpus
from ..base.errors import MinitronError
from ..data import tasks
from ..data.command_line import training_command
from ..report import page
from ..report.board import Board
from ..sweep import grid, ledger, pool
from ..sweep.plan import clock, seconds, take_shard, together, within
from ..sweep.spec import axes

DIALS = """Every flag of train.py is a dial here and takes a list, a range of whole numbers or both: --dim 8,16,32 --length 1-4,6
--qk-norm yes,no --options "k=2;k=3".  Of several --lr the best for each cell, by problems that are not the test's, is reported.
A spec file has the same as lines of TOML: dim = [8, 16, 32].  What the ledger has already is not run again."""


def add_parser(commands):
    run = commands.add_parser("sweep", help="train a grid of configurations, into a ledger", description=__doc__, epilog=DIALS)
    run.add_argument("what", metavar="TASK|SPEC", help="a task, or a spec file (TOML) that names one")
    for name in grid.dials():
        if name != "task":
            run.add_argument(cli.flag(name), default=argparse.SUPPRESS, metavar="LIST", help=argparse.SUPPRESS)
    run.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 of each cell (default 3, or --seed LIST)")
    run.add_argument("--out", metavar="LEDGER", help="where the records go (default results/TASK.jsonl, or mine.jsonl for mine.py)")
    run.add_argument("--jobs", type=int, default=available_cpus(), metavar="N", help="cells at a time (default: one a core)")
    run.add_argument("--budget", metavar="TIME", help="run the cheapest cells that fit into this, such as 10m; say what does not")
    run.add_argument("--timeout", metavar="TIME", help="stop a cell after this, such as 90s")
    run.add_argument("--models", metavar="DIR", help="keep each cell's model there, as KEY.bin")
    run.add_argument("--shard", metavar="I/N", help="run only every Nth cell, from the Ith (0 to N-1) on")
    run.add_argument("--redo", action="store_true", help="run cells again that the ledger has")
    run.add_argument("--retry", choices=["failed"], help="run cells again that were killed or took too long")
    run.add_argument("--cluster", metavar="ADDRESS", help="run the cells on dask.distributed: tcp://host:8786, or local")
    run.add_argument("--list", action="store_true", help="print the cells and what they should take; run nothing")


def run(flags):
    if flags["jobs"] < 1:
        raise MinitronError(f"--jobs {flags['jobs']} is out of range: use 1 or more")
    timeout, budget = (None if flags[name] is None else seconds(name, flags[name]) for name in ("timeout", "budget"))
    if flags["models"] is not None and not Path(flags["models"]).is_dir():
        raise MinitronError(f"{flags['models']!r} is no directory: make it, or give --models another place")
    turned, spec = axes(flags["what"], {name: flags[name] for name in grid.dials() if name in flags}, flags["seeds"])
    out = flags["out"] or spec.get("out") or default_ledger(turned["task"][0])
    cells = grid.cells(turned)
    cells = cells if flags["shard"] is None else take_shard(cells, flags["shard"])
    with nullcontext() if flags["list"] else ledger.claimed(out):
        todo, costs, there = plan(flags, cells, budget, out)
        if not flags["list"]:
            return run_cells(todo, costs, there, out, flags, timeout)
    for key, config in todo:
        print(f"{key}  {clock(costs[key]):>8}  {training_command(dataclasses.asdict(config))}")
    return 0


def default_ledger(task):
    """results/TASK.jsonl, or for a task in a user's own file its stem, in the working directory"""
    return f"{Path(task).stem}.jsonl" if tasks.is_file(task) else f"results/{task}.jsonl"


def run_cells(todo, costs, there, out, flags, timeout):
    board = Board(costs, there)
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)       # as Ctrl-C: batch systems send it
        counts = pool.run(todo, out, board, flags["jobs"], timeout, flags["models"], flags["cluster"])
    except KeyboardInterrupt:
        print(f"minitron: stopped; {out} has what was finished, and the same command goes on from there", file=sys.stderr)
        return 130
    if counts:
        print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())) + f"; report: "
              f"python -m minitron report {out}")
    return 0 if not set(counts) - {"ok", "diverged"} else 1


def plan(flags, cells, budget, out):
    """cells [(key, Config)]; budget: seconds, or None; out: the ledger -> cells to run, {key: seconds that each should take},
    records that are there.  Says what it found.  Raises MinitronError.
    """
    # What is no file, a pipe or a device, is only written: nothing can be read back, or no end of it.
    records = usable(out, dict(cells)) if Path(out).is_file() else {}
    todo = pool.todo(cells, records, flags["redo"], flags["retry"] == "failed")
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


def usable(path, configs):
    """{key: record}: those records of a ledger that are of {key: Config}.  Says what is wrong with its lines."""
    records, complaints = ledger.read(path)
    sound, left_out = page.sound(at_its_path(record, configs[key].task) for key, record in records.items() if key in configs)
    left_out = [f"{path}: {why}, {count} record{'s' * (count > 1)} to run again" for why, count in left_out.items()]
    for complaint in complaints + left_out:
        print(f"minitron: {complaint}", file=sys.stderr)
    return {record["key"]: record for record in sound}


def at_its_path(record, task):
    """A record of a task in a user's own file, which may have moved since: with the path where it is now"""
    if tasks.is_file(task) and isinstance(record.get("config"), dict):
        return record | {"config": record["config"] | {"task": task}}
    return record


def estimated(cells):
    """[(key, Config)] -> {key: seconds on one core}; tried in a process of its own, which may run out of memory"""
    if not cells:
        return {}
    worker = pool.Worker()
    try:
        return dict(zip((key for key, _ in cells), grid.estimate([config for _, config in cells], worker.step_seconds)))
    finally:
        worker.close()
