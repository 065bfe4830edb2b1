"""The evaluation of N models that a scorer returns, and the check of its form and numbers."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bench.errors import BenchError


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores and predictions of N models on one split.

    Attributes:
        scores: the headline metric of each model, float64.
        wrong: which of the M units each model gets wrong, or None where the task has no such units.
        extra: further metrics by name, one value a model; ``loss`` breaks ties when a model is selected.
        features: where there is no ``wrong``, M numbers of 0 or more that describe each model's outputs, by which
            models are compared; see ``bench.metrics.similarity.weighted_jaccard``.
        not_finite: for how many examples each model put out something that is not finite (NaN or infinite), which is
            wrong; None where the task does not count that.
        outputs: coordinates of what each model puts out for some fixed units of the validation split: the Euclidean
            distance of two rows is that of the two models as functions (for class probabilities the Hellinger distance,
            root mean square over the units). None: ``compared`` stands for them.
        replicates: on the validation split the headline score of each model on B replicates of the split's examples,
            drawn as ``Metric.resampled`` says; None where that is "none". Replicate b is the same resample for every
            model of every call, from a seed that does not depend on the models, so that differences of models pair up.
    """

    scores: Float[Tensor, " N"]
    wrong: Bool[Tensor, "N M"] | None
    extra: dict[str, Float[Tensor, " N"]]
    features: Float[Tensor, "N M"] | None = None
    not_finite: Int64[Tensor, " N"] | None = None
    outputs: Float[Tensor, "N P"] | None = None
    replicates: Float[Tensor, "N B"] | None = None

    def __post_init__(self) -> None:
        if (self.wrong is None) is (self.features is None):
            raise BenchError("an evaluation needs wrong units or features, and not both")

    @property
    def compared(self) -> Tensor:
        """The wrong units, or else the features, by which the similarity of models is computed: N x M."""
        units = self.features if self.wrong is None else self.wrong
        assert units is not None  # __post_init__ has checked that
        return units


@runtime_checkable
class Scorer(Protocol):
    """Scores models of one zoo on one split, all of them at once."""

    def __call__(self, vectors: Float[Tensor, "N D"]) -> Evaluation:
        """Score N models."""
        ...


FLOATS = [torch.float64, torch.float32]
Shape = tuple[int | None, ...]  # None: any length


def check_evaluation(
    evaluation: object, models: int, task: str, *, replicated: bool | None = None
) -> None:
    """Check that a scorer returned an evaluation of the right form.

    Scores, replicates, features and further metrics must be finite, and features at least 0; a loss may be inf.

    Args:
        evaluation: the scorer's return value.
        models: how many models it was called with.
        task: the name of the task's class.
        replicated: whether there must be replicates (otherwise there must be none); None does not tell.

    Raises:
        BenchError: the task broke its contract; the message names the first problem.
    """
    for problem in _problems(evaluation, models, replicated):
        raise BenchError(f"the scorer of {task} returned {problem}")


def _problems(evaluation: object, models: int, replicated: bool | None) -> Iterator[str]:
    """Yield the problems of an evaluation; later checks rely on earlier ones having yielded none."""
    if not isinstance(evaluation, Evaluation):
        yield f"{type(evaluation).__name__}, expected bench.contract.Evaluation"
        return
    yield from _finite("scores", evaluation.scores, (models,))
    if (evaluation.wrong is None) is (evaluation.features is None):
        yield "both or neither of wrong units and features, expected one of them"
    if evaluation.wrong is not None:
        yield from _form("wrong", evaluation.wrong, (models, None), [torch.bool])
    if evaluation.features is not None:
        yield from _finite("features", evaluation.features, (models, None))
        yield from _rows("features below 0", evaluation.features < 0, "numbers of 0 or more")
    if evaluation.not_finite is not None:
        yield from _form("not_finite", evaluation.not_finite, (models,), [torch.int64])
        yield from _rows("not_finite below 0", evaluation.not_finite < 0, "a number of examples")
    if evaluation.outputs is not None:
        yield from _finite("outputs", evaluation.outputs, (models, None))
    if evaluation.replicates is not None:
        yield from _finite("replicates", evaluation.replicates, (models, None))
    if replicated is not None and replicated is (evaluation.replicates is None):
        there = "no replicates, expected some" if replicated else "replicates, expected none"
        yield f"{there}: the metric's 'resampled' and the split decide that"
    if not isinstance(evaluation.extra, Mapping):
        yield f"extra as {type(evaluation.extra).__name__}, expected a mapping of names to values"
    for name, values in evaluation.extra.items():
        if name == "loss":
            yield from _form("loss", values, (models,), FLOATS)
            bad = values.isnan() | values.isneginf()
            yield from _rows("a loss of NaN or -inf", bad, "a number, or inf")
        else:
            yield from _finite(f"'{name}'", values, (models,))


def _finite(what: str, values: object, shape: Shape) -> Iterator[str]:
    """Yield the problems of a tensor whose numbers must be finite."""
    yield from _form(what, values, shape, FLOATS)
    assert isinstance(values, Tensor)  # otherwise the caller has raised the problem
    yield from _rows(f"{what} with NaN or inf", ~values.isfinite(), "finite numbers")


def _form(what: str, values: object, shape: Shape, types: list[torch.dtype]) -> Iterator[str]:
    """Yield the problem of a value that should be a tensor of a given shape and one of several types."""
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    expected = f"expected {types[0]} of shape ({sizes})"
    if not isinstance(values, Tensor):
        yield f"{what} as {type(values).__name__}, {expected}"
        return
    fits = len(values.shape) == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape, values.shape, strict=True)
    )
    if not fits or values.dtype not in types:
        yield f"{what} as {values.dtype} of shape {tuple(values.shape)}, {expected}"


def _rows(what: str, bad: Tensor, expected: str) -> Iterator[str]:
    """Yield the number of models (rows of ``bad``) that have an invalid number, if there are any."""
    count = int(bad.reshape(len(bad), -1).any(1).sum()) if bad.numel() else 0
    if count:
        yield f"{what} for {count} of {len(bad)} models, expected {expected}"
