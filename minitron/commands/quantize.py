"""Write a model file with its matrices as int8, about a quarter of the size.

    python -m minitron quantize model.bin model8.bin
"""
from pathlib import Path

from ..base.files import write_atomically
from ..engine import model_file


def add_parser(commands):
    parser = commands.add_parser("quantize", help="write a model's matrices as int8, 1/4 the size",
                                 description=__doc__)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("out", metavar="OUT")


def run(flags):
    model, out = flags["model"], flags["out"]
    content = model_file.model_bytes(*model_file.read_model(model), model_file.INT8)
    share = len(content) / Path(model).stat().st_size
    write_atomically(out, content)
    print(f"{out}: {len(content)} bytes, {share:.2f} of {model}")
    return 0
