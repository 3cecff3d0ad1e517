"""Every mistake ends in one line that names the thing and the remedy, and harms no file.

There is no traceback, and the status is not 0.  After a full disk or with a damaged checkpoint the
old files are unchanged, with no temporary file beside them.
"""
import dataclasses
import errno
import functools
import io
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minitron.__main__
import train
from minitron.base import cli, files
from minitron.base.errors import MinitronError
from minitron.data import batches, tasks
from minitron.data.config import Config
from minitron.measure import record
from minitron.model.params import Params, init
from minitron.training import checkpoint, run

ROOT = Path(train.__file__).parent
TINY = "--dim 8 --layers 1 --length 1 --batch 16 --steps 20 --eval-every 5 --test-items 50".split()


@pytest.fixture
def command(monkeypatch, capsys):
    """Call a main() as the command line does -> status, the lines on standard error"""
    def call(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.run(main)
        return left.value.code, capsys.readouterr().err.splitlines()

    return call


@pytest.fixture
def folder(tmp_path):
    """Files to get wrong."""
    (tmp_path / "empty.txt").touch()
    (tmp_path / "one.txt").write_text("aaaa")
    (tmp_path / "small.txt").write_text("hello")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 1000)
    (tmp_path / "many.txt").write_text("".join(map(chr, range(300, 2000))), encoding="utf-8")
    (tmp_path / "folder").mkdir()
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def not_empty(files):
    return {name: content for name, content in files.items() if content}


# Arguments, with {} for the folder, and words that the line must have: thing, value, rule.
WRONG = [
    ("--task nosuch", ["nosuch", "addition", "parity"]),
    ("--task", ["--task", "expected one argument"]),
    ("--nosuch 3", ["--nosuch", "-h"]),
    ("--dimension 8", ["--dimension", "-h"]),
    ("--batc 8", ["--batc", "-h"]),                                 # flags may not be abbreviated
    ("extra", ["extra", "-h"]),
    ("--length 0", ["length 0", "1 to 64"]),
    ("--length 99", ["length 99", "1 to 64"]),
    ("--task modular --length 1", ["length 1", "2 to 256"]),
    ("--heads 3 --kv-heads 2", ["heads 3", "kv-heads 2", "multiple"]),
    ("--heads 0", ["heads 0", "1 to"]),
    ("--kv-heads 0", ["kv-heads 0", "1 to"]),
    ("--head-dim 7", ["head-dim 7", "odd", "use 8"]),
    ("--heads 4096 --head-dim 1024", ["4096", "1024", "fewer or narrower"]),
    ("--dim 0", ["dim 0", "1 to 65536"]),
    ("--dim -8", ["dim -8", "1 to 65536"]),
    ("--dim abc", ["--dim", "'abc'"]),
    ("--dim 8.5", ["--dim", "'8.5'"]),
    ("--dim 65537", ["dim 65537", "1 to 65536"]),
    ("--dim 65536 --ffn-dim 0 --layers 4096", ["memory", "dim"]),
    ("--layers 0", ["layers 0", "1 to"]),
    ("--ffn-dim -1", ["ffn-dim -1", "0 to"]),
    ("--ffn-dim 65537", ["ffn-dim 65537", "0 to 65536"]),
    ("--lr nan", ["lr nan", "use 0 to"]),
    ("--lr -1", ["lr -1", "use 0 to"]),
    ("--lr 1e30", ["lr 1e+30", "use 0 to 1e+06"]),
    ("--clip 0", ["clip 0", "use 1e-06 to"]),
    ("--beta2 1", ["beta2 1", "use 0 to 0.999999"]),
    ("--weight-decay inf", ["weight-decay inf", "use 0 to"]),
    ("--norm-eps 0", ["norm-eps 0", "use 1e-12 to"]),
    ("--rope-theta -1", ["rope-theta -1", "use 0 to"]),
    ("--steps 0", ["steps 0", "use 1 to"]),
    ("--eval-every 0", ["eval-every 0", "use 1 to"]),
    ("--test-items 0", ["test-items 0", "use 1 to"]),
    ("--seed -1", ["seed -1", "use 0 to"]),
    ("--train-fraction 2", ["train-fraction 2", "0.01 to 0.99"]),
    ("--task parity --length 3 --train-fraction 0.02 --steps 60", ["--train-fraction"]),
    ("--variant nosuch", ["variant 'nosuch'", "plain, reversed"]),
    ("--attention nosuch", ["attention 'nosuch'", "softmax, linear"]),
    ("--shards 5 --batch 4", ["shards 5", "batch 4"]),
    ("--batch 0", ["batch 0", "1 to"]),
    ("--options k=1", ["option 'k=1'", "addition", "none"]),
    ("--task sparse_parity --options k=", ["option k ''", "1 to 16"]),
    ("--task sparse_parity --options k", ["option k ''", "1 to 16"]),
    ("--task sparse_parity --options =2", ["option '=2'", "k=3, world=0"]),
    ("--task sparse_parity --options k=17", ["option k 17", "1 to 16"]),
    ("--task sparse_parity --options k=2.5", ["option k '2.5'", "1 to 16"]),
    ("--task sparse_parity --options world=-1", ["option world -1", "0 to"]),
    ("--task sparse_parity --options k=4 --length 3", ["k is 4", "3 bits"]),
    ("--task quanta --options alpha=nan", ["option alpha nan", "0.0 to 4.0"]),
    ("--task mqar --options power=inf", ["option power inf", "0.01 to 1.0"]),
    ("--task mqar --length 5", ["length 5", "even"]),
    ("--task mqar --test-length 67", ["length 67", "even"]),
    ("--task induction --length 9", ["length 9", "segment 8", "16 to 72"]),
    ("--length 3 --test-length 2", ["test-length 2", "3 to 64"]),
    ("--test-length 99999999999999999999", ["test-length 99999999999999999999", "3 to 64"]),
    ("--task modular --test-length 60", ["test-length 60", "modular", "ability"]),
    ("--positions nosuch", ["positions 'nosuch'", "plain, random, coupled"]),
    ("--positions random --rope-theta 0", ["positions 'random'", "--rope-theta above 0"]),
    ("--task markov --positions coupled", ["positions 'coupled'", "markov", "plain or random"]),
    ("--positions random --position-range 1", ["position-range 1", "13 tokens", "larger"]),
    ("--positions random --test-length 5 --position-range 15", ["position-range 15", "19 tokens"]),
    ("--positions random --position-range 1048577", ["position-range 1048577", "use 1 to"]),
    ("--lr-floor nan", ["lr-floor nan", "use 0 to 1"]),
    ("--lr-floor 2", ["lr-floor 2", "use 0 to 1"]),
    ("--data {}/small.txt", ["small.txt", "--task text"]),
    ("--task text --data {}/nosuch.txt", ["nosuch.txt", "No such file"]),
    ("--task text --data {}/folder", ["folder", "not a regular file"]),
    ("--task text --data {}/empty.txt", ["empty.txt", "0 different characters", "at least 2"]),
    ("--task text --data {}/one.txt", ["one.txt", "1 different characters", "at least 2"]),
    ("--task text --data {}/many.txt",
     ["many.txt", "1700 different characters", "--variant bytes"]),
    ("--task text --data {}/small.txt", ["small.txt", "5 tokens", "--length"]),
    ("--task text --data {}/latin.txt", ["latin.txt", "not UTF-8", "byte 3", "--variant bytes"]),
    ("--out {}/nosuch/model.bin", ["nosuch", "is not a directory", "--out"]),
    ("--out {}/small.txt/model.bin", ["small.txt", "is not a directory", "--out"]),
    ("--out {}/folder", ["folder", "is a directory", "--out"]),
    ("--out {}/folder --resume", ["folder.ckpt does not exist", "start without --resume"]),
    ("--out /", ["is a directory", "--out"]),
    ("--out ", ["--out"]),
    ("--ledger {}/folder", ["folder", "directory"]),
    ("--ledger {}/nosuch/runs.jsonl", ["runs.jsonl", "No such file"]),
    ("--resume", ["model.bin.ckpt", "start without --resume"]),
]


@pytest.mark.parametrize("line, words", WRONG, ids=[line for line, _ in WRONG])
def test_wrong_command_is_refused_in_one_line_with_the_remedy(
        command, folder, monkeypatch, line, words):
    monkeypatch.chdir(folder / "folder")
    before = contents(folder)
    status, error = command(train.main, *[word.format(folder) for word in line.split(" ")])
    assert status == 2
    [complaint] = error
    assert complaint.startswith(("minitron: ", "train.py: "))
    assert all(word in complaint for word in words), complaint
    assert not_empty(contents(folder)) == not_empty(before)


@pytest.mark.parametrize("variant", ["chars", "bytes"])
@pytest.mark.parametrize("size", [0, 1, 5, 40, 60, 300])
def test_size_that_the_refusal_of_a_short_text_names_is_enough(tmp_path, variant, size):
    data = tmp_path / "text.txt"
    data.write_text(("ab" * size)[:size])
    config = Config(task="text", data=str(data), variant=variant, length=8)
    with pytest.raises(MinitronError) as refusal:
        config.resolve()
    if "different characters" in str(refusal.value):
        return
    needed = int(str(refusal.value).split("needs about ")[1].split(":")[0])
    data.write_text("ab" * (needed // 2 + 1))
    config.resolve()


@pytest.mark.parametrize("arguments, words", [
    (["nosuch"], ["nosuch", "tasks"]),
    (["tasks", "nosuch"], ["nosuch", "addition"]),
    (["tasks", "--nosuch"], ["--nosuch"]),
])
def test_wrong_command_of_the_package_is_refused(command, arguments, words):
    status, error = command(minitron.__main__.main, *arguments)
    assert status == 2
    [complaint] = error
    assert all(word in complaint for word in words), complaint


@pytest.mark.parametrize("arguments", [
    ["train.py", "--dim", "0"], ["train.py", "--nosuch"],
    ["train.py", "--resume", "--out", "/nosuch/model.bin"], ["-m", "minitron", "tasks", "nosuch"],
    ["-m", "minitron", "nosuch"],
])
def test_real_process_too_ends_with_one_line_and_status_2(arguments):
    process = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("arguments, meant", [
    ("train.py addition", "did you mean --task addition?"),
    ("train.py --dims 8", "did you mean --dim?"),
    ("train.py --dim 8,16", "several values are for python -m minitron sweep"),
    ("train.py --task additon", "did you mean addition?"),
    ("train.py --variant plane", "did you mean plain?"),
    ("train.py --task mqar --options pair=3", "did you mean pairs?"),
    ("-m minitron swep addition", "did you mean sweep?"),
    ("-m minitron sweep addition --dimm 8", "did you mean --dim?"),
    ("-m minitron train", "training is a program of its own, train.py"),
])
def test_near_misses_are_told_what_was_meant(arguments, meant):
    process = subprocess.run([sys.executable, *arguments.split()], cwd=ROOT, capture_output=True,
                             text=True)
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert meant in process.stderr


def test_package_without_a_command_lists_the_commands_with_status_2():
    process = subprocess.run([sys.executable, "-m", "minitron"], cwd=ROOT, capture_output=True,
                             text=True)
    assert (process.returncode, process.stdout) == (2, "")
    usage, *lines = process.stderr.splitlines()
    assert usage.startswith("usage: python -m minitron ") and "COMMAND" in usage
    listed = {line.split()[0] for line in lines if line.startswith("    ") and line[4] != " "}
    assert listed >= set(minitron.__main__.COMMANDS)
    assert any(line.startswith("    python -m minitron eval ") for line in lines), "an example"


@pytest.mark.parametrize("arguments", [["-m", "minitron", "tasks"], ["train.py", "--help"]])
def test_reader_that_closes_the_pipe_is_not_complained_about(arguments):
    """`... | head`: Python writes short output, and fails to, only when it flushes at the end."""
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=buffered, stdout=writer,
                             stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert process.stderr == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directory_that_may_not_be_written(command, tmp_path):
    tmp_path.chmod(0o555)
    status, [complaint] = command(train.main, *TINY, "--out", tmp_path / "model.bin")
    assert status == 2 and "Permission denied" in complaint and str(tmp_path) in complaint


# Damaged checkpoints

@pytest.fixture
def saved(tmp_path):
    """A checkpoint as small as they come: path, configuration, its weights."""
    config = Config(dim=2, layers=1, length=1, ffn_dim=0).resolve()
    p = init(config)
    progress = {"step": 3, "solved": 0, "tokens": 9, "flops": 1.0, "seconds": 1.0, "curve": [],
                "numerics": []}
    checkpoint.save(tmp_path / "small.ckpt", config, "name", p, p, p, progress)
    return tmp_path / "small.ckpt", config, p


def assert_refused_or_whole(path, config, p):
    """A damaged checkpoint is refused by its name, unless the damage changed nothing."""
    filled = Params(config), Params(config), Params(config)
    try:
        assert checkpoint.restore(path, config, "name", *filled)["step"] == 3
    except MinitronError as error:
        assert str(path) in str(error) and "delete" in str(error)
        return
    assert all((each.flat == p.flat).all() for each in filled)


@pytest.mark.parametrize("resume", [False, True])
def test_truncated_checkpoint_is_refused(saved, resume):
    path, config, p = saved
    content = path.read_bytes()
    for size in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(MinitronError, match=r"small\.ckpt cannot be read .* delete it"):
            if resume:
                checkpoint.restore(path, config, "name", p, p, p)
            else:
                checkpoint.saved_config(path, {})


def test_checkpoint_with_a_byte_changed_is_refused_or_whole(saved):
    """Each byte of the zip's directory, which has no checksum, and every seventh of the others"""
    path, config, p = saved
    content = path.read_bytes()
    directory = len(content) - 300
    assert b"PK\x01\x02" in content[directory:] and b"PK\x01\x02" not in content[:directory]
    for i in [*range(0, directory, 7), *range(directory, len(content))]:
        path.write_bytes(content[:i] + bytes([content[i] ^ 0xFF]) + content[i + 1:])
        assert_refused_or_whole(path, config, p)


def array_file():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def archive(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("content", [
    b"", b"garbage", b"PK\x03\x04" + bytes(100), b"\x93NUMPY" + bytes(100), array_file(),
    archive(), archive(p=np.zeros(3)),
    archive(p=np.zeros(3), m=np.zeros(3), v=np.zeros(3), about=np.frombuffer(b"[1, 2]", np.uint8)),
], ids=["empty", "text", "zip", "npy", "array", "nothing", "half", "list"])
def test_file_that_is_not_a_checkpoint_is_refused(command, tmp_path, content):
    path = tmp_path / "model.bin.ckpt"
    path.write_bytes(content)
    status, [complaint] = command(train.main, "--resume", "--out", tmp_path / "model.bin")
    assert status == 2 and str(path) in complaint and "delete" in complaint
    assert contents(tmp_path) == {path.name: content}


@pytest.mark.parametrize("change", [
    lambda about: about["config"].pop("qk_norm"),
    lambda about: about["config"].update(option_of_tomorrow=1),
    lambda about: about.update(key="another"),
    lambda about: about.pop("progress"),
    lambda about: None,
], ids=["lacks", "more", "key", "progress", "shape"])
def test_checkpoint_of_another_version_is_refused(command, tmp_path, change):
    """A newer or a removed flag, another version of the task; in all, weights of another shape"""
    config = Config(dim=2, layers=1, length=1, ffn_dim=0).resolve()
    p = init(dataclasses.replace(config, qk_norm=False))
    about = {"config": dataclasses.asdict(config), "key": config.key(tasks.load(config)),
             "progress": {"step": 0}}
    change(about)
    path = tmp_path / "model.bin.ckpt"
    about = np.frombuffer(json.dumps(about).encode(), np.uint8)
    path.write_bytes(archive(p=p.flat, m=p.flat, v=p.flat, about=about))
    before = contents(tmp_path)
    status, [complaint] = command(train.main, "--resume", "--out", tmp_path / "model.bin")
    assert status == 2 and str(path) in complaint and "delete" in complaint
    assert not_empty(contents(tmp_path)) == before


@pytest.mark.parametrize("change", [
    lambda about: about["config"].update(dim="2"),
    lambda about: about["config"].update(task=["addition"]),
    lambda about: about.update(config=3),
    lambda about: about["progress"].update(step="3"),
    lambda about: about["progress"].update(step=-1),
    lambda about: about["progress"].update(step=10**7),
    lambda about: about["progress"].update(seconds=float("nan")),
    lambda about: about["progress"].update(flops=None),
    lambda about: about["progress"].update(curve={}),
    lambda about: about["progress"].update(curve=[3]),
    lambda about: about["progress"].update(curve=[{"step": 1}]),
    lambda about: about["progress"].update(numerics=["2.4"]),
    lambda about: about["progress"].update(numerics=functools.reduce(
        lambda inner, _: [inner], range(900), [])),
], ids=range(13))
@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["start", "resume"])
def test_checkpoint_with_values_of_another_type_is_refused(command, tmp_path, change, resume):
    """Its checksums are right: another program, or a person, wrote it."""
    config = Config(dim=2, layers=1, length=1, ffn_dim=0).resolve()
    p = init(config)
    about = {"config": dataclasses.asdict(config), "key": config.key(tasks.load(config)),
             "progress": checkpoint.new_progress()}
    change(about)
    about = np.frombuffer(json.dumps(about).encode(), np.uint8)
    (tmp_path / "model.bin.ckpt").write_bytes(archive(p=p.flat, m=p.flat, v=p.flat, about=about))
    status, complaint = command(train.main, *resume, *TINY, "--out", tmp_path / "model.bin")
    assert status == 2
    assert "model.bin.ckpt cannot be read" in complaint[-1] and "delete it" in complaint[-1]


@pytest.mark.parametrize("kind", [np.float64, np.complex64, "U4"])
def test_checkpoint_with_weights_of_another_type_is_refused(saved, kind):
    path, config, p = saved
    progress = checkpoint.new_progress()
    about = {"config": dataclasses.asdict(config), "key": "name", "progress": progress}
    about = np.frombuffer(json.dumps(about).encode(), np.uint8)
    path.write_bytes(archive(p=p.flat.astype(kind), m=p.flat, v=p.flat, about=about))
    with pytest.raises(MinitronError, match="cannot be read .*float32.*: delete it"):
        checkpoint.restore(path, config, "name", p, p, p)


# Full disks.  The stage at which the disk is full, and the function that the run is in then.
STAGES = {"checkpoint": (checkpoint, "save"), "export": (run, "export_model"),
          "ledger": (record, "append_record")}
FAILING = {"checkpoint": "model.bin.ckpt", "export": "model.bin", "ledger": "runs.jsonl"}


@pytest.fixture
def stopped(tmp_path, monkeypatch, capsys):
    """A folder with a run stopped at step 3, an older model and an older ledger."""
    (tmp_path / "model.bin").write_bytes(b"older model")
    (tmp_path / "runs.jsonl").write_bytes(b'{"older": "record"}\n')
    with monkeypatch.context() as patch:
        original = batches.training_batch

        def training_batch(task, config, step):
            if step == 3:
                signal.raise_signal(signal.SIGINT)
            return original(task, config, step)

        patch.setattr(batches, "training_batch", training_batch)
        assert train.main([*TINY, "--out", str(tmp_path / "model.bin")]) == 130
    capsys.readouterr()
    return tmp_path


def assert_only_the_failing_file_is_stale(folder, before, stage):
    after = contents(folder)
    assert after.keys() == before.keys(), "no temporary file is left"
    if stage in ("checkpoint", "export"):
        assert after["model.bin"] == before["model.bin"]
    if stage == "checkpoint":
        assert after["model.bin.ckpt"] == before["model.bin.ckpt"]
    assert after["runs.jsonl"].startswith(before["runs.jsonl"])
    step = checkpoint.read(folder / "model.bin.ckpt")["progress"]["step"]
    assert step == (3 if stage == "checkpoint" else 20)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("stage", STAGES)
def test_full_disk_harms_nothing_and_the_run_can_resume(command, stopped, monkeypatch, stage, call):
    if (stage, call) == ("ledger", "replace"):
        call = "open"                   # a ledger is appended to, not replaced
    before, out = contents(stopped), stopped / "model.bin"
    module, name = STAGES[stage]
    original = getattr(module, name)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def with_full_disk(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(files if call == "open" else os, call, full, raising=False)
            return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, with_full_disk)
        status, error = command(train.main, "--resume", "--out", out)
    assert status == 2
    *progress, complaint = error
    assert all(line.startswith("step ") or "engine is not built" in line for line in progress)
    assert complaint.startswith("minitron: ") and "No space left on device" in complaint
    assert f"{stopped / FAILING[stage]} cannot be written" in complaint
    assert_only_the_failing_file_is_stale(stopped, before, stage)

    assert command(train.main, "--resume", "--out", out)[0] == 0
    assert contents(stopped).keys() == {"model.bin", "runs.jsonl"}
    assert out.read_bytes()[:8] == b"minitron"


@pytest.mark.parametrize("stage, limit", [("checkpoint", 8192), ("ledger", 65536)])
def test_limit_on_the_size_of_files_is_met_as_a_full_disk_is(stopped, stage, limit):
    if stage == "ledger":
        with open(stopped / "runs.jsonl", "a") as file:
            file.write(65500 * " " + "\n")      # then the checkpoint fits, but no record does
    before = contents(stopped)
    process = subprocess.run(
        [sys.executable, ROOT / "train.py", "--resume", "--out", stopped / "model.bin"],
        capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert process.returncode == 2 and "Traceback" not in process.stderr
    assert process.stderr.splitlines()[-1].startswith(
        f"minitron: {stopped / FAILING[stage]} cannot be written: File too large")
    assert_only_the_failing_file_is_stale(stopped, before, stage)


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_write_that_fails_leaves_the_old_content_alone(tmp_path, monkeypatch, call, failure):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*arguments):
        raise failure

    monkeypatch.setattr(os, call, fail)
    with pytest.raises((MinitronError, KeyboardInterrupt)):
        files.write_atomically(path, b"new")
    monkeypatch.undo()
    assert contents(tmp_path) == {"file": b"old"}
    files.write_atomically(path, b"n", b"ew")
    assert contents(tmp_path) == {"file": b"new"}


def test_written_file_has_the_mode_that_any_new_file_has(tmp_path):
    mask = os.umask(0o027)
    try:
        files.write_atomically(tmp_path / "file", b"x")
    finally:
        os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_not_a_ledger(command, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    status, error = command(train.main, *TINY, "--out", tmp_path / "model.bin",
                            "--ledger", tmp_path / "pipe")
    assert status == 2 and "pipe cannot be written" in error[-1]
