"""The page of one generator."""

import streamlit as st

from leaderboard import markup, shared
from leaderboard.sections import generator


def page() -> None:
    """Show the generator that the address asks for, or a list of all."""
    runs, matrix = shared.runs(), shared.across()
    if matrix is None:
        return
    name = shared.asked("generator", set(runs["generator"]))
    if not name:
        st.title("Generators")
        st.html(generator.listed(matrix, runs, shared.LINKS))
        return
    own = runs[runs["generator"] == name]
    st.html(markup.title(name))
    st.html(generator.card(name, matrix, own))
    if across := generator.across(name, matrix, shared.LINKS):
        st.header("Across boards")
        st.html(across)
    st.header("Variants and records")
    st.html(generator.records(own, shared.LINKS))


page()
