"""The leaderboard in a real headless browser: a filter, a permalink, an export, a row and its run."""

import csv
import json

import pytest

from bench.records.record import Record
from leaderboard import app
from tests import browser
from tests.records import record, seed
from tests.test_pages import whole

PAGES = ("", *(name for name in app.TITLES if name != "leaderboard"))
SCHEMES = {"dark": "rgb(20, 23, 28)", "light": "rgb(255, 255, 255)"}  # and their backgrounds
WIDTHS = (1280, 390)  # as a window is made narrower, nothing may stay as wide as it was


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


def click_row(page, row):
    page.get_by_test_id("stDataFrame").first.click(position={"x": 15, "y": 35 * row + 17})
    browser.settle(page)


def cell(page, column, row):
    return page.get_by_test_id("stDataFrame").first.get_by_test_id(f"glide-cell-{column}-{row}")


def generators(page):
    """The names of the rows of the first table, which are made of cells with a number each."""
    table = page.get_by_test_id("stDataFrame").first
    table.get_by_test_id("glide-cell-2-0").wait_for(state="attached")
    return table.locator('[data-testid^="glide-cell-2-"]').all_text_contents()


def test_a_visit(address, chromium, tmp_path):
    with browser.page_of(chromium, viewport={"width": 1280, "height": 1000}) as (page, seen):
        page.goto(address)
        page.wait_for_selector("h1")
        browser.settle(page)
        assert page.get_by_test_id("stException").count() == 0

        # A filter leaves one board, and stands in the address.
        page.get_by_test_id("stMultiSelect").first.locator("input").fill("a-task")
        page.get_by_role("option", name="a-task").first.click()
        browser.settle(page)
        assert "task=a-task" in page.url
        page.keyboard.press("Escape")
        browser.settle(page)

        # A row drills down to its command.
        names = generators(page)
        click_row(page, 1 + names.index("pdiff"))
        assert "row=" in page.url
        assert page.get_by_text("what repeats this row").is_visible()

        # An export is what the table shows.
        with page.expect_download() as download:
            page.get_by_role("button", name="CSV", exact=True).click()
        file = tmp_path / "table.csv"
        download.value.save_as(file)
        with file.open(encoding="utf-8") as lines:
            found = {line["generator"]: line for line in csv.DictReader(lines)}
        assert float(found["pdiff"]["mean"]) == pytest.approx(0.91)

        # The address alone gives the same view to somebody else.
        link = page.url
    with browser.page_of(chromium, viewport={"width": 1280, "height": 1000}) as (
        page,
        seen_of_link,
    ):
        page.goto(link)
        page.wait_for_selector("h1")
        browser.settle(page)
        assert page.get_by_text("what repeats this row").is_visible()
        assert generators(page) == names

        # From the row to its run, and the record itself.
        page.get_by_role("link", name="Run of seed 0").first.click()
        browser.settle(page)
        assert "/run?" in page.url
        with page.expect_download() as download:
            page.get_by_role("button", name="Record", exact=True).click()
        file = tmp_path / "record.json"
        download.value.save_as(file)
        assert Record.read(file).generator.name == "pdiff"
        assert json.loads(file.read_text())["id"] in page.url
        assert page.get_by_test_id("stException").count() == 0
    assert [*seen.errors, *seen_of_link.errors] == []
    assert browser.outside([*seen.requests, *seen_of_link.requests]) == set()


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
                    found[name, scheme, width] = page.evaluate("""() => {
                        const one = name => document.querySelector(`[data-testid=${name}]`);
                        return {
                            scroll: one("stMain").scrollWidth, window: window.innerWidth,
                            failed: one("stException") !== null,
                            background: getComputedStyle(one("stApp")).backgroundColor,
                        };
                    }""")
            seen.requests.extend(browser.loaded(page))
    return found, seen


def test_every_page_fits_the_window_in_both_schemes(visited):
    found, seen = visited
    assert len(found) == len(PAGES) * len(SCHEMES) * len(WIDTHS)
    for (name, scheme, width), one in found.items():
        assert not one["failed"], name
        assert one["scroll"] <= one["window"] == width, (name, scheme)
        assert one["background"] == SCHEMES[scheme]
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
