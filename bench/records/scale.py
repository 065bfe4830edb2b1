"""The unit in which scores are shown: a share in percent, any other number as it is. Imports no torch."""

from dataclasses import dataclass
from typing import Self

from bench.records.record import Record


@dataclass(frozen=True)
class Scale:
    """The unit in which people are shown a metric's scores.

    Attributes:
        percent: whether the metric is a share, from 0 to 1, which is shown in percent.
        digits: decimals of a percentage; other numbers have four significant digits.
    """

    percent: bool
    digits: int = 2

    @classmethod
    def of(cls, record: Record) -> Self:
        """Return the scale of a record's metric."""
        return cls(record.task.metric.percent)

    @property
    def factor(self) -> float:
        """The number by which a score is multiplied to be shown."""
        return 100.0 if self.percent else 1.0

    def text(self, score: float) -> str:
        """Return a score as text.

        >>> Scale(percent=True).text(0.98765), Scale(percent=False).text(12.3456)
        ('98.77', '12.35')
        """
        return f"{100 * score:.{self.digits}f}" if self.percent else f"{score:.4g}"
