"""The page on how it is measured."""

import streamlit as st

from leaderboard.sections import methods

st.title("Methods")
st.html(methods.page())
