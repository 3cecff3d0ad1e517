"""python -m minitron COMMAND: everything but training, which is train.py."""
from . import environment

environment.use()       # before anything that needs NumPy

from pathlib import Path

import tasks

from . import cli, export, gallery, probe, sweep_command


def main(argv):
    parser = cli.Parser(prog="python -m minitron", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    show = commands.add_parser("tasks", help="show the tasks: examples, what is scored, chance level, source")
    show.add_argument("names", nargs="*", metavar="TASK", help="only these")
    quantize = commands.add_parser("quantize", help="write a model's matrices as int8: a quarter of the size")
    quantize.add_argument("model", metavar="MODEL")
    quantize.add_argument("out", metavar="OUT")
    probe.add_commands(commands)
    sweep_command.add_commands(commands)
    flags = vars(parser.parse_args(argv))
    command = flags.pop("command")
    if command == "quantize":
        return quantize_file(**flags)
    if command == "tasks":
        for name in flags["names"] or tasks.names():
            print(gallery.show(name))
        return 0
    if command == "sweep":
        return sweep_command.run_sweep(flags)
    if command == "report":
        return sweep_command.show_report(**flags)
    return probe.run(command, flags)


def quantize_file(model, out):
    """Write the int8 version of a model file.  Raises MinitronError."""
    content = export.model_bytes(*export.read_model(model), export.INT8)
    share = len(content) / Path(model).stat().st_size
    export.write_atomically(out, content)
    print(f"{out}: {len(content)} bytes, {share:.2f} of {model}")
    return 0


if __name__ == "__main__":
    cli.run(main)
