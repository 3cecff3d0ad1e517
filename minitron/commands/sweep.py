"""`python -m minitron sweep`: from flags or a spec file to a ledger.

    python -m minitron sweep addition --dim 8,16,32,64 --length 1-4 --seeds 3
    python -m minitron sweep results/addition.toml
"""
import argparse
import contextlib
import dataclasses
import shlex
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path

from ..base import cli
from ..base.environment import available_cpus, minitron_command
from ..base.errors import MinitronError
from ..data.command_line import training_command
from ..measure.record import append_record, failed_record
from ..report import page
from ..report.board import Board
from ..sweep import grid, ledger, pool
from ..sweep.cluster import Cluster, connected
from ..sweep.plan import (
    cells_within_budget,
    duration_text,
    parse_duration,
    take_shard,
    total_seconds,
)
from ..sweep.spec import grids, new_ledger

DIALS = """Every flag of train.py is a dial and takes a list, a range of whole numbers or both:
--dim 8,16,32 --length 1-4,6 --qk-norm yes,no --options "k=2;k=3".  Of several --lr, the report has
the best of each cell, by problems that are not the test's.  A value with a comma goes into quotes:
--data '"a,b.txt",c.txt'.  A spec file has the same as lines of TOML: dim = [8, 16, 32].  Cells that
the ledger has are not run again."""


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
                        help="append records to this file (default, in the current folder: "
                             "TASK.jsonl or SPEC.jsonl, of a shard TASK.I-of-N.jsonl)")
    parser.add_argument("--jobs", type=int, metavar="N",
                        help="cells at a time (default: one per core, or per thread of dask)")
    parser.add_argument("--budget", metavar="TIME",
                        help="run the cheapest cells that fit into this time, such as 10m")
    parser.add_argument("--timeout", metavar="TIME", help="stop a cell after this, such as 90s")
    parser.add_argument("--models", metavar="DIR", help="keep each cell's model there, as KEY.bin")
    parser.add_argument("--shard", metavar="I/N",
                        help="run every Nth cell, starting at cell I (0 to N-1)")
    parser.add_argument("--redo", action="store_true", help="rerun cells that the ledger has")
    parser.add_argument("--retry", choices=["failed"],
                        help="rerun cells that failed, were killed or timed out")
    parser.add_argument("--cluster", metavar="ADDRESS",
                        help="run the cells on dask.distributed, such as tcp://host:8786")
    parser.add_argument("--list", action="store_true",
                        help="print the cells and their estimated times; run nothing")


def run(flags):
    if flags["jobs"] is not None and flags["jobs"] < 1:
        raise MinitronError(f"--jobs {flags['jobs']} is out of range: use 1 or more")
    for name in ("timeout", "budget"):
        if flags[name] is not None:
            flags[name] = parse_duration(name, flags[name])
    if flags["models"] is not None and not Path(flags["models"]).is_dir():
        raise MinitronError(f"--models {flags['models']!r} is not a directory: make it first")
    given = {name: flags[name] for name in grid.dials() if name in flags}
    cells = grid.cells(*grids(flags["what"], given, flags["seeds"]))
    if flags["shard"] is not None:
        cells = take_shard(cells, flags["shard"])
    out = flags["out"] or new_ledger(flags["what"], flags["shard"])
    if flags["list"]:
        jobs = flags["jobs"] or available_cpus()
        return list_cells(*plan(flags, cells, out, jobs))
    with ledger.locked(out), contextlib.ExitStack() as stack:
        signal.signal(signal.SIGTERM, signal.default_int_handler)   # batch systems send it
        jobs, start = machines(flags, cells, stack)
        return run_cells(*plan(flags, cells, out, jobs), out, flags, start)


def machines(flags, cells, stack):
    """-> how many cells run at a time, a function of (cells, timeout, model_path) that runs them

    stack: the ExitStack that ends a connection to a cluster.  Raises MinitronError.
    """
    most, address = flags["jobs"], flags["cluster"]
    if address is None:
        jobs = most or available_cpus()
        return jobs, partial(pool.run_locally, jobs)
    if address == "local":
        raise MinitronError("--cluster local has no use: without --cluster, a sweep runs one cell "
                            "per core of this machine")
    cluster = Cluster(stack.enter_context(connected(address)), cells)
    threads = cluster.wait_for_workers()
    return min(most or threads, threads), partial(cluster.run, most)


def list_cells(cells, costs, _):
    """cells [(key, Config)], costs {key: seconds} -> exit status"""
    for key, config in cells:
        command = training_command(dataclasses.asdict(config))
        print(f"{key}  {duration_text(costs[key]):>8}  {command}")
    return 0


def run_cells(cells, costs, records, out, flags, start):
    """Run cells beside the records that the ledger has -> exit status      start: of machines()"""
    models = flags["models"] and Path(flags["models"]).resolve()
    board = Board(costs, records)
    try:
        results = start(cells, flags["timeout"], lambda key: models and str(models / f"{key}.bin"))
        counts = append_records(out, results, board)
    except KeyboardInterrupt:
        print(f"minitron: stopped; {out} has the finished cells: run the same command to resume",
              file=sys.stderr)
        return 130
    if counts:
        summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        print(f"{summary}; report: {minitron_command()} report {shlex.quote(out)}")
    return 0 if set(counts) <= set(ledger.FINISHED) else 1


def append_records(out, results, board):
    """Append the records of an iterator of (cell, record) to a ledger -> {status: how many}

    Raises MinitronError.
    """
    counts = Counter()
    with contextlib.closing(results):
        for (key, config), result in results:
            if result["key"] != key:
                raise MinitronError(f"cell {key} came back as {result['key']}: the data or the "
                                    f"file of task {config.task} changed during the sweep")
            # A record that could not be read back would be run again by every later sweep.
            complaint = page.why_unreadable(result)
            if complaint is not None:
                result = failed_record(key, config, "failed", f"its record: {complaint}", 0.0)
            append_record(out, result)
            counts[result["status"]] += 1
            board.ended(result)
    return counts


def plan(flags, cells, out, jobs):
    """-> cells to run, {key: estimated seconds}, records that the ledger has.  Prints a summary.

    cells [(key, Config)]; out: the ledger; jobs: cells at a time.  Raises MinitronError.
    """
    # A pipe or a device cannot be read back.
    records = known_records(out, dict(cells)) if Path(out).is_file() else {}
    print(f"{len(cells)} cells, {len(records)} of them in {out}")
    to_run = pool.cells_to_run(cells, records, flags["redo"], flags["retry"] == "failed")
    costs = estimated_costs(to_run)
    if flags["budget"] is not None:
        to_run = fit_budget(to_run, costs, flags["budget"], jobs)
    costs = {key: costs[key] for key, _ in to_run}
    total = duration_text(total_seconds(costs, jobs))
    print(f"{len(to_run)} to run, in about {total} with {jobs} at a time, "
          "less where runs stop early", flush=True)
    return to_run, costs, [record for key, record in records.items() if key not in costs]


def fit_budget(cells, costs, budget, jobs):
    """The cells that fit into the budget, in seconds.  Prints how many do not."""
    fitting, others = cells_within_budget(cells, costs, jobs, budget)
    if others:
        total = duration_text(total_seconds(costs, jobs))
        print(f"{len(others)} do not fit into {duration_text(budget)}; "
              f"all would take about {total}")
    return fitting


def known_records(path, configs):
    """Those readable records of a ledger that belong to {key: Config}: {key: record}

    Prints complaints about its other lines.
    """
    records, complaints = ledger.read_records(path)
    # The key names the configuration, whatever paths the ledger has for its data or its task.
    readable, left_out = page.readable_records(
        record | {"config": dataclasses.asdict(configs[key])}
        for key, record in records.items() if key in configs)
    for reason, count in left_out.items():
        complaints.append(f"{path}: {reason}, {count} record{'s' * (count > 1)} to rerun")
    for complaint in complaints:
        print(f"minitron: {complaint}", file=sys.stderr)
    return {record["key"]: record for record in readable}


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
