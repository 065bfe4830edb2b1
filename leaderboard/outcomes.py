"""Rows of a board as the test of ties takes them, from records and their side files. No widgets, no torch."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.records import side, versions
from bench.records.population import Population
from bench.records.record import Record
from leaderboard import expected, ties
from leaderboard.columns import GENERATED, ORIGINAL, REFERENCE, populations
from leaderboard.opened import Shown
from leaderboard.table import control_row_name
from leaderboard.ties import Part, Row, Units

Floats = NDArray[np.float64]

# From so many samples on every control that draws has several models (a quarter of the samples, or more): one model is
# then all that the control can make.
SEVERAL = 8

# Why a row has no group, as the end of a sentence about such rows.
NO_UNITS = "what other validation examples would change is not kept beside their records"
NO_TRAIN = "their models' scores on the training split are not kept beside their records"
SINGLE = "one model of what is drawn anew each time"
STEPS = f"fewer than {expected.FEWEST_STEPS} steps of one run, which are not independent"


@dataclass(frozen=True)
class Models:
    """One population of one record, with the record's side file."""

    shown: Shown
    name: str

    @property
    def record(self) -> Record:
        """The record."""
        return self.shown.record

    @property
    def population(self) -> Population:
        """The population."""
        return self.record.populations[self.name]

    @property
    def fixed(self) -> bool:
        """Whether it is one model that every draw gives: a zoo's only checkpoint, or a deterministic generator's."""
        if self.population.n > 1 or self.name == REFERENCE:
            return False
        return self.name == ORIGINAL or self.record.protocol.samples >= (
            2 if self.name == GENERATED else SEVERAL
        )

    @property
    def steps(self) -> bool:
        """Whether its models are the steps of one run."""
        return self.name == ORIGINAL and self.record.zoo.track == "trajectory"

    @property
    def independent(self) -> bool:
        """Whether its number of models says how many draws a board can be compared at."""
        few = self.steps and self.population.n < expected.FEWEST_STEPS
        return self.population.n > 1 and not few

    def ordered(self, statistic: str) -> tuple[Floats, Floats] | None:
        """Return the models' scores and what they are sorted by, the highest first; None where that is not known."""
        values, sign = np.asarray(self.population.values), self.record.task.metric.sign
        if statistic != "selected":
            return values, sign * values
        kept, train = (
            side.evenly(len(values), side.MODELS),
            self.shown.side.get(f"train.{self.name}"),
        )
        if train is None or len(train) != len(kept):
            return None
        return values[kept], sign * train.astype(np.float64)

    def value(self, statistic: str, drawn: int) -> float | None:
        """Return the expected statistic of some draws; None where there are too few models, or no training scores."""
        if self.fixed:
            return self.population.values[0]
        ordered = self.ordered(statistic)
        return expected.of(statistic, *ordered, drawn) if ordered else None

    def own(self, statistic: str, drawn: int) -> Part | None:
        """Return the variance of ``value`` over the models that one fit draws; None where it cannot be known."""
        if self.fixed:
            return Part()
        ordered = self.ordered(statistic)
        found = expected.spread(statistic, *ordered, drawn, steps=self.steps) if ordered else None
        return Part(*found) if found else None

    def paired(self, statistic: str) -> Floats | None:
        """Return how the value varies with validation units, see ``Row.paired``; None where that is not kept."""
        if self.record.task.metric.mean_over_units:
            return right(self.shown.side, statistic, self.name)
        found = self.shown.side.get(f"resampled_{statistic}.{self.name}")
        return None if found is None else found.astype(np.float64)


def right(arrays: Mapping[str, NDArray[Any]], statistic: str, name: str) -> Floats | None:
    """Return for each kept validation unit the share of models that get it right; None where it is unknown.

    For the statistic "mean" these are all models of the population, otherwise the one that the statistic names. That
    model stands for those that the expected value of several draws is of: one model's outcomes vary at least as much
    as the mean of several.
    """
    stored = arrays.get(f"right_{statistic}.{name}")
    if stored is None or "units" not in arrays:
        return None
    count = int(arrays["units"][0])
    shares = stored / 255 if statistic == "mean" else np.unpackbits(stored, count=count)
    return shares.astype(np.float64) if len(shares) == count else None


@dataclass(frozen=True)
class Compared:
    """The rows of a board beside each other.

    Attributes:
        drawn: number of draws that ``expected.DRAWN`` are the expected values of.
        values: these values, by statistic and row; None where one is not known.
        groups: the groups of rows that can be compared, A the best (``ties.groups``).
        untested: why each of the other rows cannot.
    """

    drawn: int = 1
    values: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    untested: Mapping[str, str] = field(default_factory=dict)


Rows = Mapping[str, Sequence[Models]]


def rows_of(runs: Sequence[tuple[str, Shown]], newest: str) -> dict[str, list[Models]]:
    """Return the populations of each row of a board, one a seed.

    Args:
        runs: name of the row and record of every run of the board.
        newest: id of the record that originals, reference and controls are taken from.
    """
    found: dict[str, list[Models]] = {}
    for row, shown in runs:
        found.setdefault(row, []).append(Models(shown, GENERATED))
        if shown.record.id == newest:
            for name in populations(shown.record):
                found[control_row_name(name)] = [Models(shown, name)]
    return found


def draws(rows: Rows) -> int:
    """Return the number of draws that a board's rows are compared at."""
    every = [one for several in rows.values() for one in several]
    return expected.draws([one.population.n for one in every if one.independent])


def value(seeds: Sequence[Models], statistic: str, drawn: int) -> float | None:
    """Return a row's expected statistic, the mean over its seeds; None where one seed's is not known."""
    values = [one.value(statistic, drawn) for one in seeds]
    known = [one for one in values if one is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def compare(rows: Rows, by: str) -> Compared:
    """Return the expected values of a board's rows and, where ``by`` is one of ``expected.STATISTICS``, their groups.

    Args:
        rows: populations of each row, from ``rows_of``.
        by: name of the column that rows are sorted by.
    """
    drawn = draws(rows)
    values = {
        statistic: {name: value(seeds, statistic, drawn) for name, seeds in rows.items()}
        for statistic in expected.DRAWN
    }
    if by not in expected.STATISTICS or not rows:
        return Compared(drawn, values)
    known, untested = tested(rows, by, drawn)
    first = next(iter(rows.values()))[0].record
    groups = ties.groups(known, units(rows), higher_is_better=first.task.metric.higher_is_better)
    return Compared(drawn, values, groups, untested)


def tested(rows: Rows, by: str, drawn: int) -> tuple[dict[str, Row], dict[str, str]]:
    """Return the rows of a board as the test of ties takes them, and why each of the others cannot be tested."""
    found = _of_one_length({name: _row(seeds, by, drawn) for name, seeds in rows.items()})
    known = {name: row for name, row in found.items() if isinstance(row, Row)}
    return known, {name: why for name, why in found.items() if isinstance(why, str)}


def _row(seeds: Sequence[Models], by: str, drawn: int) -> Row | str:
    """Return a row for the test of ties, or why it cannot be tested."""
    reasons = [versions.withdrawn(one.record).get(versions.SCORES) for one in seeds]
    if reason := next(filter(None, reasons), None):
        return f"their metric is withdrawn: {reason}"
    score = value(seeds, by, drawn)
    paired = [array for one in seeds if (array := one.paired(by)) is not None]
    if len(paired) < len(seeds) or len({len(array) for array in paired}) > 1:
        return NO_UNITS
    own = _over_seeds([one.value(by, drawn) for one in seeds]) or seeds[0].own(by, drawn)
    if score is None or own is None:
        return _why(seeds[0], by)
    return Row(score, own, np.mean(paired, axis=0))


def _over_seeds(values: Sequence[float | None]) -> Part | None:
    """Return the variance of the mean over seeds of the fit, which their models' is in; None for one seed."""
    known = [one for one in values if one is not None]
    if len(known) < 2:
        return None
    return Part(float(np.var(known, ddof=1)) / len(known), len(known) - 1)


def _why(models: Models, by: str) -> str:
    """Return why the variance over models is not known."""
    if models.ordered(by) is None:
        return NO_TRAIN
    return STEPS if models.steps else SINGLE


def _of_one_length(found: Mapping[str, Row | str]) -> dict[str, Row | str]:
    """Return the rows, without those whose units are not as many as most others'."""
    lengths = Counter(len(row.paired) for row in found.values() if isinstance(row, Row))
    usual = lengths.most_common(1)[0][0] if lengths else 0
    return {
        name: NO_UNITS if isinstance(row, Row) and len(row.paired) != usual else row
        for name, row in found.items()
    }


def units(rows: Rows) -> Units:
    """Return how a board's values vary with the validation units."""
    every = [one for several in rows.values() for one in several]
    metric, count = every[0].record.task.metric, every[0].record.protocol.val_size
    if metric.resampled == "none":
        kept = [one.shown.side["units"] for one in every if "units" in one.shown.side]
        return Units("outcomes", int(kept[0][1]) if kept else count)
    return Units(metric.resampled, count)
