"""The commands sweep and report: spec files and flags, what is refused, and what is printed, written and drawn of a ledger."""
import json
import re
import sys
import warnings
import xml.dom.minidom

import pytest
from test_page import GUESSED, SOLVED, ledger, made

from minitron.__main__ import main
from minitron.base import cli
from minitron.data.config import Config
from minitron.report import board, phase, text
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


# ---- what is asked for -----------------------------------------------------------------------------------------------


def test_a_wrong_spec_file_makes_no_ledger(tmp_path, command):
    """Its errors are in tests/sweep/test_spec.py."""
    spec = tmp_path / "spec.toml"
    spec.write_text('task = "addition"\nwidth = 8')
    status, _, error = command("sweep", spec)
    assert status == 2 and "'width' is unknown: use" in error and len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [spec]


@pytest.mark.parametrize("flags, words", [
    (["--jobs", "0"], "--jobs 0 is out of range"), (["--budget", "soon"], "--budget 'soon' is not a duration"),
    (["--timeout", "0s"], "--timeout '0s' is not a duration"), (["--timeout", "99999999h"], "is not a duration (up to a year)"),
    (["--shard", "2/2"], "--shard '2/2' is not I/N"),
    (["--shard", "a"], "--shard 'a' is not I/N"), (["--models", "nowhere"], "--models 'nowhere' is not a directory"),
    (["--length", "65"], "cell --task addition: length 65 is out of range"),
    (["--seed", "7"], "--seeds and --seed cannot both be given"),
    (["--dim", "8,8"], "--dim '8,8' names no value, or one twice: give each value once"),
    (["--out", "nowhere/x.jsonl"], "nowhere/x.jsonl cannot be written"),
])
def test_wrong_flags_are_one_line(tmp_path, command, flags, words):
    out = [] if "--out" in flags else ["--out", tmp_path / "l.jsonl"]
    status, _, error = command("sweep", "addition", "--seeds", "1", "--steps", "1", "--test-items", "1", *flags, *out)
    assert status == 2 and words in error and len(error.splitlines()) == 1
    assert not (tmp_path / "l.jsonl").exists(), "nothing is made before all is known to be right"


def test_the_plan_is_listed_and_a_budget_leaves_out_the_dearest(tmp_path, command, monkeypatch):
    """A step takes a thousandth of a second at dim 8 and a second at dim 64, here."""
    monkeypatch.setattr(pool.Worker, "step_seconds", lambda self, config: 1e-3 if config.dim == 8 else 1.0)
    flags = ["sweep", "addition", "--dim", "8,64", "--seeds", "2", "--steps", "100", "--out", tmp_path / "l.jsonl", "--list",
             "--jobs", "1"]
    status, said, _ = command(*flags)
    head, plan, *cells = said.splitlines()
    assert status == 0 and head == f"4 cells, 0 of them in {tmp_path / 'l.jsonl'}" and plan.startswith("4 to run, in about 3 min")
    assert {line.partition("python ")[2] for line in cells[:2]} == {"train.py --task addition --dim 8 --steps 100",
                                                                    "train.py --task addition --dim 8 --steps 100 --seed 1"}
    assert ["--dim 64 " in line for line in cells] == [False, False, True, True]
    _, said, _ = command(*flags, "--budget", "20s")
    assert "2 do not fit into 20s; all would take about 3 min" in said and "--dim 64" not in said
    assert not (tmp_path / "l.jsonl").exists()
    _, said, _ = command(*flags, "--budget", "80s", "--jobs", "2")
    assert "2 do not fit" in said, "two cores do not make one cell of 100 s end after 80"
    _, said, _ = command(*flags, "--jobs", "50")
    assert "in about 2 min with 50" in said, "nor do fifty"


def test_records_that_are_none_are_run_again_and_those_of_others_are_left_alone(tmp_path, command):
    """A ledger has a cell's key with no status, another's of a task that is gone, and one that no cell of this sweep has."""
    [(one, config), (two, _)] = grid.cells({"task": ["addition"], "dim": [4, 6], "length": [1], "steps": [1], "seed": [0]})
    good = made(dim=4, length=1, steps=1) | {"key": one}
    flags = ["addition", "--dim", "4,6", "--length", "1", "--steps", "1", "--seeds", "1", "--list"]
    bad = made() | {"key": two, "config": good["config"] | {"task": "dancing"}}
    path = write(tmp_path / "l.jsonl", [good, bad, {"key": "x"}])
    status, said, error = command("sweep", *flags, "--out", path)
    assert status == 0 and said.startswith(f"2 cells, 1 of them in {path}\n1 to run")
    assert error == f"minitron: {path}: task 'dancing' is unknown, 1 record to rerun\n"
    path = write(tmp_path / "l.jsonl", [{name: value for name, value in good.items() if name != "status"}])
    status, said, error = command("sweep", *flags, "--out", path, "--retry", "failed")
    assert status == 0 and "2 to run" in said and "a field is missing" in error
    write(path, [good])
    assert "2 cells, 1 of them in" in command("sweep", *flags, "--out", path, "--redo")[1]


def test_what_cannot_be_read_back_is_only_written(command):
    """/dev/full has no end."""
    status, said, _ = command("sweep", "addition", "--dim", "2", "--steps", "1", "--seeds", "1", "--out", "/dev/full", "--list")
    assert status == 0 and "0 of them in /dev/full" in said


# ---- what is shown while it goes on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("columns, rows", [(40, 10), (100, 30), (5, 1)])
def test_no_line_of_the_board_is_wider_than_the_window(monkeypatch, capsys, columns, rows):
    """It would be broken, and be drawn over by half."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(board.shutil, "get_terminal_size", lambda: (columns, rows))
    there = ledger()[:4]
    shown = board.Board({record["key"]: 1.0 for record in there}, [])
    for record in there:
        shown.ended(record)
    drawn = [re.sub(r"\x1b\[\d*[A-Z]", "", line) for line in capsys.readouterr().err.splitlines()]
    assert max(map(len, drawn)) < columns and drawn[0].lstrip().startswith("0%"[:columns - 4]), "a bar from the beginning on"


def test_a_dumb_terminal_gets_lines(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    board.Board({"x": 1.0}, []).ended(made() | {"key": "x"})
    assert "\x1b" not in (said := capsys.readouterr().err) and "x ok, normalized score 0.99" in said


# ---- what is shown ---------------------------------------------------------------------------------------------------


def test_the_diagram_by_hand():
    shown = list(text.lines(ledger()))
    assert shown[0] == "addition: percent of runs that learnt it, 2 to 3 seeds per cell"
    rows = {line.split()[0]: line.split()[1:] for line in shown[1:10] if line.strip()}
    assert rows["dim"] == ["length"]
    assert [rows[name] for name in ("8", "16")] == [["0", "0", "0"], ["100", "0", "100"]]
    assert [rows[name] for name in ("32", "64")] == [["100", "100", "0"], ["100", "100", "0"]]
    assert rows["frontier"] == ["16", "32", "-"] and rows["chance"] == ["0.4"] * 3
    assert [line.split(":")[0] for line in shown if line.startswith("  length")] == ["  length 1", "  length 2", "  length 3"]


def test_the_command_under_the_diagram_trains_any_cell():
    """With numbers in place of the capitals it resolves to each record's configuration."""
    turned = {"task": ["parity"], "dim": [8, 24], "length": [3, 9], "variant": ["scratchpad"], "seed": [0, 4], "steps": [70]}
    cells = [config for _, config in grid.cells(turned)]
    records = [made(GUESSED, **{name: getattr(config, name) for name in ("task", "dim", "length", "seed", "variant", "steps")})
               for config in cells]
    [template] = phase.diagram_commands(phase.phase_diagrams(records)[0])
    assert template == "python train.py --task parity --dim DIM --length LENGTH --seed SEED --variant scratchpad --steps 70"
    for config in cells:
        words = template.split()
        for name in ("dim", "length", "seed"):
            words[words.index(name.upper())] = str(getattr(config, name))
        parser = cli.Parser()
        cli.add_fields(parser, Config)
        assert Config(**vars(parser.parse_args(words[2:]))).resolve() == config


def test_the_best_learning_rate_is_chosen_by_validation_and_not_by_the_test():
    """At 0.01 the test happens to be better, and the held-out problems of the curve are worse."""
    records = [made(test, dim=dim, lr=lr) for dim in (8, 16) for lr, test in ((0.001, GUESSED), (0.01, SOLVED))]
    for record in records:
        record["curve"][-1]["exact"] = 0.9 if record["config"]["lr"] == 0.001 else 0.1
    [panel] = phase.phase_diagrams(records)
    cell = panel.cells[8, panel.x and panel.xs[0]]
    assert {record["config"]["lr"] for record in cell.records} == {0.001} and list(cell.scores_by_rate) == [0.001, 0.01]
    assert not any(cell.learnt())
    shown = list(text.lines(records))
    [first] = [i for i, line in enumerate(shown) if line.startswith("  lr that is best on the validation problems")]
    assert [line.split()[-2:] for line in shown[first + 1:first + 3]] == [["0.001", "(1-99)"]] * 2


def test_a_learning_rate_at_which_runs_diverge_is_not_the_best():
    """Whatever they had learnt before."""
    stable, unstable = made(lr=0.001), made(lr=0.01)
    stable["curve"][-1]["exact"], unstable["curve"][-1]["exact"] = 0.8, 0.9
    assert phase.best_rate_cell({0.001: [stable], 0.01: [unstable]}).records == [unstable]
    unstable |= {"status": "diverged", "metrics": {}}
    assert phase.best_rate_cell({0.001: [stable], 0.01: [unstable]}).records == [stable]


def test_where_a_distribution_is_learnt_its_nll_chooses_the_learning_rate():
    """And not how many of its samples happen to be the likeliest."""
    low, high = made(lr=0.001, task="markov"), made(lr=0.01, task="markov")
    low["curve"][-1] |= {"exact": 0.0, "nll": 0.5}
    high["curve"][-1] |= {"exact": 0.1, "nll": 0.6}
    assert phase.best_rate_cell({0.001: [low], 0.01: [high]}).records == [low]


def test_a_learning_rate_that_few_seeds_have_tried_is_not_chosen_yet():
    records = [made(GUESSED, dim=8, lr=0.001, seed=seed) for seed in (0, 1)] + [made(SOLVED, dim=8, lr=0.01, seed=0)]
    [panel] = phase.phase_diagrams(records, y="dim")
    assert [record["config"]["lr"] for record in panel.cells[8, None].records] == [0.001, 0.001]


def test_a_report_is_printed_written_and_drawn(tmp_path, command):
    path = write(tmp_path / "l.jsonl", ledger())
    html, png, svg = (tmp_path / f"out.{kind}" for kind in ("html", "png", "svg"))
    status, said, error = command("report", path, "--html", html, "--png", png, "--svg", svg)
    assert status == 0 and error == "" and "\x1b" not in said
    assert f"{html}: this report as a page, with curves" in said and html.read_text().startswith("<!")
    assert png.read_bytes()[:4] == b"\x89PNG" and xml.dom.minidom.parse(str(svg)).documentElement.tagName == "svg"
    again = tmp_path / "again.svg"
    command("report", path, "--svg", again)
    assert again.read_bytes() == svg.read_bytes(), "the same ledger, the same file"


def test_one_dial_is_drawn_as_curves(tmp_path, command):
    path = write(tmp_path / "l.jsonl", [made(dim=dim, seed=seed) for dim in (8, 16) for seed in (0, 1)])
    status, _, _ = command("report", path, "--svg", tmp_path / "out.svg")
    assert status == 0 and "nll" in (tmp_path / "out.svg").read_text()


@pytest.mark.parametrize("flags, words", [
    (["--y", "width"], "'width' is not a dial"), (["--png", "nowhere/x.png"], "nowhere/x.png cannot be written"),
    (["--html", "nowhere/x.html"], "nowhere/x.html cannot be written"),
    (["--y", "dim", "--x", "dim"], "'dim' cannot be both"),
])
def test_wrong_wishes_are_one_line(tmp_path, command, flags, words):
    status, _, error = command("report", write(tmp_path / "l.jsonl", ledger()[3:6]), *flags)
    assert status == 2 and words in error and len(error.splitlines()) == 1


def test_no_page_is_written_over_a_ledger(tmp_path, command):
    path = write(tmp_path / "l.jsonl", ledger())
    before = path.read_bytes()
    for flags in (["--html", path], ["--svg", path], ["--html", tmp_path / "x", "--svg", tmp_path / "x"]):
        status, _, error = command("report", path, *flags)
        assert status == 2 and "is named twice: ledgers, page and pictures must be different files" in error and path.read_bytes() == before


def test_ledgers_that_are_none(tmp_path, command):
    status, _, error = command("report", tmp_path / "nowhere.jsonl")
    assert status == 2 and "nowhere.jsonl cannot be read: No such file" in error
    (tmp_path / "empty.jsonl").touch()
    status, _, error = command("report", tmp_path / "empty.jsonl")
    assert status == 2 and "run a sweep first" in error
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"key": "x"}\nnot json\n[1]\n' + json.dumps(made()) + "\n")
    status, said, error = command("report", bad)
    assert status == 0 and "addition" in said
    assert [line.partition(": not a record")[0].rpartition(" ")[2] for line in error.splitlines()[:2]] == ["2", "3"]
    assert error.splitlines()[2] == "minitron: 1 record left out: a field is missing or of another kind"


def test_a_killed_run_is_no_failure_of_the_model_and_a_diverged_one_is(tmp_path, command):
    records = [made(dim=8), made(status="killed", dim=16), made(status="diverged", dim=32)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")          # a mean of nothing
        assert command("report", write(tmp_path / "l.jsonl", records), "--svg", tmp_path / "x.svg")[0] == 0
    shown = list(text.lines(records))
    rows = [line.split() for line in shown]
    assert ["8", "100"] in rows and ["16", "n/a"] in rows and ["32", "0"] in rows


def test_a_failed_attempt_does_not_take_the_place_of_a_run_that_ended(tmp_path):
    done, again = made(), made(status="timeout")
    again["key"] = done["key"]
    path = write(tmp_path / "l.jsonl", [again, done, again])
    assert ledger_file.read_records(path)[0] == {done["key"]: done}
    diverged = made(status="diverged") | {"key": done["key"]}
    assert ledger_file.read_records(write(path, [done, diverged]))[0] == {done["key"]: diverged}, "the last of those that ended"
