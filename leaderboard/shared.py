"""Parts that the pages share: the table of runs, the filters in the sidebar, the choice of runs. Widgets only."""

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from bench.errors import BadRequest, printable
from leaderboard import load, opened, variants
from leaderboard.load import Broken
from leaderboard.opened import Shown

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
MOST = 500  # largest number of runs in a list; more would be slow


@st.cache_resource(ttl="10m", show_spinner="Reading records", max_entries=4)
def _load(folders: Sequence[str]) -> tuple[pd.DataFrame, list[Broken]]:
    return load.load(map(Path, folders))


def _folders() -> tuple[str, ...]:
    shipped = [str(SHIPPED)] if SHIPPED.is_dir() else []
    return (*shipped, *sys.argv[1:])


def runs() -> pd.DataFrame:
    """Return the table of all runs (``leaderboard.load``); it is shared by all readers, so do not change it."""
    return _load(_folders())[0]


def broken() -> list[Broken]:
    """Return the files and folders that are in no table, each with the reason."""
    return _load(_folders())[1]


def reload() -> None:
    """Clear the cached table, so that the folders are read again."""
    _load.clear()


# Filters -------------------------------------------------------------------------------------------------------------


def filters(frame: pd.DataFrame) -> None:
    """Show the filters in the sidebar; the page's address keeps them, and an empty filter keeps all runs."""
    for name, label in FILTERS.items():
        options = [str(value) for value in sorted(frame[name].unique())]
        st.sidebar.multiselect(label, options, key=name, placeholder="All", bind="query-params")


def chosen() -> pd.DataFrame:
    """Return the runs that pass the filters."""
    frame = runs()
    keep = pd.Series(True, index=frame.index)
    for name in FILTERS:
        values = st.session_state.get(name)
        if values:
            keep &= frame[name].astype(str).isin(values)
    return frame[keep]


# Single records ------------------------------------------------------------------------------------------------------


@st.cache_resource(max_entries=500, show_spinner=False)
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


def labels(frame: pd.DataFrame) -> dict[str, str]:
    """Return by record id a label that is unique among these runs: generator, seed, and other facts that differ.

    Args:
        frame: rows of ``runs``, with the column ``variant``.
    """
    differs = [
        name for name in ("task", "arch", "layers", "track", "k") if frame[name].nunique() > 1
    ]
    names = frame["variant"] + " seed " + frame["seed"].astype(str)
    for name in differs:
        names = names + (" K=" if name == "k" else " ") + frame[name].astype(str)
    again = names.duplicated(keep=False)
    names = names.where(~again, names + " " + frame["id"].str[:6])
    return dict(zip(frame["id"], names, strict=True))


def opening(frame: pd.DataFrame, count: int) -> list[str]:
    """Return the ids of the runs that a page shows at first: one of each generator of the largest board.

    They are sorted by fit time, longest first. Of a generator's variants the one with the fewest settings in its name
    counts.
    """
    largest = frame["board"].value_counts().index[0]  # the first of several
    own = frame[frame["board"] == largest]
    own = own.assign(settings=own["variant"].str.count(", "))
    own = own.sort_values(["settings", "seed"], kind="stable").drop_duplicates("generator")
    return [str(run) for run in own.sort_values("fit_s", ascending=False)["id"].head(count)]


def pick(frame: pd.DataFrame, most: int, label: str = "Runs", first: int = 1) -> list[Shown]:
    """Show a list of runs, and return those that the reader picks; the page's address keeps their ids under "run".

    Args:
        frame: rows of ``runs``.
        most: largest number of runs to pick.
        label: label of the list.
        first: number of runs that are shown before the reader picks any.
    """
    linked = st.query_params.get_all("run")
    frame = frame.assign(variant=variants.names(frame))
    offered = frame.head(MOST)
    if len(frame) > MOST:
        st.caption(f"The first {MOST} of {len(frame):,} runs are offered: narrow them by filters.")
        offered = pd.concat([frame[frame["id"].isin(linked)], offered]).drop_duplicates("id")
    names = labels(offered)
    default = [run for run in linked if run in names][:most]
    default = default or [run for run in opening(frame, first) if run in names] or list(names)[:1]
    if most == 1:
        one = st.selectbox(
            label, list(names), index=list(names).index(default[0]), format_func=names.__getitem__
        )
        ids = [one]
    else:
        ids = st.multiselect(
            label, list(names), default=default, format_func=names.__getitem__, max_selections=most
        )
    st.query_params["run"] = ids
    paths = dict(zip(offered["id"], offered["path"], strict=True))
    names = labels(offered[offered["id"].isin(ids)])  # shorter labels, unique among the picked runs
    found = []
    for run in ids:
        try:
            found.append(open_run(paths[run], names[run]))
        except BadRequest as error:
            st.warning(verbatim(str(error)))
    return found


def pick_runs(most: int, label: str = "Runs", first: int = 1) -> list[Shown]:
    """Show a list of the runs that pass the filters, and return those that the reader picks.

    The page says so where no run passes the filters, where the picked runs are of several boards, and where one lacks
    its side file.

    Args:
        most: largest number of runs to pick.
        label: label of the list.
        first: number of runs that are shown before the reader picks any.
    """
    frame = chosen()
    if frame.empty:
        st.info("No records match these filters. Remove one in the sidebar.")
        return []
    shown = pick(frame, most, label, first)
    if not shown:
        st.info("Choose one run or several.")
    if frame[frame["id"].isin([one.record.id for one in shown])]["board"].nunique() > 1:
        st.warning(
            "These runs are of different boards: other checkpoints, data or sizes. They can be looked at side by side, "
            "and cannot be ranked."
        )
    for one in shown:
        if one.problem:
            st.info(
                f"{verbatim(one.label or one.record.id)}: no side file ({verbatim(one.problem)}), so some figures are "
                "missing. Running its command again writes one."
            )
    return shown


# Text ----------------------------------------------------------------------------------------------------------------


def verbatim(text: str) -> str:
    r"""Return text as a Markdown code span, the one place where no markup, link or symbol is recognised.

    Backslashes are not enough: an escaped address still becomes a link, and ``--`` a dash.

    >>> verbatim("last-norms:2"), verbatim("a`b")
    ('` last-norms:2 `', '`` a`b ``')
    """
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {printable(text)} {fence}"
