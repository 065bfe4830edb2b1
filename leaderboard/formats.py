"""Formats of a column's values as text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.records.scale import Scale

UNKNOWN = "-"


@dataclass(frozen=True)
class Format:
    """The format of the values in one cell.

    Attributes:
        write: returns the text of a cell from the board's scale and the cell's values, none of which is missing.
        right: whether the text is a number, which is aligned right.
    """

    write: Callable[..., str]
    right: bool = True

    def text(self, scale: Scale, *values: Any) -> str:
        """Return the text of a cell; ``UNKNOWN`` where its first value is missing."""
        return UNKNOWN if pd.isna(values[0]) else self.write(scale, *values)


def number(pattern: str) -> Format:
    """Return the format of a number that does not depend on the board's scale, as Python's ``format`` takes it."""
    return Format(lambda scale, value: format(value, pattern))


def times(factor: float) -> str:
    """Return a factor as text, with two significant digits: no timing has more.

    >>> times(259_073_876), times(15234.5), times(0.0213)
    ('260,000,000x', '15,000x', '0.021x')
    """
    rounded = float(f"{factor:.2g}")
    return f"{rounded:,.0f}x" if rounded >= 10 else f"{factor:.2g}x"


def _bounded(scale: Scale, difference: float, low: float, high: float) -> str:
    value, least, most = (scale.difference(x) for x in (difference, low, high))
    return f"{value} ({least} to {most})"


SCORE = Format(lambda scale, score: scale.text(score))
SCORES = Format(lambda scale, low, high: f"{scale.text(low)} to {scale.text(high)}")
DIFFERENCE = Format(_bounded)  # a difference of scores with its interval
# A share in percent with its interval.
PERCENT = Format(
    lambda scale, *shares: "{:.0f} ({:.0f} to {:.0f})".format(*(100 * share for share in shares))
)
SHARE = number(".3f")
SHORT = number(".2g")
WHOLE = number(",.0f")
TIMES = Format(lambda scale, factor: times(factor))
WORD = Format(lambda scale, word: str(word), right=False)
