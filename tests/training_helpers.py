"""For tests of training: a tiny configuration, runs in and out of this process, signals."""
import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import train
from minitron.base.cli import flag
from minitron.data import batches
from minitron.data.config import Config
from minitron.training import checkpoint

ROOT = Path(train.__file__).parent
TINY = Config(dim=8, layers=1, length=1, batch=16, steps=20, eval_every=5, test_items=50)


def run(tmp_path, config=TINY, name="model.bin", resume=False):
    """Train quietly -> the model file's content"""
    out = tmp_path / name
    train.train(config, out, tmp_path / "runs.jsonl", resume, quiet=True)
    return out.read_bytes()


def records(tmp_path, name="runs.jsonl"):
    """The lines of a ledger; a NaN or an infinity, which Python would read, is not JSON."""
    def refuse(word):
        pytest.fail(f"{word} in a record")

    lines = (tmp_path / name).read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def step_saved(path):
    return checkpoint.read(path)["progress"]["step"]


def flags(config):
    """The command line of a configuration"""
    changed = {name: value for name, value in dataclasses.asdict(config).items()
               if value != getattr(Config(), name)}
    return [word for name, value in changed.items() for word in (flag(name), str(value))]


def start(*arguments, **options):
    """`python train.py` in a process of its own, whose output comes line by line"""
    command = [sys.executable, "-u", ROOT / "train.py", *map(str, arguments)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            **options)


def signal_at(monkeypatch, *steps):
    """Raise SIGINT, as Ctrl-C does, during these steps."""
    original = batches.training_batch

    def training_batch(task, config, step):
        if step in steps:
            signal.raise_signal(signal.SIGINT)
        return original(task, config, step)

    monkeypatch.setattr(batches, "training_batch", training_batch)
