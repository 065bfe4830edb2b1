"""What the pages share: the records, the filters in the sidebar, and opening one record. Widgets only."""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from bench import side
from bench.errors import BadRequest
from bench.record import Record
from bench.store import file_hash
from leaderboard import load
from leaderboard.load import Broken

SHIPPED = Path(__file__).with_name("results")
FILTERS = {
    "task": "Task",
    "dataset": "Data set",
    "arch": "Architecture",
    "layers": "Layers",
    "track": "Track",
    "k": "K",
    "generator": "Generator",
}
MOST = 500  # runs that a list offers: more is slow, and nobody reads it


@dataclass(frozen=True)
class Shown:
    """One run on a page.

    Attributes:
        label: what legends call it, free of what cannot be seen; not escaped for Markdown or HTML.
        record: the whole record.
        side: arrays of ``bench.side``; empty where there is no side file.
        problem: why there is none, or empty.
    """

    label: str
    record: Record
    side: side.Arrays
    problem: str = ""


@st.cache_resource(ttl="10m", show_spinner="Reading records", max_entries=4)
def _load(folders: Sequence[str]) -> tuple[pd.DataFrame, list[Broken]]:
    return load.load(map(Path, folders))


def _folders() -> tuple[str, ...]:
    shipped = [str(SHIPPED)] if SHIPPED.is_dir() else []
    return (*shipped, *sys.argv[1:])


def runs() -> pd.DataFrame:
    """All runs, one row each, with the columns of ``leaderboard.load``. Shared between readers: do not change it."""
    return _load(_folders())[0]


def broken() -> list[Broken]:
    """What is left out, and why."""
    return _load(_folders())[1]


def reload() -> None:
    """Read the folders again."""
    _load.clear()


# Filters -------------------------------------------------------------------------------------------------------------


def filters(frame: pd.DataFrame) -> None:
    """The filters in the sidebar, kept in the page's address; an empty one leaves all."""
    for name, label in FILTERS.items():
        options = [str(value) for value in sorted(frame[name].unique())]
        st.sidebar.multiselect(label, options, key=name, placeholder="All", bind="query-params")


def chosen() -> pd.DataFrame:
    """The runs that the filters leave."""
    frame = runs()
    keep = pd.Series(True, index=frame.index)
    for name in FILTERS:
        values = st.session_state.get(name)
        if values:
            keep &= frame[name].astype(str).isin(values)
    return frame[keep]


# Single records ------------------------------------------------------------------------------------------------------


@st.cache_data(max_entries=200, show_spinner=False)
def _open(path: str, modified: float) -> tuple[Record, dict[str, Any], str]:
    record = Record.read(Path(path))
    named = record.artifacts.side
    if named is None:
        return record, {}, "this record was written without one"
    file = Path(path).with_suffix(".npz")  # never the name in the record: it could lead anywhere
    try:
        arrays = side.read(file)
    except BadRequest as error:
        return record, {}, load.plain(str(error))
    if file_hash(file) != named.sha256:
        return record, {}, f"{file.name} is not the file that the record names"
    return record, arrays, ""


def open_run(path: str, label: str) -> Shown:
    """A record with its side file.

    Args:
        path: of the record, from ``runs``.
        label: what legends call it.

    Raises:
        BadRequest: the record is no longer there, or no longer valid.
    """
    modified = Path(path).stat().st_mtime if Path(path).is_file() else 0.0
    return Shown(label, *_open(path, modified))


def labels(frame: pd.DataFrame) -> dict[str, str]:
    """Record id to a name that tells the runs of a table apart: generator, seed, and what else differs."""
    shown = [name for name in ("task", "arch", "layers", "track", "k") if frame[name].nunique() > 1]
    found: dict[str, str] = {}
    for row in frame.to_dict("records"):
        name = " ".join([f"{row['generator']} seed {row['seed']}", *(f"{row[n]}" for n in shown)])
        found[row["id"]] = name
    names = list(found.values())
    return {i: name if names.count(name) == 1 else f"{name} {i[:6]}" for i, name in found.items()}


def pick(frame: pd.DataFrame, key: str, most: int, help_: str) -> list[Shown]:
    """A list in which the reader picks runs of a table, kept in the page's address; the first one without a choice.

    Args:
        frame: rows of ``runs``.
        key: of the widget, and its name in the address.
        most: how many may be picked.
        help_: what the choice is for.
    """
    offered = frame.head(MOST)
    names = labels(offered)
    if len(frame) > MOST:
        st.caption(f"The first {MOST} of {len(frame):,} runs are offered: narrow them by filters.")
    picked = st.multiselect(
        "Runs", list(names), key=key, format_func=lambda i: names.get(i, i), bind="query-params",
        max_selections=most, placeholder="The first one", help=help_,
    )  # fmt: skip
    paths = dict(zip(offered["id"], offered["path"], strict=True))
    opened = []
    for i in picked or list(names)[:1]:
        try:
            opened.append(open_run(paths[i], names[i]))
        except BadRequest as error:
            st.warning(verbatim(str(error)))
    return opened


def missing_side(shown: Iterable[Shown]) -> None:
    """Say which of the runs have no side file, and what to do."""
    for one in shown:
        if one.problem:
            st.info(
                f"{verbatim(one.label)}: no side file ({verbatim(one.problem)}), so some figures are missing. "
                "Running its command again writes one."
            )


# Text ----------------------------------------------------------------------------------------------------------------


def verbatim(text: str) -> str:
    r"""Text as a Markdown code span, the one place where no markup, link or symbol is recognised.

    Backslashes are not enough: an escaped address still becomes a link, and ``--`` a dash.

    >>> verbatim("last-norms:2"), verbatim("a`b")
    ('` last-norms:2 `', '`` a`b ``')
    """
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {load.plain(text)} {fence}"


def percent(metric: str) -> bool:
    """Whether scores of this metric are shown in percent."""
    return metric in ("accuracy", "mean IoU")
