"""Populations: models of one origin with their scores on both splits."""

import dataclasses
import math
from typing import Any, Self

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bench.contract import Control
from bench.records.fields import Role


@dataclasses.dataclass(frozen=True)
class Origin:
    """The origin of a population's models.

    Attributes:
        name: of the control's generator; otherwise the role.
        role: the population's part in the comparison.
        amplitude: of the noise, for one level of a sweep.
        aligned: whether the checkpoints' hidden units were aligned before the models were made.
    """

    name: str
    role: Role
    amplitude: float | None = None
    aligned: bool = False

    @classmethod
    def of(cls, control: Control) -> Self:
        """Return the origin of a control's models."""
        return cls(control.name, "control", control.amplitude, control.aligned)

    @property
    def control(self) -> Control | None:
        """The control that made the models; None of another role."""
        return Control(self.name, self.amplitude, self.aligned) if self.role == "control" else None

    @property
    def key(self) -> str:
        """The name of the population in a record, such as "generated" or "noise 0.1"."""
        return self.name if self.control is None else str(self.control)


ORIGINAL = Origin("original", "original")
GENERATED = Origin("generated", "generated")
REFERENCE = Origin("reference", "reference")


@dataclasses.dataclass(frozen=True)
class Population:
    """Scores of N models of one origin on both splits.

    Attributes:
        origin: where the models come from.
        val: scores on the validation split, float64.
        wrong: which validation units each model gets wrong; None where the task has no such units.
        features: numbers by which models are compared where there is no ``wrong``.
        train, train_loss: scores on the training split, by which one model is selected, and losses, which break ties;
            None where nothing is selected.
        further: other metrics on validation, by name.
        not_finite: for how many validation examples each model put out something that is not finite; None where the
            task does not count that.
        outputs: coordinates of the models as functions, see ``bench.contract.Evaluation``; None where there are none.
        replicates: validation scores on B replicates of the examples, see ``bench.contract.Evaluation``; None where
            the metric is not resampled.
        weights: at most ``bench.judge.align.KEPT`` parameters of each model, its hidden units aligned.
        select_s, score_s: seconds that scoring the models on train and on validation took.
    """

    origin: Origin
    val: Float[Tensor, " N"]
    wrong: Bool[Tensor, "N M"] | None
    features: Float[Tensor, "N M"] | None = None
    train: Float[Tensor, " N"] | None = None
    train_loss: Float[Tensor, " N"] | None = None
    further: dict[str, Float[Tensor, " N"]] = dataclasses.field(default_factory=dict)
    not_finite: Int64[Tensor, " N"] | None = None
    outputs: Float[Tensor, "N P"] | None = None
    replicates: Float[Tensor, "N B"] | None = None
    weights: Float[Tensor, "N W"] | None = None
    select_s: float = 0.0
    score_s: float = 0.0

    def __len__(self) -> int:
        return len(self.val)

    @property
    def key(self) -> str:
        """The name of the population in a record."""
        return self.origin.key

    @property
    def compared(self) -> Tensor:
        """The wrong units, or else the features, by which the similarity of models is computed: N x M."""
        units = self.features if self.wrong is None else self.wrong
        assert units is not None  # the task's evaluation has one of them
        return units

    @property
    def coordinates(self) -> Float[Tensor, "N P"]:
        """What the models do, as points whose Euclidean distance is that of two models as functions; float64."""
        return (self.compared if self.outputs is None else self.outputs).double()

    @property
    def mean(self) -> float:
        """The mean validation score."""
        return mean(self.val)

    def selected(self, sign: float) -> int:
        """Return the index of the model that the training split selects: best score, then lowest loss, then first.

        Args:
            sign: 1 where a higher score is better, otherwise -1.
        """
        assert self.train is not None
        assert self.train_loss is not None
        return select(sign * self.train, self.train_loss)

    def rows(self, index: Int64[Tensor, " n"]) -> Self:
        """Return the population of the models at ``index``; its times are still those of all models."""
        fields = vars(self).items()
        kept: dict[str, Any] = {n: v[index] for n, v in fields if isinstance(v, Tensor)}
        further = {name: values[index] for name, values in self.further.items()}
        return dataclasses.replace(self, **kept, further=further)


def mean(values: Float[Tensor, " N"]) -> float:
    """Return the mean of N values, summed without rounding errors."""
    return math.fsum(values.tolist()) / len(values)


def select(train: Float[Tensor, " N"], loss: Float[Tensor, " N"]) -> int:
    """Return the index of the highest value of ``train``; ties go to the lowest loss, then to the first."""
    best = (train == train.max()).nonzero().flatten()
    return int(best[loss[best].argmin()])
