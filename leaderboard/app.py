"""The leaderboard's page: widgets only. Start it with ``python -m bench leaderboard``."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from bench.record import Record
from leaderboard import table
from leaderboard.table import Board, Broken

SHIPPED = Path(__file__).with_name("results")
FILTERS = {"task": "Task", "arch": "Architecture", "layers": "Layers", "track": "Track"}
INTRODUCTION = """
Networks whose weights were generated, scored beside the checkpoints that the generator learned from
and beside the **controls** that any generator must beat. Ranks hold within one table only: the same
checkpoints, data and number of samples.
"""
FIRST_RECORD = """python -m bench run --task digits --generator pdiff --results results
python -m bench leaderboard --results results"""


def main() -> None:
    """The page, from the folders that the command line names."""
    st.set_page_config("Leaderboard of weight generators", layout="wide")
    st.title("Leaderboard of weight generators")
    shipped = [SHIPPED] if SHIPPED.is_dir() else []
    records, broken = table.load([*shipped, *map(Path, sys.argv[1:])])
    if records:
        st.markdown(INTRODUCTION)
        show_boards(table.boards(records))
    else:
        show_empty()
    if broken:
        show_broken(broken)


def show_boards(boards: dict[Board, list[Record]]) -> None:
    """The filters, and a table for every board that they leave."""
    chosen = {name: filter_by(name, boards) for name in FILTERS}
    shown = [board for board in boards if all(fits(board, *pair) for pair in chosen.items())]
    if not shown:
        st.info("No records match these filters. Remove one in the sidebar.")
    for board in shown:
        show_board(board, boards[board])


def filter_by(name: str, boards: Iterable[Board]) -> list[str]:
    """A filter in the sidebar, kept in the page's address."""
    options = sorted({getattr(board, name) for board in boards})
    return st.sidebar.multiselect(
        FILTERS[name], options, key=name, placeholder="All", bind="query-params"
    )


def fits(board: Board, name: str, values: list[str]) -> bool:
    """Whether a filter leaves a board; an empty filter leaves all."""
    return not values or getattr(board, name) in values


def show_board(board: Board, records: list[Record]) -> None:
    """One table with its heading and its commands."""
    st.subheader(" ".join(map(verbatim, (board.task, board.arch, board.layers))), anchor=board.key)
    st.caption(description(board))
    frame = table.rows(records)
    percent = board.metric == "accuracy"
    if percent:
        frame[list(table.SCORES)] *= 100
    st.dataframe(
        frame.style.apply(highlight, axis=1),
        hide_index=True,
        height="content",
        column_order=[name for name in table.COLUMNS if name != "key"],
        column_config=columns("%.2f%%" if percent else "%.4g"),
        placeholder="-",
    )
    if not table.controls_agree(records):
        st.caption(
            "Originals and controls score differently in some of these records, as on another "
            "device or with other library versions; the newest record's are shown."
        )
    show_commands(frame)


def description(board: Board) -> str:
    """What all rows of a table share, as Markdown."""
    better = "higher" if board.higher_is_better else "lower"
    return (
        f"{board.k:,} checkpoints (track {verbatim(board.track)}), "
        f"{board.parameters:,} parameters generated, "
        f"{board.samples:,} samples. Scores are {verbatim(board.metric)} ({better} is better) on "
        f"{board.val_size:,} validation examples; selected on {board.train_size:,} training "
        f"examples. Key {verbatim(board.key)}"
    )


def show_commands(frame: pd.DataFrame) -> None:
    """What repeats each generator's row, to copy."""
    with st.expander("Commands that repeat these rows"):
        for row in frame[frame["kind"] == "generator"].itertuples():
            st.text(f"{row.generator} on {row.device}")
            st.code(str(row.command), language="bash", wrap_lines=True)


def show_empty() -> None:
    """What to do where there are no records yet."""
    st.info("There are no records here yet. This makes the first one and shows it:")
    st.code(FIRST_RECORD, language="bash")


def show_broken(broken: list[Broken]) -> None:
    """Files that are in no table, with the reason."""
    with st.expander(f"Left out: {len(broken):,}", icon=":material/warning:"):
        st.text("\n".join(f"{item.path}\n    {item.reason}" for item in broken))


def highlight(row: "pd.Series[Any]") -> list[str]:
    """Sets generators off from the controls between them."""
    shade = "background-color: rgba(46, 160, 67, 0.18)" if row["kind"] == "generator" else ""
    return [shade] * len(row)


def columns(score: str) -> dict[str, Any]:
    """How each column is shown.

    Args:
        score: printf format of scores.
    """
    text, number = st.column_config.TextColumn, st.column_config.NumberColumn
    interval = "95 % interval of the mean: over models, or over seeds where there are several."
    return {
        "generator": text("Generator", width=118, pinned=True),
        "kind": text("Kind", width=78, help="A control is what any generator must beat."),
        "seeds": number("Seeds", width=58, help="Fits pooled in this row: means over seeds."),
        "best": number("Best", width=64, format=score, help="Best on validation."),
        "selected": number(
            "Selected", width=74, format=score, help="Chosen on training data; ranks the table."
        ),
        "mean": number("Mean", width=64, format=score, help="Over all samples."),
        "low": number("Low", width=64, format=score, help=interval),
        "high": number("High", width=64, format=score, help=interval),
        "median": number("Median", width=68, format=score),
        "worst": number("Worst", width=64, format=score),
        "p_best": number(
            "p",
            width=64,
            format="%.2g",
            help="Selected model better than the best original: exact McNemar test, Holm's correction over "
            "the generators of this table; 1 where it is not better, the largest of several seeds.",
        ),
        "nearest_iou": number(
            "Nearest IoU",
            width=95,
            format="%.3f",
            help="Overlap of wrong predictions with the nearest original; 1 is a copy.",
        ),
        "verdict": text(
            "Verdict", width=82, help="By rule, docs/verdict.md: broken, copies, averages or novel."
        ),
        "collapsed": text(
            "Collapsed",
            width=82,
            help="Generated models are more alike than the originals; with several seeds, in how many.",
        ),
        "seconds_per_model": number(
            "s a model", width=82, format="%.3g", help="Seconds to sample one model."
        ),
        "speedup": number(
            "Speedup", width=80, format="%.3gx", help="SGD's time over sampling one model."
        ),
        "speedup_amortised": number(
            "Amortised",
            width=86,
            format="%.3gx",
            help="Speedup when collecting, fitting and selecting count too.",
        ),
        "device": text("Device", width=110),
        "command": text("Command", width=500),
    }


def verbatim(text: str) -> str:
    r"""Text as a Markdown code span, the one place where no markup, link or symbol is recognised.

    Backslashes are not enough: an escaped address still becomes a link, and ``--`` a dash.

    >>> verbatim("last-norms:2"), verbatim("a`b")
    ('` last-norms:2 `', '`` a`b ``')
    """
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}"


if __name__ == "__main__":
    main()
