"""`python -m minitron law`: scaling laws through the runs of ledgers; needs scipy.

    python -m minitron law results/stories.jsonl results/induction.jsonl --svg results/scaling.svg
"""
import sys
from pathlib import Path

from ..report import law
from ..sweep import ledger


def add_parser(commands):
    parser = commands.add_parser("law", help="scaling laws of ledgers, over parameters and FLOPs",
                                 description=law.__doc__)
    parser.add_argument("ledgers", nargs="+", metavar="LEDGER")
    parser.add_argument("--svg", metavar="FILE", help="draw the laws; needs matplotlib")


def run(flags):
    laws = {}
    for path in flags["ledgers"]:
        records, complaints = ledger.read_records(path)
        for complaint in complaints:
            print(f"minitron: {complaint}", file=sys.stderr)
        for size in law.SIZES:
            laws[Path(path).stem, size] = law.fitted_law(records.values(), size)
    print("\n".join(law.law_table(laws)))
    if flags["svg"] is not None:
        law.draw(flags["svg"], laws)
        print(f"{flags['svg']}: the laws")
    return 0
