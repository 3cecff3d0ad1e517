"""`python -m minitron law`: scaling laws through the runs of ledgers; needs scipy.

    python -m minitron law results/stories.jsonl results/induction.jsonl --svg results/law.svg
"""
from pathlib import Path

from ..report import law
from .report import ledger_path, read_ledgers


def add_parser(commands):
    parser = commands.add_parser("law", help="scaling laws of ledgers, over parameters and FLOPs",
                                 description=law.__doc__)
    parser.add_argument("ledgers", nargs="+", metavar="LEDGER",
                        help="a ledger of one task, or the spec file beside it")
    parser.add_argument("--svg", metavar="FILE", help="draw the laws; needs matplotlib")


def run(flags):
    laws = []
    for path in map(ledger_path, flags["ledgers"]):
        records, _ = read_ledgers(path)
        laws.append((Path(path).stem, law.fitted_laws(records)))
    print("\n".join(law.law_table(laws)))
    if flags["svg"] is not None:
        law.draw(flags["svg"], laws)
        print(f"{flags['svg']}: the laws")
    return 0
