"""The commands sweep and report: spec files and flags, what is refused, printed and drawn."""
import json
import os
import re
import sys
import warnings
import xml.dom.minidom

import pytest
from synthetic import GUESSED, SOLVED, synthetic_ledger, synthetic_record

from minitron.__main__ import main
from minitron.base import cli
from minitron.data.config import Config
from minitron.report import board, phase, picture, text
from minitron.sweep import grid, pool
from minitron.sweep import ledger as ledger_file


@pytest.fixture
def command(monkeypatch, capsys):
    """command(*arguments) of `python -m minitron` -> status, standard output, standard error"""
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["minitron", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.run(main)
        return left.value.code, *capsys.readouterr()

    return call


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# ---- spec files and flags -------------------------------------------------------------------


def test_a_wrong_spec_file_makes_no_ledger(tmp_path, command):
    """Its errors are in tests/sweep/test_spec.py."""
    spec = tmp_path / "spec.toml"
    spec.write_text('task = "addition"\nwidth = 8')
    status, _, error = command("sweep", spec)
    assert status == 2 and "'width' is unknown: use" in error and len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [spec]


@pytest.mark.parametrize("flags, words", [
    (["--jobs", "0"], "--jobs 0 is out of range"),
    (["--budget", "soon"], "--budget 'soon' is not a duration"),
    (["--timeout", "0s"], "--timeout '0s' is not a duration"),
    (["--timeout", "99999999h"], "is not a duration (up to a year)"),
    (["--shard", "2/2"], "--shard '2/2' is not I/N"),
    (["--shard", "a"], "--shard 'a' is not I/N"),
    (["--models", "nowhere"], "--models 'nowhere' is not a directory"),
    (["--length", "65"], "cell --task addition: length 65 is out of range"),
    (["--seed", "7"], "--seeds and --seed cannot both be given"),
    (["--dim", "8,8"], "--dim '8,8' names no value, or one twice"),
    (["--out", "nowhere/x.jsonl"], "nowhere/x.jsonl cannot be written"),
])
def test_wrong_flags_are_one_line(tmp_path, command, flags, words):
    out = [] if "--out" in flags else ["--out", tmp_path / "l.jsonl"]
    small = ["--seeds", "1", "--steps", "1", "--test-items", "1"]
    status, _, error = command("sweep", "addition", *small, *flags, *out)
    assert status == 2 and words in error and len(error.splitlines()) == 1
    assert not (tmp_path / "l.jsonl").exists(), "nothing is made before all is known to be right"


def test_the_plan_is_listed_and_a_budget_leaves_out_the_dearest(tmp_path, command, monkeypatch):
    """A step takes a thousandth of a second at dim 8 and a second at dim 64, here."""
    monkeypatch.setattr(pool.Worker, "step_seconds",
                        lambda self, config: 1e-3 if config.dim == 8 else 1.0)
    out = tmp_path / "l.jsonl"
    flags = ["sweep", "addition", "--dim", "8,64", "--seeds", "2", "--steps", "100",
             "--out", out, "--list", "--jobs", "1"]
    status, output, _ = command(*flags)
    head, plan, *cells = output.splitlines()
    assert status == 0 and head == f"4 cells, 0 of them in {out}"
    assert plan.startswith("4 to run, in about 3 min")
    small = "train.py --task addition --dim 8 --steps 100"
    assert {line.partition("python ")[2] for line in cells[:2]} == {small, f"{small} --seed 1"}
    assert ["--dim 64 " in line for line in cells] == [False, False, True, True]
    _, output, _ = command(*flags, "--budget", "20s")
    assert "2 do not fit into 20 s; all would take about 3 min" in output
    assert "--dim 64" not in output
    assert not out.exists()
    _, output, _ = command(*flags, "--budget", "80s", "--jobs", "2")
    assert "2 do not fit" in output, "two cores do not make one cell of 100 s end after 80"
    _, output, _ = command(*flags, "--jobs", "50")
    assert "in about 2 min with 50" in output, "nor do fifty"


def test_unreadable_records_are_rerun_and_those_of_others_are_left_alone(tmp_path, command):
    """Two cells' keys, one with metrics that are none, one without a status; a key of no cell."""
    axes = {"task": ["addition"], "dim": [4, 6], "length": [1], "steps": [1], "seed": [0]}
    [(one, config), (two, _)] = grid.cells(axes)
    good = synthetic_record(dim=4, length=1, steps=1) | {"key": one}
    flags = ["addition", "--dim", "4,6", "--length", "1", "--steps", "1", "--seeds", "1", "--list"]
    bad = good | {"key": two, "metrics": 5}
    path = write(tmp_path / "l.jsonl", [good, bad, {"key": "x"}])
    status, output, error = command("sweep", *flags, "--out", path)
    assert status == 0 and output.startswith(f"2 cells, 1 of them in {path}\n1 to run")
    assert error == (f"minitron: {path}: a field is missing or of another kind, "
                     "1 record to rerun\n")
    write(path, [{name: value for name, value in good.items() if name != "status"}])
    status, output, error = command("sweep", *flags, "--out", path, "--retry", "failed")
    assert status == 0 and "2 to run" in output and "a field is missing" in error
    write(path, [good])
    assert "2 cells, 1 of them in" in command("sweep", *flags, "--out", path, "--redo")[1]


DEEP = 3000 * "[" + 3000 * "]"


@pytest.mark.parametrize("field", [
    "key", "status", "config", "config dim", "config lr", "config qk_norm", "config task",
    "config data", "metrics", "metrics 2", "metrics 2 exact", "metrics 2 n", "curve", "curve 0",
    "curve 0 nll", "seconds", "flops"])
def test_a_record_of_wrong_types_beside_a_good_one_is_left_out_or_shown(tmp_path, command, field):
    """null where a number is, a number of 400 digits, lists 3,000 deep: never a traceback."""
    *parents, name = field.split()
    for value in ("null", "[]", "{}", '"x"', "true", "1e400", 400 * "9", DEEP, r'"\ud800"',
                  r'"\u001b[31m"'):
        good, bad = synthetic_record(dim=8, length=2), synthetic_record(dim=16, length=2)
        place = bad | {"key": "other"}
        for parent in parents:
            place = place[int(parent) if parent.isdecimal() and isinstance(place, list) else parent]
        place[name if isinstance(place, dict) else int(name)] = "VALUE"
        path = tmp_path / "l.jsonl"
        path.write_text(f"{json.dumps(good)}\n" + json.dumps(bad).replace('"VALUE"', value) + "\n")
        status, output, error = command("report", path)
        assert status == 0 and "percent of runs" in output and "Traceback" not in error
        assert "\x1b" not in output + error, "a terminal would take it for a command"


def test_a_file_that_is_not_a_ledger_is_complained_about_briefly(tmp_path, command):
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(range(256)) * 1000)
    status, _, error = command("report", path)
    assert status == 2 and len(error.splitlines()) == 1
    assert "no record that this version can read" in error and "line 1: not a record" in error


def test_a_ledger_that_cannot_be_read_back_is_only_written(command):
    """/dev/full has no end."""
    flags = ["--dim", "2", "--steps", "1", "--seeds", "1", "--out", "/dev/full", "--list"]
    status, output, _ = command("sweep", "addition", *flags)
    assert status == 0 and "0 of them in /dev/full" in output


# ---- progress -------------------------------------------------------------------------------


@pytest.mark.parametrize("columns, rows", [(40, 10), (100, 30), (5, 1)])
def test_no_line_of_the_board_is_wider_than_the_window(monkeypatch, capsys, columns, rows):
    """It would be broken, and be drawn over by half.  Why a run failed is above, and stays."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(board.shutil, "get_terminal_size", lambda: (columns, rows))
    records = synthetic_ledger()[:4]
    progress = board.Board({record["key"]: 1.0 for record in records}, [])
    for record in records:
        progress.ended(record)
    lines = capsys.readouterr().err.splitlines()
    lines = [re.sub(r"\x1b\[\d*[A-Z]", "", line) for line in lines]
    lines.remove(f"{records[0]['key']}: {records[0]['reason']}")
    assert max(map(len, lines)) < columns
    assert lines[0].lstrip().startswith("0%"[:columns - 4]), "a bar from the beginning on"


def test_a_dumb_terminal_gets_lines(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    board.Board({"x": 1.0}, []).ended(synthetic_record() | {"key": "x"})
    output = capsys.readouterr().err
    assert "\x1b" not in output and "x ok, score 0.99" in output


# ---- the report -----------------------------------------------------------------------------


def test_the_diagram_by_hand():
    """One of its runs timed out, and does not count."""
    lines = list(text.lines(synthetic_ledger()))
    assert lines[0] == "addition: percent of runs that learnt it, 2 to 3 seeds per cell"
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:10] if line.strip()}
    assert rows["dim"] == ["length"]
    assert [rows[name] for name in ("8", "16")] == [["0", "0", "0"], ["100", "0", "100"]]
    assert [rows[name] for name in ("32", "64")] == [["100", "100", "0"], ["100", "100", "0"]]
    assert rows["frontier"] == ["8-16", "16-32", ">8"] and rows["chance"] == ["0.4"] * 3
    verdicts = [line.split(":")[0] for line in lines if line.startswith("  length")]
    assert verdicts == ["  length 1", "  length 2", "  length 3"]


def test_only_runs_with_a_score_are_counted_as_seeds():
    def title_of(*statuses):
        records = [synthetic_record(status=status, seed=seed)
                   for seed, status in enumerate(statuses)]
        return next(iter(text.lines(records))).partition(", ")[2]

    assert title_of("ok", "ok") == "2 seeds per cell"
    assert title_of("ok", "killed", "timeout", "diverged") == "2 seeds per cell"
    assert title_of("killed") == "no run has a test that can tell"


def test_the_command_under_the_diagram_trains_any_cell():
    """With numbers in place of the capitals it resolves to each record's configuration."""
    axes = {"task": ["parity"], "dim": [8, 24], "length": [3, 9], "variant": ["scratchpad"],
            "seed": [0, 4], "steps": [70]}
    configs = [config for _, config in grid.cells(axes)]
    records = [synthetic_record(GUESSED, **{name: getattr(config, name) for name in axes})
               for config in configs]
    [template] = phase.diagram_commands(phase.phase_diagrams(records)[0])
    assert template == ("python train.py --task parity --dim DIM --length LENGTH --seed SEED "
                        "--variant scratchpad --steps 70")
    for config in configs:
        words = template.split()
        for name in ("dim", "length", "seed"):
            words[words.index(name.upper())] = str(getattr(config, name))
        parser = cli.Parser()
        cli.add_fields(parser, Config)
        assert Config(**vars(parser.parse_args(words[2:]))).resolve() == config


# ---- learning rates -------------------------------------------------------------------------


def test_the_best_learning_rate_is_chosen_by_validation_and_not_by_the_test():
    """At 0.01 the test happens to be better, and the held-out problems of the curve are worse."""
    records = [synthetic_record(test, dim=dim, lr=lr) for dim in (8, 16)
               for lr, test in ((0.001, GUESSED), (0.01, SOLVED))]
    for record in records:
        record["curve"][-1]["exact"] = 0.9 if record["config"]["lr"] == 0.001 else 0.1
    [diagram] = phase.phase_diagrams(records)
    cell = diagram.cells[8, diagram.x and diagram.xs[0]]
    assert {record["config"]["lr"] for record in cell.records} == {0.001}
    assert list(cell.scores_by_rate) == [0.001, 0.01] and cell.counts() == (0, 1, 0)
    lines = list(text.lines(records))
    heading = "  lr that is best on the validation problems"
    [first] = [i for i, line in enumerate(lines) if line.startswith(heading)]
    rates = [line.split()[-2:] for line in lines[first + 1:first + 3]]
    assert rates == [["0.001", "(1-99)"]] * 2


def test_a_learning_rate_at_which_runs_diverge_is_not_the_best():
    """Whatever they had learnt before."""
    stable, unstable = synthetic_record(lr=0.001), synthetic_record(lr=0.01)
    stable["curve"][-1]["exact"], unstable["curve"][-1]["exact"] = 0.8, 0.9
    by_rate = {0.001: [stable], 0.01: [unstable]}
    assert phase.best_rate_cell(by_rate).records == [unstable]
    unstable |= {"status": "diverged", "metrics": {}}
    assert phase.best_rate_cell(by_rate).records == [stable]


def test_where_a_distribution_is_learnt_its_nll_chooses_the_learning_rate():
    """And not how many of its samples happen to be the likeliest."""
    low, high = (synthetic_record(lr=lr, task="markov") for lr in (0.001, 0.01))
    low["curve"][-1] |= {"exact": 0.0, "nll": 0.5}
    high["curve"][-1] |= {"exact": 0.1, "nll": 0.6}
    assert phase.best_rate_cell({0.001: [low], 0.01: [high]}).records == [low]


def test_a_learning_rate_that_few_seeds_have_tried_is_not_chosen_yet():
    records = [synthetic_record(GUESSED, dim=8, lr=0.001, seed=seed) for seed in (0, 1)]
    records += [synthetic_record(SOLVED, dim=8, lr=0.01, seed=0)]
    [diagram] = phase.phase_diagrams(records, y="dim")
    rates = [record["config"]["lr"] for record in diagram.cells[8, None].records]
    assert rates == [0.001, 0.001]


# ---- the command ----------------------------------------------------------------------------


def test_a_report_is_printed_written_and_drawn(tmp_path, command):
    path = write(tmp_path / "l.jsonl", synthetic_ledger())
    html, png, svg = (tmp_path / f"out.{kind}" for kind in ("html", "png", "svg"))
    status, output, error = command("report", path, "--html", html, "--png", png, "--svg", svg)
    assert status == 0 and error == "" and "\x1b" not in output
    assert f"{html}: this report as a page, with curves" in output
    assert html.read_text().startswith("<!") and png.read_bytes()[:4] == b"\x89PNG"
    assert xml.dom.minidom.parse(str(svg)).documentElement.tagName == "svg"
    again = tmp_path / "again.svg"
    command("report", path, "--svg", again)
    assert again.read_bytes() == svg.read_bytes(), "the same ledger, the same file"


@pytest.mark.parametrize("scores, words", [
    ((GUESSED, GUESSED, GUESSED, GUESSED), "not yet (100%)"),
    ((GUESSED, SOLVED), ""),                # unclear: too few settings
])
def test_a_picture_has_words_with_their_confidence_or_none(scores, words):
    records = [synthetic_record(score, dim=8 * 2**i, seed=seed)
               for i, score in enumerate(scores) for seed in range(3)]
    [diagram] = phase.phase_diagrams(records, "dim")
    assert picture.short_verdict(diagram, None) == words


def test_one_dial_is_drawn_as_curves(tmp_path, command):
    records = [synthetic_record(dim=dim, seed=seed) for dim in (8, 16) for seed in (0, 1)]
    path = write(tmp_path / "l.jsonl", records)
    status, _, _ = command("report", path, "--svg", tmp_path / "out.svg")
    assert status == 0 and "nll" in (tmp_path / "out.svg").read_text()


@pytest.mark.parametrize("flags, words", [
    (["--y", "width"], "'width' is not a dial"),
    (["--png", "nowhere/x.png"], "nowhere/x.png cannot be written"),
    (["--html", "nowhere/x.html"], "nowhere/x.html cannot be written"),
    (["--y", "dim", "--x", "dim"], "'dim' cannot be both"),
])
def test_wrong_wishes_are_one_line(tmp_path, command, flags, words):
    path = write(tmp_path / "l.jsonl", synthetic_ledger()[3:6])
    status, _, error = command("report", path, *flags)
    assert status == 2 and words in error and len(error.splitlines()) == 1


def test_no_page_is_written_over_a_ledger(tmp_path, command):
    path = write(tmp_path / "l.jsonl", synthetic_ledger())
    before, twice = path.read_bytes(), tmp_path / "x"
    for flags in (["--html", path], ["--svg", path], ["--html", twice, "--svg", twice]):
        status, _, error = command("report", path, *flags)
        assert status == 2 and path.read_bytes() == before
        assert "is named twice: ledgers, page and pictures must be different files" in error


def test_files_that_are_not_ledgers(tmp_path, command):
    status, _, error = command("report", tmp_path / "nowhere.jsonl")
    assert status == 2 and "nowhere.jsonl cannot be read: No such file" in error
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        status, _, error = command("report", path)
        complaint = f"minitron: ledger {path} cannot be read: not a regular file\n"
        assert (status, error) == (2, complaint)
    (tmp_path / "empty.jsonl").touch()
    status, _, error = command("report", tmp_path / "empty.jsonl")
    assert status == 2 and "run a sweep first" in error
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"key": "x"}\nnot json\n[1]\n' + json.dumps(synthetic_record()) + "\n")
    status, output, error = command("report", bad)
    assert status == 0 and "addition" in output
    *complaints, left_out = error.splitlines()
    numbers = [line.partition(": not a record")[0].rpartition(" ")[2] for line in complaints]
    assert numbers == ["2", "3"]
    assert left_out == "minitron: 1 record left out: a field is missing or of another kind"


@pytest.mark.parametrize("text", ["\x1b[31m", "\x9b31m", "a\nb", "\u202e", "\ud800"],
                         ids=["escape", "short escape", "line", "right to left", "surrogate"])
def test_a_terminal_obeys_no_ledger(tmp_path, command, text):
    """In names of curves and groups, and as a variant, a status and a reason"""
    good = synthetic_record()
    bad = synthetic_record(dim=16) | {"status": "killed" + text, "reason": text}
    bad["config"]["variant"] = text
    bad["metrics"]["2"]["groups"] = {text: {"token": 0.5}}
    bad["curve"][0][text] = 1
    path = write(tmp_path / "l.jsonl", [good, bad])
    spec = tmp_path / "l.toml"
    spec.write_text('task = "addition"\nlength = 2\ndim = [8, 16]\nseeds = 1\n')
    for flags in ([path], ["--markdown", spec]):
        status, output, error = command("report", *flags)
        assert status == 0 and text not in output + error


def test_files_that_a_ledger_names_are_not_opened(tmp_path, command):
    """A task's file would be run, and a pipe of data would hang."""
    task, data = tmp_path / "mine.py", tmp_path / "data.txt"
    task.write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    os.mkfifo(data)
    records = [synthetic_record(dim=dim, layers=layers) for dim in (8, 16) for layers in (1, 2)]
    for record, name in zip(records, ("addition", "text", str(task), str(task))):
        record["config"] |= {"task": name, "data": None if name == "addition" else str(data)}
    path = write(tmp_path / "l.jsonl", records)
    status, output, error = command("report", path, "--html", tmp_path / "x.html", "--svg",
                                    tmp_path / "x.svg")
    assert status == 0 and error == "" and f"--task {task} " in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["parameters", "flops", "steps", "seconds"])
@pytest.mark.parametrize("value", [None, "1", []])
def test_a_record_without_a_number_that_every_run_has_is_left_out(tmp_path, command, name, value):
    bad = synthetic_record() | {name: value}
    path = write(tmp_path / "l.jsonl", [synthetic_record(dim=16), bad])
    status, output, error = command("report", path)
    assert status == 0 and "addition" in output
    assert error == "minitron: 1 record left out: a field is missing or of another kind\n"


def test_readings_without_a_number_are_shown_as_nothing(tmp_path, command):
    """As in the last point of a run that diverged"""
    bad = synthetic_record()
    bad["curve"][-1] |= {"nll": None, "previous": [[None, 0.5], [None, None]]}
    spec, html = tmp_path / "l.toml", tmp_path / "x.html"
    spec.write_text('task = "addition"\nlength = 2\ndim = [8, 16]\nseeds = 1\n'
                    'curve = {dim = 8}\n')
    write(tmp_path / "l.jsonl", [bad])
    status, output, error = command("report", "--markdown", spec)
    assert (status, error) == (0, "") and output.splitlines()[-1].endswith("|")
    assert "| 0.50,  |" in output.splitlines()[-1]
    assert command("report", tmp_path / "l.jsonl", "--html", html)[::2] == (0, "")


def test_a_killed_run_is_not_a_failure_of_the_model_and_a_diverged_one_is(tmp_path, command):
    records = [synthetic_record(dim=8), synthetic_record(status="killed", dim=16),
               synthetic_record(status="diverged", dim=32)]
    path = write(tmp_path / "l.jsonl", records)
    with warnings.catch_warnings():
        warnings.simplefilter("error")          # a mean of nothing
        assert command("report", path, "--svg", tmp_path / "x.svg")[0] == 0
    rows = [line.split() for line in text.lines(records)]
    assert ["8", "100"] in rows and ["16", "n/a"] in rows and ["32", "0"] in rows


def test_a_failed_attempt_does_not_replace_a_run_that_ended(tmp_path):
    done, again = synthetic_record(), synthetic_record(status="timeout")
    again["key"] = done["key"]
    path = write(tmp_path / "l.jsonl", [again, done, again])
    assert ledger_file.read_records(path)[0] == {done["key"]: done}
    # Of those that ended, the last counts.
    diverged = synthetic_record(status="diverged") | {"key": done["key"]}
    write(path, [done, diverged])
    assert ledger_file.read_records(path)[0] == {done["key"]: diverged}
