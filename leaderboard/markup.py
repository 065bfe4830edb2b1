"""HTML as text: escaping, tables, bars and links, and the one style sheet of all pages. Pure functions.

Whatever comes from a record passes through ``text``. A page of the application and a plain file show the same HTML.
"""

import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from bench.errors import printable
from leaderboard.formats import UNKNOWN
from leaderboard.plots import MADE_OF

LONGEST = 100  # characters of a name in the name of a file
STYLE = """
.lb { font-size: .9rem; line-height: 1.4; container-type: inline-size; overflow-x: auto }
.lb a { color: inherit; text-decoration: underline; text-underline-offset: 2px }
.lb h1 { font-size: 1.9rem; line-height: 1.2; font-weight: 700; margin: 0; padding: 0; overflow-wrap: anywhere }
.lb h2 { font-size: 1.3rem; font-weight: 650; margin: 1rem 0 .3rem; padding: 0 }
.lb p { margin: .3rem 0 }
.lb p, .lb li, .lb caption, .lb summary { overflow-wrap: anywhere }
.stMainBlockContainer { padding-top: 4rem !important }
.lb table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: .3rem 0 .8rem }
.lb caption { text-align: left; font-weight: 600; padding: .3rem 0 }
.lb th, .lb td { padding: .28rem .45rem; text-align: left; vertical-align: top; font-weight: 400 }
.lb tbody th { overflow-wrap: anywhere; min-width: 8rem }
.lb .long { display: inline-block; overflow-wrap: anywhere; min-width: 6rem }
.lb thead th, .lb thead th.n { font-weight: 600; white-space: normal;
  border-bottom: 2px solid color-mix(in srgb, currentColor 35%, transparent) }
.lb tbody td, .lb tbody th { border-bottom: 1px solid color-mix(in srgb, currentColor 16%, transparent) }
.lb .n { text-align: right; white-space: nowrap }
.lb .strong, .lb tr.generator > th { font-weight: 650 }
.lb tr.thin > * { padding-top: .08rem; padding-bottom: .08rem; font-size: .82rem }
.lb tr.chosen { outline: 2px solid color-mix(in srgb, currentColor 55%, transparent) }
.lb small { font-size: .8rem; display: block }
.lb code { overflow-wrap: anywhere; white-space: pre-wrap; font-size: .8rem }
.lb pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0 }
.lb dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .3rem 0 }
.lb dt { font-weight: 600 } .lb dd { margin: 0; overflow-wrap: anywhere }
.lb summary { cursor: pointer }
.lb .dot { display: inline-block; width: .65em; height: .65em; border-radius: 50%; margin-right: .4em }
.lb .bar { display: flex; width: 100%; max-width: 9rem; height: .5rem; margin: .2rem 0; border-radius: 3px;
  overflow: hidden; background: color-mix(in srgb, currentColor 12%, transparent) }
.lb .bar i { display: block; height: 100% }
.lb .findings { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .7rem; padding: 0;
  margin: .2rem 0 1rem; list-style: none }
.lb .findings li { border: 1px solid color-mix(in srgb, currentColor 22%, transparent); border-radius: 6px;
  padding: .55rem .75rem; margin: 0 }
.lb .findings b { display: block; font-size: 1.2rem }
@container (max-width: 600px) {
  .lb dl { grid-template-columns: 1fr } .lb dd { margin-bottom: .3rem }
  .lb table, .lb tbody, .lb tr, .lb caption { display: block; width: 100% } .lb thead { display: none }
  .lb tr { border: 1px solid color-mix(in srgb, currentColor 22%, transparent); border-radius: 6px; margin: .5rem 0;
    padding: .3rem .6rem; box-sizing: border-box }
  .lb tr > *, .lb tr.thin > * { display: flex; justify-content: space-between; gap: 1rem; border: 0 !important;
    padding: .1rem 0; white-space: normal; text-align: right; overflow-wrap: anywhere; min-width: 0 }
  .lb td > div { min-width: 0; max-width: 70% }
  .lb tr > th { display: block; text-align: left; font-size: 1rem }
  .lb td[data-head]::before { content: attr(data-head); text-align: left; opacity: .85 }
  .lb td.empty { display: none }
}
"""
STYLE += "".join(f".lb .{kind} {{ background: {colour} }}\n" for kind, colour in MADE_OF.items())


def text(value: object) -> str:
    """Return text for HTML, with its special characters escaped and nothing invisible.

    >>> text("<b>&")
    '&lt;b&gt;&amp;'
    """
    return html.escape(printable(str(value)))


@dataclass(frozen=True)
class Links:
    """Addresses of pages, as the application has them or, in a folder of plain files, as files.

    Attributes:
        files: whether pages are files.
    """

    files: bool = False

    def to(self, page: str, name: str = "", **more: str) -> str:
        """Return the address of a page, escaped for HTML.

        Args:
            page: overview, board, generator, record, reproduction or methods.
            name: which of its kind: a board's name, a generator's, or a record's id.
            more: further parameters, which files do not have.

        >>> Links().to("board", "ab", row="x"), Links(files=True).to("board", "ab", row="x")
        ('board?board=ab&amp;row=x', 'board-ab.html')
        """
        name = printable(name)
        if self.files:
            return html.escape(quote(self.file(page, name)))
        pairs = {page: name, **more} if name else more
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in pairs.items())
        path = "" if page == "overview" else page
        return html.escape(f"{path}?{query}" if query else path or "./")

    @staticmethod
    def file(page: str, name: str = "") -> str:
        """Return the name of a page's file, which every file system has: small letters, digits, ``-``, ``.``, ``_``.

        >>> Links.file("overview"), Links.file("generator", "my:Own")
        ('index.html', 'generator-my_3a_4fwn.html')
        """
        kept = "abcdefghijklmnopqrstuvwxyz0123456789-."
        safe = "".join(c if c in kept else f"_{ord(c):x}" for c in name)
        if len(safe) > LONGEST:
            safe = f"{safe[:LONGEST]}-{hashlib.sha256(safe.encode()).hexdigest()[:16]}"
        return (
            "index.html"
            if page == "overview"
            else f"{page}-{safe}.html"
            if safe
            else f"{page}.html"
        )


def link(label: str, address: str) -> str:
    """Return a link on text that is escaped here to an address that is escaped already."""
    return f'<a href="{address}" target="_self">{text(label)}</a>'


def block(*parts: str) -> str:
    """Return parts of HTML as one block of a page, to which the style sheet applies."""
    return f'<div class="lb">{"".join(parts)}</div>'


class Html(str):
    """Text that is HTML already, where plain text is expected otherwise."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        content: HTML.
        number: whether it is a number, which is aligned right and never broken.
    """

    content: str
    number: bool = False


@dataclass(frozen=True)
class Line:
    """One row of a table.

    Attributes:
        head: HTML of its first cell, which names it.
        cells: the others.
        kind: its class in the style sheet.
    """

    head: str
    cells: Sequence[Cell]
    kind: str = ""


def table(heads: Sequence[str], lines: Iterable[Line], caption: str = "") -> str:
    """Return a table that a screen reader reads; in a narrow block each of its rows becomes a card.

    Args:
        heads: the headings, plain text or ``Html``; the first is over the names of the rows.
        lines: the rows.
        caption: HTML of what the table is.
    """
    lines = list(lines)
    right = [False, *(cell.number for cell in lines[0].cells)] if lines else [False] * len(heads)
    top = "".join(
        f'<th scope="col" class="{"n" * number}">{_head(head)}</th>'
        for head, number in zip(heads, right, strict=True)
    )
    said = f"<caption>{caption}</caption>" if caption else ""
    body = "".join(_line(heads[1:], line) for line in lines)
    return f"<table>{said}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _head(head: str) -> str:
    return head if isinstance(head, Html) else text(head)


def plain(fragment: str) -> str:
    """Return the text of HTML that was made here, without its tags, still escaped."""
    parts = [part.rpartition(">")[2] for part in fragment.split("<")]
    return " ".join(filter(None, parts))


def _line(heads: Sequence[str], line: Line) -> str:
    cells = "".join(
        f'<td class="{_classes(cell)}" data-head="{plain(_head(head))}"><div>{cell.content}</div></td>'
        for head, cell in zip(heads, line.cells, strict=True)
    )
    return f'<tr class="{line.kind}"><th scope="row">{line.head}</th>{cells}</tr>'


def _classes(cell: Cell) -> str:
    empty = " empty" if cell.content in ("", UNKNOWN) else ""
    return ("n" if cell.number else "") + empty


def facts(pairs: Mapping[str, str]) -> str:
    """Return a list of facts: names, which are escaped here, with their HTML."""
    return "<dl>" + "".join(f"<dt>{text(k)}</dt><dd>{v}</dd>" for k, v in pairs.items()) + "</dl>"


def title(words: str) -> str:
    """Return a page's title, with words of a record."""
    return block(f"<h1>{text(words)}</h1>")


def folded(title: str, content: str) -> str:
    """Return HTML that opens when its title is pressed."""
    return f"<details><summary>{text(title)}</summary>{content}</details>"


def code(lines: str) -> str:
    """Return a command or other verbatim text."""
    return f"<pre><code>{text(lines)}</code></pre>"


def dot(colour: str) -> str:
    """Return a round mark in a colour of the program, before a name in the colour of text."""
    return f'<span class="dot" style="background:{colour}"></span>'


def bar(shares: Mapping[str, float]) -> str:
    """Return a small stacked bar of what models are made of, and the shares as text.

    Args:
        shares: from 0 to 1, by kind: new, copies, averages, broken.
    """
    parts = "".join(
        f'<i class="{kind}" style="width:{100 * share:.1f}%"></i>' for kind, share in shares.items()
    )
    return f'<span class="bar" aria-hidden="true">{parts}</span><small>{said(shares)}</small>'


def said(shares: Mapping[str, float]) -> str:
    """Return shares in words, without those that are nothing.

    >>> said({"new": 0.0, "copies": 0.25, "averages": 0.75, "broken": 0.0})
    '25 % copies, 75 % averages'
    """
    return ", ".join(f"{100 * v:.0f} % {kind}" for kind, v in shares.items() if v >= 0.005)
