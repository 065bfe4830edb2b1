"""The page on similarity: four comparisons, all pairs of models, maps of the weights, and the influence of K."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from bench.errors import printable
from leaderboard import plots, shared
from leaderboard.formats import UNKNOWN
from leaderboard.load import BOARD, VARIANT
from leaderboard.opened import Shown


def page() -> None:
    """Show the page."""
    st.title("Similarity")
    shown = shared.pick_runs(most=4)
    if not shown:
        return
    st.subheader("Four comparisons")
    st.plotly_chart(plots.four_comparisons(shown), key="four")
    st.caption(
        f"Mean {shown[0].record.task.compared.likeness} of two models, with 95 % intervals; pairs of a model with "
        "itself are left out. "
        "Generated models that are more alike than originals are have collapsed. How near a generated model is to its "
        "nearest original is to be read beside the originals' own nearest other one. After the paper's Fig. 4a."
    )
    agreement = kappas(shown)
    if not agreement.empty:
        st.dataframe(agreement, hide_index=True, height="content")
        st.caption(
            "The same comparisons by Cohen's kappa: agreement of errors beyond chance. IoU rises with the number of "
            "errors, kappa does not."
        )
    for number, one in enumerate(shown):
        if len(shown) > 1:
            st.header(shared.verbatim(one.label))
        show_one(one, number)
    show_sizes(shared.runs(), shown[0])


def kappas(shown: Sequence[Shown]) -> pd.DataFrame:
    """Return a table, as text, of the error consistencies of every run that has them, one row a run."""
    rows = []
    for one in shown:
        own, made = (part.similarity.kappa for part in (one.record.original, one.record.generated))
        if own and made:
            numbers = {
                "original - original": own.within,
                "generated - generated": made.within,
                "original - generated": made.originals,
                "original - original, nearest other": own.nearest,
                "original - generated, nearest": made.nearest,
            }
            texts = {n: UNKNOWN if v is None else f"{v:.3f}" for n, v in numbers.items()}
            rows.append({"run": printable(one.label), **texts})
    return pd.DataFrame(rows)


def show_one(one: Shown, number: int) -> None:
    """Show the figures of similarity of one run."""
    left, right = st.columns(2)
    with left:
        st.subheader("Beside the controls")
        st.plotly_chart(plots.controls_similarity(one), key=f"controls-{number}")
        st.caption(
            "Mean similarity to the originals (open) and to the nearest one (full); of originals, to the other ones."
        )
    with right:
        st.subheader("Every pair")
        figure = plots.iou_heat_map(one)
        if figure:
            st.plotly_chart(figure, key=f"iou-{number}")
            words = one.record.task.compared.likeness
            st.caption(f"The {words}: originals first, then generated models.")
        else:
            st.info("The matrix is in the side file, which this record lacks.")
    left, right = st.columns(2)
    for column, kind, title in (
        (left, "map", "Map of parameters"),
        (right, "latent", "Map of latents"),
    ):
        figure = plots.embedding(one, kind)
        with column:
            st.subheader(title)
            if figure:
                st.plotly_chart(figure, key=f"{kind}-{number}")
                st.caption(
                    "t-SNE: near points are alike; distances between groups mean little. After Fig. 4c."
                )
            elif one.problem:
                st.info("The map is in the side file, which this record lacks.")
            else:
                st.info("This generator has no latents.")


def show_sizes(runs: pd.DataFrame, first: Shown) -> None:
    """Show similarity against K, for runs that differ from the first one in K, seed and generator alone."""
    own = runs[runs["id"] == first.record.id].iloc[0]
    varies = {"key", "k", "zoo_hash", *VARIANT}
    same = [name for name in (*BOARD, "device", "settings") if name not in varies] + ["device"]
    alike = runs[(runs[same] == own[same]).all(axis=1)]
    defaults = alike.groupby("generator")["hyperparameters"].transform(
        lambda texts: texts.mode()[0]
    )
    alike = alike[alike["hyperparameters"] == defaults]
    st.subheader("Similarity against K")
    if alike["k"].nunique() < 2:
        st.info("There are no runs that differ in K alone. This makes some:")
        st.code(f"{first.record.command} --k 1,10,50,200", language="bash", wrap_lines=True)
        return
    st.plotly_chart(plots.similarity_against_k(alike), key="sizes")
    st.caption(
        "With few checkpoints a generator can hardly help to be near one of them; with more, the nearest one is nearer "
        "by chance alone. Lines are means over seeds. After the paper's Fig. 5b."
    )


page()
