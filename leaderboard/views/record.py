"""The page of one record: what it is, figures, files, and all the rest."""

from pathlib import Path

import streamlit as st

from bench.errors import BadRequest
from leaderboard import markup, plots, shared
from leaderboard.opened import Shown
from leaderboard.sections import overview, record

NO_SIDE = "This is in the side file, which this record lacks."


def page() -> None:
    """Show the record that the address asks for, or a list of the newest."""
    runs = shared.runs()
    run = shared.asked("record", set(runs["id"]))
    if not run:
        st.title("Records")
        st.html(overview.newest(runs, shared.LINKS, 50))
        return
    row = runs[runs["id"] == run].iloc[0]
    try:
        one = shared.open_run(str(row["path"]))
    except BadRequest as error:
        st.error(shared.verbatim(str(error)))
        return
    st.html(markup.title(f"{row['generator']} on {row['task']}, seed {row['seed']}"))
    if one.problem:
        st.info(
            f"No side file ({shared.verbatim(one.problem)}): some figures are missing. Running its command again "
            "writes one."
        )
    title = shared.records().titles[str(row["board"])]
    st.html(record.head(one.record, str(row["board"]), title, shared.LINKS))
    st.html(record.numbers(one.record))
    downloads(one, Path(str(row["path"])))
    show(one)


def downloads(one: Shown, path: Path) -> None:
    """Show downloads of record and side file."""
    with st.container(horizontal=True):
        st.download_button(
            "Record", path.read_bytes(), path.name, "application/json", on_click="ignore"
        )
        if one.side:
            file = path.with_suffix(".npz")
            st.download_button(
                "Side file",
                file.read_bytes(),
                file.name,
                "application/octet-stream",
                on_click="ignore",
            )


def show(one: Shown) -> None:
    """Show tables and figures, and the rest of the record."""
    st.header("Scores")
    st.html(record.scores(one.record))
    if judged := record.judged(one.record):
        st.header("Made of")
        shared.chart(plots.composition(one), record.COMPOSITION, "composition")
        st.html(judged)
        st.caption(record.JUDGED)
    with st.expander("Figures of weights and of pairs of models"):
        shared.chart(plots.parameter_heat_map(one), record.HEAT, "heat", NO_SIDE)
        shared.chart(plots.parameter_histogram(one), record.HISTOGRAM, "histogram")
        shared.chart(plots.iou_heat_map(one), record.PAIRS, "pairs")
        if "map_path" in one.side:
            shared.chart(plots.embedding(one, "map", paths=True), record.PATH, "path")
    st.header("Everything else")
    st.html(record.rest(one.record))


page()
