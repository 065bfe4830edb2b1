"""Runs in, ranked tables out: pure functions, no widgets, no torch."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from bench.errors import printable
from bench.records.population import Population
from bench.records.record import Record
from leaderboard import ties, variants
from leaderboard.load import BOARD, METRIC, VARIANT
from leaderboard.ties import Outcome

STATISTICS = ("best", "selected", "mean", "median", "worst")
# Columns that a table can be ranked by, and whether a higher number is better; None: as the score.
RANKED: dict[str, bool | None] = {
    **dict.fromkeys(("selected", "mean", "best", "median", "worst"), None),
    "advantage": True,
    "novelty": True,
    "seconds_per_model": False,
    "speedup": True,
    "speedup_amortised": True,
}
NUMBERS = (
    *STATISTICS, "low", "high", "p_best", "nearest_iou", "novelty", "advantage", "advantage_low", "advantage_high",
    "seconds_per_model", "speedup", "speedup_amortised", "break_even",
)  # fmt: skip
COLUMNS = (
    "row", "name", "generator", "kind", "seeds", *NUMBERS, "verdict", "collapsed", "tier", "device", "command", "runs",
)  # fmt: skip
WORDS = {
    "task": "task", "dataset": "data set", "dataset_hash": "data", "arch": "architecture", "layers": "layers",
    "track": "track", "k": "K", "d": "parameters", "zoo_hash": "checkpoints", "samples": "samples",
    "train_size": "training examples", "val_size": "validation examples", "metric": "metric",
    "higher_is_better": "direction", "scoring": "way of scoring", "version": "version of the protocol",
}  # fmt: skip


# Boards --------------------------------------------------------------------------------------------------------------


def boards(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a board: what its records share, how many there are and of how many generators; by task, most records
    first.
    """
    grouped = runs.groupby("board", sort=False)
    found = grouped[[*BOARD, *METRIC]].first()
    found["records"] = grouped.size()
    found["generators"] = grouped["generator"].nunique()
    found = found.assign(fewest=-found["records"])
    order = ["task", "arch", "layers", "track", "fewest", "k", "key"]
    found = found.reset_index().sort_values(order, kind="stable", ignore_index=True)
    return found.drop(columns="fewest")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain mappings."""
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def why_elsewhere(board: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Why two boards are not ranked together, in words."""
    parts = []
    for name, word in WORDS.items():
        mine, theirs = board[name], other[name]
        if mine == theirs:
            continue
        if name in ("dataset_hash", "zoo_hash"):
            parts.append(f"other {word}")
        elif isinstance(theirs, int | np.integer) and not isinstance(theirs, bool):
            parts.append(f"{word} {theirs:,}, not {mine:,}")
        else:
            parts.append(f"{word} {theirs}, not {mine}")
    return "; ".join(parts) or "another key"


# Rows ----------------------------------------------------------------------------------------------------------------


def rows(runs: pd.DataFrame, record: Record) -> pd.DataFrame:
    """One row a generator (seeds pooled), one for the originals and one a control, in no order.

    Args:
        runs: the runs of one board.
        record: one of its records, for the originals and controls that all of them share.

    Returns:
        Columns ``COLUMNS``; ``row`` names the row in an address, ``runs`` has the ids of its records. Scores are in
        the metric's own unit, times in seconds. What is not known, and a single model's interval, is missing.
    """
    named = runs.assign(variant=variants.names(runs))
    found = [
        _generator_row(own.sort_values("seed", kind="stable"))
        for _, own in named.groupby(VARIANT, sort=False)
    ]
    tested = [row for row in found if not np.isnan(row["p_best"])]
    for row, p in zip(tested, holm([row["p_best"] for row in tested]), strict=True):
        row["p_best"] = p
    found += _control_rows(record)
    types = dict.fromkeys(NUMBERS, "float64") | {"seeds": "Int64"}
    return pd.DataFrame(found, columns=list(COLUMNS)).astype(types)


def row_names(runs: pd.DataFrame) -> list[str]:
    """For every run the name of its row in an address: a hash of what its seeds share."""
    variants = runs[VARIANT].astype(str).agg("\n".join, axis=1)
    return [hashlib.sha256(variant.encode()).hexdigest()[:10] for variant in variants]


def controls_agree(runs: pd.DataFrame) -> bool:
    """Whether the runs of one board hold the same scores of originals and controls."""
    return bool(runs["controls"].nunique() <= 1)


def holm(values: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected by Holm's step-down method: any below 0.05 holds beside all others.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    ascending = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    steps = np.maximum.accumulate(np.asarray(values)[ascending] * factors)
    adjusted = np.empty(len(values))
    adjusted[ascending] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


def _generator_row(own: pd.DataFrame) -> dict[str, Any]:
    """One generator's seeds as one row: means over seeds."""
    first = own.iloc[0]
    row = row_names(own.head(1))[0]
    scores = {name: _mean(own[f"generated_{name}"]) for name in STATISTICS}
    low, high = _mean(own["generated_low"]), _mean(own["generated_high"])
    if len(own) > 1:
        low, high = _student(own["generated_mean"])
    tiers = own["tier"].unique()
    return {
        "row": row,
        "name": first["generator"],
        "generator": first["variant"],
        "kind": "generator",
        "seeds": len(own),
        **scores,
        "low": low,
        "high": high,
        "p_best": own["p_best"].max() if own["p_best"].notna().all() else np.nan,
        "nearest_iou": _mean(own["og_max"]),
        "novelty": _mean(own["median_novelty"]),
        "advantage": _mean(own["advantage"]),
        "advantage_low": _mean(own["advantage_low"]),
        "advantage_high": _mean(own["advantage_high"]),
        "seconds_per_model": _mean(own["sample_per_model_s"]),
        "speedup": _mean(own["speedup"]),
        "speedup_amortised": _mean(own["speedup_amortised"]),
        "break_even": _mean(own["break_even"]),
        "verdict": _counted(own["verdict"].tolist()),
        "collapsed": _counted(
            [None if f is None else "yes" if f else "no" for f in own["collapsed"]]
        ),
        "tier": tiers[0] if len(tiers) == 1 else _counted(own["tier"].tolist()),
        "device": first["device"],
        "command": "\n".join(own["command"]),
        "runs": own["id"].tolist(),
    }


def _control_rows(record: Record) -> list[dict[str, Any]]:
    """The originals and every control."""
    found = [_control_row("original", "original", record.original)]
    for name, population in record.controls.items():
        nearest = population.similarity.nearest
        row = _control_row(printable(name), "control", population)
        found.append({**row, "nearest_iou": nearest.value if nearest else None})
    return found


def control_row_name(name: str) -> str:
    """What a control's row is called in an address."""
    return printable(name).replace(" ", "-")


def _control_row(name: str, kind: str, population: Population) -> dict[str, Any]:
    several = population.n > 1
    return {
        "row": control_row_name(name),
        "name": population.name,
        "generator": name,
        "kind": kind,
        **{statistic: getattr(population, statistic) for statistic in STATISTICS},
        "low": population.low if several else None,
        "high": population.high if several else None,
        "runs": [],
    }


def _student(values: "pd.Series[float]") -> tuple[float, float]:
    """95 % interval of the mean of a few values, by Student's t."""
    count = len(values)
    half = float(stdtrit(count - 1, 0.975)) * float(values.std(ddof=1)) / count**0.5
    return float(values.mean()) - half, float(values.mean()) + half


def _mean(values: "pd.Series[float]") -> float:
    """The mean, or nothing where one of the values is unknown: a mean of the rest would flatter."""
    return float(values.mean(skipna=False))


def _counted(words: Sequence[str | None]) -> str | None:
    """The word; how many of the seeds got which where they differ; nothing where one has none."""
    known = Counter(word for word in words if isinstance(word, str))
    if known.total() < len(words) or not known:
        return None
    if len(known) == 1:
        return next(iter(known))
    return ", ".join(f"{word} {count} of {len(words)}" for word, count in known.most_common())


# Ranks ---------------------------------------------------------------------------------------------------------------


def outcomes(
    record: Record, arrays: Mapping[str, NDArray[Any]], statistic: str, names: Sequence[str]
) -> dict[str, Outcome]:
    """What the tie test needs of some populations of a record.

    Args:
        record: the record.
        arrays: of its side file, or nothing.
        statistic: one of ``ties.TESTED``.
        names: "generated", "original" or controls.
    """
    found = {}
    for name in names:
        population = record.populations[name]
        right = _right(record, arrays, statistic, name)
        total = int(arrays["units"][1]) if right is not None else 1
        found[name] = Outcome(getattr(population, statistic), population.values, right, total)
    return found


def _right(
    record: Record, arrays: Mapping[str, NDArray[Any]], statistic: str, name: str
) -> NDArray[Any] | None:
    """Share of the statistic's models that get each unit right, where the score is a mean over units."""
    stored = arrays.get(f"right_{statistic}.{name}")
    if not record.task.metric.mean_over_units or stored is None or "units" not in arrays:
        return None
    count = int(arrays["units"][0])
    shares = stored / 255 if statistic == "mean" else np.unpackbits(stored, count=count)
    return shares.astype(np.float64) if len(shares) == count else None


def ranked(
    table: pd.DataFrame, by: str, higher_is_better: bool, drawn: Mapping[str, Any]
) -> pd.DataFrame:
    """The table with its ``rank``, best first; ties have the same rank. Rows without the number come last, unranked.

    Args:
        table: of ``rows``.
        by: a column of ``RANKED``.
        higher_is_better: of the score.
        drawn: replicates of ``by`` by row, from ``ties.draws``; none where it cannot be drawn again.
    """
    direction = RANKED[by]
    higher = higher_is_better if direction is None else direction
    known = table[table[by].notna()]
    values = {str(row): float(value) for row, value in zip(known["row"], known[by], strict=True)}
    places = ties.ranks(values, drawn, higher_is_better=higher)
    found = table.assign(rank=pd.array([places.get(row) for row in table["row"]], dtype="Int64"))
    found = found.assign(order=-found[by] if higher else found[by])
    found = found.sort_values(["rank", "order", "row"], na_position="last", ignore_index=True)
    return found.drop(columns="order")
