"""The page on times: of generated models, and of SGD."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from bench.errors import printable
from bench.records.report import sampled, speedups
from leaderboard import plots, shared
from leaderboard.opened import Shown

ROWS = {
    "collect": "collect_s",
    "fit": "fit_s",
    "sample all": "sample_s",
    "sample one": "sample_per_model_s",
    "select": "select_s",
    "select one": "select_per_model_s",
    "score": "score_s",
    "SGD to the zoo's own base": "base_s",
    "SGD to the same score": "sgd_s",
    "SGD from the base to it": "marginal_s",
}


def page() -> None:
    """Show the page."""
    st.title("Speed")
    shown = shared.pick_runs(most=4, first=2)
    if not shown:
        return
    st.subheader("Score against wall time")
    st.plotly_chart(plots.score_against_time(shown), key="time")
    st.caption(
        "Circle: sampling one model, as if the fitted generator had fallen from the sky. Diamond: with collecting the "
        "checkpoints, fitting, sampling all models and selecting. Honest claims name both. After the paper's Fig. 7."
    )
    st.subheader("When does it pay off?")
    for number, one in enumerate(shown):
        figure = plots.break_even(one)
        said = "".join(f"\n- {shared.verbatim(line)}" for line in speedups(one.record))
        st.markdown(f"**{shared.verbatim(one.label)}**\n{said}")
        if figure:
            st.plotly_chart(figure, key=f"break-even-{number}")
    st.subheader("Times")
    st.dataframe(
        seconds(shown),
        width="stretch",
        height="content",
        column_config={"_index": st.column_config.Column(width=170)},
    )
    st.caption(
        "Synchronised with the device, sampling warmed up; collecting does not count its evaluations. Where there is "
        "no base (independent runs of whole networks), one more model costs SGD as much as the first."
    )


def seconds(shown: Sequence[Shown]) -> pd.DataFrame:
    """Return a table of times, peak memory and machine as text, one column a run."""
    found = {}
    for one in shown:
        values = {name: getattr(one.record.timing, field) for name, field in ROWS.items()}
        cells = {name: "-" if v is None else plots.duration(v) for name, v in values.items()}
        memory = f"{one.record.timing.peak_memory_bytes / 2**30:.2f} GiB"
        machine = one.record.environment
        found[one.label] = cells | {
            "how sampling was timed": sampled(one.record).removeprefix("sample: "),
            "peak memory": memory,
            "device": one.record.timing.device,
            "processor": f"{machine.cpu}, {machine.threads} threads",
        }
    return pd.DataFrame(found).map(printable)


page()
