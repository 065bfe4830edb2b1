"""Runs side by side: score against similarity, and how scores are distributed."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from bench.records.record import percent
from leaderboard import plots, shared
from leaderboard.opened import Shown


def page() -> None:
    """The page."""
    st.title("Compare")
    shown = shared.pick_runs(most=6, first=3)
    if not shown:
        return
    st.subheader("Score against similarity")
    st.plotly_chart(plots.score_against_similarity(shown), key="scatter")
    side = "above" if shown[0].record.task.higher_is_better else "below"
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
        "Every model's score on validation and on the training examples that selection uses. Originals and controls "
        "are those of the first run. After the paper's Fig. 6a."
    )


def numbers(shown: Sequence[Shown]) -> pd.DataFrame:
    """The main numbers, one column a run."""
    found = {}
    for one in shown:
        record, scores = one.record, one.record.scores
        novelty = record.novelty

        def score(value: float, metric: str = record.task.metric) -> str:
            return f"{100 * value:.2f}" if percent(metric) else f"{value:.4g}"

        found[one.label] = {
            f"{statistic} generated": score(getattr(scores.generated, statistic))
            for statistic in ("selected", "best", "mean", "median", "worst")
        } | {
            "best original": score(scores.original.best),
            "mean original": score(scores.original.mean),
            "average of the originals": score(scores.average.selected),
            "similarity to the nearest original": f"{record.similarity.original_generated_max.value:.3f}",
            "verdict": novelty.verdict or "-",
            "collapsed": "-" if novelty.collapsed is None else "yes" if novelty.collapsed else "no",
        }
    return pd.DataFrame(found)


page()
