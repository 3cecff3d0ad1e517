"""`python -m minitron report`: from ledgers to phase diagrams, as text, page or picture.

    python -m minitron report results/addition.jsonl --html addition.html
    python -m minitron report --markdown results/gallery/markov.toml
"""
import sys
from pathlib import Path

from ..base.errors import MinitronError
from ..report import page, table, text
from ..report.picture import PICTURES, draw
from ..sweep import grid, ledger
from ..sweep.spec import is_spec, ledger_of, read_spec


def add_parser(commands):
    parser = commands.add_parser("report", help="the phase diagrams of ledgers, with verdicts")
    parser.add_argument("ledgers", nargs="+", metavar="LEDGER",
                        help="a ledger, or the spec file beside it")
    parser.add_argument("--markdown", action="store_true",
                        help="print tables of the cells of spec files instead")
    parser.add_argument("--y", metavar="DIAL", help="the dial of the rows (default dim)")
    parser.add_argument("--x", metavar="DIAL", help="the dial of the columns (default length)")
    parser.add_argument("--html", metavar="FILE",
                        help="write one page that opens in any browser, without network")
    for kind in PICTURES:
        parser.add_argument(f"--{kind}", metavar="FILE",
                            help=f"draw the phase diagrams as {kind.upper()}; needs matplotlib")


def run(flags):
    if flags["markdown"]:
        return print_tables(flags)
    ledgers, html = list(map(ledger_path, flags["ledgers"])), flags["html"]
    pictures = {kind: flags[kind] for kind in PICTURES if flags[kind] is not None}
    refuse_to_overwrite(ledgers, [*([] if html is None else [html]), *pictures.values()])
    y, x = axis_fields(flags["y"], flags["x"])
    records, left_out = read_ledgers(*ledgers)
    print("\n".join(text.lines(records, y, x, text.can_colour())))
    if html is not None:
        page.write(html, records, ", ".join(Path(path).stem for path in ledgers), left_out)
        print(f"{html}: this report as a page, with curves")
    for kind, path in pictures.items():
        draw(path, kind, records, y, x)
        print(f"{path}: the phase diagrams")
    return 0


def print_tables(flags):
    """The Markdown table of each spec file, an empty line between them"""
    others = [name for name in ("y", "x", "html", *PICTURES) if flags[name] is not None]
    if others:
        raise MinitronError(f"--markdown and --{others[0]} cannot both be given")
    tables = []
    for path in flags["ledgers"]:
        if not is_spec(path):
            raise MinitronError(f"{path} is not a spec file (.toml), which --markdown needs")
        spec, (records, _) = read_spec(path), read_ledgers(ledger_of(path))
        name = Path(path).stem.replace("_", " ")
        tables.append("\n".join(table.markdown_lines(name, spec, records)))
    print("\n\n".join(tables))
    return 0


def ledger_path(path):
    """The ledger itself, or that of a spec file"""
    return ledger_of(path) if is_spec(path) else path


def read_ledgers(*paths):
    """-> readable records, {reason: how many others}; prints complaints.  Raises MinitronError."""
    records, complaints = ledger.read_records(*paths)
    records, left_out = page.readable_records(map(printable, records.values()))
    for reason, count in left_out.items():
        complaints.append(f"{count} record{'s' * (count > 1)} left out: {reason}")
    if not records:
        first = f" ({complaints[0]})" if complaints else ""
        raise MinitronError(f"{', '.join(map(str, paths))}: no record that this version can read"
                            f"{first}: run a sweep first")
    for complaint in complaints:
        print(f"minitron: {complaint}", file=sys.stderr)
    return records, left_out


def printable(value):
    """A JSON value with escapes such as \\x1b for what a terminal would obey, or could not show

    A ledger may come from someone else.
    """
    if isinstance(value, dict):
        return {printable(name): printable(item) for name, item in value.items()}
    if isinstance(value, list):
        return list(map(printable, value))
    if isinstance(value, str) and not value.isprintable():
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)
    return value


def refuse_to_overwrite(ledgers, outputs):
    """Raises MinitronError where an output would replace a ledger or another output."""
    for path in outputs:
        is_ledger = Path(path).resolve() in [Path(ledger).resolve() for ledger in ledgers]
        if is_ledger or outputs.count(path) > 1:
            raise MinitronError(f"{path} is named twice: "
                                "ledgers, page and pictures must be different files")


def axis_fields(*names):
    """--y and --x as fields of Config.  Raises MinitronError."""
    fields = [None if name is None else name.replace("-", "_") for name in names]
    for name, field in zip(names, fields):
        if field is not None and field not in grid.dials():
            raise MinitronError(f"{name!r} is not a dial: use one of {', '.join(grid.dials())}")
    y, x = fields
    if y is not None and y == x:
        raise MinitronError(f"{y!r} cannot be both --y and --x: give one of them another dial")
    return y, x
