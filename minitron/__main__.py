"""python -m minitron COMMAND: everything but training, which is train.py."""
from . import environment

environment.use()       # before anything that needs NumPy

import tasks

from . import cli, gallery


def main(argv):
    parser = cli.Parser(prog="python -m minitron", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    show = commands.add_parser("tasks", help="show the tasks: examples, what is scored, chance level, source")
    show.add_argument("names", nargs="*", metavar="TASK", help="only these")
    flags = parser.parse_args(argv)
    for name in flags.names or tasks.names():
        print(gallery.show(name))
    return 0


if __name__ == "__main__":
    cli.run(main)
