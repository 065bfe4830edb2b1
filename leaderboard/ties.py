"""Test of ties: which rows of a board differ by more than chance, by a paired bootstrap over units, seeds and samples.

Every replicate weights the same validation units for all rows, so that the difficulty of a unit cancels (a multiplier
bootstrap: van der Vaart and Wellner, Weak Convergence, 1996, section 3.6), and draws seeds and samples of each row
independently. Both parts are deviations from the row's own value, and are added. Where rows differ in a handful of
units a bootstrap underestimates the error: every row also gets the spread of one unit more, so that a pair has that
of two (Agresti and Min, Biometrics 2005). If one of two models gets 5 units right that the other gets wrong, and the
other none, they are a tie; with 6 they are not, as in the exact test of McNemar.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

REPLICATES = 1000  # of the bootstrap
LEVEL = 0.95  # confidence of a difference between two rows
TESTED = ("selected", "mean", "best", "median", "worst")  # statistics with a bootstrap
REDUCE: dict[str, Any] = {"mean": np.mean, "median": np.median, "best": np.max, "worst": np.min}


@dataclass(frozen=True)
class Outcome:
    """The scores of one population: of one seed of a generator, or of a control.

    Attributes:
        value: the statistic that rows are ranked by.
        values: score of every model.
        right: for each kept validation unit the share of the statistic's models that get it right; None where that is
            unknown, or where the score is no mean over units.
        units: number of all validation units; ``right`` may have a part of them.
    """

    value: float
    values: Sequence[float]
    right: Array | None = None
    units: int = 1


def draws(
    rows: Mapping[str, Sequence[Outcome]], statistic: str, *, higher_is_better: bool, seed: int
) -> dict[str, Array]:
    """Return bootstrap replicates of every row's value, paired over units.

    Args:
        rows: populations of each row, one a seed.
        statistic: one of ``TESTED``.
        higher_is_better: whether a higher score is better.
        seed: seed of the bootstrap; the same seed gives the same ties on every page.

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
    """Return deviations of the mean over units, scaled down where only a part of the units is known."""
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
    """Return deviations of the statistic over samples; 0 for the selected model, which is one model."""
    if statistic == "selected" or len(values) < 2:
        return np.zeros(REPLICATES)
    scores = np.asarray(values) if higher_is_better else -np.asarray(values)
    drawn = scores[rng.integers(len(scores), size=(REPLICATES, len(scores)))]
    deviation: Array = REDUCE[statistic](drawn, axis=1) - REDUCE[statistic](scores)
    return deviation if higher_is_better else -deviation


def ranks(
    values: Mapping[str, float], drawn: Mapping[str, Array], *, higher_is_better: bool
) -> dict[str, int]:
    """Return ranks with ties: 1 + the number of rows that are significantly better (95 %, each pair by itself).

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
