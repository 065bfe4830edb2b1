"""The table of one board: rows and their order, from the table of runs. Pure functions, no widgets, no torch."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from bench.errors import printable
from bench.records.record import Record
from leaderboard import expected, variants
from leaderboard.columns import FIELDS, NAMED, ORIGINAL, RANKED, REFERENCE, Field, populations
from leaderboard.load import VARIANT

NAMES = ("row", "name", "generator", "kind", *(field.name for field in FIELDS), "command", "runs")
CONTROL_RUN = "control run"  # kind of a control that was run as a generator, and stands beside every other one too
TYPES = {field.name: field.dtype for field in FIELDS if field.dtype != "object"}


def rows(runs: pd.DataFrame, record: Record) -> pd.DataFrame:
    """Return the rows of a board in no order: one a generator (seeds pooled), for originals, the reference, a control.

    Args:
        runs: the runs of one board.
        record: one of its records, for the originals, reference and controls that all of them share.

    Returns:
        Columns ``NAMES``: ``row`` is the row's name in a page's address, ``name`` the generator's without its settings,
        ``runs`` the ids of its records. Scores are in the metric's own unit, times in seconds. Unknown values, and the
        interval of a single model, are missing.
    """
    named = runs.assign(variant=variants.names(runs))
    groups = named.groupby(VARIANT, sort=False)
    generators = [_generator_row(group.sort_values("seed", kind="stable")) for _, group in groups]
    for field in FIELDS:
        _correct_for_multiple_tests(generators, field)
    return pd.DataFrame([*generators, *_control_rows(record)], columns=list(NAMES)).astype(TYPES)


def row_names(runs: pd.DataFrame) -> list[str]:
    """Return the row name of every run in a page's address: a hash of the facts that the row's seeds share."""
    variants = runs[VARIANT].astype(str).agg("\n".join, axis=1)
    return [hashlib.sha256(variant.encode()).hexdigest()[:10] for variant in variants]


def control_row_name(name: str) -> str:
    """Return the row name of a control in a page's address."""
    return printable(name).replace(" ", "-")


def controls_agree(runs: pd.DataFrame) -> bool:
    """Return whether all runs of a board have the same scores of originals and controls."""
    return bool(runs["controls"].nunique() <= 1)


def _generator_row(runs: pd.DataFrame) -> dict[str, Any]:
    """Return the row of one generator, from its runs with different seeds."""
    first = runs.iloc[0]
    return {
        "row": row_names(runs.head(1))[0],
        "name": first["generator"],
        "generator": first["variant"],
        "kind": CONTROL_RUN if first["is_control"] else "generator",
        **{field.name: field.pool(runs, field.name) for field in FIELDS},
        "command": "\n".join(runs["command"]),
        "runs": runs["id"].tolist(),
    }


def _correct_for_multiple_tests(generators: list[dict[str, Any]], field: Field) -> None:
    """Correct a field of all rows for multiple testing, if the field declares how."""
    if field.across is None:
        return
    known = [row for row in generators if pd.notna(row[field.name])]
    for row, value in zip(known, field.across([row[field.name] for row in known]), strict=True):
        row[field.name] = value


def _control_rows(record: Record) -> Iterator[dict[str, Any]]:
    """Yield the rows of the originals, of the reference, and of every control."""
    for name in populations(record):
        yield {
            "row": control_row_name(name),
            "name": printable(record.populations[name].name),
            "generator": printable(name),
            "kind": name if name in (ORIGINAL, REFERENCE) else "control",
            **{field.name: field.read(record, name) for field in FIELDS},
            "runs": [],
        }


# Order ---------------------------------------------------------------------------------------------------------------


def at_draws(
    table: pd.DataFrame, values: Mapping[str, Mapping[str, float | None]], drawn: int
) -> pd.DataFrame:
    """Return the table with statistics that depend on the number of models as expected values of some draws.

    Args:
        table: table of ``rows``.
        values: the expected values by ``expected.DRAWN`` and row; what is not there becomes missing.
        drawn: the number of draws, which becomes the column ``draws``.
    """
    changed: dict[str, Any] = {
        name: [values.get(name, {}).get(row) for row in table["row"]] for name in expected.DRAWN
    }
    found = table.assign(**changed, draws=drawn)
    return found.astype(dict.fromkeys(expected.DRAWN, "float64"))


def ordered(
    table: pd.DataFrame, by: str, higher_is_better: bool, groups: Mapping[str, str]
) -> pd.DataFrame:
    """Return the table with the column ``group``, the best value first and rows without a value last.

    Args:
        table: table of ``rows``.
        by: name of a column in ``RANKED``.
        higher_is_better: whether a higher score is better.
        groups: group by row, of those that have one.
    """
    field = NAMED[by].names[0]
    higher = higher_is_better if RANKED[by] == "score" else RANKED[by] == "higher"
    found = table.assign(group=table["row"].map(groups.get))
    found = found.assign(order=-found[field] if higher else found[field])
    found = found.sort_values(["order", "row"], na_position="last", ignore_index=True)
    return found.drop(columns="order")


def good_first(
    table: pd.DataFrame, least: str, sign: float, groups: Mapping[str, str]
) -> pd.DataFrame:
    """Return a sorted table with the rows behind that are worse than another row, which are marked in ``worse``.

    A row of the same group is as good: the two cannot be told apart.

    Args:
        table: table of ``ordered``.
        least: name of the row that is just good enough; if it is not there, every row is.
        sign: 1 where a higher score is better, otherwise -1.
        groups: groups by the mean, of the rows that have one.
    """
    means = sign * table["mean"]
    enough = means[table["row"] == least]
    if enough.empty:
        return table.assign(worse=False)
    alike = table["row"].map(lambda row: row in groups and groups[row] == groups.get(least))
    worse = ~(means >= enough.iloc[0]) & ~alike
    return table.assign(worse=worse).sort_values("worse", kind="stable", ignore_index=True)
