"""The leaderboard's web application: its pages, and the list of files that cannot be read.

Start it with ``python -m bench leaderboard``.
"""

from pathlib import Path

import streamlit as st

from leaderboard import markup, shared
from leaderboard.sections import overview

VIEWS = Path(__file__).with_name(
    "views"
)  # of a folder named "pages" Streamlit would make pages of its own
ICON = Path(__file__).with_name("icon.svg")  # a Material icon here is fetched from a font server
TITLES = {
    "overview": "Overview",
    "board": "Board",
    "generator": "Generator",
    "record": "Record",
    "reproduction": "Reproduction",
    "methods": "Methods",
}
# Addresses of earlier versions, and the pages that took their place.
MOVED = {
    "leaderboard": "board", "compare": "board", "similarity": "board", "speed": "board", "run": "record",
    "paper": "reproduction", "about": "methods",
}  # fmt: skip
FIRST_RECORD = """python -m bench run --task digits --generator pdiff --results results
python -m bench leaderboard --results results"""


def main() -> None:
    """Draw the navigation and the chosen page."""
    st.set_page_config(overview.TITLE, ICON, layout="wide")
    pages = {
        name: st.Page(VIEWS / f"{name}.py", title=title, default=name == "overview")
        for name, title in TITLES.items()
    }
    earlier = [
        st.Page(VIEWS / "moved.py", title=name, url_path=name, visibility="hidden")
        for name in MOVED
    ]
    page = st.navigation([*pages.values(), *earlier], position="top")
    st.html(f"<style>{markup.STYLE}</style>")
    if page.url_path in MOVED:
        query = {
            "record" if name == "run" else name: value for name, value in st.query_params.items()
        }
        st.switch_page(pages[MOVED[page.url_path]], query_params=query)
    if shared.runs().empty:
        show_empty()
    else:
        page.run()
    show_broken()
    if st.button("Read the folders again", type="tertiary"):
        shared.reload()
        st.rerun()


def show_empty() -> None:
    """Show the command that makes the first record, where there is none."""
    st.title(overview.TITLE)
    st.info("There are no records here yet. This makes the first one and shows it:")
    st.code(FIRST_RECORD, language="bash")


def show_broken() -> None:
    """Show the files and folders that are in no table, each with the reason."""
    broken = shared.broken()
    if broken:
        with st.expander(f"Left out: {len(broken):,}"):
            st.text("\n".join(f"{item.path}\n    {item.reason}" for item in broken[:500]))


if __name__ == "__main__":
    main()
