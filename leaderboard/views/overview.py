"""The first page: generators across boards."""

import streamlit as st

from leaderboard import shared
from leaderboard.sections import overview


def page() -> None:
    """Show the page."""
    st.title(overview.TITLE)
    matrix = shared.across()
    if matrix is None:
        return
    st.html(overview.page(matrix, shared.runs(), shared.LINKS))
    with st.container(horizontal=True):
        for label, (content, file, mime) in overview.exports(matrix).items():
            st.download_button(f"Matrix as {label}", content, file, mime, on_click="ignore")


page()
