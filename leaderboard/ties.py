"""Find which rows of a board can be told apart, by a paired bootstrap over units, and over seeds and samples.

Every replicate weighs the same validation units for all rows, so that what makes a unit easy for everyone cancels (a
multiplier bootstrap: van der Vaart and Wellner, Weak Convergence, 1996, section 3.6), and draws seeds and samples of
each row anew. Both parts are deviations from the row's own value, and add up. Where rows differ in a handful of units
a bootstrap is too sure of itself: every row also gets the spread of one unit more, so that a pair has that of two
(Agresti and Min, Biometrics 2005). One model that gets 5 units right that the other gets wrong, and none the other way
round, is a tie; 6 are not, as in the exact test of McNemar.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

REPLICATES = 1000
LEVEL = 0.95
TESTED = ("selected", "mean", "best", "median", "worst")  # statistics that can be drawn again
REDUCE: dict[str, Any] = {"mean": np.mean, "median": np.median, "best": np.max, "worst": np.min}


@dataclass(frozen=True)
class Outcome:
    """The scores of one population: of one seed of a generator, or of a control.

    Attributes:
        value: the statistic that rows are ranked by.
        values: the score of every model.
        right: for each validation unit the share of the statistic's models that get it right; None where that is not
            known, or where the score is no mean over units.
        units: how many units there are in all; ``right`` may hold a part of them.
    """

    value: float
    values: Sequence[float]
    right: Array | None = None
    units: int = 1


def draws(
    rows: Mapping[str, Sequence[Outcome]], statistic: str, *, higher_is_better: bool, seed: int
) -> dict[str, Array]:
    """Draw replicates of every row's value, paired over units.

    Args:
        rows: for each row its populations, one a seed.
        statistic: one of ``TESTED``.
        higher_is_better: of the score.
        seed: of the random draws; the same one gives the same ties on every page.

    Returns:
        ``REPLICATES`` numbers a row.
    """
    rng = np.random.default_rng(seed)
    weights: dict[int, Array] = {}
    found = {}
    for name, outcomes in rows.items():
        parts = np.stack(
            [
                outcome.value
                + _units(outcome, weights, seed, rng)
                + _samples(outcome.values, statistic, higher_is_better, rng)
                for outcome in outcomes
            ]
        )
        seeds = rng.integers(len(parts), size=parts.shape)
        found[name] = np.take_along_axis(parts, seeds, axis=0).mean(axis=0)
    return found


def _units(
    outcome: Outcome, weights: dict[int, Array], seed: int, rng: np.random.Generator
) -> Array:
    """Draw deviations of the mean over units, scaled down to all units where only some of them are known."""
    if outcome.right is None:
        return np.zeros(REPLICATES)
    count = len(outcome.right)
    if count not in weights:
        drawn = np.random.default_rng((seed, count)).standard_normal((REPLICATES, count))
        weights[count] = drawn / count
    deviation: Array = weights[count] @ (outcome.right - outcome.right.mean())
    one_more = rng.standard_normal(REPLICATES) / outcome.units
    return deviation * math.sqrt(count / outcome.units) + one_more


def _samples(
    values: Sequence[float], statistic: str, higher_is_better: bool, rng: np.random.Generator
) -> Array:
    """Draw deviations of the statistic over samples; the selected model is one model, whatever else was drawn."""
    if statistic == "selected" or len(values) < 2:
        return np.zeros(REPLICATES)
    scores = np.asarray(values) if higher_is_better else -np.asarray(values)
    drawn = scores[rng.integers(len(scores), size=(REPLICATES, len(scores)))]
    deviation: Array = REDUCE[statistic](drawn, axis=1) - REDUCE[statistic](scores)
    return deviation if higher_is_better else -deviation


def ranks(
    values: Mapping[str, float], drawn: Mapping[str, Array], *, higher_is_better: bool
) -> dict[str, int]:
    """Return ranks with ties: 1 and the number of rows that are better beyond chance (95 %, each pair by itself).

    A row without replicates is compared by its value alone.
    """
    sign = 1.0 if higher_is_better else -1.0
    found = {}
    for name, value in values.items():
        better = 0
        for other, theirs in values.items():
            ahead = sign * (theirs - value)
            if name in drawn and other in drawn:
                spread = sign * (drawn[other] - drawn[name])
                better += bool(ahead > 0 and np.quantile(spread, (1 - LEVEL) / 2) > 0)
            else:
                better += bool(ahead > 0)
        found[name] = 1 + better
    return found
