"""The report as a web page: what it shows is what the ledger says, in a real browser, whatever the ledger's strings contain.

The browser is Chromium from the system's packages, driven through a pipe (browser.py), so nothing else is to be installed.
"""
import copy
import dataclasses
import math
import random
import re
import warnings
from pathlib import Path
from statistics import mean

import pytest
from browser import MISSING, Browser

from minitron.data.command_line import training_command
from minitron.data.config import Config
from minitron.measure.evaluate import wilson
from minitron.report import page, phase, text
from minitron.report.cause import cause

ABSENT = f"no {MISSING}, so the page is not looked at in a browser: on Debian, sudo apt install chromium; pip install playwright"
needs_browser = pytest.mark.skipif(MISSING is not None, reason=ABSENT)
if MISSING:                             # reasons for skipping are not printed, warnings are
    warnings.warn(ABSENT, stacklevel=1)
HOSTILE = "</script><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\"><!-- \u2028 '\"&"
SOLVED, GUESSED = 0.99, 0.01


def made(exact=SOLVED, status="ok", points=20, **config):
    """A record as train.py writes it, whose curve and numbers come to `exact`"""
    c = dataclasses.asdict(Config(**{"task": "addition", "dim": 8, "length": 2} | config).resolve())
    r = random.Random(repr(sorted(config.items())))
    key = f"{r.getrandbits(48):012x}"
    if status != "ok":
        return {"key": key, "status": status, "reason": "so it was told", "config": c, "seed": c["seed"], "metrics": {},
                "curve": [], "seconds": 1.0}
    nll = 2 * (1 - exact) + 1e-3 * r.random()
    panel = {"n": 2000, "token": exact**0.3, "exact": exact, "nll": nll, "brier": 0.4 * nll, "edit": 0.3 * nll,
             "p_length": exact**1.1, "icl": None, "chance_token": 0.2, "chance_exact": 0.004}
    curve = [{"step": 125 * (i + 1), "loss": nll + 2 / (i + 1)**2 + 0.01 * r.random(), "n": 600, "nll": nll + 2 / (i + 1)**2,
              "token": exact**0.3, "exact": exact * min(1, i / 9), "norm": 15 + r.random(), "distance": i**0.5 + r.random(),
              "previous": [[r.random(), 0.1], [0.2, 0.1]], "induction": [[0.0, 0.1], [r.random(), 0.4]]} for i in range(points)]
    return {"key": key, "status": "ok", "config": c, "seed": c["seed"], "curve": curve,
            "metrics": {str(x): panel for x in range(1, c["length"] + 1)}, "steps": 2500,
            "parameters": 24 * c["dim"]**2, "flops": 1e8 * c["dim"]**2, "seconds": 12.3456}


def ledger():
    """dim x length x 3 seeds: length 1 is learnt from dim 16 on, length 2 from 32 on, length 3 at 16 alone; two runs failed."""
    def exact(dim, length, seed):
        return SOLVED if (dim == 16 if length == 3 else dim > 4 * 2**length) else GUESSED

    records = [made(exact(dim, length, seed), dim=dim, length=length, seed=seed)
               for dim in (8, 16, 32, 64) for length in (1, 2, 3) for seed in range(3)]
    records[0] = made(status="timeout", dim=8, length=1, seed=0)
    records[-1] = made(status="diverged", dim=64, length=3, seed=2)
    return records


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def ledger_page(tmp_path_factory):
    """The page of ledger(), made once: its laws take a while to fit"""
    path = tmp_path_factory.mktemp("ledger") / "page.html"
    page.write(path, ledger(), "a ledger")
    return path


@pytest.fixture
def shown(browser, tmp_path, ledger_page):
    """shown(records): the browser with their page open, or that of ledger(); it may not complain nor ask for anything"""
    def shown(records=None, title="a ledger"):
        path = ledger_page if records is None else tmp_path / "page.html"
        if records is not None:
            records, left_out = page.readable_records(records)
            page.write(path, records, title, left_out)
        browser.resize(1000)
        browser.open(path)
        return browser

    yield shown
    assert browser.errors == [] and {Path(url).name for url in browser.requests} <= {"page.html"}


def cells(browser):
    """The numbers of the grid, row by row"""
    return browser.run("[...document.querySelectorAll('tbody tr')].map(row => [...row.querySelectorAll('td')]"
                       ".map(cell => cell.firstChild ? cell.firstChild.textContent : ''))")


def inner_text(browser, id):
    return browser.run(f"document.getElementById('{id}').innerText")


def choose(browser, menu, option):
    assert browser.page.evaluate("""([name, option]) => {
        const menu = document.querySelector(`[data-name="${name}"]`);
        menu.value = [...menu.options].findIndex(each => each.text === option);
        menu.focus();
        menu.dispatchEvent(new Event("change"));
        return menu.value !== "";
    }""", [menu, option])


# ---- the numbers that are shipped ------------------------------------------------------------------------------------


def large():
    """500 runs with long commands, eight layers whose heads were looked at, and twenty lengths tested"""
    records = [made(SOLVED if dim > 50 else GUESSED, dim=dim, length=5, seed=seed, layers=8, shards=1, steps=12345, lr=0.00123)
               for dim in (8, 16, 24, 32, 48, 64, 80, 96, 112, 128) for seed in range(50)]
    for record in records:
        record["metrics"] = {str(length): record["metrics"]["5"] | {"nll": 0.123456 / length} for length in range(1, 21)}
        for point in record["curve"]:
            point |= {name: [[0.12345, 0.1]] * 8 for name in page.HEADS}
    return records


def test_500_runs_are_less_than_a_megabyte(tmp_path, monkeypatch):
    law = {"E": 0.1234, "A": 1.234e10, "alpha": 1.234, "error": 12.3, "known": False}
    monkeypatch.setattr(page, "scaling_law", lambda *_: law)        # 40 laws of the same form, which take a second to fit
    page.write(tmp_path / "page.html", large(), "large")
    assert 500_000 < (tmp_path / "page.html").stat().st_size < 1_000_000


def test_the_page_holds_one_place_for_data_and_names_no_address():
    template = page.TEMPLATE.read_text(encoding="utf-8")
    assert template.count(page.PLACE) == 1
    assert re.findall(r"https?://[^\"]*", template) == ["http://www.w3.org/2000/svg"]      # a name, not an address
    assert "innerHTML" not in template.replace("never through innerHTML", "")


def lawful():
    """Runs whose loss follows a law of their size"""
    records = [made(dim=dim, length=1) for dim in (8, 16, 32, 64, 128)]
    for record in records:
        record["metrics"]["1"]["nll"] = 0.2 + 30 / record["parameters"]**0.5
    return records


def test_a_law_that_is_there_is_found():
    records = lawful()
    found = page.scaling_law(records, "parameters")
    assert found["alpha"] == pytest.approx(0.5, abs=0.01) and found["E"] == pytest.approx(0.2, abs=0.01) and found["error"] < 1.01
    assert page.scaling_law(records[:3], "parameters") is None


def test_no_number_is_lost_but_digits():
    record = made(0.123456789, dim=8, length=2)
    found = page.run_data(record, ["dim"], 20, 20)
    assert found["set"] == [8] and found["lengths"] == [1, 2]
    numbers = dict(zip([*page.METRICS, "way"], found["numbers"][1]))
    assert numbers["exact"] == 0.1235 and numbers["n"] == 2000 and abs(numbers["way"] - phase.normalized_score(record)) < 1e-4
    assert found["curve"]["previous, layer 1"] == [page.rounded(max(point["previous"][0]), 3) for point in record["curve"]]


def test_what_is_no_number_becomes_null():
    record = made()
    record["curve"][3] |= {"nll": float("nan"), "loss": float("inf"), "exact": None}
    record["metrics"]["2"] |= {"nll": float("nan"), "edit": None}
    record |= {"flops": 10**400, "reason": float("inf")}
    assert "NaN" not in page.embedded(page.page_data([record], "t")) and page.rounded(float("nan"), 3) is None


def test_a_command_trains_the_run_that_it_stands_at():
    for seed in (0, 3):
        words = training_command(made(dim=8, length=2, seed=seed)["config"]).split()
        assert words[:4] == ["python", "train.py", "--task", "addition"] and ("--seed" in words) == (seed > 0)


def test_a_configuration_that_does_not_resolve_here_has_a_command_all_the_same():
    config = made()["config"] | {"task": "text", "data": "/nowhere/text.txt"}
    assert "--data /nowhere/text.txt" in training_command(config)


# ---- what it shows ---------------------------------------------------------------------------------------------------


@needs_browser
def test_the_diagram_is_the_terminal_reports(shown):
    records = ledger()
    browser = shown()
    panel, = phase.phase_diagrams(records)
    expected = [[f"{100 * panel.cells[y, x].probability()[0]:.0f}" for x in panel.xs] for y in panel.ys]
    assert cells(browser) == expected == [["0", "0", "0"], ["100", "0", "100"], ["100", "100", "0"], ["100", "100", "0"]]
    foot = browser.run("[...document.querySelectorAll('tfoot td')].map(cell => cell.innerText)")
    assert foot == ["16", "32", "none", "0.4%", "0.4%", "0.4%"]
    assert browser.run("[...document.querySelectorAll('.frontier')].map(cell => cell.dataset.place)") == ["1 0", "2 1"]
    for x in panel.xs:
        assert f"length {x}: {text.verdict_sentence(panel, x)}" in inner_text(browser, "verdicts")


@needs_browser
def test_a_click_shows_the_cells_seeds(shown):
    records = ledger()
    browser = shown()
    browser.page.click("[data-place='2 0']")
    assert inner_text(browser, "h-cell").startswith("dim 32, length 1: 3 of 3 runs learnt it (95% interval 44 to 100%)")
    low, high = wilson(SOLVED, 2000)
    for record in records:
        if (record["config"]["dim"], record["config"]["length"]) == (32, 1):
            assert record["key"] in inner_text(browser, "cell") and training_command(record["config"]) in browser.run(
                "[...document.querySelectorAll('#cell code')].map(code => code.textContent)")
    assert inner_text(browser, "cell").count(f"(95% interval {100 * low:.1f} to {100 * high:.1f})") == 3
    assert browser.run("document.querySelectorAll('#cell svg[role=img]').length") == 6
    assert "Induction heads, layer 2" in inner_text(browser, "hidden")
    browser.page.click("[data-place='0 0']")
    assert "seed 0: timeout" in inner_text(browser, "cell") and "so it was told" in inner_text(browser, "cell")


@needs_browser
def test_the_keyboard_alone_reaches_and_chooses_a_cell(shown):
    browser = shown()
    browser.run("document.querySelector('[data-name=columns]').focus()")
    browser.page.keyboard.press("Tab")
    assert browser.run("document.activeElement.getAttribute('role')") == "gridcell"
    for key in ("Home", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown", "ArrowRight"):
        browser.page.keyboard.press(key)
    assert browser.run("document.activeElement.dataset.place") == "1 1"
    assert browser.run("document.querySelectorAll('td[tabindex=\"0\"]').length") == 1
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.page.keyboard.press("Enter")
    assert inner_text(browser, "h-cell").startswith("dim 16, length 2")
    assert browser.run("document.activeElement.dataset.place + document.activeElement.ariaSelected") == "1 1true"
    browser.page.keyboard.press("ArrowRight")
    browser.page.keyboard.press("Space")
    assert inner_text(browser, "h-cell").startswith("dim 16, length 3")


@needs_browser
def test_what_follows_a_cell_is_of_its_column(shown):
    browser = shown()
    browser.page.click("[data-place='3 1']")
    assert browser.run("document.querySelectorAll('#mirage circle.one title').length") == 2 * 12
    assert "chance 0.4%" in inner_text(browser, "mirage") and "dim, at length 2" in browser.run(
        "document.querySelector('#mirage svg').textContent")
    assert browser.run("document.querySelectorAll('#scaling figure circle').length") == 2 * 12
    law = page.scaling_law([record for record in ledger() if record["config"]["length"] == 2], "parameters")
    assert law["error"] > 1.5 and "No power law is drawn" in inner_text(browser, "scaling")      # a jump is none, and none is drawn
    assert browser.run("document.querySelectorAll('#scaling .law').length") == 0
    browser.page.click("[data-place='0 0']")                     # where a run took too long, and has no numbers
    assert browser.run("document.querySelectorAll('#mirage circle.one title').length") == 2 * 11


@needs_browser
def test_a_law_that_is_there_is_drawn(shown):
    records = lawful()
    for record in records:
        record["flops"] *= record["config"]["dim"]
    browser = shown(records)
    assert "Fitted: nll = 0.2 + 30 / parameters^0.5" in inner_text(browser, "scaling")
    assert browser.run("document.querySelectorAll('#scaling .law').length") == 2
    for place, size in ((1, "flops"), (2, "parameters")):       # both axes go from 1.4 times below to 1.4 times above
        for axis, values in enumerate(([record[size] for record in records],
                                       [record["metrics"]["1"]["nll"] for record in records])):
            low, high = math.log(min(values) / 1.4), math.log(max(values) * 1.4)
            found = [dot[axis] for dot in dots(browser, f"#scaling figure:nth-child({place})")]
            assert found == pytest.approx([(math.log(value) - low) / (high - low) for value in values], abs=0.003)


@needs_browser
def test_a_command_is_copied_or_selected(shown):
    browser = shown()
    browser.page.click("#yet .run button")
    browser.page.wait_for_function("['Copied', 'Selected'].includes(document.querySelector('#yet .run button').textContent)")
    assert "dim 8, length 2" in browser.run("document.getElementById('yet').textContent")
    commands = browser.run("[...document.querySelectorAll('#yet code')].map(code => code.textContent)")
    assert training_command(made(dim=8, length=2, seed=0)["config"]) in commands


@needs_browser
def test_metrics_and_axes_are_switched(shown):
    browser = shown()
    browser.page.click("[value=exact] + span")
    assert cells(browser)[2] == ["99", "99", "1.0"] and "every answer token right" in inner_text(browser, "diagram-about")
    browser.page.keyboard.press("ArrowRight")                     # radio buttons: the next metric, and the focus stays with them
    assert browser.run("document.activeElement.value") == "token"
    browser.page.click("[value=nll] + span")
    assert float(cells(browser)[0][1]) == pytest.approx(1.98, abs=0.01)
    choose(browser, "columns", "dim")               # which are the rows: they change places
    assert len(cells(browser)) == 3 and len(cells(browser)[0]) == 4
    assert browser.run("document.activeElement.dataset.name") == "columns"
    choose(browser, "rows", "FLOPs")
    choose(browser, "columns", "length tested")
    assert len(cells(browser)) >= 4 and "Verdicts are given for dim by length" in inner_text(browser, "verdicts")


@needs_browser
@pytest.mark.parametrize("metric", page.METRICS[:5])
def test_every_metric_is_the_ledgers(shown, metric):
    browser, (panel,) = shown(), phase.phase_diagrams(ledger())
    browser.page.click(f"[value={metric}] + span")
    for y, row in zip(panel.ys, cells(browser)):
        for x, shown_value in zip(panel.xs, row):
            found = filter(None, map(phase.test_metrics, panel.cells[y, x].records))
            unit = 100 if metric in ("exact", "token") else 1
            assert float(shown_value) / unit == pytest.approx(mean(r[metric] for r in found), rel=0.006, abs=0.005 * (unit > 1))


@needs_browser
def test_every_axis_is_offered_and_shows_every_run(shown):
    browser = shown()
    names = browser.run("[...document.querySelector('[data-name=rows]').options].map(each => each.text)")
    assert {"dim", "length", "layers", "steps", "parameters", "FLOPs", "length tested"} == set(names)
    choose(browser, "columns", "length")
    for name, rows in (("layers", 1), ("steps", 1), ("parameters", 5), ("FLOPs", 5)):       # of failed runs size is not known
        choose(browser, "rows", name)
        choose(browser, "columns", "length")
        if name in ("layers", "steps"):
            choose(browser, "dim", "all together")
        assert len(cells(browser)) == rows
        counts = browser.run("[...document.querySelectorAll('td.cell small:first-of-type')].map(each => each.textContent)")
        assert sum(int(count.partition("/")[2] or 1) for count in counts) == 36


@needs_browser
def test_a_combination_without_runs_cannot_be_chosen(shown):
    kinds = [{"layers": 1, "qk_norm": True}, {"layers": 2, "qk_norm": True}, {"layers": 2, "qk_norm": False, "seed": 1},
             {"layers": 2, "qk_norm": False}]
    browser = shown([made(dim=dim, length=length, **kind) for dim in (8, 16) for length in (1, 2) for kind in kinds])
    fixed = "[...document.querySelectorAll('#controls select')].slice(2).map(menu => menu.selectedOptions[0].text)"
    assert browser.run(fixed) == ["2", "false"]         # what most runs have
    choose(browser, "layers", "1")
    assert browser.run(fixed) == ["1", "true"] and cells(browser) == [["100", "100"], ["100", "100"]]


def drawn(browser, line):
    """The points of a line of a chart, as shares of the chart's width and height"""
    return browser.page.evaluate("""line => {
        const numbers = path => path.getAttribute("d").match(/[0-9.]+/g).map(Number), path = document.querySelector(line);
        const [left, top, foot, right] = numbers(path.closest("svg").querySelector(".axis")), points = numbers(path);
        return points.flatMap((x, i) => i % 2 ? [] : [[(x - left) / (right - left), (foot - points[i + 1]) / (foot - top)]]);
    }""", line)


def dots(browser, figure):
    """The same of a figure's dots"""
    return browser.page.evaluate("""figure => {
        const axis = document.querySelector(`${figure} .axis`).getAttribute("d");
        const [left, top, foot, right] = axis.match(/[0-9.]+/g).map(Number);
        return [...document.querySelectorAll(`${figure} svg[role=img] circle`)].map(({cx, cy}) =>
            [(cx.baseVal.value - left) / (right - left), (foot - cy.baseVal.value) / (foot - top)]);
    }""", figure)


@needs_browser
def test_lines_are_drawn_where_the_numbers_are(shown):
    record = made(0.8, dim=8, length=1)
    browser, curve, tested = shown([record, made(0.5, dim=16, length=1)]), record["curve"], record["metrics"]["1"]
    browser.page.click("[data-place='0 0']")
    end = curve[-1]["step"]
    for chart, name in (("#cell figure svg:nth-of-type(2)", "exact"), ("#hidden figure:nth-of-type(4) svg", "induction")):
        expected = [(point["step"] / end, max(point[name][1]) if name == "induction" else point[name]) for point in curve]
        assert sum(drawn(browser, f"{chart} path.one"), []) == pytest.approx(sum(map(list, expected), []), abs=0.003)
    highest = 1.05 * max(point["nll"] for point in curve)
    losses = [y for _, y in drawn(browser, "#cell figure svg:nth-of-type(1) path.one")]
    assert losses == pytest.approx([point["nll"] / highest for point in curve], rel=0.02, abs=0.01)
    assert [y for _, y in dots(browser, "#mirage figure:first-child")] == pytest.approx([0.8, 0.5], abs=0.003)
    for kind, name in (("one", "exact"), ("two", "p_length")):
        assert drawn(browser, f"#mirage svg path.{kind}")[0][1] == pytest.approx(tested[name], abs=0.003)


@needs_browser
def test_charts_have_their_numbers_beside_them(shown):
    records = [made(dim=dim, length=1, seed=seed) for dim in (8, 16) for seed in (0, 1)]
    browser = shown(records)
    browser.page.click("[data-place='1 0']")
    browser.page.click("#cell details summary")
    browser.page.click("#scaling details summary")
    browser.page.wait_for_function("document.querySelectorAll('#cell details table, #scaling details table').length === 2")
    rows = "[...document.querySelectorAll('{} tr')].map(row => [...row.children].map(each => each.textContent))"
    head, *curve = browser.run(rows.format("#cell details"))
    points = next(record for record in records if record["config"]["dim"] == 16)["curve"]
    assert [row[head.index("step")] for row in curve] == [str(point["step"]) for point in points]
    assert [float(row[head.index("nll")]) for row in curve] == pytest.approx([point["nll"] for point in points], rel=0.006)
    assert "previous, layer 1" in head
    head, *column = browser.run(rows.format("#scaling details"))
    assert len(column) == 4 and {row[head.index("run")] for row in column} == {record["key"] for record in records}


@needs_browser
def test_other_dials_are_chosen_or_put_together(shown):
    records = [made(SOLVED if layers == 2 else GUESSED, dim=dim, length=length, layers=layers)
               for dim in (8, 16) for length in (1, 2) for layers in (1, 2)]
    browser = shown(records)
    assert cells(browser) == [["0", "0"], ["0", "0"]]
    choose(browser, "layers", "2")
    assert cells(browser) == [["100", "100"], ["100", "100"]] and "length 1: always" in inner_text(browser, "verdicts")
    choose(browser, "layers", "all together")
    assert cells(browser) == [["50", "50"], ["50", "50"]] and "Verdicts are given" in inner_text(browser, "verdicts")


@needs_browser
def test_the_learning_rate_is_chosen_by_validation(shown):
    records = [made(SOLVED if (lr == 0.01) == (dim == 8) else GUESSED, dim=dim, lr=lr, seed=seed)
               for dim in (8, 16) for lr in (0.001, 0.01) for seed in (0, 1)]
    browser = shown(records)
    choose(browser, "columns", "length")
    assert cells(browser) == [["100"], ["100"]]
    choose(browser, "lr", "0.001")
    assert cells(browser) == [["0"], ["100"]]


@needs_browser
def test_the_learning_rate_is_chosen_by_all_digits(shown):
    records = [made(exact, dim=dim, lr=lr) for dim in (8, 16) for exact, lr in ((GUESSED, 0.001), (SOLVED, 0.01))]
    for record in records:
        record["curve"][-1] |= {"exact": 0.90004 if record["config"]["lr"] == 0.01 else 0.90001, "nll": 0.5}
    assert cells(shown(records)) == [["100", "100"], ["100", "100"]]       # at the two lengths that they were tested on


def older():
    """A record from before some dials"""
    record = made(dim=16)
    for name in ("mixed", "options", "test_length", "positions", "position_range", "lr_floor"):
        del record["config"][name]
    return record


STRANGE = {
    "an unknown task": lambda record: record["config"].update(task="dancing"),
    "no configuration": lambda record: record.pop("config"),
    "no numbers": lambda record: record.pop("metrics"),
    "a number missing": lambda record: record["metrics"]["2"].pop("chance_exact"),
    "a list for a number": lambda record: record["config"].update(dim=[1]),
    "a number for a list": lambda record: record.update(curve=7),
    "a setting that is no number": lambda record: record["config"].update(dim=float("nan")),
    "a size that is no number": lambda record: record.update(parameters="many"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_record_is_left_out_and_counted(name):
    strange = made(dim=32)
    STRANGE[name](strange)
    records, left_out = page.readable_records([made(), strange, made(seed=1)])
    assert [record["seed"] for record in records] == [0, 1]
    why = "task 'dancing' is unknown" if name == "an unknown task" else "a field is missing or of another kind"
    assert left_out == {why: 1}


@needs_browser
def test_what_was_left_out_is_said_and_older_records_are_shown(shown):
    strange = made(dim=32)
    del strange["seconds"]
    browser = shown([made(dim=16, positions="random"), older(), strange])
    assert "1 record left out: a field is missing" in inner_text(browser, "about")
    assert "2 runs of addition" in inner_text(browser, "about")
    assert "n/a" in browser.run("[...document.querySelector('[data-name=mixed]').options].map(each => each.text)")
    assert "no runs" in shown([strange]).run("document.body.innerText")


@needs_browser
def test_hostile_strings_stay_text(shown):
    record = made(GUESSED, dim=8, length=2)
    record["key"] = HOSTILE
    failed = made(status="killed", dim=16, length=2)
    failed["reason"] = failed["config"]["options"] = failed["config"]["variant"] = HOSTILE
    browser = shown([record, failed], HOSTILE)
    assert browser.run("document.title").split() == HOSTILE.split() and browser.run("document.images.length") == 0
    assert inner_text(browser, "title") == HOSTILE and "onerror" in inner_text(browser, "cell")
    assert browser.run("document.scripts.length") == 2


@needs_browser
def test_long_strings_do_not_widen_the_page(shown):
    records = [made(exact, dim=dim) for dim in (8, 16) for exact in (SOLVED, GUESSED)]
    for i, record in enumerate(records):
        record["config"]["options"], record["key"] = f"{i % 2}" + "x" * 3000, f"{i}" + "y" * 3000
    failed = made(status="killed", dim=16)
    failed["reason"] = "z" * 3000
    browser = shown([*records, failed], "t" * 3000)
    for width in (400, 1000):
        browser.resize(width)
        for task in ("rows", "columns"):
            choose(browser, task, "options")
            assert browser.run("document.documentElement.scrollWidth") == width


@needs_browser
def test_tasks_without_right_answers(shown):
    def distribution(task, nll, layers, reference):
        record = made(0.0, task=task, dim=16, layers=layers, length=None)
        panel = next(iter(record["metrics"].values())) | {"nll": nll, "edit": None, "chance_exact": 0.0}
        panel |= {"reference": {"bigram": reference}} if reference else {}
        return record | {"metrics": {str(record["config"]["length"]): panel}}

    browser = shown([distribution("markov", 0.9 + 0.2 * (layers == 1), layers, 0.89) for layers in (1, 2)]
                    + [distribution("text", 1.2, layers, None) for layers in (1, 2)])
    assert cells(browser) == [["0"], ["100"]] and "the best there can be" in inner_text(browser, "mirage")
    choose(browser, "task", "text")
    assert browser.run("document.querySelector('[value=success]').disabled")
    assert cells(browser) == [["1.2"], ["1.2"]] and "no right answers" in inner_text(browser, "verdicts")


@needs_browser
def test_a_run_alone_failed_runs_alone_and_no_run(shown):
    assert cells(shown([made()])) == [["100", "100"]]       # at the lengths on which it was tested
    assert cells(shown([made(status="timeout")])) == [["0"]]
    assert "no runs" in shown([]).run("document.body.innerText")
    hollow = made()
    hollow["metrics"] = {"2": {"n": 0} | dict.fromkeys(("token", "exact", "nll", "brier", "edit", "p_length"))}
    hollow["curve"] = []
    browser = shown([hollow])
    assert cells(browser) == [["n/a"]] and "Nothing of the kind was recorded" in inner_text(browser, "hidden")


@needs_browser
def test_narrow_dark_and_printed(shown):
    browser = shown()
    browser.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    for width in (400, 320, 1000):
        browser.resize(width)
        assert browser.run("document.documentElement.scrollWidth") == width
        assert browser.run("Math.min(...[...document.querySelectorAll('select, button, summary, .pills span, td.cell')]"
                           ".map(each => Math.min(each.offsetWidth, each.offsetHeight)))") >= 24
    grounds = set()
    for scheme in ("light", "dark"):
        browser.page.emulate_media(color_scheme=scheme)
        grounds.add(browser.run("getComputedStyle(document.body).backgroundColor"))
        assert lowest_contrast(browser) >= 4.5
    assert len(grounds) == 2
    browser.run("document.querySelectorAll('details').forEach(each => { each.open = false; })")
    assert browser.page.pdf().startswith(b"%PDF-")
    assert browser.run("[...document.querySelectorAll('#yet details')].every(each => each.open)")
    browser.page.emulate_media(media="print")
    assert browser.run("getComputedStyle(document.getElementById('controls')).display") == "none"
    browser.page.emulate_media(media="screen", color_scheme="light")


@needs_browser
def test_colours_are_told_apart_without_seeing_colours(shown):
    browser = shown()
    lights = browser.run("""Array.from({length: 21}, (_, i) => shade(i / 20).back.match(/[0-9]+/g)
        .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0))""")
    assert lights == sorted(lights) and lights[-1] > 5 * lights[0]
    dashes = {browser.run(f"getComputedStyle(document.querySelector('path.{kind}')).strokeDasharray")
              for kind in ("one", "two", "three")}
    assert len(dashes) == 3


def lowest_contrast(browser):
    """Of all text that stands on the page: the smallest ratio of the lightness of letters and their ground (WCAG 2)"""
    return browser.run("""(() => {
        const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const light = colour => colour.match(/[0-9.]+/g).slice(0, 3).map(c => linear(Number(c) / 255))
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const ground = element => {
            const colour = getComputedStyle(element).backgroundColor;
            return colour.endsWith(", 0)") ? ground(element.parentElement) : colour;
        };
        const texts = document.body.querySelectorAll(
            "h1, h2, h3, p, th, td, small, code, li, button, select, summary, legend, text, .key span, .pills span");
        const ratios = [...texts].map(element => {
            const style = getComputedStyle(element), svg = element.tagName === "text";
            const [a, b] = [light(svg ? style.fill : style.color), light(ground(svg ? element.closest(".card") : element))];
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        });
        return Math.min(...ratios);
    })()""")


@needs_browser
def test_parts_have_names_for_those_who_hear_the_page(shown):
    browser = shown()
    assert browser.run("[...document.querySelectorAll('svg[role=img], [role=grid], [role=gridcell], form')]"
                       ".every(element => element.getAttribute('aria-label'))")
    assert browser.run("[...document.querySelectorAll('section')].every(each => document.getElementById("
                       "each.getAttribute('aria-labelledby')).textContent)")
    assert browser.run("document.querySelector('[data-place=\"1 0\"]').ariaLabel") == \
        "dim 16, length 1: success 100 percent, 3/3, frontier"


@needs_browser
def test_the_browser_notices_errors_and_requests(browser, tmp_path):
    (tmp_path / "bad.html").write_text("<img src='nowhere.png'><script>console.error('oh'); throw 1;</script>")
    browser.open(tmp_path / "bad.html")
    assert len(browser.errors) >= 2 and any(url.endswith("nowhere.png") for url in browser.requests)


# ---- causes ----------------------------------------------------------------------------------------------------------


def flat(nll, loss, **config):
    """A run that learnt nothing, whose curve is given"""
    record = made(GUESSED, **config)
    record["curve"] = [{"step": i, "nll": a, "loss": b, "exact": 0.0} for i, (a, b) in enumerate(zip(nll, loss))]
    return record


STILL = [2.0] * 12
CAUSES = {
    "unfinished": made(status="killed"),
    "lr, diverged": made(status="diverged"),
    "lr, a spike": flat([2, 1, 0.8, 0.8, 1.9, 1.5, 1.2, 1, 1, 1, 1, 1], [2, 1, 0.8, 0.8, 1.9, 1.5, 1.2, 1, 1, 1, 1, 1]),
    "data": flat([2, 2, 2, 2.5, 3, 4, 5, 6, 6, 6, 6, 6], [2, 2, 2, 1.5, 1, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]),
    "steps": flat([2 - 0.05 * i for i in range(12)], [2 - 0.05 * i for i in range(12)]),
    "width": flat(STILL, STILL, dim=8),
    "depth": flat(STILL, STILL, dim=64, layers=1),
    "unknown": flat(STILL, STILL, dim=96),
    "unknown, half of the loss being END's": flat(STILL, [1.0] * 12, dim=96),
}


@pytest.mark.parametrize("name", CAUSES)
def test_causes_of_curves_made_by_hand(name):
    found = cause(CAUSES[name], learnt=[made(dim=64), made(dim=128, length=1)])
    assert found.name == name.split(",")[0] and found.evidence and found.remedy


def test_lengths_beyond_trainings_are_a_matter_of_positions():
    record = made(length=2, test_length=4)
    record["metrics"]["4"] = copy.deepcopy(record["metrics"]["2"]) | {"exact": 0.02}
    assert cause(record).name == "positions" and "length 4" in cause(record).evidence
    record["metrics"]["4"]["exact"] = 1.0
    assert cause(record).name != "positions"


def test_not_yet_lists_the_settings_that_no_seed_learnt():
    found = {each["where"]: each for each in page.not_yet(ledger())}
    never = [f"dim {dim}, length 3" for dim in (8, 32, 64)]
    assert set(found) == {"dim 8, length 1", "dim 8, length 2", "dim 16, length 2", *never}
    assert found["dim 8, length 2"]["cause"] == "width" and found["dim 64, length 3"]["cause"] in ("unknown", "lr")
    assert page.not_yet([made()]) == []
