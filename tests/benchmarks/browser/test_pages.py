"""A report in a real browser: by mouse, by keyboard, on a telephone, in the dark, on paper, and without scripts."""

from __future__ import annotations

import base64
import json

import pytest

from engram.benchmarks.report import write_report

pytestmark = pytest.mark.slow  # a browser starts in seconds

ROWS = "[...document.querySelectorAll('#trials ~ .scroll tbody tr')].filter(row => !row.hidden)"
FIRST = "#leaderboard ~ .scroll th:nth-child(2) button"


@pytest.fixture(scope="module")
def path(folders_in, tmp_path_factory):
    """Twelve trials, a lost one and a stranger's name among them."""
    made = folders_in(tmp_path_factory.mktemp("report") / "runs")
    evil = "<img src=x onerror=alert(1)></script><script>console.error('run')</script>"
    made.sweep(backbones=("lenet5", "mlp", evil, "conv4"), states={("mlp", 1): "failed"})
    return write_report(made.out, "nets", ("test/accuracy", "test/loss"))


@pytest.fixture(scope="module")
def wide(folders_in, tmp_path_factory):
    """Groups made by six options, one of them with a long value."""
    made = folders_in(tmp_path_factory.mktemp("wide") / "runs")
    options = {"lr": 0.000735062, "epochs": 12, "objective": "cross-entropy", "adapter": "snn.spiking", "momentum": 0.9}
    made.sweep(
        backbones=("lenet5", "a-network-with-a-name"), options=options, axes={k: [v] for k, v in options.items()}
    )
    return write_report(made.out, "nets", ("test/accuracy", "test/loss"))


def column(page, place, table="leaderboard"):
    """The texts of a column, by its place from 1."""
    cells = f"document.querySelectorAll('#{table} ~ .scroll')[0].querySelectorAll('tbody tr > :nth-child({place})')"
    return json.loads(page.run(f"JSON.stringify([...{cells}].map(cell => cell.textContent))"))


def sort_state(page):
    return page.run("document.querySelector('#leaderboard ~ .scroll th:nth-child(2)').getAttribute('aria-sort')")


def test_nothing_complains_and_nothing_is_fetched(browser, path):
    page = browser.open(path)
    assert page.run("document.querySelectorAll('thead button').length") > 20
    assert page.run("document.images.length") == 0
    assert page.complaints() == []
    page.ask("Runtime.evaluate", expression="console.error('seen')")
    assert page.complaints() != []  # or this test would see nothing


def test_no_other_script_runs(browser, path, tmp_path):
    hostile = tmp_path / "hostile.html"
    hostile.write_text(path.read_text().replace("</main>", "</main><script>document.title = 'run'</script>"))
    page = browser.open(hostile)
    assert page.run("document.title") != "run"
    assert "Content Security Policy" in json.dumps(page.complaints())


def test_sorting_by_clicks(browser, path):
    page = browser.open(path)
    before = column(page, 2)
    page.click(FIRST)
    assert sort_state(page) == "ascending" and column(page, 2) == sorted(before, key=float)
    page.click(FIRST)
    assert sort_state(page) == "descending" and column(page, 2) == sorted(before, key=float, reverse=True)
    page.click(FIRST)
    assert sort_state(page) is None and column(page, 2) == before
    assert page.complaints() == []


def test_sorting_by_keyboard(browser, path):
    page = browser.open(path)
    before = column(page, 2)
    for _ in range(40):
        page.press("Tab")
        if page.run(f"document.activeElement === document.querySelector('{FIRST}')"):
            break
    else:
        pytest.fail("Tab does not come to the head of a column")
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter", "\r")
    assert sort_state(page) == "ascending" and column(page, 2) == sorted(before, key=float)
    page.press(" ", " ")
    assert sort_state(page) == "descending"
    assert page.run(f"document.activeElement === document.querySelector('{FIRST}')")


def test_numbers_are_sorted_as_numbers_and_what_is_missing_last(browser, path):
    page = browser.open(path)
    for expected in (["3.2 s"] * 11 + ["–"], ["3.2 s"] * 11 + ["–"]):
        page.click("#trials ~ .scroll th:nth-child(6) button")
        assert column(page, 6, "trials") == expected


def test_filtering(browser, path):
    page = browser.open(path)
    assert page.run(f"{ROWS}.length") == 12
    page.run("document.querySelector('#trials ~ .tools input').focus()")
    page.ask("Input.insertText", text="LENET5 done")
    assert page.run(f"{ROWS}.length") == 3
    assert page.run("document.querySelector('#trials ~ .tools output').textContent") == "3 of 12 rows"
    page.click("#trials ~ .scroll th:nth-child(3) button")
    assert page.run(f"{ROWS}.map(row => row.cells[2].textContent).join()") == "0,1,2"
    page.run("document.querySelector('#trials ~ .tools input').select()")
    page.ask("Input.insertText", text="nothing of that")
    assert page.run(f"{ROWS}.length") == 0
    assert page.complaints() == []


@pytest.mark.parametrize("opened", [False, True])
def test_a_telephone_does_not_scroll_sideways(browser, path, opened):
    page = browser.open(path, width=375)
    if opened:
        page.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert page.run("innerWidth") == 375
    assert page.run("document.documentElement.scrollWidth") <= 375
    assert page.complaints() == []


def test_many_options_stand_behind_what_is_said_and_fit_on_paper(browser, wide):
    page = browser.open(wide, width=375)
    assert page.run("document.documentElement.scrollWidth") <= 375
    page = browser.open(wide, width=720)
    head = "[...document.querySelectorAll('#leaderboard ~ .scroll th[scope=col]')].map(each => each.textContent)"
    heads = page.run(head)
    assert heads[:2] == ["place", "mean"] and heads[7] == "backbone" and heads[13:15] == ["place", "difference"]
    assert column(page, 1) == ["1", "2"] and column(page, 9)[0] == "0.000735062"
    page.ask("Emulation.setEmulatedMedia", media="print")
    page.run("dispatchEvent(new Event('beforeprint')), 1")
    assert page.run("document.documentElement.scrollWidth") <= 720


def test_light_and_dark(browser, path):
    page = browser.open(path)
    shades = {}
    for scheme in ("light", "dark"):
        page.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        found = page.run("['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name]).join(';')")
        shades[scheme] = [sum(map(int, each.strip("rgb()").split(","))) for each in found.split(";")]
        line = "document.querySelector('.dot')"
        assert page.run(f"getComputedStyle({line}).fill") != page.run("getComputedStyle(document.body).backgroundColor")
    assert shades["light"][0] > 600 > 300 > shades["light"][1]
    assert shades["dark"][0] < 150 < 500 < shades["dark"][1]


def test_on_paper_tables_are_whole_and_dark_pages_light(browser, path):
    page = browser.open(path)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.ask("Emulation.setEmulatedMedia", media="print", features=dark)
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.run("getComputedStyle(document.querySelector('.tools')).display") == "none"
    assert page.run("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    page.run("dispatchEvent(new Event('beforeprint')), 1")
    folded = "document.querySelectorAll('details:not([open])').length"
    trials = page.run("document.querySelectorAll('[aria-labelledby=trials] details').length")
    assert page.run(folded) == trials == 12
    page.run("dispatchEvent(new Event('afterprint')), 1")
    assert page.run("document.querySelectorAll('details[open]').length") == 0
    printed = base64.b64decode(page.ask("Page.printToPDF", printBackground=True)["data"])
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
    assert page.complaints() == []


def test_without_scripts_all_is_there(browser, path):
    page = browser.open(path, script=False)
    page.ask("Emulation.setScriptExecutionDisabled", value=False)  # for our own questions; the page's has had its time
    assert page.run("document.querySelectorAll('thead button, .tools').length") == 0
    assert page.run(f"{ROWS}.length") == 12
    assert column(page, 1)[0] == "lenet5"
