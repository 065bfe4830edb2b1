"""What a scorer returns of N models, its form and numbers checked."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bench.errors import BenchError


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What N models did on one split.

    Attributes:
        scores: the headline metric of each model, float64.
        wrong: which of the M units each model gets wrong, or None where the task has no such units.
        extra: further metrics by name, one value a model; ``loss`` breaks ties when a model is selected.
        features: what models are compared by where there is no ``wrong``: numbers of 0 or more that describe what each
            of them does; see ``bench.metrics.similarity.weighted_jaccard``.
        not_finite: for how many examples each model put out something that is not finite (NaN or infinite), which is
            wrong; None where the task does not count that.
    """

    scores: Float[Tensor, " N"]
    wrong: Bool[Tensor, "N M"] | None
    extra: dict[str, Float[Tensor, " N"]]
    features: Float[Tensor, "N M"] | None = None
    not_finite: Int64[Tensor, " N"] | None = None

    def __post_init__(self) -> None:
        if (self.wrong is None) is (self.features is None):
            raise BenchError("an evaluation needs wrong units or features, and not both")

    @property
    def compared(self) -> Tensor:
        """What similarity compares: wrong units, or else features."""
        found = self.features if self.wrong is None else self.wrong
        assert found is not None  # see above
        return found


@runtime_checkable
class Scorer(Protocol):
    """Scores models of one zoo on one split, all of them at once."""

    def __call__(self, vectors: Float[Tensor, "N D"]) -> Evaluation:
        """Score N models."""
        ...


FLOATS = [torch.float64, torch.float32]
Shape = tuple[int | None, ...]  # None: any length


def check_evaluation(found: object, models: int, task: str) -> None:
    """Refuse what is no evaluation.

    Scores, features and further metrics are finite, and features not below 0; a loss may be inf.

    Args:
        found: what was returned.
        models: how many were to be evaluated.
        task: the name of the task's class.

    Raises:
        BenchError: the task broke its contract; the first thing that is not as it should be.
    """
    for problem in _problems(found, models):
        raise BenchError(f"the scorer of {task} returned {problem}")


def _problems(found: object, models: int) -> Iterator[str]:
    """Yield what is wrong, one thing after another; what comes later may rely on what came before."""
    if not isinstance(found, Evaluation):
        yield f"{type(found).__name__}, expected bench.contract.Evaluation"
        return
    yield from _finite("scores", found.scores, (models,))
    if (found.wrong is None) is (found.features is None):
        yield "both or neither of wrong units and features, expected one of them"
    if found.wrong is not None:
        yield from _form("wrong", found.wrong, (models, None), [torch.bool])
    if found.features is not None:
        yield from _finite("features", found.features, (models, None))
        yield from _rows("features below 0", found.features < 0, "numbers of 0 or more")
    if found.not_finite is not None:
        yield from _form("not_finite", found.not_finite, (models,), [torch.int64])
        yield from _rows("not_finite below 0", found.not_finite < 0, "a number of examples")
    if not isinstance(found.extra, Mapping):
        yield f"extra as {type(found.extra).__name__}, expected a mapping of names to values"
    for name, values in found.extra.items():
        if name == "loss":
            yield from _form("loss", values, (models,), FLOATS)
            bad = values.isnan() | values.isneginf()
            yield from _rows("a loss of NaN or -inf", bad, "a number, or inf")
        else:
            yield from _finite(f"'{name}'", values, (models,))


def _finite(what: str, values: object, shape: Shape) -> Iterator[str]:
    """Yield what is wrong with numbers that have to be finite."""
    yield from _form(what, values, shape, FLOATS)
    assert isinstance(values, Tensor)  # see above
    yield from _rows(f"{what} with NaN or inf", ~values.isfinite(), "finite numbers")


def _form(what: str, values: object, shape: Shape, types: list[torch.dtype]) -> Iterator[str]:
    """Yield what is wrong with a value that should be a tensor of a shape and one of some types."""
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
    """Yield how many models, one a row, have a number that must not be."""
    count = int(bad.reshape(len(bad), -1).any(1).sum()) if bad.numel() else 0
    if count:
        yield f"{what} for {count} of {len(bad)} models, expected {expected}"
