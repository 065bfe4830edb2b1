"""The leaderboard in a real headless browser: a visit by links and keys, and how every page looks."""

import csv
import json

import pytest

from bench.records.record import Record
from leaderboard import app
from tests import browser
from tests.records import record, seed
from tests.test_pages import whole

PAGES = ("", *(name for name in app.TITLES if name != "overview"))
SCHEMES = {"dark": "rgb(20, 23, 28)", "light": "rgb(255, 255, 255)"}  # and their backgrounds
WIDTHS = (1280, 390)  # as a window is made narrower, nothing may stay as wide as it was
CONTRAST = 4.5  # the least between text and its background, of WCAG 2.1, level AA
SEEN = """() => {
    const one = name => document.querySelector(`[data-testid=${name}]`);
    const parts = text => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
    const light = text => parts(text).map(x => x / 255)
        .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
        .reduce((sum, x, i) => sum + [0.2126, 0.7152, 0.0722][i] * x, 0);
    const ground = getComputedStyle(one("stApp")).backgroundColor;
    const ratio = node => {
        const both = [light(getComputedStyle(node).color), light(ground)].sort((a, b) => b - a);
        return (both[0] + 0.05) / (both[1] + 0.05);
    };
    const texts = [...document.querySelectorAll(".lb *")].filter(node => node.innerText);
    const cells = [...document.querySelectorAll(".lb td, .lb th")];
    return {
        scroll: one("stMain").scrollWidth, window: window.innerWidth, background: ground,
        failed: one("stException") !== null, contrast: Math.min(99, ...texts.map(ratio)),
        clipped: cells.filter(cell => cell.scrollWidth > cell.clientWidth + 1).map(cell => cell.innerText),
        sideways: [...document.querySelectorAll(".lb")].filter(one => one.scrollWidth > one.clientWidth + 1).length,
    };
}"""


def need_a_browser():
    """Without a browser skip, or fail where one is wanted."""
    if why := browser.lacking():
        (pytest.fail if browser.wanted() else pytest.skip)(why)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The leaderboard on the shipped records and two made ones that stand first."""
    need_a_browser()
    folder = tmp_path_factory.mktemp("records")
    made = {"task__name": "a-task", "key": "a" * 16}
    whole(folder, seed(0, 0.88, 0.94, **made), record(id="1" * 16, generator__name="vae", **made))
    with browser.served(folder) as found:
        yield found


@pytest.fixture(scope="module")
def chromium(address):
    """One browser, whose pages know nothing of each other."""
    with browser.launched() as found:
        yield found


def wait(page):
    """Wait until a page of the leaderboard stands."""
    page.wait_for_selector("h1")
    browser.settle(page)
    assert page.get_by_test_id("stException").count() == 0


def test_a_visit(address, chromium, tmp_path):
    """From the first page to a cell, its board, a record and back; by links, keys, downloads and addresses."""
    with browser.page_of(chromium, viewport={"width": 1280, "height": 1000}) as (page, seen):
        # From a cell of the first page to the row on its board: one key on a link, no mouse.
        page.goto(address)
        wait(page)
        cell = page.locator(".lb td a").first
        cell.focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/board?*row=*")
        wait(page)
        assert page.get_by_text("Details of the chosen row").is_visible()

        # Another board is chosen, and stands in the address; no cell is clipped.
        page.get_by_test_id("stSelectbox").first.locator("input").fill("a-task")
        page.get_by_role("option").first.click()
        browser.settle(page)
        assert f"board={'a' * 16}" in page.url
        assert page.evaluate(SEEN)["clipped"] == []
        names = page.locator(".lb tr.generator th").all_inner_texts()
        assert set(names) == {"pdiff", "vae"}

        # An export is what the table shows, with all digits.
        with page.expect_download() as download:
            page.get_by_role("button", name="CSV", exact=True).click()
        file = tmp_path / "table.csv"
        download.value.save_as(file)
        with file.open(encoding="utf-8") as lines:
            found = {line["generator"]: line for line in csv.DictReader(lines)}
        assert float(found["pdiff"]["mean"]) == pytest.approx(0.91)

        # To a row, to its record, and back: the same board and row.
        page.get_by_role("link", name="pdiff", exact=True).first.click()
        page.wait_for_url("**row=*")
        wait(page)
        link = page.url
        page.get_by_role("link", name="seed 0").click()
        page.wait_for_url("**/record?*")
        wait(page)
        with page.expect_download() as download:
            page.get_by_role("button", name="Record", exact=True).click()
        file = tmp_path / "record.json"
        download.value.save_as(file)
        assert Record.read(file).generator.name == "pdiff"
        run = json.loads(file.read_text())["id"]
        assert run in page.url
        page.go_back()
        wait(page)
        assert page.url == link
        assert page.locator("h1").inner_text().startswith("a-task")

        # Addresses of earlier versions, and of what is not there.
        page.goto(f"{address}/run?run={run}")
        page.wait_for_url(f"**/record?record={run}")
        wait(page)
        assert page.locator("h1").inner_text() == "pdiff on a-task, seed 0"
        page.goto(f"{address}/board?board=nonsense")
        wait(page)
        assert page.get_by_text("There is no board").is_visible()
        assert page.url.endswith("board=nonsense")
    assert seen.errors == []
    assert browser.outside(seen.requests) == set()


@pytest.fixture(scope="module")
def visited(address, chromium):
    """Every page in both schemes, in a wide window and then in a narrow one: what the browser saw of it."""
    found = {}
    with browser.page_of(chromium) as (page, seen):
        for name in PAGES:
            page.emulate_media(color_scheme="dark")
            page.set_viewport_size({"width": WIDTHS[0], "height": 900})
            page.goto(f"{address}/{name}")
            page.wait_for_selector("h1")
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                for scheme in SCHEMES:
                    page.emulate_media(color_scheme=scheme)
                    browser.settle(page)
                    found[name, scheme, width] = page.evaluate(SEEN)
            seen.requests.extend(browser.loaded(page))
    return found, seen


def test_every_page_can_be_read_in_both_schemes_and_widths(visited):
    found, seen = visited
    assert len(found) == len(PAGES) * len(SCHEMES) * len(WIDTHS)
    for (name, scheme, width), one in found.items():
        assert not one["failed"], name
        assert one["scroll"] <= one["window"] == width, (name, scheme)
        assert one["background"] == SCHEMES[scheme]
        assert one["contrast"] >= CONTRAST, (name, scheme)
        assert one["clipped"] == [], (name, width)
        assert one["sideways"] == 0, (name, width)
    assert seen.errors == []


def test_no_page_asks_another_machine_for_anything(visited):
    _, seen = visited
    assert browser.outside(seen.requests) == set()
    assert sum("/static/js/" in one for one in seen.requests) > 100
    assert any(one.startswith("ws:") for one in seen.requests)
    assert any(one.startswith("data:image/svg+xml") for one in seen.requests)  # the page's icon


# The browser itself ----------------------------------------------------------------------------


def test_what_is_outside():
    here = ["http://localhost:85/x", "ws://localhost/", "data:image/png;base64,AA", "blob:http://x"]
    there = ["https://fonts.test/i.svg", "wss://a.test/", "http://127.0.0.2/", "//localhost.test/x"]
    assert browser.outside([*here, *there]) == set(there)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A machine on which no browser is installed; the function installs one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("PGEN_BROWSER", raising=False)

    def install(name):
        path = tmp_path / name
        path.touch(mode=0o755)
        return str(path)

    return install


def test_the_one_that_is_asked_for_is_used_else_the_systems(programs, monkeypatch):
    assert browser.program() is None
    full, shell = programs("chromium"), programs("chromium-headless-shell")
    assert browser.program() == shell
    monkeypatch.setenv("PGEN_BROWSER", "required")
    assert browser.program() == shell
    monkeypatch.setenv("PGEN_BROWSER", "chromium")
    assert browser.program() == full
    monkeypatch.setenv("PGEN_BROWSER", "not-here")
    assert browser.program() == "not-here"  # which fails, and no other is taken
    assert browser.lacking() == ""


def test_without_a_browser_tests_are_skipped_and_where_one_is_required_they_fail(
    programs, monkeypatch
):
    with pytest.raises(pytest.skip.Exception, match="no Chromium is installed here"):
        need_a_browser()
    monkeypatch.setenv("PGEN_BROWSER", "required")
    with pytest.raises(pytest.fail.Exception, match="no Chromium is installed here"):
        need_a_browser()
    programs("chromium")
    need_a_browser()
