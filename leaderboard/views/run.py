"""The page on one run: the whole record, figures and files."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from bench.errors import printable
from bench.records import report
from bench.records.scale import Scale
from leaderboard import plots, shared
from leaderboard.formats import printf
from leaderboard.opened import Shown

POPULATION = ("best", "selected", "mean", "low", "high", "median", "worst", "std")


def page() -> None:
    """Show the page."""
    st.title("Run")
    shown = shared.pick_runs(most=1, label="Run")
    if not shown:
        return
    one = shown[0]
    runs = shared.runs()
    path = Path(str(runs.loc[runs["id"] == one.record.id, "path"].iloc[0]))
    st.text("\n".join(line for line in report.sentences(one.record) if line))
    st.code(printable(one.record.command), language="bash", wrap_lines=True)
    show_populations(one)
    show_figures(one)
    show_facts(one)
    show_files(one, path)


def show_populations(one: Shown) -> None:
    """Show a table with the statistics of every population."""
    record, scale = one.record, Scale.of(one.record)
    name = record.generator.name
    rows = {
        "original": record.original,
        **record.controls,
        f"generated: {name}": record.generated,
    }
    table = pd.DataFrame(
        [
            {"population": printable(label), "models": population.n}
            | {
                part: None if (value := getattr(population, part)) is None else scale.factor * value
                for part in POPULATION
            }
            | {f"mean {printable(name)}": other.mean for name, other in population.further.items()}
            for label, population in rows.items()
        ]
    )
    nearest = [population.similarity.nearest for population in rows.values()]
    table["nearest"] = [likeness.value if likeness else None for likeness in nearest]
    number = st.column_config.NumberColumn
    st.subheader("Populations")
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        placeholder="-",
        column_config={part: number(format=printf(scale)) for part in POPULATION}
        | {"nearest": number(format="%.3f")}
        | {f"mean {printable(name)}": number(format="%.4g") for name in record.original.further},
    )
    st.caption(f"nearest: mean {record.task.compared.likeness} with the nearest original.")


def show_figures(one: Shown) -> None:
    """Show figures of the parameters, and of denoising trajectories."""
    figure = plots.parameter_heat_map(one)
    if figure:
        st.subheader("Parameters")
        st.plotly_chart(figure, key="heat")
        st.caption(
            "The same parameters (columns) of some originals, generated models and networks at random initialisation "
            "(rows). Rows that are alike are models that are alike. After the paper's Figs. 3 and 6b."
        )
        st.plotly_chart(plots.parameter_histogram(one), key="histogram")
    figure = plots.embedding(one, "map", paths=True)
    if figure and "map_path" in one.side:
        st.subheader("From noise to a sample")
        st.plotly_chart(figure, key="path")
        st.caption(
            "t-SNE of parameters; lines are what the generator decodes along its denoising, small marks first. "
            "After the paper's Fig. 5a."
        )


def show_facts(one: Shown) -> None:
    """Show the other fields of the record."""
    record: dict[str, Any] = json.loads(one.record.to_json())
    st.subheader("Protocol and environment")
    facts = {
        name: record[name]
        for name in (
            "task",
            "zoo",
            "generator",
            "protocol",
            "judge",
            "timing",
            "environment",
        )
    }
    for name, values in facts.items():
        with st.expander(name):
            rows = flat(values or {})
            st.dataframe(
                pd.DataFrame(rows, columns=["field", "value"]), hide_index=True, height="content"
            )


def flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return the entries of nested mappings as pairs of dotted name and text."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            found.append((printable(f"{prefix}{name}"), printable(text)))
    return found


def show_files(one: Shown, path: Path) -> None:
    """Show the record's files with their SHA-256, and downloads of record and side file."""
    st.subheader("Files")
    artifacts = one.record.artifacts
    named = {"zoo": artifacts.zoo, "generated": artifacts.generated, "side file": artifacts.side}
    rows = [
        (name, printable(artifact.file), artifact.sha256)
        for name, artifact in named.items()
        if artifact
    ]
    st.dataframe(pd.DataFrame(rows, columns=["what", "file", "SHA-256"]), hide_index=True)
    file = path.with_suffix(".npz")
    with st.container(horizontal=True):
        st.download_button(
            "Record", path.read_bytes(), f"{one.record.id}.json", "application/json",
            icon=":material/download:", on_click="ignore",
        )  # fmt: skip
        if one.side:
            st.download_button(
                "Side file", file.read_bytes(), file.name, "application/octet-stream",
                icon=":material/download:", on_click="ignore",
            )  # fmt: skip


page()
