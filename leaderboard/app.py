"""The leaderboard's web application: pages, filters, and the list of files that cannot be read.

Start it with ``python -m bench leaderboard``.
"""

from pathlib import Path

import streamlit as st

from leaderboard import shared

VIEWS = Path(__file__).with_name(
    "views"
)  # of a folder named "pages" Streamlit would make pages of its own
ICON = Path(__file__).with_name("icon.svg")  # a Material icon here is fetched from a font server
TITLES = {
    "leaderboard": ("Leaderboard", ":material/leaderboard:"),
    "compare": ("Compare", ":material/compare_arrows:"),
    "similarity": ("Similarity", ":material/join_inner:"),
    "speed": ("Speed", ":material/speed:"),
    "run": ("Run", ":material/description:"),
    "paper": ("Paper", ":material/article:"),
    "about": ("About", ":material/info:"),
}
FIRST_RECORD = """python -m bench run --task digits --generator pdiff --results results
python -m bench leaderboard --results results"""


def main() -> None:
    """Draw the navigation, the filters and the chosen page."""
    st.set_page_config("Leaderboard of weight generators", ICON, layout="wide")
    pages = [
        st.Page(VIEWS / f"{name}.py", title=title, icon=icon, default=name == "leaderboard")
        for name, (title, icon) in TITLES.items()
    ]
    page = st.navigation(pages)
    frame = shared.runs()
    if frame.empty:
        show_empty()
    else:
        shared.filters(frame)
        page.run()
    show_broken()
    if st.sidebar.button("Read the folders again", icon=":material/refresh:", type="tertiary"):
        shared.reload()
        st.rerun()


def show_empty() -> None:
    """Show the command that makes the first record, where there is none."""
    st.title("Leaderboard of weight generators")
    st.info("There are no records here yet. This makes the first one and shows it:")
    st.code(FIRST_RECORD, language="bash")


def show_broken() -> None:
    """Show the files and folders that are in no table, each with the reason."""
    broken = shared.broken()
    if broken:
        with st.expander(f"Left out: {len(broken):,}", icon=":material/warning:"):
            st.text("\n".join(f"{item.path}\n    {item.reason}" for item in broken[:500]))


if __name__ == "__main__":
    main()
