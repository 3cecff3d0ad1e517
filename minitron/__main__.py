"""python -m minitron COMMAND: everything but training, which is train.py."""
from .base import environment

environment.use()       # before anything that needs NumPy

from .base import cli
from .commands import eval, heads, law, quantize, report, sweep, tasks

COMMANDS = {"tasks": tasks, "eval": eval, "heads": heads, "quantize": quantize, "sweep": sweep, "report": report,
            "law": law}


def main(argv):
    parser = cli.Parser(prog="python -m minitron", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        command.add_parser(commands)
    flags = vars(parser.parse_args(argv))
    return COMMANDS[flags.pop("command")].run(flags)


if __name__ == "__main__":
    cli.run(main)
