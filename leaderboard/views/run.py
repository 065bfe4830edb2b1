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
from leaderboard.columns import GENERATED, NAMED, populations
from leaderboard.formats import UNKNOWN, printf
from leaderboard.opened import Shown

LONG = 100  # rows of a table that is scrolled
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
    show_judgements(one)
    show_figures(one)
    show_facts(one)
    show_files(one, path)


def show_populations(one: Shown) -> None:
    """Show a table with the statistics of every population."""
    record, scale = one.record, Scale.of(one.record)
    name = record.generator.name
    rows = {other: record.populations[other] for other in populations(record)}
    rows[f"generated: {name}"] = record.generated
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
    kappas = [population.similarity.kappa for population in rows.values()]
    table["kappa"] = [kappa.nearest if kappa else None for kappa in kappas]
    number = st.column_config.NumberColumn
    st.subheader("Populations")
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        placeholder="-",
        column_config={part: number(format=printf(scale)) for part in POPULATION}
        | dict.fromkeys(("nearest", "kappa"), number(format="%.3f"))
        | {f"mean {printable(name)}": number(format="%.4g") for name in record.original.further},
    )
    st.caption(
        f"nearest: mean {record.task.compared.likeness} with the nearest original; of an original, with the nearest "
        "other one. kappa: the same by agreement of errors beyond chance."
    )


def show_judgements(one: Shown) -> None:
    """Show what the models of every population are made of, and their other numbers beside the reference."""
    figure = plots.composition(one)
    if figure is None:
        return
    st.subheader("Made of")
    st.plotly_chart(figure, key="composition")
    st.caption(
        "The mixture of trained models that no generator saw (new), of checkpoints (copies), and of controls "
        "(averages, broken) that best reproduces each population. A good board calls the reference new and every "
        "control what it is."
    )
    st.dataframe(judgements(one), hide_index=True, height="content")
    st.caption(
        "left: distance that no such mixture explains, over the reference's own. nearer: models nearer to a "
        "checkpoint than any of the reference, with the exact test's p. score: minus the reference's. variety, Vendi: "
        "over the reference's. outputs, weights: p of two-sample tests against the reference. off span: share of a "
        "model that no combination of checkpoints explains."
    )


def judgements(one: Shown) -> pd.DataFrame:
    """Return a table, as text, of every population's numbers beside the reference."""
    record, scale = one.record, Scale.of(one.record)
    judged = record.judge.against_reference
    rows = []
    for name in (GENERATED, *populations(record)):
        if name not in judged:
            continue
        found, label = judged[name], record.generator.name if name == GENERATED else name
        variety, fidelity = found.variety, found.fidelity
        rows.append(
            {
                "population": printable(label),
                "new, %": NAMED["new"].text(record, name, scale),
                "left": f"{found.composition.residual:z.2f}",
                "nearer": str(found.copying.nearer),
                "p": f"{found.copying.p:.2g}",
                "score": NAMED["quality"].text(record, name, scale),
                "variety": f"{variety.distance.value:.2f}" if variety else UNKNOWN,
                "Vendi": f"{variety.vendi.value:.2f}" if variety else UNKNOWN,
                "outputs": f"{fidelity.outputs:.2g}" if fidelity else UNKNOWN,
                "weights": f"{fidelity.weights:.2g}" if fidelity else UNKNOWN,
                "off span": UNKNOWN
                if found.span_residual is None
                else f"{found.span_residual:.2f}",
            }
        )
    return pd.DataFrame(rows)


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
    record["judge"]["word"] = NAMED["verdict"].text(one.record, GENERATED, Scale.of(one.record))
    st.subheader("Protocol and environment")
    facts = {
        name: record[name]
        for name in (
            "task",
            "zoo",
            "reference",
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
                pd.DataFrame(rows, columns=["field", "value"]),
                hide_index=True,
                height="content" if len(rows) < LONG else "auto",
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
    named = {
        "zoo": artifacts.zoo,
        "generated": artifacts.generated,
        "reference": artifacts.reference,
        "side file": artifacts.side,
    }
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
