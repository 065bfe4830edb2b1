"""A board's table in the form that the page and its exports show. Pure functions, no widgets, no torch."""

from collections import Counter
from collections.abc import Mapping

import pandas as pd

from bench.records.scale import Scale
from leaderboard import expected
from leaderboard.columns import COLUMNS, FIXED, NAMED, ONE_FIT, Column
from leaderboard.formats import DIFFERENCE, UNKNOWN
from leaderboard.outcomes import Compared
from leaderboard.zoos import INTERVAL


def texts(ranked: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """Return a table as text, with one column for each ``Column``."""
    found = pd.DataFrame({one.name: _cells(ranked, one, scale) for one in (*FIXED, *COLUMNS)})
    found.loc[_one_fit(ranked), "group"] += ONE_FIT
    return found


def _one_fit(ranked: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows have a group that holds for one fit of the generator alone."""
    return (
        (ranked["kind"] == "generator")
        & (ranked["seeds"] == 1).fillna(False)
        & ranked["group"].notna()
    )


def _cells(ranked: pd.DataFrame, column: Column, scale: Scale) -> list[str]:
    values = zip(*(ranked[name] for name in column.names), strict=True)
    return [column.format.text(scale, *row) for row in values]


def labelled(shown: pd.DataFrame) -> pd.DataFrame:
    """Return a table of ``texts`` with the columns' labels as headings."""
    return shown.rename(columns={name: column.label for name, column in NAMED.items()})


def notes(by: str, ranked: pd.DataFrame, compared: Compared, problem: str) -> list[str]:
    """Return the sentences below a table that say how to read its groups.

    Args:
        by: name of the column that rows are sorted by.
        ranked: the table.
        compared: what its groups and expected values come from.
        problem: what could not be read, or empty.
    """
    return [
        _on_draws(compared.drawn),
        *_on_groups(by, ranked, compared),
        *([f"{problem}."] if problem else []),
    ]


def _on_draws(drawn: int) -> str:
    every = "The page of a run has those of all its models."
    if drawn == 1:
        return (
            "Best, Selected, Median and Worst are those of one draw, and so the mean: some population has too few "
            f"models for more. {every}"
        )
    return (
        f"Best, Selected, Median and Worst are expected values of {drawn} models drawn from each population, so that "
        f"many models are not ahead of few by their number. {every}"
    )


def _on_groups(by: str, ranked: pd.DataFrame, compared: Compared) -> list[str]:
    if by not in expected.STATISTICS:
        return [
            f"There is no test for this column: rows are sorted by {NAMED[by].label}, and have no groups."
        ]
    found = []
    if compared.groups:
        found.append(
            "A row cannot be told apart from the first of its group: pairs are tested over the same validation units, "
            "over seeds and over models, all pairs together (Holm, 5 % for the whole board). A letter that is "
            "missing is "
            "that of a row which is not shown."
        )
    if _one_fit(ranked).any():
        found.append(
            f"Groups with {ONE_FIT} are of one fit of the generator, since there is one seed: another fit may stand "
            "elsewhere."
        )
    for reason, count in Counter(compared.untested.values()).items():
        several = f"{count} row{'s' * (count > 1)} without a group"
        rows = several if compared.groups else "No row has a group"
        found.append(f"{rows}: {reason}.")
    return found


def over_zoos(
    found: Mapping[str, pd.DataFrame], names: Mapping[str, str], scale: Scale
) -> pd.DataFrame:
    """Return a table, as text, of rows over several zoos.

    Args:
        found: table of ``zoos.pooled`` by statistic; the first one's order holds.
        names: names of generators by row; other rows are called as they are.
        scale: scale of the boards' scores.
    """
    first = next(iter(found.values()))
    shown = {
        "Generator": [names.get(row, row) for row in first.index],
        "Zoos": first["zoos"].map(str),
    }
    for statistic, table in found.items():
        shown[NAMED[statistic].label] = [
            _over_zoos(scale, *row) for row in table.reindex(first.index)[[*INTERVAL]].to_numpy()
        ]
    return pd.DataFrame(shown)


def _over_zoos(scale: Scale, difference: float, low: float, high: float) -> str:
    """Return a difference with its interval as text, without one where it is of a single zoo."""
    if pd.isna(low):
        return UNKNOWN if pd.isna(difference) else scale.difference(difference)
    return DIFFERENCE.text(scale, difference, low, high)
