"""The leaderboard in a real headless browser: a filter, a permalink, an export, a row and its run."""

import csv
import json

import pytest

from bench.record import Record
from tests import browser
from tests.records import record, seed
from tests.test_pages import whole

pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(browser.browser() is None, reason="no Chromium is installed here")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The leaderboard on the shipped records and two made ones that stand first."""
    folder = tmp_path_factory.mktemp("records")
    made = {"task__name": "a-task", "key": "a" * 16}
    whole(folder, seed(0, 0.88, 0.94, **made), record(id="1" * 16, generator__name="vae", **made))
    with browser.served(folder) as found:
        yield found


def click_row(page, row):
    page.get_by_test_id("stDataFrame").first.click(position={"x": 15, "y": 35 * row + 17})
    browser.settle(page)


def cell(page, column, row):
    return page.get_by_test_id("stDataFrame").first.get_by_test_id(f"glide-cell-{column}-{row}")


def test_a_visit(address, tmp_path):
    with browser.opened(viewport={"width": 1280, "height": 1000}) as (page, errors):
        page.goto(address)
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
        names = [cell(page, 2, row).text_content() for row in range(3)]
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
        assert float(found["pdiff"]["best"]) == 0.94

        # The address alone gives the same view to somebody else.
        link = page.url
    with browser.opened(viewport={"width": 1280, "height": 1000}) as (page, errors_of_link):
        page.goto(link)
        browser.settle(page)
        assert page.get_by_text("what repeats this row").is_visible()
        assert [cell(page, 2, row).text_content() for row in range(3)] == names

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
    assert [*filter(None, errors), *filter(None, errors_of_link)] == []


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_every_page_fits_the_window(address, width, scheme):
    with browser.opened(viewport={"width": width, "height": 900}, color_scheme=scheme) as (
        page,
        errors,
    ):
        for name in ("", "compare", "similarity", "speed", "run", "paper", "about"):
            page.goto(f"{address}/{name}")
            browser.settle(page)
            assert page.get_by_test_id("stException").count() == 0, name
            wide = page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
            assert wide <= width, name
        assert list(filter(None, errors)) == []
