"""Outcomes of validation units from records and their side files, for the test of ties. No widgets, no torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.records.record import Record
from leaderboard import ties
from leaderboard.columns import GENERATED, populations
from leaderboard.opened import Shown
from leaderboard.table import control_row_name
from leaderboard.ties import Outcome


def outcomes(
    record: Record, arrays: Mapping[str, NDArray[Any]], statistic: str, names: Sequence[str]
) -> dict[str, Outcome]:
    """Return the outcomes of some populations of a record, by name.

    Args:
        record: the record.
        arrays: arrays of its side file; empty where there is none.
        statistic: one of ``ties.TESTED``.
        names: names of the populations.
    """
    found = {}
    for name in names:
        scores = record.populations[name]
        right = _right(record, arrays, statistic, name)
        total = int(arrays["units"][1]) if right is not None else 1
        found[name] = Outcome(getattr(scores, statistic), scores.values, right, total)
    return found


def _right(
    record: Record, arrays: Mapping[str, NDArray[Any]], statistic: str, name: str
) -> NDArray[Any] | None:
    """Return for each kept validation unit the share of models that get it right; None where it is unknown.

    For the statistic "mean" these are all models of the population, otherwise the one that the statistic names. It is
    known where the score is a mean over units and the side file keeps their outcomes.
    """
    stored = arrays.get(f"right_{statistic}.{name}")
    if not record.task.metric.mean_over_units or stored is None or "units" not in arrays:
        return None
    count = int(arrays["units"][0])
    shares = stored / 255 if statistic == "mean" else np.unpackbits(stored, count=count)
    return shares.astype(np.float64) if len(shares) == count else None


def replicates(
    runs: Sequence[tuple[str, Shown]], newest: str, statistic: str, seed: int
) -> dict[str, NDArray[Any]]:
    """Return bootstrap replicates of the ranked value by row; rows that cannot be paired with the others are left out.

    Args:
        runs: name of the row and record of every run of a board.
        newest: id of the record that originals and controls are taken from.
        statistic: one of ``ties.TESTED``.
        seed: seed of the bootstrap.
    """
    found: dict[str, list[Outcome]] = {}
    unpaired = set()
    for row, shown in runs:
        record, names = shown.record, [GENERATED]
        if record.id == newest:
            names += populations(record)
        for name, outcome in outcomes(record, shown.side, statistic, names).items():
            name_of_row = row if name == GENERATED else control_row_name(name)
            found.setdefault(name_of_row, []).append(outcome)
            if outcome.right is None and record.task.metric.mean_over_units:
                unpaired.add(name_of_row)
    for name in unpaired:
        del found[name]
    higher = all(shown.record.task.metric.higher_is_better for _, shown in runs)
    return ties.draws(found, statistic, higher_is_better=higher, seed=seed)
