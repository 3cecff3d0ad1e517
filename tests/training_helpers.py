"""Tests of training share: a tiny configuration, runs in and out of this process, a signal at a step."""
import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import train
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
    """The lines of a ledger; a NaN or an infinity, which Python would read, is no JSON."""
    lines = (tmp_path / name).read_text().splitlines()
    return [json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} in a record")) for line in lines]


def step_saved(path):
    return checkpoint.read(path)["progress"]["step"]


def flags(config):
    """The command line of a configuration."""
    changed = {name: value for name, value in dataclasses.asdict(config).items() if value != getattr(Config(), name)}
    return [word for name, value in changed.items() for word in ("--" + name.replace("_", "-"), str(value))]


def start(*arguments, **options):
    """`python train.py` in a process of its own, whose output comes line by line."""
    return subprocess.Popen([sys.executable, "-u", ROOT / "train.py", *map(str, arguments)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def signal_at(monkeypatch, *steps):
    """Raise SIGINT, as Ctrl-C does, while these steps are worked on."""
    original = batches.training_batch

    def training_batch(task, config, step):
        if step in steps:
            signal.raise_signal(signal.SIGINT)
        return original(task, config, step)

    monkeypatch.setattr(batches, "training_batch", training_batch)
