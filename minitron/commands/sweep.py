"""`python -m minitron sweep`: from flags or a spec file to a ledger.

    python -m minitron sweep addition --dim 8,16,32,64 --length 1-4 --seeds 3
    python -m minitron sweep results/addition.toml
"""
import argparse
import dataclasses
import signal
import sys
from pathlib import Path

from ..base import cli
from ..base.environment import available_cpus
from ..base.errors import MinitronError
from ..data import tasks
from ..data.command_line import training_command
from ..report import page
from ..report.board import Board
from ..sweep import grid, ledger, pool
from ..sweep.plan import (
    cells_within_budget,
    duration_text,
    parse_duration,
    take_shard,
    total_seconds,
)
from ..sweep.spec import grids, ledger_of

DIALS = """Every flag of train.py is a dial and takes a list, a range of whole numbers or both:
--dim 8,16,32 --length 1-4,6 --qk-norm yes,no --options "k=2;k=3".  Of several --lr, the report has
the best of each cell, by problems that are not the test's.  A spec file has the same as lines of
TOML: dim = [8, 16, 32].  Cells that the ledger has are not run again."""


def add_parser(commands):
    parser = commands.add_parser("sweep", help="train a grid of configurations, into a ledger",
                                 description=__doc__, epilog=DIALS)
    parser.add_argument("what", metavar="TASK|SPEC",
                        help="a task, or a spec file (TOML) that names one")
    for name in grid.dials():
        if name != "task":
            parser.add_argument(cli.flag(name), default=argparse.SUPPRESS, metavar="LIST",
                                help=argparse.SUPPRESS)
    parser.add_argument("--seeds", type=int, metavar="N",
                        help="seeds 0 to N-1 of each cell (default 3, or --seed LIST)")
    parser.add_argument("--out", metavar="LEDGER",
                        help="append records to this file (default TASK.jsonl, or for SPEC.toml "
                             "SPEC.jsonl beside it)")
    parser.add_argument("--jobs", type=int, default=available_cpus(), metavar="N",
                        help="cells at a time (default: one per core)")
    parser.add_argument("--budget", metavar="TIME",
                        help="run the cheapest cells that fit into this time, such as 10m")
    parser.add_argument("--timeout", metavar="TIME", help="stop a cell after this, such as 90s")
    parser.add_argument("--models", metavar="DIR", help="keep each cell's model there, as KEY.bin")
    parser.add_argument("--shard", metavar="I/N",
                        help="run every Nth cell, starting at cell I (0 to N-1)")
    parser.add_argument("--redo", action="store_true", help="rerun cells that the ledger has")
    parser.add_argument("--retry", choices=["failed"],
                        help="rerun cells that were killed or timed out")
    parser.add_argument("--cluster", metavar="ADDRESS",
                        help="run the cells on dask.distributed: tcp://host:8786, or local")
    parser.add_argument("--list", action="store_true",
                        help="print the cells and their estimated times; run nothing")


def run(flags):
    if flags["jobs"] < 1:
        raise MinitronError(f"--jobs {flags['jobs']} is out of range: use 1 or more")
    timeout, budget = (None if flags[name] is None else parse_duration(name, flags[name])
                       for name in ("timeout", "budget"))
    if flags["models"] is not None and not Path(flags["models"]).is_dir():
        raise MinitronError(f"--models {flags['models']!r} is not a directory: make it first")
    given = {name: flags[name] for name in grid.dials() if name in flags}
    cells = grid.cells(*grids(flags["what"], given, flags["seeds"]))
    out = flags["out"] or ledger_of(flags["what"])
    if flags["shard"] is not None:
        cells = take_shard(cells, flags["shard"])
    if flags["list"]:
        cells, costs, _ = plan(flags, cells, budget, out)
        return list_cells(cells, costs)
    with ledger.locked(out):
        return run_cells(*plan(flags, cells, budget, out), out, flags, timeout)


def list_cells(cells, costs):
    for key, config in cells:
        command = training_command(dataclasses.asdict(config))
        print(f"{key}  {duration_text(costs[key]):>8}  {command}")
    return 0


def run_cells(cells, costs, records, out, flags, timeout):
    """Run cells beside the records that the ledger has -> exit status"""
    board = Board(costs, records)
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)   # batch systems send it
        counts = pool.run_cells(cells, out, board, flags["jobs"], timeout, flags["models"],
                                flags["cluster"])
    except KeyboardInterrupt:
        print(f"minitron: stopped; {out} has the finished cells: run the same command to resume",
              file=sys.stderr)
        return 130
    if counts:
        summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        print(f"{summary}; report: python -m minitron report {out}")
    return 0 if set(counts) <= set(ledger.FINISHED) else 1


def plan(flags, cells, budget, out):
    """-> cells to run, {key: estimated seconds}, records that the ledger has.  Prints a summary.

    cells [(key, Config)]; budget: seconds, or None; out: the ledger.  Raises MinitronError.
    """
    # A pipe or a device cannot be read back.
    records = known_records(out, dict(cells)) if Path(out).is_file() else {}
    print(f"{len(cells)} cells, {len(records)} of them in {out}")
    to_run = pool.cells_to_run(cells, records, flags["redo"], flags["retry"] == "failed")
    costs = estimated_costs(to_run)
    if budget is not None:
        to_run = fit_budget(to_run, costs, flags, budget)
    costs = {key: costs[key] for key, _ in to_run}
    total = duration_text(total_seconds(costs, flags["jobs"]))
    print(f"{len(to_run)} to run, in about {total} with {flags['jobs']} at a time, "
          "less where runs stop early", flush=True)
    return to_run, costs, [record for key, record in records.items() if key not in costs]


def fit_budget(cells, costs, flags, budget):
    """The cells that fit into the budget.  Prints how many do not."""
    fitting, others = cells_within_budget(cells, costs, flags["jobs"], budget)
    if others:
        total = duration_text(total_seconds(costs, flags["jobs"]))
        print(f"{len(others)} do not fit into {flags['budget']}; all would take about {total}")
    return fitting


def known_records(path, configs):
    """Those readable records of a ledger that belong to {key: Config}: {key: record}

    Prints complaints about its other lines.
    """
    records, complaints = ledger.read_records(path)
    readable, left_out = page.readable_records(
        with_path(record, configs[key].task) for key, record in records.items() if key in configs)
    for reason, count in left_out.items():
        complaints.append(f"{path}: {reason}, {count} record{'s' * (count > 1)} to rerun")
    for complaint in complaints:
        print(f"minitron: {complaint}", file=sys.stderr)
    return {record["key"]: record for record in readable}


def with_path(record, task):
    """A record of a task in a user's own file, with its present path: the file may have moved"""
    if tasks.is_file(task) and isinstance(record.get("config"), dict):
        return record | {"config": record["config"] | {"task": task}}
    return record


def estimated_costs(cells):
    """[(key, Config)] -> {key: seconds on one core}

    Steps are timed in a process of its own, which may run out of memory.
    """
    if not cells:
        return {}
    worker = pool.Worker()
    try:
        seconds = grid.estimate([config for _, config in cells], worker.step_seconds)
        return dict(zip((key for key, _ in cells), seconds))
    finally:
        worker.close()
