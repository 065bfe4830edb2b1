"""The page that compares the paper's claims and tables with its official logs and with our records."""

import streamlit as st

from leaderboard import shared
from leaderboard.sections import reproduction


def page() -> None:
    """Show the page."""
    st.title("Reproduction")
    records = shared.records()
    st.html(records.claims)
    number = st.selectbox(
        "Table",
        reproduction.numbers(),
        key="table",
        format_func=lambda n: f"Table {n}",
        bind="query-params",
    )
    st.html(records.table(str(number)))


page()
