"""The page that compares the paper's tables with its official logs and with our records."""

import streamlit as st

from bench.records.paper import tables
from leaderboard import paper, shared

INTRODUCTION = """
The tables of *Neural Network Diffusion* ([arXiv 2402.13144](https://arxiv.org/abs/2402.13144)) as printed, **paper**;
what the log files of its official repository say where they cover the same setting, **log**
(NUS-HPC-AI-Lab/Neural-Network-Diffusion, commit 0ecca89); and what the records of this leaderboard measured, **ours**.
Theirs are one number; ours are means over seeds. *best*, *avg.* and *med.* are over the generated models, *original* is
the best checkpoint, *ensemble* the average of all of them.
"""


def page() -> None:
    """Show the page."""
    st.title("Paper")
    st.markdown(INTRODUCTION)
    numbers = sorted({name.rstrip("abc") for name in tables()}, key=int)
    number = st.selectbox(
        "Table", numbers, key="table", format_func=lambda n: f"Table {n}", bind="query-params"
    )
    runs = shared.runs()
    commands: list[tuple[str, str]] = []
    for table in tables().values():
        if table.id.rstrip("abc") != number:
            continue
        st.subheader(f"{table.id}. {table.title}")
        if table.note:
            st.caption(table.note)
        shown = paper.shown(table, runs)
        right = [n for n in map(str, shown) if ":" in n and not n.endswith("setting")]
        st.dataframe(
            shown,
            hide_index=True,
            height="content",
            placeholder="",
            column_config={name: st.column_config.TextColumn(alignment="right") for name in right},
        )
        commands += paper.missing(table, runs)
    if commands:
        with st.expander(
            "Commands that fill what is empty or not at the paper's setting",
            expanded=len(commands) < 12,
        ):
            text = "\n".join(f"{line}  # {label}" for label, line in commands)
            st.code(text, language="bash")
            st.caption("Real data: add --data-dir. Three seeds: once each with --seed 0, 1 and 2.")


page()
