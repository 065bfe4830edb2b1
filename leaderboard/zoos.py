"""Boards over several zoos: those that differ in nothing but the zoo's seed, pooled. Pure functions, no widgets.

A board is of one zoo, and its groups say nothing about another: between zoos the same generator's scores move by more
than chance within one. Here the zoo is the unit of replication (a random effect): each gives one difference between a
row and its originals, and the interval of their mean is Student's, over zoos.
"""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bench.records import student
from leaderboard import facts, outcomes, table, variants
from leaderboard.columns import ORIGINAL
from leaderboard.outcomes import Rows

OF_ZOO = ("key", "zoo_hash")  # facts of a board that follow from the zoo's seed
SAME = [*(fact.name for fact in facts.BOARD if fact.name not in OF_ZOO), "settings"]
Values = Mapping[str, float]  # by row
INTERVAL = ("difference", "low", "high")


def siblings(runs: pd.DataFrame, board: str) -> list[str]:
    """Return a board and those that differ from it in nothing but the zoo's seed, one a seed, in the order of seeds.

    A zoo whose seed is not known is by itself. Of several boards of one seed, as of zoos that were collected on
    several devices, the one with most records counts.

    Args:
        runs: the table of all runs.
        board: name of the board.
    """
    boards = runs.drop_duplicates("board").set_index(
        "board"
    )  # few rows: the page does this again and again
    own = boards.loc[board]
    if pd.isna(own["zoo_seed"]):
        return [board]
    same = boards[(boards[SAME] == own[SAME]).all(axis=1) & boards["zoo_seed"].notna()]
    same = same.assign(records=runs["board"].value_counts())
    others = same[same["zoo_seed"] != own["zoo_seed"]].sort_values(
        "records", ascending=False, kind="stable"
    )
    every = pd.concat([same.loc[[board]], others.drop_duplicates("zoo_seed")]).sort_values(
        "zoo_seed"
    )
    return [str(name) for name in every.index]


def other_sizes(runs: pd.DataFrame, run: str) -> pd.DataFrame:
    """Return the runs that differ from one in K, seed and generator alone: no ablations, and no controls.

    What was asked for says which runs those are, not hyperparameters: an older record lacks those that came later, and
    had their defaults.

    Args:
        runs: the table of all runs.
        run: id of the record.
    """
    own = runs[runs["id"] == run].iloc[0]
    varies = {"key", "k", "zoo_hash", "version"}
    same = [*(fact.name for fact in facts.BOARD if fact.name not in varies), "device", "settings"]
    alike = runs[(runs[same] == own[same]).all(axis=1)]
    plain = alike["changes"].map(lambda text: not json.loads(text)["generator_settings"])
    return alike[plain & ~alike["is_control"]]


def above_originals(zoos: Sequence[Rows], statistic: str) -> list[dict[str, float]]:
    """Return for each zoo how much better than its originals' every row's statistic is; above 0 is better.

    Args:
        zoos: the populations of the rows of each board, from ``outcomes.rows_of``.
        statistic: one of ``expected.STATISTICS``; expected values are of as many draws as all the boards allow.
    """
    drawn = min(map(outcomes.draws, zoos))
    found = []
    for rows in zoos:
        values = {name: outcomes.value(seeds, statistic, drawn) for name, seeds in rows.items()}
        originals = values.pop(table.control_row_name(ORIGINAL))
        sign = next(iter(rows.values()))[0].record.task.metric.sign
        known = {name: one for name, one in values.items() if one is not None}
        found.append(
            {} if originals is None else {n: sign * (v - originals) for n, v in known.items()}
        )
    return found


def pooled(zoos: Sequence[Values]) -> pd.DataFrame:
    """Return the mean over zoos of every row's value, with Student's 95 % interval over zoos, the best first.

    Args:
        zoos: the values of each zoo.

    Returns:
        A table by row: ``difference``, ``low``, ``high``, and ``zoos``, the number of zoos that have the row. The
        interval of a single zoo is missing.
    """
    names = dict.fromkeys(name for values in zoos for name in values)
    rows = [_interval([values[name] for values in zoos if name in values]) for name in names]
    found = pd.DataFrame(rows, columns=[*INTERVAL, "zoos"], index=pd.Index(names, name="row"))
    return found.sort_values("difference", ascending=False, kind="stable")


def _interval(values: Sequence[float]) -> tuple[float, float, float, int]:
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan, math.nan, 1
    half = student.half_width(float(np.std(values, ddof=1)), len(values))
    return mean, mean - half, mean + half, len(values)


def names(boards: Sequence[pd.DataFrame]) -> dict[str, str]:
    """Return the names of the generators of some boards by row; those of the first board where they differ.

    Args:
        boards: the runs of each.
    """
    found: dict[str, str] = {}
    for runs in boards:
        for row, name in zip(table.row_names(runs), variants.names(runs), strict=True):
            found.setdefault(row, str(name))
    return found
