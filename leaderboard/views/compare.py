"""Runs side by side: score against similarity, and how scores are distributed."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from bench.contract.metric import Metric
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
        "Every model's score on validation and on the training examples that selection uses. Originals and controls "
        "are those of the first run. After the paper's Fig. 6a."
    )


def numbers(shown: Sequence[Shown]) -> pd.DataFrame:
    """The main numbers, one column a run."""
    found = {}
    for one in shown:
        record, judge = one.record, one.record.judge
        average, nearest = record.controls.get("average"), record.generated.similarity.nearest

        def score(value: float, metric: Metric = record.task.metric) -> str:
            return f"{metric.scale * value:.2f}" if metric.percent else f"{value:.4g}"

        found[one.label] = {
            f"{statistic} generated": score(getattr(record.generated, statistic))
            for statistic in ("selected", "best", "mean", "median", "worst")
        } | {
            "best original": score(record.original.best),
            "mean original": score(record.original.mean),
            "average of the originals": score(average.selected) if average else "-",
            "similarity to the nearest original": f"{nearest.value:.3f}" if nearest else "-",
            "verdict": judge.word or "-",
            "collapsed": "-" if judge.collapsed is None else "yes" if judge.collapsed else "no",
        }
    return pd.DataFrame(found)


page()
