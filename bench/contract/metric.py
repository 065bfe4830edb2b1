"""Facts of a task's headline metric, and of the units by which its models are compared. Imports nothing heavy."""

import dataclasses
from typing import Any, ClassVar, Literal

CHECKED: dict[str, Any] = {
    "extra": "forbid",
    "strict": True,
}  # pydantic's configuration, for reading these classes from a record


@dataclasses.dataclass(frozen=True)
class Metric:
    """The headline metric of a task: one number a model.

    Attributes:
        name: what people call it, such as "accuracy".
        version: counts corrections of its definition; scores of two versions are never ranked together.
        higher_is_better: whether a higher score is better. A score of which a lower one is better is an error or a
            distance, 0 or more.
        scale: what a score is multiplied by when people are shown it: 100 for a number between 0 and 1, which is shown
            in percent, and 1 for any other.
        mean_over_units: whether a score is the share of validation examples that the model gets right, each example
            being one unit.
        resampled: how ``Evaluation.replicates`` draw the validation examples again: "bootstrap" where as many examples
            are drawn with replacement, "jackknife" where each of B groups of them is left out, "none" where there are
            no replicates.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = CHECKED

    name: str
    version: int = 1
    higher_is_better: bool = True
    scale: Literal[1, 100] = 1
    mean_over_units: bool = False
    resampled: Literal["none", "bootstrap", "jackknife"] = "none"

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 300:
            raise ValueError("the metric's name has no or more than 300 characters")
        if not 1 <= self.version <= 1000:
            raise ValueError("the metric's version is not between 1 and 1000")
        if self.mean_over_units and not (self.percent and self.higher_is_better):
            raise ValueError("a mean over units is a share, of which a higher one is better")

    def replicated(self, split: str) -> bool:
        """Return whether an evaluation on a split has replicates: on "val", if the metric is resampled at all."""
        return split == "val" and self.resampled != "none"

    @property
    def percent(self) -> bool:
        """Whether a score lies between 0 and 1 and is shown in percent."""
        return self.scale == 100

    @property
    def sign(self) -> float:
        """The factor that makes higher better: 1 where a higher score is better, otherwise -1."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest score that a model can have; rounding may bring a distance of 0 below it."""
        if self.percent:
            return 0.0, 1.0
        return (-float("inf") if self.higher_is_better else -1e-6), float("inf")


@dataclasses.dataclass(frozen=True)
class Compared:
    """The units by which two models of a task are compared.

    Attributes:
        units: in words, what one column of ``Evaluation.wrong``, or of ``Evaluation.features``, stands for.
        independent: whether units are independent of each other, as a paired test of two models needs them.
        features: whether units are features of what a model makes; otherwise each is right or wrong.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = CHECKED

    units: str
    independent: bool = True
    features: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.units) <= 300:
            raise ValueError("the units have no or more than 300 characters")

    @property
    def likeness(self) -> str:
        """The similarity of two models, in words."""
        return "overlap of image features" if self.features else "IoU of wrong predictions"

    @property
    def tested(self) -> bool:
        """Whether two models can be compared by a paired test."""
        return self.independent and not self.features
