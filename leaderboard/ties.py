"""Test of ties: which rows of a board differ by more than chance. Pure functions.

A row's value varies with three things (crossed: every model is scored on the same validation units): with the units,
with the seeds of the generator's fit, and with the models that a fit draws. Units are paired between rows, so that the
difficulty of a unit cancels; seeds and models are each row's own. So the difference of two rows has a variance of three
parts, v = units + one's own + the other's own, each with its own degrees of freedom. Two rows are told apart where

    difference^2 > sum of t^2 v over the parts, t the limit of Student's distribution at the part's degrees of freedom

(Banerjee, Sankhya 1961). That is exact for one part and never too liberal for several: the chance of exceeding it is
convex in v, so at most the mean of the parts' own. Satterthwaite's single t is too liberal here: where the values of
3 seeds are close together by chance, it has the degrees of freedom of the units.

All pairs of a board are tested together by Holm's method: the chance that any two equal rows of it are told apart is at
most 5 %. One fit of a generator has no variance over fits: its group is that of this fit.

Where rows differ in a handful of units the variance is underestimated: every pair is given two discordant units more
(Agresti and Min, Biometrics 2005). If one of two models gets 5 units right that the other gets wrong, and the other
none, they are a tie; with 6 they are not, as in the exact test of McNemar.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.records import student

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEVEL = 0.05  # chance that any two equal rows of a board are told apart
DISCORDANT = 2  # units that every pair is given


@dataclass(frozen=True)
class Part:
    """One part of the variance of a row's value.

    Attributes:
        variance: the variance; 0 where this part does not vary.
        freedom: the degrees of freedom of its estimate.
    """

    variance: float = 0.0
    freedom: float = math.inf


@dataclass(frozen=True)
class Row:
    """What is known of one row of a board.

    Attributes:
        value: the statistic that rows are ranked by.
        own: its variance over seeds of the fit or, of one fit, over the models that it draws.
        paired: (n,) what says how it varies with the validation units, in the same order for all rows of a board: see
            ``Units``.
    """

    value: float
    own: Part
    paired: Floats


@dataclass(frozen=True)
class Units:
    """How the variance over validation units follows from what the rows are paired by.

    Attributes:
        kind: what ``Row.paired`` has: "outcomes", the score of each unit, of which the value is the mean; "bootstrap",
            the value on resampled units; "jackknife", the value without each of n groups of units.
        count: number of all validation units; outcomes of a part of them may be known.
    """

    kind: Literal["outcomes", "bootstrap", "jackknife"]
    count: int

    def spread(self, paired: Floats) -> tuple[Floats, int]:
        """Return the variance of the difference of every two rows, and the degrees of freedom.

        Args:
            paired: (R, n) ``Row.paired`` of each row.

        Returns:
            (R, R) variances.
        """
        count = paired.shape[1]
        centred = paired - paired.mean(axis=1, keepdims=True)
        products = centred @ centred.T / count
        own = np.diagonal(products)
        spread = np.maximum(own[:, None] + own[None, :] - 2 * products, 0.0)
        if self.kind == "jackknife":
            return (count - 1) * spread, count - 1
        spread *= count / (count - 1)
        if self.kind == "bootstrap":
            return spread, min(self.count, count) - 1  # replicates are a sample too
        return spread / self.count + DISCORDANT / self.count**2, count - 1


def told_apart(rows: Sequence[Row], units: Units) -> Bools:
    """Return which rows of a board differ by more than chance, all pairs tested together by Holm's method.

    Returns:
        (R, R) whether the two rows are told apart, symmetric.
    """
    first, second = np.triu_indices(len(rows), 1)
    tests = len(first)
    values = np.array([row.value for row in rows])
    own = np.array([row.own.variance for row in rows])
    spread, freedom = units.spread(np.stack([row.paired for row in rows]))
    variances = np.stack([spread[first, second], own[first], own[second]])
    every = np.array([*(row.own.freedom for row in rows), freedom], dtype=np.float64)
    freedoms, kinds = np.unique(every, return_inverse=True)
    of = np.stack([np.full(tests, kinds[-1]), kinds[first], kinds[second]])
    squares = student.limits(freedoms, LEVEL / np.arange(1, tests + 1)) ** 2
    apart = (values[first] - values[second]) ** 2
    most = _most_tests(apart, variances, squares, of)
    # Holm: in the order of evidence, each is to hold among all the tests that are left, until one does not.
    order = np.argsort(-most, kind="stable")
    holds = np.minimum.accumulate(most[order] >= tests - np.arange(tests)).astype(bool)
    found = np.zeros((len(rows), len(rows)), dtype=bool)
    found[first[order], second[order]] = found[second[order], first[order]] = holds
    return found


def _most_tests(apart: Floats, variances: Floats, squares: Floats, of: Ints) -> Ints:
    """Return for each pair the largest number of tests among which it is told apart (Bonferroni's level), by bisection.

    Args:
        apart: (P,) squared differences.
        variances: (3, P) the parts of each difference's variance.
        squares: (F, P) squared limits of Student's distribution: degrees of freedom by number of tests, from 1 on.
        of: (3, P) index in ``squares`` of each part's degrees of freedom.
    """
    least, most = np.zeros(len(apart), dtype=np.int64), np.full(len(apart), squares.shape[1])
    while (least < most).any():
        tests = (least + most + 1) // 2
        needed = (variances * squares[of, np.maximum(tests, 1) - 1]).sum(axis=0)
        holds = (apart > needed) & (tests > 0)
        least, most = (
            np.where(holds, tests, least),
            np.where(holds, most, tests - 1).clip(min=least),
        )
    return least


def groups(rows: Mapping[str, Row], units: Units, *, higher_is_better: bool) -> dict[str, str]:
    """Return the group of every row: A, B and so on, from the best row to the worst.

    A group begins with the first row, in this order, that is told apart from the first row of the group before. So no
    worse value is ever in a better group; and a row differs from the first of its group by no more than chance.

    Args:
        rows: the rows of a board, by name.
        units: how they vary with the validation units.
        higher_is_better: whether a higher value is better.
    """
    if not rows:
        return {}
    apart, names = told_apart(list(rows.values()), units), list(rows)
    sign = -1 if higher_is_better else 1
    order = sorted(range(len(names)), key=lambda row: sign * rows[names[row]].value)
    first, number, found = order[0], 0, {}
    for row in order:
        if apart[first, row]:
            first, number = row, number + 1
        found[names[row]] = letter(number)
    return found


def letter(number: int) -> str:
    """Return the name of a group.

    >>> letter(0), letter(25), letter(26)
    ('A', 'Z', 'AA')
    """
    before = letter(number // 26 - 1) if number >= 26 else ""
    return before + chr(ord("A") + number % 26)


def difference(one: Row, other: Row, units: Units) -> tuple[float, float, float]:
    """Return the value of a row minus that of another, with its 95 % interval: paired by units, and see the module."""
    spread, freedom = units.spread(np.stack([one.paired, other.paired]))
    parts = (
        (float(spread[0, 1]), float(freedom)),
        *((r.own.variance, r.own.freedom) for r in (one, other)),
    )
    limits = student.limits(np.array([of for _, of in parts], dtype=np.float64), np.array([LEVEL]))
    half = math.sqrt(sum(float(t) ** 2 * v for (v, _), t in zip(parts, limits[:, 0], strict=True)))
    value = one.value - other.value
    return value, value - half, value + half
