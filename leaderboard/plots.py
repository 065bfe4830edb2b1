"""Figures of runs: pure functions that make plotly figures from records and side files, no widgets.

Backgrounds are transparent, so that a figure suits a light and a dark page.
"""

import hashlib
import html
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from bench.errors import printable
from bench.records.judged import KINDS
from bench.records.population import Likeness, Population
from bench.records.record import Record
from bench.records.scale import Scale
from bench.records.side import MODELS, evenly
from bench.records.speed import Cost
from leaderboard.columns import GENERATED, ORIGINAL, REFERENCE, populations
from leaderboard.opened import Shown

Array = NDArray[Any]

# Colours that the colour-blind can distinguish (after Okabe and Ito, 2008), visible on light and on dark pages.
COLOURS = {
    "pdiff": "#3b82f6",
    "vae": "#e69f00",
    "flow": "#6a51c9",
    "rpg": "#0f9fb5",
    "weight_transformer": "#d6336c",
    "sane": "#84cc16",
    "average": "#009e73",
    "noise": "#b07aa1",
    "copy": "#8c6d5a",
    "interpolation": "#56b4e9",
    "gaussian": "#d55e00",
    "finetune": "#a3a500",
    "greedy_soup": "#cc79a7",
    "full_gaussian": "#a34700",
    "low_rank_gaussian": "#e58a4e",
    "mean_of_two": "#2f7fb0",
    "step": "#7fb2d0",
    "shuffled": "#b23a48",
    "reference": "#1b9e4b",
    "original": "#858c99",
    "random": "#c4c9d1",
}
# Colours of other generators, by a hash of the name.
OTHERS = ("#7c5cd6", "#0f9d9d", "#d6457a", "#5c8a1e", "#b8860b", "#4059ad")
HEIGHT = 420  # of a figure, in pixels
# Colours of what models are made of.
MADE_OF = {"new": "#009e73", "copies": "#e69f00", "averages": "#56b4e9", "broken": "#858c99"}


def colour(name: str) -> str:
    """Return the colour of a generator or control, the same on every page; that of an aligned twin is the control's."""
    name = name.removeprefix("aligned ").partition(" ")[0]
    choice = hashlib.sha256(name.encode(errors="replace")).digest()[0] % len(OTHERS)
    return COLOURS.get(name, OTHERS[choice])


def _text(text: str) -> str:
    """Return a record's text with the special characters of plotly's markup escaped."""
    return html.escape(printable(text))


def _factor(record: Record) -> float:
    return Scale.of(record).factor


def _metric(record: Record) -> str:
    unit = ", %" if Scale.of(record).percent else ""
    return _text(record.task.metric.name) + unit


def duration(value: float) -> str:
    """Return a time, given in seconds, as text in ms or s.

    >>> duration(0.0004), duration(75.2)
    ('0.4 ms', '75 s')
    """
    return (
        f"{1000 * value:.2g} ms"
        if value < 0.1
        else f"{value:.2g} s"
        if value < 10
        else f"{value:,.0f} s"
    )


def _layout(figure: go.Figure, x: str, y: str, **fields: Any) -> go.Figure:
    figure.update_layout(
        height=HEIGHT,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "yanchor": "top", "y": -0.18, "x": 0},
        hovermode="closest",
    )
    figure.update_xaxes(title=x, automargin=True)
    figure.update_yaxes(title=y, automargin=True)
    return figure.update_layout(**fields)


def _label(shown: Shown, several: bool) -> str:
    return _text(shown.label if several else shown.record.generator.name)


def _colours(shown: Sequence[Shown]) -> list[str]:
    """Return a colour for each run: its generator's, or the next free one if another run has that."""
    taken: list[str] = []
    for one in shown:
        own = colour(one.record.generator.name)
        free = [c for c in (own, *OTHERS, *COLOURS.values()) if c not in taken]
        taken.append(free[0])
    return taken


# Compare -------------------------------------------------------------------------------------------------------------


def score_against_similarity(shown: Sequence[Shown]) -> go.Figure:
    """Draw every model's score against its similarity to the nearest original (the paper's Fig. 4b).

    Noise-added originals are a curve, one point an amplitude. Originals, reference and controls are those of the first
    run.
    """
    figure = go.Figure()
    first, several = shown[0], len(shown) > 1
    for name in (ORIGINAL, REFERENCE):
        own_models = first.record.populations.get(name)
        if own_models:
            _cloud(figure, first, name, own_models, colour(name), name)
    for name in ("finetune", "interpolation", "gaussian", "average", "greedy_soup"):
        control = first.record.controls.get(name)
        if control:
            _cloud(figure, first, name, control, colour(name), name, symbol="diamond", hidden=True)
    _noise_curve(figure, first)
    for one, own in zip(shown, _colours(shown), strict=True):
        scores = one.record.generated
        _cloud(figure, one, "generated", scores, own, _label(one, several), size=8)
    alike = f"{first.record.task.compared.likeness} with the nearest original"
    figure = _layout(figure, alike, _metric(first.record))
    return _zoom(figure, first.record.task.metric.higher_is_better)


def _zoom(figure: go.Figure, higher_is_better: bool) -> go.Figure:
    """Fit the axes to the visible models; the noise curve and a few bad models may lie outside."""
    clouds = [t for t in figure.data if t.mode == "markers" and t.visible is True]
    if not clouds:
        return figure
    for axis, name, sign in (("xaxis", "x", 1), ("yaxis", "y", 1 if higher_is_better else -1)):
        values = sign * np.concatenate([trace[name] for trace in clouds])
        low, high = np.quantile(values, 0.005), values.max()
        pad = 0.3 * (high - low) + 1e-3 * abs(high)
        figure.layout[axis].range = sorted([sign * (low - pad), sign * (high + pad / 3)])
    return figure


def _cloud(
    figure: go.Figure,
    shown: Shown,
    name: str,
    population: Population,
    own: str,
    label: str,
    *,
    symbol: str = "circle",
    size: int = 6,
    hidden: bool = False,
) -> None:
    nearest = shown.side.get(f"nearest.{name}")
    if nearest is None:
        return
    values = np.asarray(population.values)[evenly(population.n, MODELS)]
    if len(values) != len(nearest):
        return
    figure.add_scatter(
        x=nearest.astype(float),
        y=_factor(shown.record) * values,
        mode="markers",
        name=label,
        marker={"color": own, "size": size, "symbol": symbol, "opacity": 0.65},
        visible="legendonly" if hidden else True,
        hovertemplate=f"{label}<br>similarity %{{x:.3f}}<br>score %{{y:.4g}}<extra></extra>",
    )


def _noise_curve(figure: go.Figure, shown: Shown) -> None:
    levels = [one for one in shown.record.controls.values() if one.name == "noise"]
    known = [(near.value, one) for one in levels if (near := one.similarity.nearest)]
    figure.add_scatter(
        x=[near for near, _ in known],
        y=[_factor(shown.record) * level.mean for _, level in known],
        mode="lines+markers",
        name="original + noise (means)",
        text=[f"{level.amplitude:g}" for _, level in known],
        line={"color": colour("noise"), "width": 2},
        hovertemplate="noise %{text}<br>similarity %{x:.3f}<br>mean %{y:.4g}<extra></extra>",
    )


def distributions(shown: Sequence[Shown]) -> go.Figure:
    """Draw the scores of all models: on validation and, where known, on training data (the paper's Fig. 6a)."""
    figure = go.Figure()
    first, several = shown[0], len(shown) > 1
    others = first.record.populations
    groups = [
        (name, first, name, others[name], colour(name))
        for name in (ORIGINAL, REFERENCE)
        if name in others
    ]
    for one, own in zip(shown, _colours(shown), strict=True):
        groups.append((_label(one, several), one, "generated", one.record.generated, own))
    groups += [
        (name, first, name, others[name], colour(name))
        for name in ("interpolation", "gaussian", "finetune")
        if name in others
    ]
    for label, one, name, population, own in groups:
        train = one.side.get(f"train.{name}")
        pairs = [("validation", np.asarray(population.values))]
        pairs += [("training", train.astype(float))] if train is not None else []
        for split, values in pairs:
            figure.add_box(
                x=[f"{label}<br>{split}"] * len(values),
                y=_factor(one.record) * values,
                name=label,
                legendgroup=label,
                showlegend=False,
                boxpoints="all" if len(values) <= 200 else "outliers",
                jitter=0.5,
                pointpos=0,
                marker={"color": own, "size": 3, "opacity": 0.5 if split == "validation" else 0.25},
                line={"color": own, "width": 1.5},
                fillcolor="rgba(0,0,0,0)",
            )
    return _layout(figure, "", _metric(first.record))


# Against the reference -----------------------------------------------------------------------------------------------


def composition(shown: Shown) -> go.Figure | None:
    """Draw what the models of every population are made of, as bars of shares; return None without a reference."""
    judged = shown.record.judge.against_reference
    names = [name for name in (GENERATED, *populations(shown.record)) if name in judged]
    if not names:
        return None
    figure = go.Figure()
    for kind in KINDS:
        shares = [getattr(judged[name].composition, kind) for name in names]
        figure.add_bar(
            y=[_text(shown.record.generator.name if n == GENERATED else n) for n in names],
            x=[100 * share.value for share in shares],
            customdata=[[100 * share.low, 100 * share.high] for share in shares],
            orientation="h",
            name=kind,
            marker={"color": MADE_OF[kind]},
            hovertemplate=f"%{{y}}: %{{x:.0f}} % {kind} (95 %: %{{customdata[0]:.0f}} to %{{customdata[1]:.0f}})"
            "<extra></extra>",
        )
    figure = _layout(figure, "share of the models, %", "", barmode="stack")
    figure.update_layout(height=120 + 22 * len(names), bargap=0.25)
    figure.update_layout(legend={"traceorder": "normal", "yanchor": "bottom", "y": 1.0})
    figure.update_xaxes(range=[0, 100])
    return figure.update_yaxes(autorange="reversed", dtick=1)


# Similarity ----------------------------------------------------------------------------------------------------------

PAIRS: dict[str, Callable[[Record], Likeness | None]] = {
    "original<br>original": lambda record: record.original.similarity.within,
    "generated<br>generated": lambda record: record.generated.similarity.within,
    "original<br>generated": lambda record: record.generated.similarity.originals,
    "original<br>original,<br>nearest other": lambda record: record.original.similarity.nearest,
    "original<br>generated,<br>nearest": lambda record: record.generated.similarity.nearest,
}


def four_comparisons(shown: Sequence[Shown]) -> go.Figure:
    """Draw the paper's four mean similarities as dots with their 95 % intervals (the paper's Fig. 4a).

    Before the nearest original of generated models stands the nearest other one of the originals themselves.
    """
    figure = go.Figure()
    for one, own in zip(shown, _colours(shown), strict=True):
        found = [(name, value) for name, get in PAIRS.items() if (value := get(one.record))]
        figure.add_scatter(
            x=[value.value for _, value in found],
            y=[name for name, _ in found],
            mode="markers",
            name=_label(one, len(shown) > 1),
            marker={"color": own, "size": 10},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [value.bounds[1] - value.value for _, value in found],
                "arrayminus": [value.value - value.bounds[0] for _, value in found],
                "thickness": 1,
            },
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    alike = f"mean {shown[0].record.task.compared.likeness}"
    figure = _layout(figure, alike, "", showlegend=len(shown) > 1)
    return figure.update_yaxes(autorange="reversed")


def iou_heat_map(shown: Shown) -> go.Figure | None:
    """Draw the similarity of every pair of models, originals first; return None without a side file."""
    matrix, count = shown.side.get("iou"), shown.side.get("iou_originals")
    if matrix is None or count is None:
        return None
    values = matrix.astype(float)
    own = int(count[0])
    names = [f"original {i}" for i in range(own)]
    names += [f"generated {i}" for i in range(len(values) - own)]
    off = values[~np.eye(len(values), dtype=bool)]
    low = (
        min(float(off.min()), 0.99) if off.size else 0.0
    )  # models all alike: a scale must have two ends
    figure = go.Figure(
        go.Heatmap(
            z=values,
            zmin=low,
            zmax=1,
            colorscale="Viridis",
            customdata=[[f"{a}, {b}" for b in names] for a in names],
            hovertemplate="%{customdata}: %{z:.3f}<extra></extra>",
            colorbar={"title": "similarity", "thickness": 12, "len": 0.7},
        )
    )
    for line in ("add_vline", "add_hline"):
        position = {"x": own - 0.5} if line == "add_vline" else {"y": own - 0.5}
        getattr(figure, line)(**position, line={"color": "white", "width": 1.5})
    ends = [own / 2, own + (len(values) - own) / 2]
    ticks = {"tickvals": ends, "ticktext": ["originals", "generated"], "showgrid": False}
    figure = _layout(figure, "", "", height=520)
    figure.update_xaxes(**ticks, constrain="domain")
    return figure.update_yaxes(
        **ticks, autorange="reversed", scaleanchor="x", constrain="domain", tickangle=-90
    )


def similarity_against_k(runs: pd.DataFrame) -> go.Figure:
    """Draw the similarity to the nearest original against K, the number of checkpoints (the paper's Fig. 5b).

    Args:
        runs: rows of ``leaderboard.load`` that differ in K, seed and generator alone.
    """
    figure = go.Figure()
    for name, own in runs.groupby("generator", sort=True):
        means = own.groupby("k")["nearest_iou"].mean()
        points = {"color": colour(str(name)), "size": 7}
        figure.add_scatter(
            x=means.index,
            y=means,
            mode="lines+markers",
            name=_text(str(name)),
            line={"color": colour(str(name))},
            marker=points,
            hovertemplate="K %{x}: %{y:.3f}<extra></extra>",
        )
        figure.add_scatter(
            x=own["k"],
            y=own["nearest_iou"],
            mode="markers",
            showlegend=False,
            marker=points | {"size": 5, "opacity": 0.5},
            hovertemplate="K %{x}: %{y:.3f}<extra></extra>",
        )
    figure = _layout(figure, "K, checkpoints in the zoo", "mean similarity to the nearest original")
    values = sorted(runs["k"].unique())
    return figure.update_xaxes(type="log", tickvals=values, ticktext=[str(v) for v in values])


def embedding(shown: Shown, kind: str, *, paths: bool = False) -> go.Figure | None:
    """Draw a t-SNE map of parameters or of the generator's latents (the paper's Figs. 4c and 5a); None without data.

    Args:
        shown: the run.
        kind: "map" for parameters, "latent" for latents.
        paths: whether to draw the denoising trajectories too.
    """
    figure = go.Figure()
    own = colour(shown.record.generator.name)
    looks = {
        "original": ("original", colour("original"), "circle"),
        "noise 0.1": ("original + noise 0.1", colour("noise"), "cross"),
        "generated": (_text(shown.record.generator.name), own, "circle"),
    }
    for name, (label, tint, symbol) in looks.items():
        points = shown.side.get(f"{kind}.{name}")
        if points is not None and points.shape[1] == 2:
            figure.add_scatter(
                x=points[:, 0].astype(float),
                y=points[:, 1].astype(float),
                mode="markers",
                name=label,
                marker={"color": tint, "size": 6, "symbol": symbol, "opacity": 0.75},
                hovertemplate=f"{label} %{{pointNumber}}<extra></extra>",
            )
    if not figure.data:
        return None
    lines = shown.side.get("map_path")
    if paths and lines is not None:
        for number, line in enumerate(lines.astype(float)):
            figure.add_scatter(
                x=line[:, 0],
                y=line[:, 1],
                mode="lines+markers",
                name="from noise to a sample",
                legendgroup="path",
                showlegend=number == 0,
                line={"color": own, "width": 1.5},
                marker={"size": np.linspace(3, 9, len(line)), "color": own},
                hovertemplate="step %{pointNumber}<extra></extra>",
            )
    figure = _layout(figure, "", "")
    figure.update_xaxes(showticklabels=False, zeroline=False)
    return figure.update_yaxes(showticklabels=False, zeroline=False)


# Speed ---------------------------------------------------------------------------------------------------------------


def quality_and_cost(shown: Sequence[Shown], models: int) -> go.Figure:
    """Draw mean score against the seconds that some models cost in all, of SGD, generators and controls.

    Generators pay for collecting, fitting, sampling and selecting; controls for collecting the checkpoints alone. The
    frontier is what nothing cheaper beats; broken models are grey, and not on it.

    Args:
        shown: one run of each generator of a board.
        models: how many models are wanted.
    """
    figure, first = go.Figure(), shown[0]
    _sgd_curve(figure, first, models)
    collect_s, sign = first.record.timing.collect_s, first.record.task.metric.sign
    works: list[tuple[float, float]] = []
    for name in COSTED:
        control = first.record.controls.get(name)
        if control and collect_s:
            works.append((collect_s, control.mean))
            _at_cost(figure, first, name, works[-1], colour(name), symbol="diamond-open")
    for one, own in zip(shown, _colours(shown), strict=True):
        seconds, label = Cost.of(one.record).in_all(models), _label(one, len(shown) > 1)
        if seconds is None:
            continue
        point, broken = (seconds, one.record.generated.mean), one.record.judge.word == "broken"
        works += [] if broken else [point]
        tint = colour("random") if broken else own
        _at_cost(
            figure,
            one,
            f"{label} (broken)" if broken else label,
            point,
            tint,
            symbol="x" if broken else "circle",
        )
    line = _frontier(works, sign)
    figure.add_scatter(
        x=[seconds for seconds, _ in line], y=[_factor(first.record) * score for _, score in line], mode="lines",
        name="frontier", hoverinfo="skip", line={"color": colour("original"), "width": 1, "dash": "dot", "shape": "hv"},
    )  # fmt: skip
    figure = _layout(
        figure,
        f"seconds for {models:,} models, everything included",
        f"mean {_metric(first.record)}",
    )
    points = [y for trace in figure.data if trace.mode == "markers" for y in trace.y]
    if points:  # SGD's first steps may lie outside
        low, high = min(points), max(points)
        pad = 0.15 * (high - low) + 0.002 * abs(high)
        figure.update_yaxes(range=[low - pad, high + pad])
    return figure.update_xaxes(type="log", exponentformat="power")


COSTED = (
    "copy",
    "average",
    "greedy_soup",
    "interpolation",
    "gaussian",
)  # controls that need the checkpoints alone


def _sgd_curve(figure: go.Figure, shown: Shown, models: int) -> None:
    """Draw the score of SGD against its time, as often as there are models."""
    curve = shown.side.get("curve")
    if curve is None:
        return
    figure.add_scatter(
        x=models * np.clip(curve[:, 0].astype(float), 1e-3, None), y=_factor(shown.record) * curve[:, 1].astype(float),
        mode="lines", name="SGD, each anew", line={"color": colour("original"), "width": 2},
        hovertemplate="SGD: %{x:.3g} s, %{y:.4g}<extra></extra>",
    )  # fmt: skip


def _at_cost(
    figure: go.Figure,
    shown: Shown,
    label: str,
    point: tuple[float, float],
    tint: str,
    *,
    symbol: str,
) -> None:
    seconds, score = point
    figure.add_scatter(
        x=[max(seconds, 1e-6)], y=[_factor(shown.record) * score], mode="markers", name=label,
        marker={"color": tint, "size": 12, "symbol": symbol},
        hovertemplate=f"{label}: {duration(seconds)}, mean %{{y:.4g}}<extra></extra>",
    )  # fmt: skip


def _frontier(points: Sequence[tuple[float, float]], sign: float) -> list[tuple[float, float]]:
    """Return the points that are better than every cheaper one, cheapest first.

    Args:
        points: seconds and score of each.
        sign: 1 where a higher score is better, otherwise -1.
    """
    found: list[tuple[float, float]] = []
    for seconds, score in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not found or sign * score > sign * found[-1][1]:
            found.append((seconds, score))
    return found


# Parameters ----------------------------------------------------------------------------------------------------------

BANDS = ("original", "generated", "random")


def _bands(shown: Shown) -> list[tuple[str, Array]]:
    found = [(name, shown.side.get(f"weights.{name}")) for name in BANDS]
    return [(name, rows.astype(float)) for name, rows in found if rows is not None]


def parameter_heat_map(shown: Shown) -> go.Figure | None:
    """Draw parameters of some originals, generated models and networks at random initialisation.

    After the paper's Figs. 3 and 6b. Returns None without a side file.
    """
    bands, index = _bands(shown), shown.side.get("weights_index")
    if not bands or index is None:
        return None
    widest = max(float(np.quantile(np.abs(rows), 0.99)) for _, rows in bands) or 1.0
    figure = make_subplots(
        len(bands), 1, shared_xaxes=True, vertical_spacing=0.04,
        row_titles=[name for name, _ in bands],
    )  # fmt: skip
    for row, (name, values) in enumerate(bands, 1):
        figure.add_heatmap(
            z=values,
            x=[str(i) for i in index],
            zmin=-widest,
            zmax=widest,
            colorscale="RdBu",
            showscale=row == 1,
            colorbar={"title": "value", "thickness": 12},
            hovertemplate=f"{name} model %{{y}}, parameter %{{x}}: %{{z:.3g}}<extra></extra>",
            row=row,
            col=1,
        )
    figure = _layout(figure, "", "")
    figure.update_xaxes(showticklabels=False)
    figure.update_xaxes(title=f"{len(index)} of {shown.record.zoo.d:,} parameters", row=len(bands))
    return figure.update_yaxes(showticklabels=False)


def parameter_histogram(shown: Shown) -> go.Figure | None:
    """Draw the distribution of these parameters' values; return None without a side file."""
    bands = _bands(shown)
    if not bands:
        return None
    values = np.concatenate([rows.ravel() for _, rows in bands])
    low, high = np.quantile(values, [0.002, 0.998])
    bins = {"start": low, "end": high, "size": max((high - low) / 60, 1e-9)}
    figure = go.Figure()
    for name, rows in bands:
        tint = colour(shown.record.generator.name if name == "generated" else name)
        figure.add_histogram(
            x=rows.ravel(), name=name, histnorm="probability", xbins=bins, opacity=0.6,
            marker={"color": tint},
        )  # fmt: skip
    return _layout(figure, "parameter value", "share", barmode="overlay")
