"""Command-line flags generated from a dataclass, and the way errors reach the user."""
import argparse
import dataclasses
import sys
import types
import typing

from .errors import MinitronError


class Parser(argparse.ArgumentParser):
    """An argparse parser whose complaints fit one line, with the remedy, and which accepts no abbreviations of flags."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (-h lists the flags)\n")


def add_fields(parser, config_class):
    """One flag per field of a dataclass, named and explained by it; absent flags stay out of the result."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        if field.metadata["help"] is None:
            continue
        kind = hints[field.name]
        if isinstance(kind, types.UnionType):           # int | None
            kind = kind.__args__[0]
        help = field.metadata["help"] + ("" if field.default is None else f" (default {field.default})")
        options = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind, "metavar": kind.__name__.upper()}
        parser.add_argument("--" + field.name.replace("_", "-"), default=argparse.SUPPRESS, help=help, **options)


def run(main):
    """Call main(argv) and leave with what it returns; a MinitronError becomes one line on standard error and status 2."""
    try:
        sys.exit(main(sys.argv[1:]))
    except MinitronError as error:
        sys.exit(complain(error))
    except KeyboardInterrupt:
        print("minitron: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:             # the reader has had enough: `... | head`
        sys.stderr.close()
        sys.exit(1)


def complain(error):
    print(f"minitron: {error}", file=sys.stderr)
    return 2
