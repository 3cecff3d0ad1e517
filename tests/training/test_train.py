"""The training loop: the same bits for the same command, whatever happens on the way.

Interrupted between any two steps, killed at any moment, on one thread or two: the run that resumes
from the checkpoint ends with the model.bin of an undisturbed run, byte for byte.  A run that ends
badly says so in its record, and no number in a record is made up.
"""
import dataclasses
import json
import random
import shlex
import signal
import sys

import numpy as np
import pytest
from killed_runs import survive
from training_helpers import TINY, flags, records, run, signal_at, start, step_saved

import train
from minitron.base import blas, environment
from minitron.base.errors import MinitronError
from minitron.base.terminal import Interrupted
from minitron.data import batches, tasks
from minitron.data.config import Config
from minitron.engine import model_file as export
from minitron.engine.engine import Engine, EngineMissing, library
from minitron.measure import evaluate
from minitron.model.flops import train_flops
from minitron.model.params import init
from minitron.training import checkpoint
from minitron.training import run as run_module
from minitron.training.parallel import Workers


def built():
    try:
        return bool(library())
    except EngineMissing:
        return False


needs_engine = pytest.mark.skipif(not built(), reason="no C compiler, no engine")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The model file of TINY, trained in one go, and its record."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return run(folder), records(folder)[0]


def test_same_command_gives_the_same_bytes_in_any_process(tmp_path, undisturbed):
    model, _ = undisturbed
    assert run(tmp_path) == model
    with start(*flags(TINY), "--out", tmp_path / "fresh.bin") as process:
        assert process.wait() == 0, process.stderr.read()
    assert (tmp_path / "fresh.bin").read_bytes() == model


@pytest.mark.parametrize("change", [{"seed": 1}, {"lr": 0.02}, {"steps": 19}])
def test_another_configuration_gives_other_weights(tmp_path, undisturbed, change):
    def weights(content):
        return export.parse_model(content)[1].flat

    changed = run(tmp_path, dataclasses.replace(TINY, **change))
    assert (weights(changed) != weights(undisturbed[0])).any()


def test_number_of_threads_does_not_matter(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, shards=3)
    models = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(
            train, "Workers", lambda config, threads=threads: Workers(config, threads))
        models.append(run(tmp_path, config))
    assert models[0] == models[1] == models[2]


# 1: the first; 5: with an evaluation; 7: between two; 19, 20: the last but one and the last
@pytest.mark.parametrize("stops", [[1], [5], [7], [19], [20], [1, 2, 3, 12]])
def test_resumed_run_ends_with_the_same_bytes_and_numbers(
        tmp_path, monkeypatch, undisturbed, stops):
    signal_at(monkeypatch, *stops)
    for done, step in enumerate(stops):
        with pytest.raises(Interrupted, match=f"after step {step} of 20"):
            run(tmp_path, resume=done > 0)
        assert step_saved(tmp_path / "model.bin.ckpt") == step
    model, record = undisturbed
    assert run(tmp_path, resume=True) == model
    assert not (tmp_path / "model.bin.ckpt").exists()
    [resumed] = records(tmp_path)
    assert resumed.keys() == record.keys()
    assert {name for name in record if resumed[name] != record[name]} <= {"seconds"}


def test_kills_lose_nothing(tmp_path):
    """kill -9 at random moments, while stepping, saving, exporting or writing the record"""
    assert survive(tmp_path, random.Random(0), kills=10)["resumed"]


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path, undisturbed):
    out = tmp_path / "model.bin"
    process = start(*flags(dataclasses.replace(TINY, steps=10**6)), "--out", out)
    process.stderr.readline()                           # a line of progress: the loop is running
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    last = error.splitlines()[-1]
    assert last == (f"stopped and saved after step {step_saved(f'{out}.ckpt')} of 1000000; "
                    f"resume with: {environment.train_command()} --resume --out {out}")
    assert "Traceback" not in error and not out.exists()


# The paths of model and ledger are not in the checkpoint: the command has to name both.
@pytest.mark.parametrize("name, ledger", [
    ("m.bin", None), ("my model.bin", None), ("m.bin", "sweep.jsonl"),
])
def test_the_command_that_ctrl_c_prints_resumes_the_run(
        tmp_path, monkeypatch, capsys, undisturbed, name, ledger):
    paths = ["--out", str(tmp_path / name)]
    if ledger:
        paths += ["--ledger", str(tmp_path / ledger)]
    signal_at(monkeypatch, 3)
    assert train.main(flags(TINY) + paths) == 130
    python, script, *arguments = shlex.split(capsys.readouterr().err.split("resume with: ")[1])
    assert [python, script] == shlex.split(environment.train_command())
    assert train.main(arguments) == 0
    assert (tmp_path / name).read_bytes() == undisturbed[0]
    assert len(records(tmp_path, ledger or "runs.jsonl")) == 1


def test_second_ctrl_c_is_obeyed_at_once(tmp_path, monkeypatch):
    def ctrl_c_twice(*arguments):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train, "adamw", ctrl_c_twice)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert step_saved(tmp_path / "model.bin.ckpt") == 0


def test_signal_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_start_over_a_checkpoint_is_refused(tmp_path, monkeypatch):
    signal_at(monkeypatch, 3)
    with pytest.raises(Interrupted):
        run(tmp_path)
    content = (tmp_path / "model.bin.ckpt").read_bytes()
    with pytest.raises(MinitronError, match=r"model\.bin\.ckpt .* --resume, or delete it"):
        run(tmp_path)
    assert (tmp_path / "model.bin.ckpt").read_bytes() == content


@pytest.mark.parametrize("change", [
    ["--dim", "16"], ["--length", "2"], ["--variant", "reversed"], ["--steps", "21"],
    ["--lr", "0.5"], ["--seed", "3"], ["--shards", "4"], ["--train-fraction", "0.5"],
    ["--no-tied"], ["--task", "parity"], ["--task", "modular"], ["--task", "text"],
    ["--test-length", "3"], ["--positions", "random"], ["--position-range", "99"],
    ["--lr-floor", "1"], ["--options", "k=1"],
])
def test_resume_with_another_value_is_refused_and_names_the_flag(tmp_path, monkeypatch, change):
    out = ["--out", str(tmp_path / "model.bin")]
    signal_at(monkeypatch, 3)
    assert train.main(flags(TINY) + out) == 130
    content = (tmp_path / "model.bin.ckpt").read_bytes()
    with pytest.raises(MinitronError) as refusal:
        train.main(["--resume", *out, *change])
    flag = change[0].removeprefix("--no-").lstrip("-")
    assert f"was trained with {flag} " in str(refusal.value)
    assert (tmp_path / "model.bin.ckpt").read_bytes() == content


@pytest.mark.parametrize("line", ["hello world", "hello, world"])   # the same characters; one more
def test_resume_on_data_that_has_changed_is_refused(tmp_path, monkeypatch, line):
    data = tmp_path / "text.txt"
    data.write_text(100 * "world hello\n")
    config = Config(task="text", data=str(data), length=4, dim=8, batch=4, steps=9)
    signal_at(monkeypatch, 3)
    assert train.main([*flags(config), "--out", str(tmp_path / "model.bin")]) == 130
    data.write_text(100 * f"{line}\n")
    with pytest.raises(MinitronError, match="was trained on other data"):
        train.main(["--resume", "--out", str(tmp_path / "model.bin")])


@pytest.mark.parametrize("change", [
    {"numpy": "1.26.0"}, {"blas": "OpenBLAS Zen"}, {"blas_threads": None}, {"simd": "SSE2"},
])
def test_resume_with_other_numerics_is_refused_unless_anyway(tmp_path, monkeypatch, change):
    out, numerics = ["--out", str(tmp_path / "model.bin")], blas.numerics
    signal_at(monkeypatch, 3)
    with monkeypatch.context() as patch:
        patch.setattr(blas, "numerics", lambda: numerics() | change)
        assert train.main([*flags(TINY), *out]) == 130
    [(name, value)] = change.items()
    with pytest.raises(MinitronError, match=f"{name.replace('_', ' ')} {value}; .* --anyway"):
        train.main(["--resume", *out])
    assert step_saved(tmp_path / "model.bin.ckpt") == 3
    assert train.main(["--resume", "--anyway", *out]) == 0
    [record] = records(tmp_path)
    now = {name: record[name] for name in numerics()}
    assert record["numerics_before"] == [now | change] and now[name] != value


def test_resume_on_data_that_has_moved(tmp_path, monkeypatch):
    data, moved = tmp_path / "text.txt", tmp_path / "moved.txt"
    data.write_text(100 * "world hello\n")
    config = Config(task="text", data=data, length=4, dim=8, batch=4, steps=9)
    signal_at(monkeypatch, 3)
    out = ["--out", str(tmp_path / "model.bin")]
    assert train.main([*flags(config), *out]) == 130
    data.rename(moved)
    assert train.main(["--resume", "--data", str(moved), *out]) == 0


def poison(monkeypatch, tensor):
    """Weights with one infinity, in layer 1 of a tensor."""
    def poisoned(config):
        p = init(config)
        getattr(p, tensor)[1, 0, 0] = np.inf
        return p

    monkeypatch.setattr(run_module, "init", poisoned)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("tensor", ["wqkv", "wo", "w13", "w2"])
def test_divergence_names_the_tensor_and_is_recorded(tmp_path, monkeypatch, tensor):
    poison(monkeypatch, tensor)
    text = rf"^step 1: loss nan, .* {tensor}\[1\]; .*model\.bin\.ckpt .* --lr below"
    with pytest.raises(run_module.Diverged, match=text):
        run(tmp_path, dataclasses.replace(TINY, layers=2))
    [record] = records(tmp_path)
    assert record["status"] == "diverged" and record["steps"] == 0 and record["metrics"] == {}
    assert step_saved(tmp_path / "model.bin.ckpt") == 0
    assert not (tmp_path / "model.bin").exists()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("step", [4, 5, 19, 20])
def test_weights_that_overflow_at_any_step_end_the_run_as_diverged(tmp_path, monkeypatch, step):
    """Also at an evaluation, step 5, and at the last step, 20, after which no loss could show it"""
    original = train.adamw

    def adamw(p, g, m, v, decay, at, *rates):
        original(p, g, m, v, decay, at, *rates)
        if at == step:
            p[0] = np.inf

    monkeypatch.setattr(train, "adamw", adamw)
    with pytest.raises(run_module.Diverged, match="embed"):
        run(tmp_path)
    [record] = records(tmp_path)
    assert record["status"] == "diverged"
    assert not (tmp_path / "model.bin").exists()
    saved = checkpoint.read(tmp_path / "model.bin.ckpt")
    assert np.isfinite(saved["p"]).all(), "the last good step is saved"


def test_divergence_on_the_command_line_is_one_line_and_status_2(tmp_path):
    process = start(*flags(TINY), "--no-qk-norm", "--lr", "1e6", "--weight-decay", "100",
                    "--warmup", "0", "--eval-every", "100", "--out", tmp_path / "model.bin")
    _, error = process.communicate()
    assert process.returncode == 2
    [line] = error.splitlines()                         # no traceback, none of NumPy's warnings
    assert line.startswith("minitron: step ") and "--lr below 1e+06" in line
    assert step_saved(tmp_path / "model.bin.ckpt") < 20
    assert records(tmp_path)[0]["status"] == "diverged"


def test_record_is_complete(undisturbed):
    _, record = undisturbed
    assert list(record) == [
        "key", "version", "status", "config", "seed", "metrics", "curve", "reached", "steps",
        "parameters", "flops", "tokens", "seconds", "scored_by", "threads",
        "numerics_before", "commit", "python", "numpy", "simd", "blas", "blas_threads"]
    config = TINY.resolve()
    assert record["status"] == "ok" and record["steps"] == 20
    assert record["config"] == dataclasses.asdict(config)
    assert record["key"] == config.key(tasks.load(config))
    inputs, targets = np.zeros((16, 6)), np.tile([-1, -1, -1, 0, 0, 0], (16, 1))        # 1+2=03
    assert record["tokens"] == 20 * inputs.size
    assert record["flops"] == 20 * train_flops(config, inputs, targets)
    assert record["parameters"] == init(config).count()
    assert record["metrics"].keys() == {"1"}
    assert record["metrics"]["1"].keys() == {
        "n", "token", "exact", "nll", "brier", "edit", "p_length", "icl", "resolution",
        "exact_low", "exact_high", "chance_token", "chance_exact"}
    assert [point["step"] for point in record["curve"]] == [5, 10, 15, 20]
    names = {"step", "loss", "n", "nll", "token", "exact", "norm", "distance"}
    assert all(point.keys() == names for point in record["curve"])
    assert record["reached"].keys() == {"exact 0.5", "exact 0.99", "nll 1", "nll 0.1"}


def test_record_has_metrics_of_every_length_that_training_drew_from(tmp_path):
    run(tmp_path, dataclasses.replace(TINY, length=3))
    assert records(tmp_path)[0]["metrics"].keys() == {"1", "2", "3"}


def test_curve_has_twenty_points_at_the_most_the_last_among_them(tmp_path):
    run(tmp_path, dataclasses.replace(TINY, steps=50, eval_every=2))
    steps = [point["step"] for point in records(tmp_path)[0]["curve"]]
    assert len(steps) == 20 and steps[0] == 2 and steps[-1] == 50 and steps == sorted(set(steps))


def test_torn_line_stays_alone(tmp_path):
    (tmp_path / "runs.jsonl").write_text('{"whole": 1}\n{"torn": ')
    run(tmp_path)
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert lines[:2] == ['{"whole": 1}', '{"torn": '] and len(lines) == 3
    assert json.loads(lines[2])["status"] == "ok"


def test_basic_metrics_follow_their_definitions():
    """Token accuracy, exact match, NLL and Brier score, one token at a time"""
    r = np.random.RandomState(0)
    targets = np.where(r.rand(40, 3) < 0.7, r.randint(0, 3, (40, 3)), -1)
    targets[:, 0] = r.randint(0, 3, 40)
    logits = 3 * r.randn(40, 3, 3)
    rows = evaluate.Problems(targets, np.zeros((40, 3), int), targets, None)
    metrics = evaluate.basic_metrics(lambda inputs, scored, positions: logits[scored], rows)
    tokens, exact, nll, brier = [], [], [], []
    for row_logits, row in zip(logits, targets):
        right = []
        for z, answer in zip(row_logits, row):
            if answer < 0:
                continue
            p = np.exp(z) / np.exp(z).sum()
            right.append(z[answer] == max(z))
            nll.append(-np.log(p[answer]))
            brier.append(sum((p[token] - (token == answer)) ** 2 for token in range(3)))
        tokens += right
        exact.append(all(right))
    expected = {"n": 40, "token": np.mean(tokens), "exact": np.mean(exact),
                "nll": np.mean(nll), "brier": np.mean(brier)}
    assert metrics == pytest.approx(expected, rel=1e-13)            # float64; 40 to 120 terms
    assert 0 < metrics["exact"] < metrics["token"] < 1


@needs_engine
@pytest.mark.parametrize("options", [
    {"length": 2}, {"length": 2, "attention": "linear", "tied": False},
    {"task": "parity", "length": 8},
])
def test_evaluation_by_run_c_is_evaluation_by_numpy(tmp_path, options):
    config = dataclasses.replace(TINY, steps=40, **options).resolve()
    run(tmp_path, config)
    [record] = records(tmp_path)
    assert record["scored_by"] == "run.c"
    _, p, _, _ = export.read_model(tmp_path / "model.bin")
    score = evaluate.numpy_scorer(p, config)
    by_numpy = evaluate.metrics_by_length(score, tasks.load(config), config)
    for length, ours in by_numpy.items():
        by_engine = record["metrics"][str(length)]
        assert by_engine.keys() == ours.keys() and by_engine["n"] == ours["n"]
        if ours["n"]:
            assert (by_engine["exact"], by_engine["token"]) == (ours["exact"], ours["token"])
            # Right and wrong are the same; logits of about 5 in float32 have another rounding.
            smooth = {"nll", "brier", "icl"}
            assert {name for name in ours if by_engine[name] != ours[name]} <= smooth
            assert all(abs(by_engine[name] - ours[name]) < 1e-6 for name in ("nll", "brier"))


def test_without_the_engine_training_works_and_says_what_to_do(
        tmp_path, monkeypatch, capsys, undisturbed):
    def library():
        raise EngineMissing("the C engine is not built: install a C compiler and run make")

    monkeypatch.setattr("minitron.engine.engine.library", library)
    assert run(tmp_path) == undisturbed[0]
    assert records(tmp_path)[0]["scored_by"] == "NumPy"
    [line] = capsys.readouterr().err.splitlines()
    assert "run make" in line and "NumPy" in line


@pytest.mark.parametrize("exact, steps", [
    ([1, 1], 10),                   # solved at two evaluations in a row
    ([1, 0.5, 1, 1], 20),           # not in a row at first
    ([0.998, 0.998, 1, 1], 20),
])
def test_training_stops_early_when_it_has_solved_the_task(tmp_path, monkeypatch, exact, steps):
    script = iter(exact)

    def scripted(score, problems, map_chunks):
        return {"n": 256, "nll": 0.0, "token": 1.0, "exact": next(script)}

    monkeypatch.setattr(evaluate, "basic_metrics", scripted)
    run(tmp_path, dataclasses.replace(TINY, steps=40))
    assert records(tmp_path)[0]["steps"] == steps


@needs_engine
@pytest.mark.parametrize("variant, word", [
    ("chars", "\u00e4\u00f6\u00fc "), ("bytes", b"\xff\x00\xfe "),
])
def test_text_of_your_own_is_learnt_and_continued(tmp_path, capsys, variant, word):
    data, out = tmp_path / "own.txt", tmp_path / "own.bin"
    data.write_bytes(150 * (word if variant == "bytes" else word.encode()))
    config = dataclasses.replace(TINY, task="text", data=str(data), variant=variant, length=8,
                                 dim=16, steps=60, lr=0.03)
    assert train.main([*flags(config), "--out", str(out)]) == 0
    verdict = "No verdict: text at dim 16, length 8 has no right answers, only a distribution: "
    assert verdict in " ".join(capsys.readouterr().out.splitlines())
    with Engine(out) as engine:
        assert engine.generate(word, steps=4, temperature=0) == word
        empty = engine.generate(word[:0], steps=6, seed=1)
    assert len(empty) == 6 and isinstance(empty, type(word))


def test_progress_is_plain_lines_without_a_terminal(tmp_path, capsys):
    train.train(TINY, tmp_path / "model.bin")
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if "engine" not in line]
    assert captured.out == "" and len(lines) == 4
    assert all(line.startswith(f"step {step:>6} of 20   loss ")
               for line, step in zip(lines, (5, 10, 15, 20)))
    assert "\r" not in captured.err and "\x1b" not in captured.err


@needs_engine
def test_measuring_has_a_bar_on_a_terminal(tmp_path, monkeypatch, capsys):
    """Of the lengths, which take a while; it is gone when they are measured."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train.train(dataclasses.replace(TINY, length=2), tmp_path / "model.bin")
    assert "measuring:   0%" in capsys.readouterr().err
    train.train(TINY, tmp_path / "model.bin", quiet=True)
    assert capsys.readouterr().err == ""


@needs_engine
def test_quiet_run_says_nothing(tmp_path, capsys, undisturbed):
    run(tmp_path)
    assert capsys.readouterr() == ("", "")


@needs_engine
def test_main_ends_with_the_table_the_verdict_and_a_command(tmp_path, capsys, undisturbed):
    assert train.main([*flags(TINY), "--out", str(tmp_path / "m.bin")]) == 0
    output = capsys.readouterr().out
    headline, more, _, _, *result, hint = output.splitlines()
    assert headline.startswith("addition (plain), length 1: dim 8, ")
    assert undisturbed[1]["key"] in more
    assert "; measured by run.c No verdict: addition at dim 8, length 1 has too" in " ".join(result)
    assert max(map(len, output.splitlines()[:-1])) <= 80
    command, model, flag, prompt = shlex.split(hint.removeprefix("Try: "))
    assert (command, model, flag) == (environment.run_command(), str(tmp_path / "m.bin"), "-i")
    assert prompt.endswith("=")


def test_hint_can_be_typed(tmp_path, monkeypatch):
    """Prompts of every character; and not ./run if its positions are not those of training"""
    monkeypatch.setattr(environment, "run_command", lambda: "./run")
    for name in tasks.names():
        config = Config(task=name).resolve()
        task = tasks.load(config)
        command, model, *options = shlex.split(train.next_command(config, task, "my model.bin"))
        prompt, steps = batches.example(task)
        assert (command, model) == ("./run", "my model.bin")
        assert options == ["-i", prompt] * bool(prompt) + ["-n", str(steps)] * bool(steps)
    config = Config(positions="coupled").resolve()
    command = train.next_command(config, tasks.load(config), "m.bin")
    assert command == f"{environment.minitron_command()} eval m.bin"
