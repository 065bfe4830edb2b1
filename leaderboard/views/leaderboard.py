"""Which generator is best on one board, whether the difference is real, and how to repeat each row."""

from collections.abc import Callable, Sequence, Set
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from bench.errors import BadRequest
from leaderboard import export, plots, shared, table, ties
from leaderboard.shared import verbatim

RUN = "views/run.py"
LABELS = {
    "selected": "Selected",
    "mean": "Mean",
    "best": "Best",
    "median": "Median",
    "worst": "Worst",
    "interval": "95 %",
    "p_best": "p",
    "nearest_iou": "Nearest",
    "novelty": "Novelty",
    "advantage": "Advantage",
    "verdict": "Verdict",
    "collapsed": "Collapsed",
    "seconds_per_model": "s a model",
    "speedup": "Speedup",
    "speedup_amortised": "Amortised",
    "break_even": "Break-even",
    "seeds": "Seeds",
    "device": "Device",
    "tier": "Checked",
}
TIMES = ("seconds_per_model", "speedup", "speedup_amortised", "break_even")
QUIET = "#858c99"  # of controls; readable on light and on dark
WIDTHS = {
    "rank": 40,
    "generator": 120,
    "kind": 84,
    "verdict": 80,
    "collapsed": 88,
    **dict.fromkeys(table.STATISTICS, 62),
}
# As wide as their longest text, so that settings and counts are not cut off.
WHOLE = ("generator", "verdict")
LETTER, MARGIN, WIDEST = 7, 20, 280  # pixels
ALWAYS = ("rank", "generator", "kind")
DEFAULT = (
    "best", "selected", "mean", "interval", "verdict", "novelty", "collapsed", "median", "worst",
    "seconds_per_model", "speedup", "speedup_amortised", "seeds", "device",
)  # fmt: skip
HELP = {
    "rank": "1 and the number of rows that are better beyond chance; equal ranks cannot be told apart.",
    "kind": "A control is what any generator must beat.",
    "selected": "Score of the model that was chosen on training data.",
    "mean": "Over all samples.",
    "best": "Best on validation: an optimist's number, since validation chose it.",
    "interval": "95 % interval of the mean: over models, or over seeds where there are several.",
    "p_best": "Selected model better than the best original: exact McNemar test, Holm's correction over "
    "the generators of this table; 1 where it is not better, the largest of several seeds.",
    "nearest_iou": "Similarity to the nearest original: IoU of wrong predictions, or overlap of image features; "
    "1 is a copy.",
    "novelty": "Median of 1 - this similarity; 0 is a copy.",
    "advantage": "Mean score above that of noise-added originals of the same novelty.",
    "verdict": "By rule: broken, copies, averages or novel. See About.",
    "collapsed": "Generated models are more alike than the originals; with several seeds, in how many.",
    "seconds_per_model": "Seconds to sample one model.",
    "speedup": "SGD's time to the same score over the time to sample one model.",
    "speedup_amortised": "The same when collecting, fitting and selecting count too.",
    "break_even": "Models after which the generator has cost less time than SGD.",
    "seeds": "Fits pooled in this row: numbers are means over seeds.",
    "tier": "How far the record was verified: claimed, rescored or regenerated.",
}


def page() -> None:
    """The page."""
    st.title("Leaderboard of weight generators")
    st.markdown(
        "Networks whose weights were generated, scored beside the checkpoints that the generator learned from and "
        "beside the **controls** that any generator must beat. Ranks hold within one board only: the same "
        "checkpoints, data and number of samples."
    )
    runs = shared.chosen()
    if runs.empty:
        st.info("No records match these filters. Remove one in the sidebar.")
        return
    found = table.boards(runs)
    board = choose_board(found)
    st.markdown(description(board))
    # Ranks and corrections are among all of the board, whatever the filters leave of it.
    everything = shared.runs()
    show_board(board, everything[everything["board"] == board["board"]], set(runs["id"]))
    show_elsewhere(board, found)


def choose_board(found: pd.DataFrame) -> dict[str, Any]:
    """One of the boards, kept in the page's address."""
    entries = {str(entry["board"]): entry for entry in table.records(found)}
    # Not bound to the address as the other widgets are: that would keep the whole title there.
    linked = st.query_params.get("board")
    names = list(entries)[: shared.MOST]
    if len(names) < len(entries):
        st.caption(f"The first {len(names)} of {len(entries):,} boards are offered.")
        names += [linked] if linked in entries and linked not in names else []
    first = linked if linked in names else largest(found)
    chosen = st.selectbox(
        "Board",
        names,
        index=names.index(first) if first in names else 0,
        format_func=lambda name: title(entries[name]),
        help="A board is one zoo of checkpoints, scored in one way.",
    )
    if len(names) > 1:
        st.query_params["board"] = chosen
    return entries[chosen]


def largest(found: pd.DataFrame) -> str:
    """The board with most records, of equal ones the first."""
    return str(found["board"].iloc[int(found["records"].to_numpy().argmax())])


def title(board: dict[str, Any]) -> str:
    """A board in one line."""
    words = (board["task"], board["arch"], board["layers"], board["track"], f"K={board['k']}")
    return f"{' · '.join(map(str, words))}  ({board['key'][:8]})"


def description(board: dict[str, Any]) -> str:
    """What all rows of a board share, as Markdown."""
    better = "higher" if board["higher_is_better"] else "lower"
    how = "" if board["scoring"] == "{}" else f", scored with {verbatim(board['scoring'])}"
    return (
        f"{board['k']:,} checkpoints (track {verbatim(board['track'])}), {board['d']:,} parameters "
        f"generated, {board['samples']:,} samples. Scores are {verbatim(board['metric'])} ({better} is better) on "
        f"{board['val_size']:,} validation examples; selected on {board['train_size']:,} training examples{how}. "
        f"Key {verbatim(board['key'])}"
    )


def show_board(board: dict[str, Any], runs: pd.DataFrame, left: Set[str]) -> None:
    """The ranked table of one board, its exports, and one row's details.

    Args:
        board: of ``table.boards``.
        runs: all of its runs.
        left: ids of the runs that the filters leave.
    """
    newest = runs.sort_values("created").iloc[-1]
    try:
        record = shared.open_run(str(newest["path"])).record
    except BadRequest as error:
        st.error(verbatim(str(error)))
        return
    by, columns, words = controls()
    full = table.rows(runs, record)
    drawn, problem = replicates(runs, str(newest["id"]), by, str(board["board"]))
    ranked = table.ranked(full, by, bool(board["higher_is_better"]), drawn)
    shown_rows = [not ids or not left.isdisjoint(ids) for ids in ranked["runs"]]
    ranked = ranked[shown_rows].reset_index(drop=True)
    if words:
        named = ranked["generator"].str.contains(words, case=False, regex=False)
        ranked = ranked[named].reset_index(drop=True)
    shown = presentable(ranked, board)
    row = show_table(shown, ranked, columns, board)
    st.caption(caption(by, bool(drawn), problem, paired=bool(board["mean_over_units"])))
    if not table.controls_agree(runs):
        st.caption(
            "Originals and controls score differently in some of these records, as on another device or with other "
            "library versions; the newest record's are shown."
        )
    show_exports(shown[[*ALWAYS, *columns]], ranked.drop(columns=["row", "runs"]), board)
    if row is not None:
        show_row(row, runs)
    show_commands(ranked)


def controls() -> tuple[str, list[str], str]:
    """What the table is ranked by, the columns it has, and what is searched for."""
    left, middle, right = st.columns([2, 2, 1], vertical_alignment="bottom")
    by = left.selectbox(
        "Rank by",
        list(table.RANKED),
        key="by",
        format_func=lambda name: LABELS[name],
        bind="query-params",
    )
    words = middle.text_input(
        "Search", key="search", placeholder="part of a name", bind="query-params"
    )
    with right.popover("Columns", icon=":material/view_column:", width="stretch"):
        columns = st.multiselect(
            "Columns",
            list(LABELS),
            default=list(DEFAULT),
            key="columns",
            format_func=lambda name: LABELS[name],
            bind="query-params",
        )
    return by or "selected", list(columns), words or ""


@st.cache_data(ttl="10m", max_entries=100, show_spinner="Comparing rows")
def _replicates(
    paths: Sequence[tuple[str, str, str]], newest: str, by: str, board: str
) -> tuple[dict[str, Any], str]:
    """Replicates of every row, and which side files are missing.

    Args:
        paths: (row, record id, path) of every run.
        newest: id of the record that the controls are taken of.
        by: the statistic.
        board: seeds the draws.
    """
    outcomes: dict[str, list[ties.Outcome]] = {}
    missing, higher, unpaired = 0, True, set()
    for row, run, path in paths:
        shown = shared.open_run(path)
        higher = shown.record.task.metric.higher_is_better
        missing += bool(shown.problem)
        names = ["generated"]
        if run == newest:
            names += ["original", *shown.record.controls]
        for name, found in table.outcomes(shown.record, shown.side, by, names).items():
            own = row if name == "generated" else table.control_row_name(name)
            outcomes.setdefault(own, []).append(found)
            if found.right is None and shown.record.task.metric.mean_over_units:
                unpaired.add(own)
    for own in unpaired:
        del outcomes[own]
    seed = int.from_bytes(board.encode()[:8])
    drawn = ties.draws(outcomes, by, higher_is_better=higher, seed=seed)
    return drawn, f"{missing} of {len(paths)} records have no side file" if missing else ""


def replicates(runs: pd.DataFrame, newest: str, by: str, board: str) -> tuple[dict[str, Any], str]:
    """What ties are found from; nothing for columns that cannot be drawn again."""
    if by not in ties.TESTED:
        return {}, ""
    rows = table.row_names(runs)
    paths = list(zip(rows, runs["id"], runs["path"], strict=True))
    try:
        return _replicates(tuple(paths), newest, by, board)
    except BadRequest as error:
        return {}, str(error)


def caption(by: str, tested: bool, problem: str, *, paired: bool) -> str:
    """How to read the ranks.

    Args:
        by: the column.
        tested: whether rows were drawn again.
        problem: why some were not.
        paired: whether the score is a mean over validation units, which are drawn again too.
    """
    if tested and not paired:
        return (
            "Rows of equal rank cannot be told apart (bootstrap over seeds and samples; 95 %, each pair by itself). "
            "This score is no mean over units: what other validation examples would change is not known, and single "
            "models are ranked as they stand."
        )
    if not tested:
        why = problem or "there is no test of ties for this column"
        return f"Ranked by {LABELS[by]} as it stands: {why}."
    text = (
        "Rows of equal rank cannot be told apart (paired bootstrap over the same validation units, and over seeds and "
        "samples; 95 %, each pair by itself)."
    )
    if problem:
        text += f" {problem}: their rows are ranked as they stand."
    return text


# The table -----------------------------------------------------------------------------------------------------------


def digits(board: dict[str, Any]) -> int:
    """Digits that a score in percent is good for: one unit more or less must show, and no more."""
    return 2 if board["val_size"] >= 2000 else 1


def presentable(ranked: pd.DataFrame, board: dict[str, Any]) -> pd.DataFrame:
    """The table as text, as it is shown and exported."""
    accuracy = board["percent"]

    def score(value: float) -> str:
        return f"{100 * value:.{digits(board)}f}" if accuracy else f"{value:.4g}"

    def signed(value: float) -> str:
        return f"{100 * value:+.2f}" if accuracy else f"{value:+.3g}"

    formats: dict[str, Callable[[float], str]] = {
        **dict.fromkeys(table.STATISTICS, score),
        "p_best": lambda value: f"{value:.2g}",
        "nearest_iou": lambda value: f"{value:.3f}",
        "novelty": lambda value: f"{value:.3f}",
        "seconds_per_model": lambda value: f"{value:.2g}",
        "speedup": times,
        "speedup_amortised": times,
        "break_even": lambda value: f"{value:,.0f}",
    }
    shown = pd.DataFrame({"rank": ["-" if pd.isna(rank) else str(rank) for rank in ranked["rank"]]})
    for name in ("generator", "kind"):
        shown[name] = ranked[name]
    for name in LABELS:
        if name == "interval":
            ends = zip(ranked["low"], ranked["high"], strict=True)
            shown[name] = ["-" if np.isnan(x) else f"{score(x)} to {score(y)}" for x, y in ends]
        elif name == "advantage":
            parts = ranked[["advantage", "advantage_low", "advantage_high"]].to_numpy()
            shown[name] = [
                "-" if np.isnan(v) else f"{signed(v)} ({signed(x)} to {signed(y)})"
                for v, x, y in parts
            ]
        elif name in formats:
            shown[name] = ["-" if np.isnan(v) else formats[name](v) for v in ranked[name]]
        else:
            shown[name] = ["-" if pd.isna(v) else str(v) for v in ranked[name]]
    return shown.reset_index(drop=True)


def times(value: float) -> str:
    """A factor with two digits that mean something."""
    return f"{value:,.0f}x" if value >= 10 else f"{value:.2g}x"


def room(texts: "pd.Series[str]", least: int) -> int:
    """Pixels for the longest of some texts."""
    longest = max((len(text) for text in texts if isinstance(text, str)), default=0)
    return min(WIDEST, max(least, LETTER * longest + MARGIN))


def columns_of(board: dict[str, Any], ranked: pd.DataFrame) -> dict[str, Any]:
    """How each column of the table is shown; generators and verdicts as wide as the longest of them."""
    text, number = st.column_config.TextColumn, st.column_config.NumberColumn
    score = f"%.{digits(board)}f" if board["percent"] else "%.4g"
    formats = {
        **dict.fromkeys(table.STATISTICS, score),
        "p_best": "%.2g",
        "nearest_iou": "%.3f",
        "novelty": "%.3f",
        "seconds_per_model": "%.2g",
        "speedup": "%.3gx",
        "speedup_amortised": "%.3gx",
        "break_even": "%d",
        "seeds": "%d",
    }
    labels = {"rank": "#", "generator": "Generator", "kind": "Kind", **LABELS}
    made: dict[str, Any] = {}
    for name, label in labels.items():
        width = WIDTHS.get(name)
        if name in WHOLE:
            width = room(ranked[name], WIDTHS[name])
        if name in formats:
            made[name] = number(label, width=width, format=formats[name], help=HELP.get(name))
        else:
            pinned, right = name in ("rank", "generator"), name in ("interval", "advantage")
            made[name] = text(
                label,
                width=width,
                help=HELP.get(name),
                pinned=pinned,
                alignment="right" if right else "left",
            )
    return made


def sortable(shown: pd.DataFrame, ranked: pd.DataFrame, board: dict[str, Any]) -> pd.DataFrame:
    """The table with numbers where ``presentable`` has text, so that a click on a column sorts it."""
    found = shown.copy()
    scale = 100 if board["percent"] else 1
    for name in table.STATISTICS:
        found[name] = ranked[name].to_numpy() * scale
    for name in ("p_best", "nearest_iou", "novelty", *TIMES, "seeds"):
        found[name] = ranked[name].to_numpy()
    return found


def show_table(
    shown: pd.DataFrame, ranked: pd.DataFrame, columns: list[str], board: dict[str, Any]
) -> str | None:
    """The table; returns the row that the reader chose, which the page's address keeps."""
    names = list(ranked["row"])
    before = st.query_params.get("row")
    default: Any = {"selection": {"rows": [names.index(before)]}} if before in names else None
    styles = sortable(shown, ranked, board).style.apply(lambda row: emphasis(row, ranked), axis=1)
    event: Any = st.dataframe(
        styles,
        hide_index=True,
        height="content",
        column_order=[*ALWAYS, *columns],
        column_config=columns_of(board, ranked),
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
    """Generators in bold and in their colour, controls and originals quiet."""
    if row["kind"] != "generator":
        # Streamlit fades pinned columns by itself.
        return ["" if name in ("rank", "generator") else f"color: {QUIET}" for name in row.index]
    colour = plots.colour(str(ranked["name"].iloc[int(str(row.name))]))
    return [
        f"color: {colour}; font-weight: 700" if name == "generator" else "font-weight: 600"
        for name in row.index
    ]


def show_exports(shown: pd.DataFrame, full: pd.DataFrame, board: dict[str, Any]) -> None:
    """Downloads: all numbers as CSV, the table as shown as LaTeX and Markdown."""
    named = shown.rename(columns={"rank": "#", "generator": "Generator", "kind": "Kind", **LABELS})
    name = f"leaderboard-{board['key']}"
    files = {
        "CSV": (export.csv(full), f"{name}.csv", "text/csv", "All columns with all digits."),
        "LaTeX": (export.latex(named), f"{name}.tex", "text/x-tex", "As shown; needs booktabs."),
        "Markdown": (export.markdown(named), f"{name}.md", "text/markdown", "As shown."),
    }
    with st.container(horizontal=True):
        for label, (data, file, mime, help_) in files.items():
            st.download_button(
                label, data, file, mime, help=help_, icon=":material/download:", on_click="ignore"
            )


def show_row(row: str, runs: pd.DataFrame) -> None:
    """The chosen row: its commands, and its runs one by one."""
    own = runs[[name == row for name in table.row_names(runs)]]
    if own.empty:
        st.info(
            "Originals and controls come with every record of the board; choose a generator to see its runs."
        )
        return
    with st.container(border=True):
        st.markdown(f"**{verbatim(str(own['generator'].iloc[0]))}**: what repeats this row")
        st.code("\n".join(own["command"]), language="bash", wrap_lines=True)
        with st.container(horizontal=True):
            for run, seed in zip(own["id"].head(20), own["seed"], strict=False):
                st.page_link(
                    RUN, label=f"Run of seed {seed}", query_params={"run": str(run)},
                    icon=":material/description:",
                )  # fmt: skip


def show_commands(ranked: pd.DataFrame) -> None:
    """What repeats each generator's row, to copy."""
    with st.expander("Commands that repeat these rows", icon=":material/terminal:"):
        for row in ranked[ranked["kind"] == "generator"].head(100).itertuples():
            st.text(f"{row.generator} on {row.device}")
            st.code(str(row.command), language="bash", wrap_lines=True)


def show_elsewhere(board: dict[str, Any], found: pd.DataFrame) -> None:
    """The other boards, and why their records are not ranked here."""
    others = found[found["board"] != board["board"]].head(shared.MOST)
    if others.empty:
        return
    with st.expander(f"Elsewhere: {len(found) - 1:,} boards that are not ranked with this one"):
        entries = table.records(others)
        st.dataframe(
            pd.DataFrame(
                {
                    "Board": [title(entry) for entry in entries],
                    "Records": others["records"].to_list(),
                    "Generators": others["generators"].to_list(),
                    "What differs": [table.why_elsewhere(board, entry) for entry in entries],
                }
            ),
            hide_index=True,
            column_config={"What differs": st.column_config.TextColumn(width="large")},
        )


page()
