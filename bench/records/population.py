"""A population in a record: its models' validation scores, and their similarity to the originals."""

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from bench.contract.control import Control
from bench.records.fields import Count, Interval, Model, Name, Positive, Role, close

Agreement = Annotated[float, Field(ge=-1, le=1)]
SLACK = 1e-9  # largest excess of a similarity over [0, 1] by rounding


def _moments(values: list[float], ordered: list[float]) -> dict[str, float | None]:
    """Return mean, median and standard deviation (denominator n - 1; None for one value)."""
    n = len(values)
    mean = math.fsum(values) / n
    return {
        "mean": mean,
        "median": (ordered[(n - 1) // 2] + ordered[n // 2]) / 2,
        "std": math.dist(values, [mean] * n) / math.sqrt(n - 1) if n > 1 else None,
    }


class Further(Model):
    """Another metric of a population on validation: the mean over its models, and the selected model's value."""

    mean: float
    selected: float


class Scores(Model):
    """Scores of one population of models on validation.

    Attributes:
        best, mean, median, worst, std: statistics of ``values``; std with denominator n - 1, null for one model.
        selected: the score of the model that was chosen on the training split.
        low, high: 95 % bootstrap interval of the mean over models.
        values: the score of every model.
        further: other metrics by name; nothing is selected by them.
        not_finite: how many of the models put out something that is not finite (NaN or infinite) for some example,
            which counts as wrong; null in records from before this was counted.
    """

    best: float
    selected: float
    mean: float
    median: float
    worst: float
    std: Annotated[float, Field(ge=0)] | None
    low: float
    high: float
    values: Annotated[list[float], Field(min_length=1)]
    further: dict[Name, Further] = {}
    not_finite: Count | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = sorted((self.worst, self.best))
        slack = 1e-9 * max(1.0, abs(low), abs(high))
        for name in ("selected", "mean", "median", "low", "high"):
            if not low - slack <= getattr(self, name) <= high + slack:
                raise ValueError(f"{name} is not between worst and best")
        if self.not_finite is not None and self.not_finite > len(self.values):
            raise ValueError("not_finite is more than there are models")
        ordered = sorted(self.values)
        if not math.isclose(ordered[-1], high) or not math.isclose(ordered[0], low):
            raise ValueError("best and worst are not those of values")
        for name, value in _moments(self.values, ordered).items():
            if not close(getattr(self, name), value):
                raise ValueError(f"{name} is not that of values")
        # Exact equality first: it nearly always holds and is fast, and a leaderboard reads thousands of records.
        if self.selected not in self.values and not any(
            math.isclose(value, self.selected) for value in self.values
        ):
            raise ValueError("selected is not among values")
        return self


class Likeness(Model):
    """A mean similarity of pairs of models, between 0 and 1.

    Attributes:
        value: the mean.
        low, high: its 95 % bootstrap interval; null where none is drawn, which is so for controls.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if (self.low is None) is not (self.high is None):
            raise ValueError("one end of the interval is missing")
        low, high = self.bounds
        if not -SLACK <= low <= self.value <= high <= 1 + SLACK:
            raise ValueError("value is not between low and high, or not between 0 and 1")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The ends of the interval; twice the value itself where there is no interval."""
        if self.low is None or self.high is None:
            return self.value, self.value
        return self.low, self.high

    @classmethod
    def of(cls, interval: Interval | None) -> "Likeness | None":
        """Return a similarity from a value with its interval; None for None."""
        if interval is None:
            return None
        return cls(value=interval.value, low=interval.low, high=interval.high)


class Kappa(Model):
    """Mean error consistencies of pairs of models (Cohen's kappa of being wrong, ``bench.metrics.agreement``).

    Attributes:
        originals, nearest, within: of the same pairs as the similarities of these names; of an original and its
            nearest, that with the largest kappa is meant.
    """

    originals: Agreement | None = None
    nearest: Agreement | None = None
    within: Agreement | None = None


class Similarity(Model):
    """Mean similarities of a population's models (paper, equation 7), without pairs of a model with itself.

    Attributes:
        originals: similarity to all originals; null for the originals, whose ``within`` it is.
        nearest: similarity to the nearest original; of an original, to the nearest other one: what training itself
            has, beside which every other is to be read. Null for a single original.
        within: similarity of two models of the population; null for a single model.
        kappa: agreement of errors beyond chance, beside the similarities, which rise with the number of errors; null
            where models have no wrong units, and in records of schema 1, as is the originals' own ``nearest``.
    """

    originals: Likeness | None = None
    nearest: Likeness | None = None
    within: Likeness | None = None
    kappa: Kappa | None = None


class Population(Scores):
    """The models of one origin: originals, generated models, or one control.

    Attributes:
        name: name of the control's generator; otherwise the role.
        role: part in the comparison: original, reference, generated or control.
        aligned: whether the checkpoints' hidden units were aligned before the models were made.
        amplitude: amplitude of the control noise, as a multiple of each tensor's std; null for other models.
        n: number of models.
        similarity: similarity of the models to each other and to the originals.
    """

    name: Name
    role: Role
    aligned: bool = False
    amplitude: Annotated[float, Field(gt=0)] | None = None
    n: Positive
    similarity: Similarity

    @property
    def key(self) -> str:
        """The name of the population in a record, such as "generated" or "noise 0.1"."""
        if self.role != "control":
            return self.name
        return str(Control(self.name, self.amplitude, self.aligned))

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if self.n != len(self.values):
            raise ValueError("n is not the number of values")
        if self.role != "control" and (self.name != self.role or self.amplitude is not None):
            raise ValueError(f"expected the name {self.role} and no amplitude")
        return self
