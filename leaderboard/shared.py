"""Parts that the pages share: the records with what follows from them, and what an address asks for. Widgets only."""

import dataclasses
import functools
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd
import streamlit as st
from plotly.graph_objects import Figure

from bench.errors import BadRequest, printable
from leaderboard import boards, load, matrix, opened
from leaderboard.load import Broken
from leaderboard.markup import Links
from leaderboard.opened import Shown
from leaderboard.sections import reproduction

SHIPPED = Path(__file__).with_name("results")
LINKS = Links()


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """All records of some folders, and what is made of them once, when a page first needs it.

    Attributes:
        frame: the table of runs (``leaderboard.load``), which nobody changes: all readers share it.
        broken: the files and folders that are in no table.
    """

    frame: pd.DataFrame
    broken: list[Broken]

    @functools.cached_property
    def matrix(self) -> matrix.Matrix:
        """Generators across boards."""
        return matrix.matrix(
            self.frame, lambda path: opened.open_record(Path(path), only=matrix.ARRAYS)
        )

    @functools.cached_property
    def boards(self) -> pd.DataFrame:
        """The boards."""
        return boards.boards(self.frame)

    @functools.cached_property
    def titles(self) -> dict[str, str]:
        """The titles of all boards, by name."""
        return boards.titles(self.boards)

    @functools.cached_property
    def claims(self) -> str:
        """The paper's claims, as HTML."""
        return reproduction.claims(self.frame)

    @functools.cached_property
    def tables(self) -> dict[str, str]:
        """Tables of the paper that somebody has looked at, as HTML by number."""
        return {}

    def table(self, number: str) -> str:
        """Return a table of the paper as HTML."""
        if number not in self.tables:
            self.tables[number] = reproduction.table(number, self.frame)
        return self.tables[number]


@st.cache_resource(ttl="10m", show_spinner="Reading records", max_entries=4)
def _load(folders: Sequence[str]) -> Records:
    return Records(*load.load(map(Path, folders)))


def records() -> Records:
    """Return the records of all folders."""
    shipped = [str(SHIPPED)] if SHIPPED.is_dir() else []
    return _load((*shipped, *sys.argv[1:]))


def runs() -> pd.DataFrame:
    """Return the table of all runs."""
    return records().frame


def broken() -> list[Broken]:
    """Return the files and folders that are in no table, each with the reason."""
    return records().broken


def reload() -> None:
    """Clear what was read, so that the folders are read again."""
    _load.clear()


def across() -> matrix.Matrix | None:
    """Return the matrix; None, with the reason on the page, where a record has vanished meanwhile."""
    try:
        return records().matrix
    except BadRequest as error:
        st.error(verbatim(str(error)))
        return None


# Single records ------------------------------------------------------------------------------------------------------


@st.cache_resource(max_entries=2000, show_spinner=False)
def _open(path: str, modified: float) -> Shown:
    return opened.open_record(Path(path))


def open_run(path: str, label: str = "") -> Shown:
    """Return a record with its side file; it is read again only if the file has changed.

    Args:
        path: path of the record, from the table of runs.
        label: its name in legends.

    Raises:
        BadRequest: the record is missing or invalid.
    """
    modified = Path(path).stat().st_mtime if Path(path).is_file() else 0.0
    return dataclasses.replace(_open(path, modified), label=label)


# Addresses, charts and text ------------------------------------------------------------------------------------------


def asked(kind: str, known: Collection[str]) -> str | None:
    """Return which one of a kind the page's address asks for; None where it asks for none.

    Where there is no such one the page says so, and shows no other in its place: then the answer is an empty text.
    """
    wanted = st.query_params.get(kind)
    if wanted is None or wanted in known:
        return wanted
    st.error(f"There is no {kind} {verbatim(wanted)} among these records.")
    return ""


def chart(figure: Figure | None, sentence: str, key: str, missing: str = "") -> None:
    """Show a chart with the sentence that says what it shows, or why there is none."""
    if figure is None:
        if missing:
            st.info(missing)
        return
    st.plotly_chart(figure, key=key, alt=sentence)
    st.caption(sentence)


def verbatim(text: str) -> str:
    r"""Return text as a Markdown code span, the one place where no markup, link or symbol is recognised.

    Backslashes are not enough: an escaped address still becomes a link, and ``--`` a dash.

    >>> verbatim("last-norms:2"), verbatim("a`b")
    ('` last-norms:2 `', '`` a`b ``')
    """
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {printable(text)} {fence}"
