"""The page that ranks the generators of one board, with the commands that repeat each row."""

from collections.abc import Sequence, Set
from typing import Any

import pandas as pd
import streamlit as st

from bench.errors import BadRequest
from bench.records.scale import Scale
from leaderboard import boards, expected, export, outcomes, plots, present, shared, table, zoos
from leaderboard.columns import COLUMNS, FIXED, NAMED, OPENING, RANKED, Column
from leaderboard.outcomes import Compared, Models
from leaderboard.shared import verbatim

RUN = "views/run.py"
QUIET = "#858c99"  # colour of controls; readable on light and on dark pages
ALWAYS = [column.name for column in FIXED]
Source = tuple[
    tuple[tuple[str, str], ...], str
]  # row and path of every run, and the newest run's id
FIRST = "selected"  # the column that a table is ranked by at first


def page() -> None:
    """Show the page."""
    st.title("Leaderboard of weight generators")
    st.markdown(
        "Networks whose weights were generated, scored beside the checkpoints that the generator learned from, "
        "beside the **reference**, which are trained models that it never saw, and beside the **controls** that it "
        "must beat. Ranks hold within one board only: the same checkpoints, data and number of samples."
    )
    runs = shared.chosen()
    if runs.empty:
        st.info("No records match these filters. Remove one in the sidebar.")
        return
    found = boards.boards(runs)
    board = choose_board(found)
    st.markdown(description(board))
    # Ranks and corrections are computed over all runs of the board, whatever the filters hide.
    everything = shared.runs()
    show_board(board, everything[everything["board"] == board["board"]], set(runs["id"]))
    show_elsewhere(board, found)


def choose_board(found: pd.DataFrame) -> dict[str, Any]:
    """Show a list of boards, and return the one that the reader chooses; the page's address keeps it."""
    entries = {str(entry["board"]): entry for entry in boards.records(found)}
    # Not bound to the address as the other widgets are: that would keep the whole title there.
    linked = st.query_params.get("board")
    names = list(entries)[: shared.MOST]
    if len(names) < len(entries):
        st.caption(f"The first {len(names)} of {len(entries):,} boards are offered.")
        names += [linked] if linked in entries and linked not in names else []
    first = linked if linked in names else boards.largest(found)
    chosen = st.selectbox(
        "Board",
        names,
        index=names.index(first) if first in names else 0,
        format_func=lambda name: boards.title(entries[name]),
        help="A board is one zoo of checkpoints, scored in one way.",
    )
    if len(names) > 1:
        st.query_params["board"] = chosen
    return entries[chosen]


def description(board: dict[str, Any]) -> str:
    """Return a Markdown sentence on the facts that all rows of a board share."""
    better = "higher" if board["higher_is_better"] else "lower"
    how = "" if board["scoring"] == "{}" else f", scored with {verbatim(board['scoring'])}"
    return (
        f"{board['k']:,} checkpoints (track {verbatim(board['track'])}), {board['d']:,} parameters "
        f"generated, {board['samples']:,} samples. Scores are {verbatim(board['metric'])} ({better} is better) on "
        f"{board['val_size']:,} validation examples; selected on {board['train_size']:,} training examples{how}. "
        f"Key {verbatim(board['key'])}"
    )


def show_board(board: dict[str, Any], runs: pd.DataFrame, left: Set[str]) -> None:
    """Show the ranked table of one board, its exports, and the details of one row.

    Args:
        board: a row of ``boards.boards``.
        runs: all runs of the board.
        left: ids of the runs that pass the filters.
    """
    newest = runs.sort_values("created").iloc[-1]
    try:
        record = shared.open_run(str(newest["path"])).record
    except BadRequest as error:
        st.error(verbatim(str(error)))
        return
    by, columns, words = controls()
    found, problem = compared(source(runs), by)
    rows = table.at_draws(table.rows(runs, record), found.values, found.drawn)
    full = table.ranked(rows, by, bool(board["higher_is_better"]), found.ranks)
    ranked = chosen_rows(full, left, words)
    scale = boards.scale(board)
    row = show_table(ranked, columns, scale)
    for note in present.notes(by, full, found, problem):
        st.caption(note)
    if not table.controls_agree(runs):
        st.caption(
            "Originals, reference or controls score differently in some of these records, as on another device or with "
            "other library versions; the newest record's are shown."
        )
    shown = present.labelled(present.texts(ranked, scale)[[*ALWAYS, *columns]])
    show_exports(shown, ranked.drop(columns=["row", "runs"]), board)
    if row is not None:
        show_row(row, runs)
    show_zoos(str(board["board"]), by, full, scale)
    show_commands(ranked)


def chosen_rows(ranked: pd.DataFrame, left: Set[str], words: str) -> pd.DataFrame:
    """Return the rows that pass filters and search; filters never hide controls, which have no runs."""
    keep = pd.Series([not ids or not left.isdisjoint(ids) for ids in ranked["runs"]])
    keep &= ranked["generator"].str.contains(words, case=False, regex=False)
    return ranked[keep].reset_index(drop=True)


def controls() -> tuple[str, list[str], str]:
    """Show the table's controls; return the column to rank by, the columns to show, and the words to search for."""
    left, middle, right = st.columns([2, 2, 1], vertical_alignment="bottom")
    ranked = sorted(RANKED, key=lambda name: name != FIRST)
    by = left.selectbox("Rank by", ranked, key="by", format_func=label, bind="query-params")
    words = middle.text_input(
        "Search", key="search", placeholder="part of a name", bind="query-params"
    )
    with right.popover("Columns", icon=":material/view_column:", width="stretch"):
        columns = st.multiselect(
            "Columns",
            [column.name for column in COLUMNS],
            default=list(OPENING),
            key="columns",
            format_func=label,
            bind="query-params",
        )
    return by or FIRST, list(columns), words or ""


def label(name: str) -> str:
    """Return a column's label."""
    return NAMED[name].label


def source(runs: pd.DataFrame) -> Source:
    """Return what the rows of a board are read from."""
    newest = runs.sort_values("created").iloc[-1]
    return tuple(zip(table.row_names(runs), runs["path"], strict=True)), str(newest["id"])


def read(board: Source) -> dict[str, list[Models]]:
    """Return the populations of every row of a board.

    Raises:
        BadRequest: a record has vanished, or is no longer valid.
    """
    paths, newest = board
    return outcomes.rows_of([(row, shared.open_run(path)) for row, path in paths], newest)


@st.cache_data(ttl="10m", max_entries=100, show_spinner="Comparing rows")
def _compared(board: Source, by: str) -> tuple[Compared, str]:
    """Return what compares the rows of a board, and in words how many side files are missing."""
    paths, _ = board
    missing = sum(bool(shared.open_run(path).problem) for _, path in paths)
    problem = f"{missing} of {len(paths)} records have no side file" if missing else ""
    return outcomes.compare(read(board), by), problem


def compared(board: Source, by: str) -> tuple[Compared, str]:
    """Return what compares the rows of a board, and why some of it is missing."""
    try:
        return _compared(board, by)
    except BadRequest as error:
        return Compared(), str(error)


@st.cache_data(ttl="10m", max_entries=100, show_spinner="Comparing zoos")
def _over_zoos(boards: Sequence[Source], statistics: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the rows of several boards over their zoos, by statistic."""
    rows = [read(board) for board in boards]
    return {name: zoos.pooled(zoos.above_originals(rows, name)) for name in statistics}


# The table -----------------------------------------------------------------------------------------------------------


def configured(column: Column, ranked: pd.DataFrame, scale: Scale) -> Any:
    """Return the configuration of a column for the page."""
    about: dict[str, Any] = {
        "label": column.label,
        "width": present.width(column, ranked),
        "help": column.help or None,
    }
    if column.format.printf:
        return st.column_config.NumberColumn(**about, format=column.format.printf(scale))
    about["alignment"] = "right" if column.format.right else "left"
    return st.column_config.TextColumn(**about, pinned=column.pinned)


def show_table(ranked: pd.DataFrame, columns: list[str], scale: Scale) -> str | None:
    """Show the table; return the row that the reader chooses, which the page's address keeps."""
    names = list(ranked["row"])
    before = st.query_params.get("row")
    default: Any = {"selection": {"rows": [names.index(before)]}} if before in names else None
    styled = present.sortable(ranked, scale).style.apply(lambda row: emphasis(row, ranked), axis=1)
    event: Any = st.dataframe(
        styled,
        hide_index=True,
        height="content",
        column_order=[*ALWAYS, *columns],
        column_config={name: configured(one, ranked, scale) for name, one in NAMED.items()},
        on_select="rerun",
        selection_mode="single-row",
        selection_default=default,
        placeholder="-",
        key="table",
    )
    picked = event["selection"]["rows"]
    row = str(names[picked[0]]) if picked and picked[0] < len(names) else None
    if row:
        st.query_params["row"] = row
    elif "row" in st.query_params:
        del st.query_params["row"]
    return row


def emphasis(row: "pd.Series[Any]", ranked: pd.DataFrame) -> list[str]:
    """Return the CSS styles of a row's cells: generators bold and coloured, controls and originals grey."""
    if row["kind"] != "generator":
        # Streamlit fades pinned columns by itself.
        return ["" if NAMED[str(name)].pinned else f"color: {QUIET}" for name in row.index]
    colour = plots.colour(str(ranked["name"].iloc[int(str(row.name))]))
    return [
        f"color: {colour}; font-weight: 700" if name == "generator" else "font-weight: 600"
        for name in row.index
    ]


def show_exports(shown: pd.DataFrame, full: pd.DataFrame, board: dict[str, Any]) -> None:
    """Show downloads: all numbers as CSV, the table as shown as LaTeX and Markdown."""
    name = f"leaderboard-{board['key']}"
    files = {
        "CSV": (export.csv(full), f"{name}.csv", "text/csv", "All columns with all digits."),
        "LaTeX": (export.latex(shown), f"{name}.tex", "text/x-tex", "As shown; needs booktabs."),
        "Markdown": (export.markdown(shown), f"{name}.md", "text/markdown", "As shown."),
    }
    with st.container(horizontal=True):
        for label, (data, file, mime, help_) in files.items():
            st.download_button(
                label, data, file, mime, help=help_, icon=":material/download:", on_click="ignore"
            )


def show_row(row: str, runs: pd.DataFrame) -> None:
    """Show the details of the chosen row: its commands, and links to its runs."""
    own = runs[[name == row for name in table.row_names(runs)]]
    if own.empty:
        st.info(
            "Originals, reference and controls come with every record of the board; choose a generator to see its runs."
        )
        return
    with st.container(border=True):
        st.markdown(f"**{verbatim(str(own['generator'].iloc[0]))}**: what repeats this row")
        if len(own) == 1:
            st.caption(
                "One fit: its rank and numbers are of this fit, and another seed may rank elsewhere."
            )
        st.code("\n".join(own["command"]), language="bash", wrap_lines=True)
        with st.container(horizontal=True):
            for run, seed in zip(own["id"].head(20), own["seed"], strict=False):
                st.page_link(
                    RUN, label=f"Run of seed {seed}", query_params={"run": str(run)},
                    icon=":material/description:",
                )  # fmt: skip


def show_zoos(board: str, by: str, full: pd.DataFrame, scale: Scale) -> None:
    """Show the rows over all zoos that differ from a board's in nothing but their seed, if there are any.

    Args:
        board: name of the board.
        by: name of the column that rows are ranked by.
        full: the board's table, for the names of its rows.
        scale: scale of the board's scores.
    """
    everything = shared.runs()
    several = [everything[everything["board"] == name] for name in zoos.siblings(everything, board)]
    if len(several) < 2:
        return
    statistics = dict.fromkeys(("mean", by) if by in expected.STATISTICS else ("mean",))
    try:
        found = _over_zoos(tuple(map(source, several)), tuple(statistics))
    except BadRequest as error:
        st.error(verbatim(str(error)))
        return
    st.subheader(f"Over {len(several)} zoos")
    names = zoos.names(several) | dict(zip(full["row"], full["generator"], strict=True))
    shown = present.over_zoos(found, names, scale)
    st.dataframe(shown, hide_index=True, height="content", key="zoos")
    st.caption(
        "How much better than the originals of the same zoo; above 0 is better. The mean over zoos that differ in "
        "nothing but their seed, with Student's 95 % interval over zoos. The ranks above are of one zoo."
    )


def show_commands(ranked: pd.DataFrame) -> None:
    """Show the commands that repeat each generator's row."""
    with st.expander("Commands that repeat these rows", icon=":material/terminal:"):
        for row in ranked[ranked["kind"] == "generator"].head(100).itertuples():
            st.text(f"{row.generator} on {row.device}")
            st.code(str(row.command), language="bash", wrap_lines=True)


def show_elsewhere(board: dict[str, Any], found: pd.DataFrame) -> None:
    """Show the other boards, and in which facts they differ from this one."""
    others = found[found["board"] != board["board"]].head(shared.MOST)
    if others.empty:
        return
    with st.expander(f"Elsewhere: {len(found) - 1:,} boards that are not ranked with this one"):
        entries = boards.records(others)
        st.dataframe(
            pd.DataFrame(
                {
                    "Board": [boards.title(entry) for entry in entries],
                    "Records": others["records"].to_list(),
                    "Generators": others["generators"].to_list(),
                    "What differs": [boards.why_elsewhere(board, entry) for entry in entries],
                }
            ),
            hide_index=True,
            column_config={"What differs": st.column_config.TextColumn(width="large")},
        )


page()
