"""`python -m minitron report`: from ledgers to phase diagrams, with verdicts; as text, page or picture."""
import sys
from pathlib import Path

from ..base.errors import MinitronError
from ..report import page, text
from ..report.picture import PICTURES, draw
from ..sweep import grid, ledger


def add_parser(commands):
    show = commands.add_parser("report", help="the phase diagram of ledgers, with a verdict")
    show.add_argument("ledgers", nargs="+", metavar="LEDGER")
    show.add_argument("--y", metavar="DIAL", help="the dial of the rows (default dim)")
    show.add_argument("--x", metavar="DIAL", help="the dial of the columns (default length)")
    show.add_argument("--html", metavar="FILE", help="write it as one page that opens in any browser, without network")
    for kind in PICTURES:
        show.add_argument(f"--{kind}", metavar="FILE", help=f"draw the phase diagrams as {kind.upper()}; needs matplotlib")


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


def run(flags):
    return show_report(**flags)


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
    print("\n".join(text.lines(records, y, x, text.can_colour())))
    if html is not None:
        page.write(html, records, ", ".join(Path(path).stem for path in ledgers), left_out)
        print(f"{html}: the same as a page, with curves")
    for kind, path in pictures.items():
        if path is not None:
            draw(path, kind, records, y, x)
            print(f"{path}: the phase diagrams")
    return 0
