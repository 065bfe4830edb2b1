"""The page of one board: its rows, one row's details, and figures of the same rows."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from bench.errors import BadRequest
from bench.records.scale import Scale
from leaderboard import (
    boards,
    expected,
    export,
    markup,
    outcomes,
    plots,
    present,
    shared,
    table,
    zoos,
)
from leaderboard.columns import COLUMNS, FIXED, NAMED, OPENING, RANKED, REFERENCE
from leaderboard.formats import UNKNOWN
from leaderboard.opened import Shown
from leaderboard.outcomes import Compared, Rows
from leaderboard.sections import board as section

Source = tuple[
    tuple[tuple[str, str], ...], str
]  # row and path of every run, and the newest run's id
FIRST = "mean"  # the column that a table is sorted by at first
BARS = {
    "copy": "a copy of a checkpoint",
    "original": "the checkpoints",
    REFERENCE: "held-out training",
}
MODELS = (1, 10, 100, 1000, 10_000)


def page() -> None:
    """Show the board that the address asks for, or the largest."""
    found = shared.records().boards
    head = st.container()
    name = choose(found)
    if not name:
        head.title("Boards")
        st.html(section.elsewhere({}, found, shared.records().titles, shared.LINKS))
        return
    board = boards.records(found[found["board"] == name])[0]
    runs = shared.runs()
    own = runs[runs["board"] == name]
    head.html(markup.title(shared.records().titles[name]))
    try:
        show(board, own)
    except BadRequest as error:
        st.error(shared.verbatim(str(error)))
    show_elsewhere(board, found)


def choose(found: pd.DataFrame) -> str:
    """Return the name of the board in the address or, once the reader chooses another, put that there."""
    titles = shared.records().titles
    asked = shared.asked("board", titles)
    if asked == "":
        return ""
    names = list(titles)
    first = asked or boards.largest(found)
    chosen = st.selectbox(
        "Another board", names, index=names.index(first), format_func=titles.__getitem__
    )
    if chosen != first:
        st.query_params.clear()
        st.query_params["board"] = chosen
    return str(chosen)


def show(board: dict[str, Any], runs: pd.DataFrame) -> None:
    """Show one board.

    Args:
        board: a row of ``boards.boards``.
        runs: its runs.

    Raises:
        BadRequest: a record has vanished, or is no longer valid.
    """
    record = shared.open_run(str(runs.sort_values("created").iloc[-1]["path"])).record
    scale = boards.scale(board)
    by, least, every, columns = controls()
    found, problem = compared(source(runs), by)
    rows = table.at_draws(table.rows(runs, record), found.values, found.drawn)
    full = table.ordered(rows, by, bool(board["higher_is_better"]), found.groups)
    if least:
        alike = compared(source(runs), "mean")[0].groups
        full = table.good_first(full, least, record.task.metric.sign, alike)
    shown = section.shown(full, every=every)
    st.html(
        markup.block(
            *(
                f"<p>{markup.text(said)}</p>"
                for said in (section.result(shown, by, scale), section.description(board))
            )
        )
    )
    row = st.query_params.get("row", "")
    st.html(section.rows(shown, columns, scale, str(board["board"]), shared.LINKS, row))
    if row in set(full["row"]):
        st.subheader("Details of the chosen row")
        st.html(
            section.details(
                row, runs[[name == row for name in table.row_names(runs)]], shared.LINKS
            )
        )
    notes(by, full, found, problem, runs)
    exports(
        present.labelled(present.texts(shown, scale)[[*(one.name for one in FIXED), *columns]]),
        full,
        board,
    )
    figures(full, runs)
    over_zoos(board, by, full, scale)


def controls() -> tuple[str, str, bool, list[str]]:
    """Show what a table can be changed by.

    Returns:
        The column to sort by, the row that others are to be as good as ("" for none), whether to show every row, and
        the columns.
    """
    places = st.columns([2, 2, 1, 1], vertical_alignment="bottom")
    ranked = sorted(RANKED, key=lambda name: name != FIRST)
    by = (
        places[0].selectbox("Sort by", ranked, key="by", format_func=label, bind="query-params")
        or FIRST
    )
    cost = RANKED[by] != "score" and by not in ("new", "quality", "novelty", "advantage")
    least = places[1].selectbox(
        "At least as good as", ["", *BARS], index=1 if cost else 0, key=f"least-{cost}",
        format_func=lambda name: BARS.get(name, "anything"),
        help="Worse rows go behind all others. By cost, what is broken would otherwise be first.",
    )  # fmt: skip
    every = places[2].toggle("Every row", key="every", bind="query-params")
    with places[3].popover("Columns", width="stretch"):
        columns = st.multiselect(
            "Columns", [column.name for column in COLUMNS], default=list(OPENING), key="columns", format_func=label,
            bind="query-params",
        )  # fmt: skip
    return by, least or "", every, list(columns)


def label(name: str) -> str:
    """Return a column's label."""
    return NAMED[name].label


# Comparing rows ------------------------------------------------------------------------------------------------------


def source(runs: pd.DataFrame) -> Source:
    """Return what the rows of a board are read from."""
    newest = runs.sort_values("created").iloc[-1]
    return tuple(zip(table.row_names(runs), runs["path"], strict=True)), str(newest["id"])


def read(board: Source) -> Rows:
    """Return the populations of every row of a board.

    Raises:
        BadRequest: a record has vanished, or is no longer valid.
    """
    paths, newest = board
    return outcomes.rows_of([(row, shared.open_run(path)) for row, path in paths], newest)


@st.cache_data(ttl="10m", max_entries=100, show_spinner="Comparing rows")
def compared(board: Source, by: str) -> tuple[Compared, str]:
    """Return what compares the rows of a board, and in words how many side files are missing."""
    paths, _ = board
    missing = sum(bool(shared.open_run(path).problem) for _, path in paths)
    problem = f"{missing} of {len(paths)} records have no side file" if missing else ""
    return outcomes.compare(read(board), by), problem


@st.cache_data(ttl="10m", max_entries=100, show_spinner="Comparing zoos")
def pooled(several: Sequence[Source], statistics: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the rows of several boards over their zoos, by statistic."""
    rows = [read(board) for board in several]
    return {name: zoos.pooled(zoos.above_originals(rows, name)) for name in statistics}


# Below the table -----------------------------------------------------------------------------------------------------


def notes(by: str, full: pd.DataFrame, found: Compared, problem: str, runs: pd.DataFrame) -> None:
    """Show how to read the table's groups, and what could not be read."""
    said = present.notes(by, full, found, problem)
    if not table.controls_agree(runs):
        said.append(
            "Originals, reference or controls score differently in some of these records, as on another device or with "
            "other library versions; the newest record's are shown."
        )
    st.caption("  \n".join(said))


def exports(shown: pd.DataFrame, full: pd.DataFrame, board: dict[str, Any]) -> None:
    """Show downloads: all numbers as CSV, the table as shown as LaTeX and Markdown."""
    name = f"board-{board['key']}"
    numbers = full.drop(columns=["row", "runs"])
    files = {
        "CSV": (export.csv(numbers), f"{name}.csv", "text/csv", "All columns with all digits."),
        "LaTeX": (export.latex(shown), f"{name}.tex", "text/x-tex", "As shown; needs booktabs."),
        "Markdown": (export.markdown(shown), f"{name}.md", "text/markdown", "As shown."),
    }
    with st.container(horizontal=True):
        for title, (data, file, mime, help_) in files.items():
            st.download_button(title, data, file, mime, help=help_, on_click="ignore")


def figures(full: pd.DataFrame, runs: pd.DataFrame) -> None:
    """Show figures of the board's generators, one run of each row, in the order of the table."""
    shown = section.drawn(full, runs, shared.open_run)
    if not shown:
        return
    tabs = st.tabs(list(TABS), key="tab", on_change="rerun")
    for tab, draw in zip(tabs, TABS.values(), strict=True):
        with tab:
            if tab.open:
                draw(shown)


def cost(shown: Sequence[Shown]) -> None:
    """Show quality against cost."""
    models = st.select_slider("Models wanted", MODELS, value=100, key="models")
    sentence = (
        f"Mean score against the seconds that {models:,} models cost in all: generators pay for collecting, fitting, "
        "sampling and selecting, controls for collecting alone, SGD trains each model anew. Crosses are broken models; "
        "nothing cheaper is better than what lies on the frontier."
    )
    shared.chart(plots.quality_and_cost(shown, int(models)), sentence, "cost")


def copying(shown: Sequence[Shown]) -> None:
    """Show how near models are to the checkpoints."""
    first = shown[0].record
    side = "above" if first.task.metric.higher_is_better else "below"
    shared.chart(
        plots.score_against_similarity(shown),
        "Each point is a model. A copy of an original lies at the right edge; a generator is worth something where its "
        f"points lie {side} the curve of noise-added originals, that is: better at the same similarity. After "
        "the paper's "
        "Fig. 4b.",
        "nearness",
    )
    shared.chart(
        plots.four_comparisons(shown),
        f"Mean {first.task.compared.likeness} of two models, with 95 % intervals. Generated models that are more alike "
        "than originals have collapsed; how near one is to its nearest original is to be read beside the "
        "originals' own "
        "nearest other one. After the paper's Fig. 4a.",
        "four",
    )
    st.html(markup.block(f"<p>Copy test. {markup.text(copy_tests(shown))}</p>"))
    for number, one in enumerate(shown):
        figure = plots.embedding(one, "map")
        name = shared.verbatim(one.label)
        shared.chart(
            figure, f"Map of parameters (t-SNE), {name}: near points are alike.", f"map-{number}"
        )
    sizes(shown[0])


def copy_tests(shown: Sequence[Shown]) -> str:
    """Return in words how many models of each generator are nearer to a checkpoint than held-out training is."""
    found = []
    for one in shown:
        judged = one.record.judge.against_reference.get("generated")
        number = (
            UNKNOWN
            if judged is None
            else f"{judged.copying.nearer} nearer to a checkpoint, p {judged.copying.p:.2g}"
        )
        found.append(f"{one.label}: {number}")
    return "; ".join(found)


def sizes(first: Shown) -> None:
    """Show similarity against K, for runs that differ in K, seed and generator alone."""
    alike = zoos.other_sizes(shared.runs(), first.record.id)
    if alike["k"].nunique() < 2:
        st.info("There are no runs that differ in K alone. This makes some:")
        st.code(f"{first.record.command} --k 1,10,50,200", language="bash", wrap_lines=True)
        return
    shared.chart(
        plots.similarity_against_k(alike),
        "Similarity to the nearest original against K. With few checkpoints a generator can hardly help to "
        "be near one of "
        "them; with more, the nearest one is nearer by chance alone. Lines are means over seeds. After the "
        "paper's Fig. 5b.",
        "sizes",
    )


def distributions(shown: Sequence[Shown]) -> None:
    """Show the scores of all models."""
    sentence = (
        "Every model's score on validation and on the training examples that selection uses. Originals, reference and "
        "controls are those of the first run. After the paper's Fig. 6a."
    )
    shared.chart(plots.distributions(shown), sentence, "distributions")


TABS: dict[str, Callable[[Sequence[Shown]], None]] = {
    "Quality and cost": cost, "Copying": copying, "Distributions": distributions,
}  # fmt: skip


def over_zoos(board: dict[str, Any], by: str, full: pd.DataFrame, scale: Scale) -> None:
    """Show the rows over all zoos that differ from the board's in nothing but their seed, if there are any."""
    everything = shared.runs()
    names = zoos.siblings(everything, str(board["board"]))
    several = [everything[everything["board"] == name] for name in names]
    if len(several) < 2:
        return
    statistics = dict.fromkeys(("mean", by) if by in expected.STATISTICS else ("mean",))
    found = pooled(tuple(map(source, several)), tuple(statistics))
    st.subheader(f"Over {len(several)} zoos")
    labels = zoos.names(several) | dict(zip(full["row"], full["generator"], strict=True))
    st.html(section.over_zoos(found, labels, scale))
    st.caption(
        "How much better than the originals of the same zoo; above 0 is better. The mean over zoos that differ in "
        "nothing but their seed, with Student's 95 % interval over zoos. The groups above are of one zoo."
    )


def show_elsewhere(board: dict[str, Any], found: pd.DataFrame) -> None:
    """Show the other boards, and in which facts they differ from this one."""
    with st.expander(f"Elsewhere: {len(found) - 1:,} boards that are not compared with this one"):
        st.html(section.elsewhere(board, found, shared.records().titles, shared.LINKS))


page()
