"""Command-line flags generated from a dataclass, and the way errors reach the user."""
import argparse
import dataclasses
import os
import sys
import types
import typing

from .errors import MinitronError

HIDDEN = argparse.SUPPRESS     # the help text of a flag that -h does not list


class Parser(argparse.ArgumentParser):
    """An argparse parser whose complaints fit one line, with the remedy, and which accepts no abbreviations of flags."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (-h lists the flags)\n")


def dashed(name):
    """A field's name as a flag has it"""
    return name.replace("_", "-")


def flag(name):
    return "--" + dashed(name)


def kinds(config_class):
    """{name: type} of the fields of a dataclass that are flags; int of int | None"""
    hints = typing.get_type_hints(config_class)
    found = {field.name: hints[field.name] for field in dataclasses.fields(config_class) if field.metadata["help"] is not None}
    return {name: kind.__args__[0] if isinstance(kind, types.UnionType) else kind for name, kind in found.items()}


def add_fields(parser, config_class, names=None):
    """One flag per field of a dataclass, named and explained by it; absent flags stay out of the result.

    names: only these fields, whose defaults are not the dataclass's
    """
    all_kinds = kinds(config_class)
    for field in dataclasses.fields(config_class):
        if field.name not in all_kinds or names and field.name not in names:
            continue
        kind = all_kinds[field.name]
        help = field.metadata["help"] + ("" if field.default is None or names else f" (default {field.default})")
        options = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind, "metavar": kind.__name__.upper()}
        parser.add_argument(flag(field.name), default=argparse.SUPPRESS, help=help, **options)


def run(main):
    """Call main(argv) and leave with what it returns; a MinitronError becomes one line on standard error and status 2."""
    try:
        try:
            status = main(sys.argv[1:])
        finally:
            sys.stdout.flush()          # here, where a reader who is gone can be dealt with, and not at the very end
    except MinitronError as error:
        status = complain(error)
    except MemoryError as error:
        status = complain(f"out of memory ({error}): use a smaller --dim, --layers, --length or --batch")
    except KeyboardInterrupt:
        status = complain("stopped", 130)
    except OSError as error:            # of standard output; all other files are seen to where they are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1 if isinstance(error, BrokenPipeError) else complain(f"output cannot be written: {error.strerror}")
    sys.exit(status)


def complain(reason, status=2):
    print(f"minitron: {reason}", file=sys.stderr)
    return status
