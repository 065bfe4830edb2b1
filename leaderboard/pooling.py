"""Pooling of a field's values: over the seeds of one generator, and over the rows of a board."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.records import student

Pool = Callable[
    [pd.DataFrame, str], Any
]  # from the runs of one row and the field's name to the row's value


def mean(runs: pd.DataFrame, name: str) -> float:
    """Return the mean over runs; NaN where one value is unknown, since a mean of the others could be biased."""
    return float(runs[name].mean(skipna=False))


def total(runs: pd.DataFrame, name: str) -> int:
    """Return the sum over runs of a whole number."""
    return int(runs[name].sum())


def largest(runs: pd.DataFrame, name: str) -> float:
    """Return the largest value; NaN where one is unknown."""
    return float(runs[name].max(skipna=False))


def first(runs: pd.DataFrame, name: str) -> Any:
    """Return the value that all runs of a row share."""
    return runs[name].iloc[0]


def counted(runs: pd.DataFrame, name: str) -> str | None:
    """Return the word that runs share or, where they differ, each with its count; None where a run has none."""
    return _counted(runs[name].tolist())


def counted_before_marks(runs: pd.DataFrame, name: str) -> str | None:
    """Return the same of words with a mark in parentheses, which stands once where all of them have the same."""
    words = runs[name].tolist()
    parts = [str(word).partition(" (") for word in words]
    if any(not isinstance(word, str) for word in words) or len({part[2] for part in parts}) != 1:
        return _counted(words)
    return f"{_counted([part[0] for part in parts])}{parts[0][1]}{parts[0][2]}"


def _counted(words: Sequence[Any]) -> str | None:
    known = Counter(word for word in words if isinstance(word, str))
    if known.total() < len(words) or not known:
        return None
    if len(known) == 1:
        return next(iter(known))
    return ", ".join(f"{word} {count} of {len(words)}" for word, count in known.most_common())


def mean_below(of: str) -> Pool:
    """Return the pooling of the lower end of a mean's interval: of several runs, Student's t interval over seeds.

    Args:
        of: name of the field whose mean it is.
    """
    return lambda runs, name: _bound(runs, name, of, -1.0)


def mean_above(of: str) -> Pool:
    """Return the pooling of the upper end of a mean's interval; see ``mean_below``."""
    return lambda runs, name: _bound(runs, name, of, 1.0)


def within_one(pool: Pool) -> Pool:
    """Return a pooling whose value is moved into 0 to 1: an end of the interval of a share."""
    return lambda runs, name: float(np.clip(pool(runs, name), 0.0, 1.0))


def _bound(runs: pd.DataFrame, name: str, of: str, sign: float) -> float:
    if len(runs) == 1:
        return mean(runs, name)
    values = runs[of]
    return float(values.mean()) + sign * student.half_width(float(values.std(ddof=1)), len(values))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values of several tests after Holm's step-down correction for multiple testing.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    ascending = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    steps = np.maximum.accumulate(np.asarray(values)[ascending] * factors)
    adjusted = np.empty(len(values))
    adjusted[ascending] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]
