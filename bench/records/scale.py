"""The unit in which scores are shown: a share in percent, any other number as it is. Imports no torch."""

from dataclasses import dataclass
from typing import Self

from bench.records.record import Record

FINE = 2000  # validation examples from which on percentages have a second decimal: fewer cannot resolve it


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
        return cls.resolved(record.task.metric.percent, record.protocol.val_size)

    @classmethod
    def resolved(cls, percent: bool, examples: int) -> Self:
        """Return a scale with as many decimals as make one of these validation examples visible."""
        return cls(percent, digits=2 if examples >= FINE else 1)

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

    def difference(self, scores: float) -> str:
        """Return a difference of scores as text, with its sign.

        >>> Scale(percent=True).difference(0.0123), Scale(percent=False).difference(-0.5)
        ('+1.23', '-0.5')
        """
        return f"{100 * scores:+z.{self.digits}f}" if self.percent else f"{scores:+z.3g}"
