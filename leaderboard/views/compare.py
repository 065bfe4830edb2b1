"""The page that compares runs: score against similarity, main numbers, and the distribution of scores."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from bench.records.record import Record
from bench.records.scale import Scale
from leaderboard import plots, shared
from leaderboard.columns import GENERATED, NAMED, ORIGINAL, REFERENCE
from leaderboard.formats import UNKNOWN
from leaderboard.opened import Shown

# Rows of the table of numbers: label, name of the column that reads the number, and population.
NUMBERS = (
    *(
        (f"{name} generated", name, GENERATED)
        for name in ("selected", "best", "mean", "median", "worst")
    ),
    ("best original", "best", ORIGINAL),
    ("mean original", "mean", ORIGINAL),
    ("average of the originals", "selected", "average"),
    ("similarity to the nearest original", "nearest_iou", GENERATED),
    ("verdict", "verdict", GENERATED),
    ("new, %", "new", GENERATED),
    ("score minus the reference's", "quality", GENERATED),
    ("resolution of the board", "resolution", GENERATED),
    ("mean reference", "mean", REFERENCE),
    ("collapsed", "collapsed", GENERATED),
)


def page() -> None:
    """Show the page."""
    st.title("Compare")
    shown = shared.pick_runs(most=6, first=3)
    if not shown:
        return
    st.subheader("Score against similarity")
    st.plotly_chart(plots.score_against_similarity(shown), key="scatter")
    side = "above" if shown[0].record.task.metric.higher_is_better else "below"
    st.caption(
        "Each point is a model. A copy of an original lies at the right edge; a generator is worth something where its "
        f"points lie {side} the curve of noise-added originals, that is: better at the same similarity. Click a name "
        "in the legend to show or hide it. After the paper's Fig. 4b."
    )
    st.subheader("Numbers")
    st.dataframe(numbers(shown), width="stretch", height="content")
    st.subheader("Distribution of scores")
    st.plotly_chart(plots.distributions(shown), key="distributions")
    st.caption(
        "Every model's score on validation and on the training examples that selection uses. Originals, reference and "
        "controls are those of the first run. After the paper's Fig. 6a."
    )


def numbers(shown: Sequence[Shown]) -> pd.DataFrame:
    """Return a table of the main numbers as text, one column a run."""
    return pd.DataFrame({one.label: _numbers(one.record) for one in shown})


def _numbers(record: Record) -> dict[str, str]:
    scale = Scale.of(record)
    return {
        label: NAMED[name].text(record, of, scale) if of in record.populations else UNKNOWN
        for label, name, of in NUMBERS
    }


page()
