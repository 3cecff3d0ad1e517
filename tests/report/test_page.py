"""The report as a web page, in a real browser: it shows what the ledger says, whatever its strings.

The browser is Chromium from the system's packages, driven through a pipe (browser.py).
"""
import math
import random
import re
import warnings
from pathlib import Path
from statistics import mean

import pytest
from browser import MISSING, Browser
from synthetic import GUESSED, SOLVED, random_ledger, synthetic_ledger, synthetic_record

from minitron.data.command_line import training_command
from minitron.measure import learnt
from minitron.measure.evaluate import wilson
from minitron.report import page, phase, text
from minitron.report.picture import figure_class, heat_map

ABSENT = (f"no {MISSING}, so the page is not tested in a browser: on Debian, "
          "sudo apt install chromium; pip install playwright")
needs_browser = pytest.mark.skipif(MISSING is not None, reason=ABSENT)
if MISSING:                             # reasons for skipping are not printed, warnings are
    warnings.warn(ABSENT, stacklevel=1)
HACK = "document.title='hacked'"
HOSTILE = f"</script><script>{HACK}</script><img src=x onerror=\"{HACK}\"><!-- \u2028 '\"&"


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def ledger_page(tmp_path_factory):
    """The page of synthetic_ledger(), made once: its laws take a while to fit"""
    path = tmp_path_factory.mktemp("ledger") / "page.html"
    page.write(path, synthetic_ledger(), "a ledger")
    return path


@pytest.fixture
def open_page(browser, tmp_path, ledger_page):
    """open_page(records): the browser with their page, by default that of synthetic_ledger()

    The page may not complain nor request anything.
    """
    def open_page(records=None, title="a ledger"):
        path = ledger_page if records is None else tmp_path / "page.html"
        if records is not None:
            records, left_out = page.readable_records(records)
            page.write(path, records, title, left_out)
        browser.resize(1000)
        browser.open(path)
        return browser

    yield open_page
    assert browser.errors == [] and {Path(url).name for url in browser.requests} <= {"page.html"}


def cell_numbers(browser):
    """The numbers of the grid, row by row"""
    return browser.run("""[...document.querySelectorAll('tbody tr')].map(row =>
        [...row.querySelectorAll('td')].map(cell =>
            cell.firstChild ? cell.firstChild.textContent : ''))""")


def texts(browser, selector):
    """The text of each element"""
    elements = f"[...document.querySelectorAll('{selector}')]"
    return browser.run(f"{elements}.map(each => each.textContent)")


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


# ---- the data of the page ------------------------------------------------------------------------


def large_ledger():
    """500 runs with long commands, scores of heads in eight layers, and twenty lengths tested"""
    records = [synthetic_record(SOLVED if dim > 50 else GUESSED, dim=dim, length=5, seed=seed,
                                layers=8, shards=1, steps=12345, lr=0.00123)
               for dim in (8, 16, 24, 32, 48, 64, 80, 96, 112, 128) for seed in range(50)]
    for record in records:
        metrics = record["metrics"]["5"]
        record["metrics"] = {str(length): metrics | {"nll": 0.123456 / length}
                             for length in range(1, 21)}
        for point in record["curve"]:
            point |= {name: [[0.12345, 0.1]] * 8 for name in page.HEADS}
    return records


def test_500_runs_are_less_than_a_megabyte(tmp_path, monkeypatch):
    # 40 laws of the same form, which would take a second to fit
    law = {"E": 0.1234, "A": 1.234e10, "alpha": 1.234, "error": 12.3, "is_entropy": False}
    monkeypatch.setattr(page, "scaling_law", lambda *_: law)
    page.write(tmp_path / "page.html", large_ledger(), "large")
    assert 500_000 < (tmp_path / "page.html").stat().st_size < 1_000_000


def test_the_page_holds_one_place_for_data_and_names_no_address():
    template = page.TEMPLATE.read_text(encoding="utf-8")
    assert template.count(page.PLACE) == 1
    svg = "http://www.w3.org/2000/svg"          # a name, not an address
    assert re.findall(r"https?://[^\"]*", template) == [svg]
    assert "innerHTML" not in template.replace("never through innerHTML", "")


def lawful_ledger():
    """Runs whose loss follows a law of their size"""
    records = [synthetic_record(dim=dim, length=1) for dim in (8, 16, 32, 64, 128)]
    for record in records:
        record["metrics"]["1"]["nll"] = 0.2 + 30 / record["parameters"]**0.5
    return records


def test_a_law_is_fitted_where_the_loss_follows_one():
    records = lawful_ledger()
    law = page.scaling_law(records, "parameters")
    assert law["alpha"] == pytest.approx(0.5, abs=0.01)
    assert law["E"] == pytest.approx(0.2, abs=0.01) and law["error"] < 1.01
    assert page.scaling_law(records[:3], "parameters") is None


def test_numbers_lose_digits_only():
    record = synthetic_record(0.123456789, dim=8, length=2)
    data = page.run_data(record, 20, 20)
    assert data["lengths"] == [1, 2]
    metrics = dict(zip(page.page_data([record], "")["metrics"], data["metrics"][1]))
    assert metrics["exact"] == 0.1235 and metrics["n"] == 2000
    assert abs(metrics["score"] - learnt.score(record)) < 1e-4
    previous = [page.rounded(max(point["previous"][0]), 3) for point in record["curve"]]
    assert data["curve"]["previous, layer 1"] == previous


def test_whether_a_run_has_learnt_is_decided_by_all_digits():
    """Its score of 0.89999 rounds to 0.9; with this many problems the test tells them apart."""
    record = synthetic_record(0.004 + 0.996 * 0.89999)
    for metrics in record["metrics"].values():
        metrics["n"] = 10**12
    [cell] = phase.phase_diagrams([record])[0].cells.values()
    assert page.metrics_row(record)[-1] == 0.9 and page.cell_data(cell)["counts"] == "0/1"


def test_values_that_are_not_numbers_become_null():
    record = synthetic_record()
    record["curve"][3] |= {"nll": float("nan"), "loss": float("inf"), "exact": None}
    record["metrics"]["2"] |= {"nll": float("nan"), "edit": None}
    record |= {"flops": 10**400, "reason": float("inf")}
    assert "NaN" not in page.embedded(page.page_data([record], "t"))
    assert page.rounded(float("nan"), 3) is None


def test_a_command_trains_the_run_beside_it():
    for seed in (0, 3):
        words = training_command(synthetic_record(dim=8, length=2, seed=seed)["config"]).split()
        assert words[:4] == ["python", "train.py", "--task", "addition"]
        assert ("--seed" in words) == (seed > 0)


def test_a_configuration_that_does_not_resolve_here_has_a_command_all_the_same():
    config = synthetic_record()["config"] | {"task": "text", "data": "/nowhere/text.txt"}
    assert "--data /nowhere/text.txt" in training_command(config)


# ---- terminal and page ---------------------------------------------------------------------------


def page_diagram(browser):
    """What the page shows: [{y, x, number, count, frontier, hatched}], frontiers and chances"""
    cells = browser.run("""[...document.querySelectorAll('[role=gridcell]')].map(cell => ({
        y: cell.closest("tr").cells[0].textContent,
        x: document.querySelector("thead tr").cells[cell.cellIndex].textContent,
        number: cell.firstChild ? cell.firstChild.textContent : "",
        count: [...cell.querySelectorAll("small")].map(each => each.textContent).join(", "),
        frontier: cell.classList.contains("frontier"),
        hatched: cell.classList.contains("hatch")}))""")
    foot = browser.run("""Object.fromEntries([...document.querySelectorAll('tfoot tr')].map(row =>
        [row.cells[0].textContent, [...row.cells].slice(1).map(each => each.textContent)]))""")
    return cells, foot["frontier"], foot.get("chance", [])


def drawn(diagram):
    """{(column, row): the text of the cell}, places of hatched cells, by the picture"""
    axis = figure_class()().subplots()
    heat_map(axis, diagram)
    texts = {each.get_position(): each.get_text() for each in axis.texts}
    return texts, {(patch.get_x() + 0.5, patch.get_y() + 0.5) for patch in axis.patches}


def agree(browser, diagram):
    """Assert that terminal, picture and page show this diagram with the same numbers."""
    cells, frontiers, chances = page_diagram(browser)
    pictured, hatched = drawn(diagram)
    assert [cell["x"] for cell in cells[:len(diagram.xs)]] == [f"{x}" for x in diagram.xs]
    places = [(y, x) for y in diagram.ys for x in diagram.xs]
    assert len(cells) == len(places)
    for (y, x), on_page in zip(places, cells):
        cell, place = diagram.cells.get((y, x)), (diagram.xs.index(x), diagram.ys.index(y))
        in_terminal = text.cell_text(cell, 7, False).strip()
        assert on_page["y"] == str(y) and on_page["hatched"] == (place in hatched)
        assert in_terminal.endswith("?") == (place in hatched)
        assert on_page["number"] == (in_terminal.rstrip("?") or "?" * (place in hatched))
        assert on_page["frontier"] == (phase.frontier(diagram, x)[1] == y)
        assert (place in pictured) == (cell is not None and cell.probability() is not None)
        if place in pictured:
            learnt_it, failed, _ = cell.counts()
            percent = in_terminal.rstrip("?")
            assert pictured[place] == f"{percent}%\n{learnt_it} of {learnt_it + failed}"
            assert on_page["count"].split(",")[0] == f"{learnt_it}/{learnt_it + failed}"
    assert frontiers == [text.frontier_text(diagram, x) for x in diagram.xs]
    for chance, x in zip(chances, diagram.xs):
        percent = text.percent(phase.chance(diagram, x))
        assert (chance == "n/a") == (percent == "")
        if percent:
            assert float(chance.rstrip("%")) == pytest.approx(float(percent), abs=0.51)


def agree_on_intervals(browser, diagram):
    """Assert that a click on a cell shows its runs and its interval as Python has them."""
    for (y, x), cell in diagram.cells.items():
        if cell.probability() is None:
            continue
        browser.page.click(f"[data-place='{diagram.ys.index(y)} {diagram.xs.index(x)}']")
        _, (low, high), n = cell.probability()
        learnt = f"{cell.counts()[0]} of {n} run{'s' * (n > 1)} learnt it"
        interval = f"(95% interval {100 * low:.0f} to {100 * high:.0f}%)"
        assert inner_text(browser, "h-cell").endswith(f": {learnt} {interval}")


def fixed_text(diagram):
    return ", ".join(f"{name} {value}" for name, value in diagram.fixed.items())


@needs_browser
@pytest.mark.parametrize("seed", range(6))
def test_terminal_picture_and_page_agree_on_every_cell(open_page, seed):
    """Whatever the runs' statuses, at the best rate of each cell, over the axes of each."""
    records = random_ledger(random.Random(seed))
    browser = open_page(records)
    for y, x in (("dim", "length"), ("length", "dim")):
        choose(browser, "axes", f"{y} by {x}")
        diagrams = phase.phase_diagrams(records, y, x)
        for diagram in diagrams:
            if len(diagrams) > 1:
                choose(browser, "other dials", fixed_text(diagram))
            if browser.run("document.querySelector('[value=success]').disabled"):
                assert not any(cell.probability() for cell in diagram.cells.values())
            else:
                browser.page.click("[value=success] + span")
                agree(browser, diagram)
                for x_value in diagram.xs:
                    sentence = text.verdict_sentence(diagram, x_value)
                    assert sentence in inner_text(browser, "verdicts")
                if (y, x) == ("dim", "length"):
                    agree_on_intervals(browser, diagram)


@needs_browser
def test_a_killed_run_does_not_count(open_page):
    killed = synthetic_record(dim=128, length=3, seed=1, status="killed")
    records = [synthetic_record(dim=128, length=3, seed=0), killed]
    browser = open_page(records)
    [diagram] = phase.phase_diagrams(records)
    assert text.cell_text(diagram.cells[128, None], 4, False).strip() == "100"
    assert text.seeds_text(diagram) == "1 seed per cell"
    assert cell_numbers(browser) == [["100", "100", "100"]]
    assert texts(browser, "td.cell small")[-2:] == ["1/1", "1 killed"]
    browser.page.click("[data-place='0 2']")
    assert "1 of 1 run learnt it (95% interval 21 to 100%)" in inner_text(browser, "h-cell")


# ---- the page ------------------------------------------------------------------------------------


@needs_browser
def test_the_diagram_is_the_terminal_reports(open_page):
    browser = open_page()
    diagram, = phase.phase_diagrams(synthetic_ledger())
    expected = [[f"{100 * diagram.cells[y, x].probability()[0]:.0f}" for x in diagram.xs]
                for y in diagram.ys]
    assert cell_numbers(browser) == expected
    assert expected == [["0", "0", "0"], ["100", "0", "100"],
                        ["100", "100", "0"], ["100", "100", "0"]]
    foot = browser.run("[...document.querySelectorAll('tfoot td')].map(cell => cell.innerText)")
    assert foot == ["8-16", "16-32", ">8", "0.4%", "0.4%", "0.4%"]
    places = "[...document.querySelectorAll('.frontier')].map(cell => cell.dataset.place)"
    assert browser.run(places) == ["1 0", "2 1"]
    for x in diagram.xs:
        verdict = f"length {x}: {text.verdict_sentence(diagram, x)}"
        assert verdict in inner_text(browser, "verdicts")


@needs_browser
def test_a_click_shows_the_cells_seeds(open_page):
    browser = open_page()
    browser.page.click("[data-place='2 0']")
    heading = "dim 32, length 1: 3 of 3 runs learnt it (95% interval 44 to 100%)"
    assert inner_text(browser, "h-cell").startswith(heading)
    low, high = wilson(SOLVED, 2000)
    for record in synthetic_ledger():
        if (record["config"]["dim"], record["config"]["length"]) == (32, 1):
            assert record["key"] in inner_text(browser, "cell")
            assert training_command(record["config"]) in texts(browser, "#cell code")
    interval = f"(95% interval {100 * low:.1f} to {100 * high:.1f})"
    assert inner_text(browser, "cell").count(interval) == 3
    assert browser.run("document.querySelectorAll('#cell svg[role=img]').length") == 6
    assert "Induction heads, layer 2" in inner_text(browser, "hidden")
    browser.page.click("[data-place='0 0']")
    assert "seed 0: timeout" in inner_text(browser, "cell")
    assert "as the test says" in inner_text(browser, "cell")


@needs_browser
def test_the_keyboard_alone_reaches_and_chooses_a_cell(open_page):
    browser = open_page()
    browser.run("document.querySelector('[data-name=axes]').focus()")
    browser.page.keyboard.press("Tab")
    assert browser.run("document.activeElement.getAttribute('role')") == "gridcell"
    for key in ("Home", *4 * ["ArrowUp"], "ArrowDown", "ArrowRight"):
        browser.page.keyboard.press(key)
    assert browser.run("document.activeElement.dataset.place") == "1 1"
    assert browser.run("document.querySelectorAll('td[tabindex=\"0\"]').length") == 1
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.page.keyboard.press("Enter")
    assert inner_text(browser, "h-cell").startswith("dim 16, length 2")
    focus = "document.activeElement.dataset.place + document.activeElement.ariaSelected"
    assert browser.run(focus) == "1 1true"
    browser.page.keyboard.press("ArrowRight")
    browser.page.keyboard.press("Space")
    assert inner_text(browser, "h-cell").startswith("dim 16, length 3")


@needs_browser
def test_the_sections_below_a_cell_are_of_its_column(open_page):
    browser = open_page()
    browser.page.click("[data-place='3 1']")
    dot_titles = "document.querySelectorAll('#mirage circle.one title').length"
    assert browser.run(dot_titles) == 2 * 12
    assert "chance 0.4%" in inner_text(browser, "mirage")
    assert "dim, at length 2" in browser.run("document.querySelector('#mirage svg').textContent")
    assert browser.run("document.querySelectorAll('#scaling figure circle').length") == 2 * 12
    # A jump is not a law, and none is drawn.
    records = [record for record in synthetic_ledger() if record["config"]["length"] == 2]
    assert page.scaling_law(records, "parameters")["error"] > 1.5
    assert "No power law is drawn" in inner_text(browser, "scaling")
    assert browser.run("document.querySelectorAll('#scaling .law').length") == 0
    browser.page.click("[data-place='0 0']")            # one of its runs timed out: no numbers
    assert browser.run(dot_titles) == 2 * 11


@needs_browser
def test_a_law_is_drawn_where_the_loss_follows_one(open_page):
    records = lawful_ledger()
    for record in records:
        record["flops"] *= record["config"]["dim"]
    browser = open_page(records)
    assert "Fitted: nll = 0.2 + 30 / parameters^0.5" in inner_text(browser, "scaling")
    assert browser.run("document.querySelectorAll('#scaling .law').length") == 2
    losses = [record["metrics"]["1"]["nll"] for record in records]
    for number, size in ((1, "flops"), (2, "parameters")):
        sizes = [record[size] for record in records]
        points = dots(browser, f"#scaling figure:nth-child({number})")
        for axis, values in enumerate((sizes, losses)):
            # Both axes go from 1.4 times below to 1.4 times above.
            low, high = math.log(min(values) / 1.4), math.log(max(values) * 1.4)
            expected = [(math.log(value) - low) / (high - low) for value in values]
            assert [point[axis] for point in points] == pytest.approx(expected, abs=0.003)


@needs_browser
def test_a_command_is_copied_or_selected(open_page):
    browser = open_page()
    browser.page.click("#yet .run button")
    browser.page.wait_for_function("['Copied', 'Selected'].includes("
                                   "document.querySelector('#yet .run button').textContent)")
    assert "dim 8, length 2" in browser.run("document.getElementById('yet').textContent")
    config = synthetic_record(dim=8, length=2, seed=0)["config"]
    assert training_command(config) in texts(browser, "#yet code")


@needs_browser
def test_metrics_and_axes_are_switched(open_page):
    browser = open_page()
    browser.page.click("[value=exact] + span")
    assert cell_numbers(browser)[2] == ["99", "99", "1.0"]
    assert "every answer token right" in inner_text(browser, "diagram-about")
    # The metrics are radio buttons: an arrow selects the next, and they keep the focus.
    browser.page.keyboard.press("ArrowRight")
    assert browser.run("document.activeElement.value") == "token"
    browser.page.click("[value=nll] + span")
    assert float(cell_numbers(browser)[0][1]) == pytest.approx(1.98, abs=0.01)
    choose(browser, "axes", "length by dim")
    assert len(cell_numbers(browser)) == 3 and len(cell_numbers(browser)[0]) == 4
    assert browser.run("document.activeElement.dataset.name") == "axes"
    assert "Laws are fitted for dim by length" in inner_text(browser, "scaling")


@needs_browser
@pytest.mark.parametrize("metric", page.MEANS[:5])
def test_every_metric_is_the_ledgers(open_page, metric):
    browser, (diagram,) = open_page(), phase.phase_diagrams(synthetic_ledger())
    browser.page.click(f"[value={metric}] + span")
    unit, absolute = (100, 0.005) if metric in ("exact", "token") else (1, 0)
    for y, row in zip(diagram.ys, cell_numbers(browser)):
        for x, number in zip(diagram.xs, row):
            runs = filter(None, map(phase.test_metrics, diagram.cells[y, x].records))
            expected = mean(metrics[metric] for metrics in runs)
            assert float(number) / unit == pytest.approx(expected, rel=0.006, abs=absolute)


@needs_browser
def test_only_combinations_with_runs_are_offered(open_page):
    kinds = [{"layers": 1, "qk_norm": True}, {"layers": 2, "qk_norm": True},
             {"layers": 2, "qk_norm": False}]
    browser = open_page([synthetic_record(SOLVED if kind["layers"] == 1 else GUESSED, dim=dim,
                                          length=length, **kind)
                         for dim in (8, 16) for length in (1, 2) for kind in kinds])
    assert set(texts(browser, '[data-name="other dials"] option')) == {
        "layers 1, qk norm true", "layers 2, qk norm true", "layers 2, qk norm false"}
    choose(browser, "other dials", "layers 1, qk norm true")
    assert cell_numbers(browser) == [["100", "100"], ["100", "100"]]
    choose(browser, "other dials", "layers 2, qk norm false")
    assert cell_numbers(browser) == [["0", "0"], ["0", "0"]]
    assert "length 1: unclear, missing: more seeds" in inner_text(browser, "verdicts")
    choose(browser, "axes", "layers by length")
    assert len(texts(browser, '[data-name="other dials"] option')) == 4     # dim, qk norm


def line_points(browser, line):
    """The points of a line of a chart, as shares of the chart's width and height"""
    return browser.page.evaluate("""line => {
        const numbers = path => path.getAttribute("d").match(/[0-9.]+/g).map(Number);
        const path = document.querySelector(line), points = numbers(path);
        const [left, top, foot, right] = numbers(path.closest("svg").querySelector(".axis"));
        const point = (x, y) => [(x - left) / (right - left), (foot - y) / (foot - top)];
        return points.flatMap((x, i) => i % 2 ? [] : [point(x, points[i + 1])]);
    }""", line)


def dots(browser, figure):
    """The same of a figure's dots"""
    return browser.page.evaluate("""figure => {
        const axis = document.querySelector(`${figure} .axis`).getAttribute("d");
        const [left, top, foot, right] = axis.match(/[0-9.]+/g).map(Number);
        const circles = [...document.querySelectorAll(`${figure} svg[role=img] circle`)];
        return circles.map(({cx, cy}) => [(cx.baseVal.value - left) / (right - left),
                                          (foot - cy.baseVal.value) / (foot - top)]);
    }""", figure)


@needs_browser
def test_lines_are_drawn_where_the_numbers_are(open_page):
    record = synthetic_record(0.8, dim=8, length=1)
    browser = open_page([record, synthetic_record(0.5, dim=16, length=1)])
    curve, metrics = record["curve"], record["metrics"]["1"]
    browser.page.click("[data-place='0 0']")
    end = curve[-1]["step"]
    exact = [(point["step"] / end, point["exact"]) for point in curve]
    induction = [(point["step"] / end, max(point["induction"][1])) for point in curve]
    for chart, points in (("#cell figure svg:nth-of-type(2)", exact),
                          ("#hidden figure:nth-of-type(4) svg", induction)):
        line = line_points(browser, f"{chart} path.one")
        assert sum(line, []) == pytest.approx(sum(map(list, points), []), abs=0.003)
    highest = 1.05 * max(point["nll"] for point in curve)
    losses = [y for _, y in line_points(browser, "#cell figure svg:nth-of-type(1) path.one")]
    expected = [point["nll"] / highest for point in curve]
    assert losses == pytest.approx(expected, rel=0.02, abs=0.01)
    heights = [y for _, y in dots(browser, "#mirage figure:first-child")]
    assert heights == pytest.approx([0.8, 0.5], abs=0.003)
    for kind, metric in (("one", "exact"), ("two", "p_length")):
        [(_, height), *_] = line_points(browser, f"#mirage svg path.{kind}")
        assert height == pytest.approx(metrics[metric], abs=0.003)


@needs_browser
def test_charts_have_their_numbers_beside_them(open_page):
    records = [synthetic_record(dim=dim, length=1, seed=seed) for dim in (8, 16) for seed in (0, 1)]
    browser = open_page(records)
    browser.page.click("[data-place='1 0']")
    browser.page.click("#cell details summary")
    browser.page.click("#scaling details summary")
    browser.page.wait_for_function("document.querySelectorAll("
                                   "'#cell details table, #scaling details table').length === 2")
    rows = ("[...document.querySelectorAll('{} tr')].map(row =>"
            "[...row.children].map(each => each.textContent))")
    head, *curve = browser.run(rows.format("#cell details"))
    points = next(record for record in records if record["config"]["dim"] == 16)["curve"]
    step, nll = head.index("step"), head.index("nll")
    assert [row[step] for row in curve] == [str(point["step"]) for point in points]
    expected = [point["nll"] for point in points]
    assert [float(row[nll]) for row in curve] == pytest.approx(expected, rel=0.006)
    assert "previous, layer 1" in head
    head, *column = browser.run(rows.format("#scaling details"))
    key, score = head.index("run"), head.index("normalized score")
    scores = {record["key"]: learnt.score(record) for record in records}
    assert len(column) == 4
    assert {row[key]: float(row[score]) for row in column} == pytest.approx(scores, abs=1e-4)


@needs_browser
def test_the_learning_rate_is_chosen_by_validation(open_page):
    records = [synthetic_record(SOLVED if (lr == 0.01) == (dim == 8) else GUESSED, dim=dim, lr=lr,
                                seed=seed)
               for dim in (8, 16) for lr in (0.001, 0.01) for seed in (0, 1)]
    browser = open_page(records)
    assert cell_numbers(browser) == [["100", "100"], ["100", "100"]]      # at both lengths tested


@needs_browser
def test_the_learning_rate_is_chosen_by_all_digits(open_page):
    records = [synthetic_record(exact, dim=dim, lr=lr) for dim in (8, 16)
               for exact, lr in ((GUESSED, 0.001), (SOLVED, 0.01))]
    for record in records:
        best = record["config"]["lr"] == 0.01
        record["curve"][-1] |= {"exact": 0.90004 if best else 0.90001, "nll": 0.5}
    # At the two lengths that were tested
    assert cell_numbers(open_page(records)) == [["100", "100"], ["100", "100"]]


def older_record():
    """A record from before some dials"""
    record = synthetic_record(dim=16)
    newer = ("mixed", "options", "test_length", "positions", "position_range", "lr_floor")
    for name in newer:
        del record["config"][name]
    return record


STRANGE = {
    "an unknown task": lambda record: record["config"].update(task="dancing"),
    "no configuration": lambda record: record.pop("config"),
    "no metrics": lambda record: record.pop("metrics"),
    "a number missing": lambda record: record["metrics"]["2"].pop("chance_exact"),
    "a list for a number": lambda record: record["config"].update(dim=[1]),
    "a number for a list": lambda record: record.update(curve=7),
    "a setting that is not a number": lambda record: record["config"].update(dim=float("nan")),
    "a size that is not a number": lambda record: record.update(parameters="many"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_unreadable_records_are_left_out_and_counted(name):
    strange = synthetic_record(dim=32)
    STRANGE[name](strange)
    records = [synthetic_record(), strange, synthetic_record(seed=1)]
    readable, left_out = page.readable_records(records)
    assert [record["seed"] for record in readable] == [0, 1]
    other = "a field is missing or of another kind"
    reason = "task 'dancing' is unknown" if name == "an unknown task" else other
    assert left_out == {reason: 1}


@needs_browser
def test_left_out_records_are_counted_and_older_ones_are_shown(open_page):
    strange = synthetic_record(dim=32)
    del strange["seconds"]
    browser = open_page([synthetic_record(dim=16, positions="random"), older_record(), strange])
    assert "1 record left out: a field is missing" in inner_text(browser, "about")
    assert "2 runs of addition" in inner_text(browser, "about")
    assert "no runs" in open_page([strange]).run("document.body.innerText")


@needs_browser
def test_hostile_strings_stay_text(open_page):
    record = synthetic_record(GUESSED, dim=8, length=2)
    record["key"] = HOSTILE
    failed = synthetic_record(status="killed", dim=16, length=2)
    failed["reason"] = failed["config"]["options"] = failed["config"]["variant"] = HOSTILE
    browser = open_page([record, failed], HOSTILE)
    assert browser.run("document.title").split() == HOSTILE.split()
    assert browser.run("document.images.length") == 0
    assert inner_text(browser, "title") == HOSTILE and "onerror" in inner_text(browser, "cell")
    assert browser.run("document.scripts.length") == 2


@needs_browser
def test_long_strings_do_not_widen_the_page(open_page):
    records = [synthetic_record(exact, dim=dim) for dim in (8, 16) for exact in (SOLVED, GUESSED)]
    for i, record in enumerate(records):
        record["config"]["options"], record["key"] = f"{i % 2}" + "x" * 3000, f"{i}" + "y" * 3000
    failed = synthetic_record(status="killed", dim=16)
    failed["reason"] = "z" * 3000
    browser = open_page([*records, failed], "t" * 3000)
    for width in (400, 1000):
        browser.resize(width)
        for axes in ("dim by options", "options by dim"):
            choose(browser, "axes", axes)
            assert browser.run("document.documentElement.scrollWidth") == width


def distribution_record(task, nll, layers, reference):
    """A run of a task without right answers"""
    record = synthetic_record(0.0, task=task, dim=16, layers=layers, length=None)
    metrics = next(iter(record["metrics"].values()))
    metrics = metrics | {"nll": nll, "edit": None, "chance_exact": 0.0}
    if reference:
        metrics["reference"] = {"bigram": reference}
    return record | {"metrics": {str(record["config"]["length"]): metrics}}


@needs_browser
def test_tasks_without_right_answers(open_page):
    browser = open_page(
        [distribution_record("markov", nll, layers, 0.89) for layers, nll in ((1, 1.1), (2, 0.9))]
        + [distribution_record("text", 1.2, layers, None) for layers in (1, 2)])
    assert cell_numbers(browser) == [["0"], ["100"]]
    assert "lowest possible" in inner_text(browser, "mirage")
    choose(browser, "task", "text")
    assert browser.run("document.querySelector('[value=success]').disabled")
    assert cell_numbers(browser) == [["1.2"], ["1.2"]]
    assert "no right answers" in inner_text(browser, "verdicts")


@needs_browser
def test_a_run_alone_failed_runs_alone_and_no_run(open_page):
    # At the two lengths that were tested
    assert cell_numbers(open_page([synthetic_record()])) == [["100", "100"]]
    assert cell_numbers(open_page([synthetic_record(status="diverged")])) == [["0"]]
    browser = open_page([synthetic_record(status="timeout")])
    assert cell_numbers(browser) == [["n/a"]] and texts(browser, "td.cell small") == ["1 timeout"]
    assert inner_text(browser, "h-cell").endswith("no run has a test that can tell")
    assert "no runs" in open_page([]).run("document.body.innerText")
    hollow = synthetic_record()
    names = ("token", "exact", "nll", "brier", "edit", "p_length")
    hollow["metrics"] = {"2": {"n": 0} | dict.fromkeys(names)}
    hollow["curve"] = []
    browser = open_page([hollow])
    assert cell_numbers(browser) == [["?"]]
    assert "No such numbers were recorded" in inner_text(browser, "hidden")


@needs_browser
def test_narrow_dark_and_printed(open_page):
    browser = open_page()
    browser.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    targets = "select, button, summary, .pills span, td.cell"
    sizes = (f"[...document.querySelectorAll('{targets}')]"
             ".map(each => Math.min(each.offsetWidth, each.offsetHeight))")
    for width in (400, 320, 1000):
        browser.resize(width)
        assert browser.run("document.documentElement.scrollWidth") == width
        assert min(browser.run(sizes)) >= 24
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
    form = "getComputedStyle(document.getElementById('controls')).display"
    assert browser.run(form) == "none"
    browser.page.emulate_media(media="screen", color_scheme="light")


@needs_browser
def test_colours_differ_in_lightness_and_lines_in_dashes(open_page):
    """For readers who do not see colours."""
    browser = open_page()
    lights = browser.run("""Array.from({length: 21}, (_, i) => shade(i / 20).back.match(/[0-9]+/g)
        .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0))""")
    assert lights == sorted(lights) and lights[-1] > 5 * lights[0]
    dash = "getComputedStyle(document.querySelector('path.{}')).strokeDasharray"
    assert len({browser.run(dash.format(kind)) for kind in ("one", "two", "three")}) == 3


def lowest_contrast(browser):
    """The lowest contrast of any text of the page with its ground (WCAG 2)"""
    return browser.run("""(() => {
        const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const channels = colour => colour.match(/[0-9.]+/g).slice(0, 3);
        const light = colour => channels(colour).map(c => linear(Number(c) / 255))
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const ground = element => {
            const colour = getComputedStyle(element).backgroundColor;
            return colour.endsWith(", 0)") ? ground(element.parentElement) : colour;
        };
        const texts = document.body.querySelectorAll("h1, h2, h3, p, th, td, small, code, li, " +
            "button, select, summary, legend, text, .key span, .pills span");
        const ratios = [...texts].map(element => {
            const style = getComputedStyle(element), svg = element.tagName === "text";
            const a = light(svg ? style.fill : style.color);
            const b = light(ground(svg ? element.closest(".card") : element));
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        });
        return Math.min(...ratios);
    })()""")


@needs_browser
def test_parts_have_names_for_those_who_hear_the_page(open_page):
    browser = open_page()
    labelled = "svg[role=img], [role=grid], [role=gridcell], form"
    assert browser.run(f"[...document.querySelectorAll('{labelled}')]"
                       ".every(element => element.getAttribute('aria-label'))")
    assert browser.run("[...document.querySelectorAll('section')].every(each => document"
                       ".getElementById(each.getAttribute('aria-labelledby')).textContent)")
    assert browser.run("document.querySelector('[data-place=\"1 0\"]').ariaLabel") == \
        "dim 16, length 1: success 100 percent, 3/3, frontier"


@needs_browser
def test_the_browser_notices_errors_and_requests(browser, tmp_path):
    bad = "<img src='nowhere.png'><script>console.error('oh'); throw 1;</script>"
    (tmp_path / "bad.html").write_text(bad)
    browser.open(tmp_path / "bad.html")
    assert len(browser.errors) >= 2
    assert any(url.endswith("nowhere.png") for url in browser.requests)
