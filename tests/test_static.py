import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer.main

from bench import cli
from leaderboard import static
from leaderboard.markup import Links
from tests.records import MARKUP, judged, record
from tests.test_pages import sampled, whole, written

DOCS = Path(static.__file__).parents[1] / "docs" / "hosting.md"


class Page(HTMLParser):
    """The addresses that a page names, and its elements that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.addresses += [found[name] for name in ("href", "src") if name in found]
        if tag not in ("meta", "link", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two boards as plain files: one of two generators, and one whose every name is hostile."""
    folder = tmp_path_factory.mktemp("site")
    for number, fields in ((1, {}), (2, {"generator__name": "vae"})):
        written(folder / "records", *sampled(number, 0.9, **fields))
    hostile = {"generator__name": MARKUP, "task__name": MARKUP, "task__metric": MARKUP}
    whole(folder / "records", record(id="5" * 16, key="c" * 16, zoo__hash="9" * 64, **hostile))
    whole(folder / "records", judged(0.7, 0.3, 0, 0, id="6" * 16, key="d" * 16, zoo__hash="8" * 64))
    count = static.write(folder / "pages", [folder / "records"])
    assert count == len(list((folder / "pages").iterdir()))
    return folder / "pages"


def test_every_page_stands_alone_and_every_link_leads_somewhere(site):
    pages = sorted(site.glob("*.html"))
    assert {page.name.partition("-")[0].removesuffix(".html") for page in pages} == {
        "index", "board", "generator", "record", "reproduction", "methods",
    }  # fmt: skip
    for page in pages:
        text = page.read_text(encoding="utf-8")
        found = Page(text)
        assert found.open == []
        for address in found.addresses:
            assert (
                address.startswith("data:,")
                or (site / unquote(address).partition("#")[0]).is_file()
            ), address
        outside = re.sub(r"(?s)<script>.*?</script>", "", text)
        assert "<script>" not in outside
        assert "\u202e" not in text
        assert 'href="https://evil' not in text


def test_numbers_are_those_of_the_application(site):
    board = (site / Links.file("board", "d" * 16)).read_text(encoding="utf-8")
    assert "70 % new, 30 % copies" in board
    assert "novel<small>(resolution 0.90)</small>" in board
    text = (site / Links.file("record", "6" * 16)).read_text(encoding="utf-8")
    assert "python -m bench verify" in text
    assert re.search("copy [▲=▼] [+-]", (site / "index.html").read_text(encoding="utf-8"))
    assert (site / "matrix.tex").read_text(encoding="utf-8").startswith(r"\begin{table}")


def test_charts_need_only_the_script_beside_them_and_text_cannot_end_it(site):
    board = (site / Links.file("board", "c" * 16)).read_text(encoding="utf-8")
    charts = re.findall(r"Plotly.newPlot\(\"(\w+)\", \((.*?)\).data", board)
    assert [name for name, _ in charts] == ["cost", "nearness", "four"]
    for _, text in charts:
        assert "</" not in text
        assert json.loads(text)["data"]
    assert (site / static.PLOTLY).stat().st_size > 1_000_000


def test_nothing_to_show_is_said(tmp_path, capsys):
    assert static.write(tmp_path / "pages", [tmp_path / "none"]) == 1
    assert "no records here yet" in (tmp_path / "pages" / "index.html").read_text()
    assert "no such folder" in capsys.readouterr().err


def test_what_the_documentation_says_about_hosting_can_be_carried_out():
    text = DOCS.read_text(encoding="utf-8")
    workflow = re.search("```yaml\n(.*?)```", text, re.DOTALL)[1]
    dockerfile = re.search("```dockerfile\n(.*?)```", text, re.DOTALL)[1].splitlines()
    lines = re.findall("- run: (.*)", workflow)
    lines += [line.removeprefix("RUN ") for line in dockerfile if line.startswith("RUN ")]
    command = typer.main.get_command(cli.app)
    ours = [shlex.split(line)[3:] for line in lines if line.startswith("python -m bench ")]
    assert len(ours) == 2
    for name, *words in ours:
        parsed = command.commands[name].make_context(name, words)
        assert parsed.params["static"]
    assert ours[0][-1] == re.search("path: (.*)", workflow)[1]
    served = json.loads(dockerfile[-1].removeprefix("CMD "))
    assert served[:3] == ["python", "-m", "http.server"]
    assert served[-1] == ours[1][-1]
