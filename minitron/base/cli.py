"""Command lines: flags that are the fields of a dataclass, and errors as one line each."""
import argparse
import dataclasses
import difflib
import os
import re
import sys
import types
import typing

from .errors import MinitronError

HIDDEN = argparse.SUPPRESS      # the help text of a flag that -h does not list


class Parser(argparse.ArgumentParser):
    """An argparse parser with one-line errors, and without abbreviations of flags."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
                         **options)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}{self.hint(message)} (-h lists the flags)\n")

    def hint(self, message):
        """A hint at the arguments that were meant where argparse refuses others, or "\""""
        if unknown := re.match(r"unrecognized arguments: ([^ =]*)", message):
            flags = [flag for parser in [self, *self.commands().values()]
                     for flag in parser._option_string_actions]
            if self.prog == "train.py" and not unknown[1].startswith("-"):
                return f"; did you mean --task {unknown[1]}?"
            return did_you_mean(unknown[1], flags)
        if command := re.match("argument COMMAND: invalid choice: '([^']*)'", message):
            if command[1] == "train":
                return "; training is a program of its own, train.py"
            return did_you_mean(command[1], self.commands())
        if re.search("invalid (int|float) value: '.*,.*'", message):
            return "; several values are for python -m minitron sweep"
        return ""

    def commands(self):
        """{name: Parser} of its subcommands"""
        actions = [each for each in self._actions if isinstance(each, argparse._SubParsersAction)]
        return actions[0].choices if actions else {}


def did_you_mean(word, words):
    """"; did you mean X?" if one of the words resembles `word`, else "\""""
    close = difflib.get_close_matches(word, words, 1)
    return f"; did you mean {close[0]}?" if close else ""


def dashed(name):
    """train_fraction -> train-fraction"""
    return name.replace("_", "-")


def flag(name):
    """train_fraction -> --train-fraction"""
    return "--" + dashed(name)


def flag_types(config_class):
    """{name: type} of those fields of a dataclass that are flags; of `int | None` it is int"""
    hints = typing.get_type_hints(config_class)
    hints = {field.name: hints[field.name] for field in dataclasses.fields(config_class)
             if field.metadata["help"] is not None}
    return {name: hint.__args__[0] if isinstance(hint, types.UnionType) else hint
            for name, hint in hints.items()}


def add_fields(parser, config_class, names=None):
    """Add a flag for each field of a dataclass.  The result has only the flags that were given.

    names: add these fields only, and leave the dataclass's defaults out of their help
    """
    flags = flag_types(config_class)
    for field in dataclasses.fields(config_class):
        if field.name in flags and (names is None or field.name in names):
            add_field(parser, field, flags[field.name], show_default=names is None)


def add_field(parser, field, kind, show_default):
    text = field.metadata["help"]
    if show_default and field.default is not None:
        text += f" (default {field.default})"
    if kind is bool:
        options = {"action": argparse.BooleanOptionalAction}
    else:
        options = {"type": kind, "metavar": kind.__name__.upper()}
    parser.add_argument(flag(field.name), default=argparse.SUPPRESS, help=text, **options)


def run(main):
    """Exit with the status of main(argv), or with 2 and one line after a MinitronError."""
    try:
        try:
            status = main(sys.argv[1:])
        finally:
            sys.stdout.flush()          # here, so that a closed pipe can be handled below
    except MinitronError as error:
        status = complain(error)
    except MemoryError as error:
        status = complain(f"out of memory ({error}): "
                          "use a smaller --dim, --layers, --length or --batch")
    except KeyboardInterrupt:
        status = complain("stopped", 130)
    except OSError as error:            # of standard output: other files raise MinitronError
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
        if not isinstance(error, BrokenPipeError):
            status = complain(f"output cannot be written: {error.strerror}")
    sys.exit(status)


def complain(reason, status=2):
    """Print a line on standard error -> status"""
    print(f"minitron: {reason}", file=sys.stderr)
    return status
