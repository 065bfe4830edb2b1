"""Formats of a column's values: as text, and as numbers that the page can sort."""

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
        printf: returns the format of numbers in a table that sorts them; None where that table has text.
        scored: whether the number is a score, which is shown in the board's scale.
        right: whether the text is aligned right.
    """

    write: Callable[..., str]
    printf: Callable[[Scale], str] | None = None
    scored: bool = False
    right: bool = False

    def text(self, scale: Scale, *values: Any) -> str:
        """Return the text of a cell; ``UNKNOWN`` where its first value is missing."""
        return UNKNOWN if pd.isna(values[0]) else self.write(scale, *values)


def number(pattern: str, printf: str) -> Format:
    """Return the format of a number that does not depend on the board's scale.

    Args:
        pattern: format of the text, as Python's ``format`` takes it.
        printf: format of the number on the page, as C's ``printf`` takes it.
    """
    return Format(lambda scale, value: format(value, pattern), lambda scale: printf)


def times(factor: float) -> str:
    """Return a factor as text: two significant digits, or a whole number from 10 on.

    >>> times(15234.5), times(0.0213)
    ('15,234x', '0.021x')
    """
    return f"{factor:,.0f}x" if factor >= 10 else f"{factor:.2g}x"


def signed(scale: Scale, difference: float) -> str:
    """Return a difference of scores as text, in the board's scale."""
    return f"{100 * difference:+.2f}" if scale.percent else f"{difference:+.3g}"


def _bounded(scale: Scale, difference: float, low: float, high: float) -> str:
    value, least, most = (signed(scale, x) for x in (difference, low, high))
    return f"{value} ({least} to {most})"


def printf(scale: Scale) -> str:
    """Return the ``printf`` format of scores in a table that sorts them."""
    return f"%.{scale.digits}f" if scale.percent else "%.4g"


SCORE = Format(lambda scale, score: scale.text(score), printf, scored=True)
SCORES = Format(lambda scale, low, high: f"{scale.text(low)} to {scale.text(high)}", right=True)
DIFFERENCE = Format(_bounded, right=True)  # a difference of scores with its interval
# A share in percent with its interval.
PERCENT = Format(
    lambda scale, *shares: "{:.0f} ({:.0f} to {:.0f})".format(*(100 * share for share in shares)),
    right=True,
)
SHARE = number(".3f", "%.3f")
SHORT = number(".2g", "%.2g")
WHOLE = number(",.0f", "%d")
TIMES = Format(lambda scale, factor: times(factor), lambda scale: "%.3gx")
WORD = Format(lambda scale, word: str(word))
