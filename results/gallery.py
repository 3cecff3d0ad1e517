"""Each family of tasks, where it can be learnt and where not (yet): the experiments of docs/gallery.md.

    python results/gallery.py                     run what results/gallery.jsonl does not have yet, one run a core
    python results/gallery.py induction mqar      only these families
    python results/gallery.py --list              print the commands instead
    python results/gallery.py --table             print the tables that docs/gallery.md quotes

Each run is one `python train.py` on one core; a stopped script goes on where it was.
"""
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from minitron.base import cli
from minitron.base.environment import available_cpus
from minitron.base.files import append_line
from minitron.data import tasks
from minitron.data.config import Config
from minitron.sweep import ledger as ledgers

SEEDS = ("--seed 0", "--seed 1", "--seed 2")


class Experiment(NamedTuple):
    """cells x across runs of one task: a table with a row for each cell."""

    shared: str             # flags of all runs
    cells: tuple            # what is turned, one row each
    shown: str              # the number in the table: a key of SHOWN
    across: tuple = SEEDS   # one column each
    curve: str = ""         # the cell whose first run is shown over training, too


def exact(r, numbers):
    return f"{numbers['exact']:.1%}"


def by_length(r, numbers):
    return ", ".join(f"{length}: {of['exact']:.0%}" for length, of in r["metrics"].items()
                     if int(length) >= r["config"]["length"])


def above(r, numbers):
    [(name, nats), *_] = numbers["reference"].items()
    return f"{numbers['nll'] - nats:+.4f}"


def nll(r, numbers):
    return f"{numbers['nll']:.4f}"


def sampled(r, numbers):
    return ", ".join(f"{share:.1%} ({numbers['sampled_reference'][t]:.1%})" for t, share in numbers["sampled"].items())


def by_kind(r, numbers):
    return ", ".join(f"{kind}: {of['token']:.0%}" for kind, of in numbers["groups"].items())


def steps_to_grok(r, numbers):
    return f"{r['reached']['nll 0.1'] or 'not in ' + str(r['steps'])}, exact {numbers['exact']:.1%}"


SHOWN = {
    "exact match": exact,
    "exact match by length, from the longest trained on": by_length,
    "nll": nll,
    "nll above the best there can be": above,
    "right answers sampled at temperatures 1, 0.5, 0.25 (closed form)": sampled,
    "token accuracy by kind": by_kind,
    "steps until the held-out nll is below 0.1": steps_to_grok,
}

GROK = "--batch 20000 --weight-decay 1 --lr 0.001 --warmup 10 --lr-floor 1 --beta2 0.98 --no-tied"
WIDTH = "--layers 1 --heads 1 --head-dim 8 --rope-theta 3 --positions coupled"
EXPERIMENTS = {
    "markov": Experiment(
        "--task markov --dim 16 --lr 0.006 --steps 2500",
        ("--layers 2", "--layers 1", "--layers 2 --ffn-dim 0", "--layers 1 --ffn-dim 0"), "nll above the best there can be"),
    "induction": Experiment(
        "--task induction --dim 64 --lr 0.003 --steps 3000", ("--layers 1", "--layers 2"), "exact match",
        curve="--layers 2"),
    "experts": Experiment(
        "--task experts --dim 64 --layers 1 --steps 2000",
        ("--variant independent", "--variant shared", "--variant independent --options percent=30"),
        "right answers sampled at temperatures 1, 0.5, 0.25 (closed form)"),
    "parity": Experiment(
        "--task parity --dim 32 --positions coupled --no-mixed --steps 3000",
        ("--length 8", "--length 24", "--length 24 --variant scratchpad", "--length 48 --variant scratchpad"), "exact match"),
    "addition": Experiment(
        "--task addition --length 4 --steps 2500",
        tuple(f"--dim {dim} --variant {variant}" for dim in (32, 64) for variant in ("plain", "reversed", "scratchpad")),
        "exact match"),
    "memory": Experiment(
        "--task memory --length 1024 --layers 1 --ffn-dim 0 --steps 4000",
        tuple(f"--dim {dim}" for dim in (2, 3, 4, 8, 16)), "exact match"),
    "sparse parity": Experiment(
        "--task sparse_parity --dim 64 --layers 1 --steps 5000",
        ("--length 12 --options k=2", "--length 12 --options k=3", "--length 20 --options k=2", "--length 20 --options k=3",
         "--length 12 --options k=4"), "exact match"),
    "quanta": Experiment(
        "--task quanta --length 12 --options k=2,tasks=8 --layers 1 --batch 256 --steps 4000",
        ("--dim 8", "--dim 16", "--dim 32", "--dim 64"), "token accuracy by kind", SEEDS[:2]),
    "brackets": Experiment(
        "--task brackets --dim 32 --steps 2000", ("--layers 1", "--layers 2"), "exact match"),
    "mqar": Experiment(
        "--task mqar --length 64 --options pairs=8 --layers 2 --heads 1 --ffn-dim 0 --lr 0.002 --steps 6000",
        ("--dim 16", "--dim 32", "--dim 64", "--dim 16 --attention linear", "--dim 32 --attention linear",
         "--dim 64 --attention linear"), "exact match", SEEDS[:2]),
    "stories": Experiment(
        "--task stories --steps 3000", ("--dim 4", "--dim 8", "--dim 16", "--dim 32"), "nll above the best there can be",
        SEEDS[:2]),
    "reorder": Experiment(
        "--task reorder --length 12 --test-length 18 --dim 64 --steps 2000",
        ("--variant reverse", "--variant copy", "--variant sort", "--variant reverse --positions coupled",
         "--variant copy --positions coupled"), "exact match by length, from the longest trained on", SEEDS[:2]),
    "expressions": Experiment(
        "--task expressions --dim 64 --steps 4000",
        ("--variant chain --length 4", "--variant chain --length 8", "--variant tree --length 3", "--variant tree --length 5"),
        "exact match", SEEDS[:2]),
    "multiplication": Experiment(
        "--task multiplication --variant reversed --dim 128 --no-mixed --steps 4000",
        ("--length 2", "--length 2 --weight-decay 1", "--length 3"), "exact match", SEEDS[:1]),
    "groups": Experiment(
        "--task groups --dim 64 --layers 2 --steps 4000",
        ("--variant z60 --length 8", "--variant a5 --length 2", "--variant a5 --length 4", "--variant a5 --length 8",
         "--variant s5 --length 4"),
        "exact match", SEEDS[:2]),
    "khop": Experiment(
        "--task khop --dim 64 --steps 6000", ("--layers 1", "--layers 2", "--layers 3"), "token accuracy by kind",
        SEEDS[:2]),
    "length": Experiment(
        "--task addition --variant reversed --length 4 --test-length 8 --dim 64 --steps 6000",
        ("--positions plain", "--rope-theta 0", "--positions random", "--positions coupled"),
        "exact match by length, from the longest trained on", SEEDS[:2]),
    "width": Experiment(
        f"--task addition --variant reversed --length 10 --no-mixed --steps 12000 --eval-every 500 {WIDTH}",
        tuple(f"--dim {dim}" for dim in (3, 4, 5, 6, 7, 8, 10, 12, 16)), "exact match",
        tuple(f"--lr {lr} {seed}" for lr in (0.005, 0.01, 0.02) for seed in SEEDS)),
    "modular": Experiment(
        f"--task modular --variant ordered --length 113 --dim 128 --heads 4 --layers 1 --steps 12000 --eval-every 20 {GROK}",
        tuple(f"--train-fraction {fraction}" for fraction in (0.7, 0.6, 0.5, 0.4, 0.3)),
        "steps until the held-out nll is below 0.1", SEEDS[:1], "--train-fraction 0.3"),
    "modular, changed": Experiment(
        f"--task modular --length 113 --dim 128 --heads 4 --layers 1 --steps 3000 --eval-every 20 --train-fraction 0.5 {GROK}",
        ("--variant plain", "--variant ordered --no-qk-norm", "--variant ordered --tied", "--variant ordered --ffn-dim 0"),
        "steps until the held-out nll is below 0.1", SEEDS[:1]),
    "text": Experiment(
        "--task text --steps 1500", ("--dim 16", "--dim 64"), "nll", SEEDS[:1]),
}


def config_of(flags):
    parser = cli.Parser()
    cli.add_fields(parser, Config)
    return Config(**vars(parser.parse_args(flags.split()))).resolve()


def runs_of(experiment):
    """[(cell, across, flags, key)], row by row"""
    runs = []
    for cell in experiment.cells:
        for across in experiment.across:
            flags = f"{experiment.shared} {cell} {across} --shards 1"
            config = config_of(flags)
            runs.append((cell, across, flags, config.key(tasks.load(config))))
    return runs


def read(ledger):
    """{key: record}"""
    return ledgers.read_records(ledger)[0] if Path(ledger).is_file() else {}


def run(flags, ledger):
    """One training in a process of its own; its record goes into the ledger."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, ROOT / "train.py", *flags.split(), "--out", f"{folder}/model.bin",
                               "--ledger", f"{folder}/ledger.jsonl"], capture_output=True, text=True)
        written = Path(folder, "ledger.jsonl")
        lines = written.read_text().splitlines() if written.exists() else []       # none where the flags were refused
        if lines:
            append_line(ledger, lines[-1])
    print(f"{flags}\n    {done.stdout.splitlines()[-2] if done.returncode == 0 else done.stderr[-300:]}", flush=True)


def table(name, experiment, records):
    """The lines of a Markdown table, one row a cell."""
    yield f"`python train.py {experiment.shared} --shards 1` and: {experiment.shown}"
    yield ""
    yield f"| {name} | parameters | steps | minutes | " + " | ".join(across.lstrip("-") for across in experiment.across) + " |"
    yield "|" + "---|" * (4 + len(experiment.across))
    show = SHOWN[experiment.shown]
    runs = runs_of(experiment)
    for cell in experiment.cells:
        found = [records.get(key) for here, _, _, key in runs if here == cell]
        there = [r for r in found if r]
        if not there:
            continue
        steps, minutes = [r["steps"] for r in there], [r["seconds"] / 60 for r in there]
        shown = ["" if r is None else "diverged" if r["status"] != "ok" else show(r, r["metrics"][str(r["config"]["length"])])
                 for r in found]
        yield f"| {cell} | {there[0]['parameters']:,} | {span(steps, ',')} | {span(minutes, '.1f')} | {' | '.join(shown)} |"


def curve(experiment, records):
    """The lines of a Markdown table, one row a point of the learning curve."""
    key = next(key for cell, _, _, key in runs_of(experiment) if cell == experiment.curve)
    if key not in records:
        return
    points = records[key]["curve"]
    of_heads = "; of the heads of each layer, the highest score" if "induction" in points[0] else ""
    yield f"`{experiment.curve} {experiment.across[0]}` over training{of_heads}:"
    yield ""
    columns = [name for name in points[0] if name not in ("n", "token")]
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for point in points:
        yield "| " + " | ".join(number(point[name]) for name in columns) + " |"


def number(value):
    if isinstance(value, list):
        return ", ".join(f"{max(heads):.2f}" for heads in value)
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def span(values, form):
    low, high = (format(value, form) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def main(argv):
    parser = cli.Parser(prog="results/gallery.py", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="FAMILY", help=", ".join(EXPERIMENTS))
    parser.add_argument("--list", action="store_true", help="print the commands")
    parser.add_argument("--table", action="store_true", help="print the tables")
    parser.add_argument("--ledger", default=Path(__file__).with_suffix(".jsonl"), help="where the records are")
    parser.add_argument("--jobs", type=int, default=available_cpus(), help="runs at a time (default: one a core)")
    flags = parser.parse_args(argv)
    unknown = set(flags.names) - set(EXPERIMENTS)
    if unknown or flags.jobs < 1:
        parser.error(f"family {unknown.pop()!r} is unknown: use {', '.join(EXPERIMENTS)}" if unknown else "--jobs is at least 1")
    chosen = {name: EXPERIMENTS[name] for name in flags.names or EXPERIMENTS}
    records = read(flags.ledger)
    if flags.table:
        for name, experiment in chosen.items():
            print("\n".join(table(name, experiment, records)) + "\n")
            if experiment.curve:
                print("\n".join(curve(experiment, records)) + "\n")
        return 0
    todo = [flags_ for experiment in chosen.values() for _, _, flags_, key in runs_of(experiment) if key not in records]
    if flags.list:
        print("\n".join(f"python train.py {flags_}" for flags_ in todo))
        return 0
    with ThreadPoolExecutor(flags.jobs) as pool:
        list(pool.map(lambda flags_: run(flags_, flags.ledger), todo))
    return 0


if __name__ == "__main__":
    cli.run(main)
