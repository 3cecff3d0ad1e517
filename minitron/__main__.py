"""Everything but training, which is train.py.

    python -m minitron tasks parity                         a task: examples, chance level, source
    python -m minitron eval model.bin --length 1-8          the metrics of a model, by length
    python -m minitron sweep addition --dim 8,16,32 --length 1-4 --out sums.jsonl
    python -m minitron report sums.jsonl --html sums.html   the phase diagram of a sweep

COMMAND -h explains a command.
"""
import os
import sys

from .base import environment

environment.ensure_packages()       # before the imports that need NumPy

from .base import cli
from .commands import eval, heads, law, quantize, report, sweep, tasks

COMMANDS = {"tasks": tasks, "eval": eval, "heads": heads, "quantize": quantize, "sweep": sweep,
            "report": report, "law": law}


def main(argv):
    """The command line -> exit status"""
    parser = cli.Parser(prog="python -m minitron", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in COMMANDS.values():
        command.add_parser(subparsers)
    flags = vars(parser.parse_args(argv))
    name = flags.pop("command")
    if name is None:
        parser.print_help(sys.stderr)
        return 2
    return COMMANDS[name].run(flags)


def program():
    """The command `minitron`, which pip installs: with `minitron train`, which is train.py"""
    if sys.argv[1:2] == ["train"]:
        script = str(environment.ROOT / "train.py")
        os.execv(sys.executable, [sys.executable, script, *sys.argv[2:]])
    cli.run(main)


if __name__ == "__main__":
    cli.run(main)
