"""What a task has to return of N models: the form and the numbers of ``tasks.base.Evaluation``."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError

PARTS = ("scores", "wrong", "extra", "features", "not_finite")
FLOATS = [torch.float64, torch.float32]
Shape = tuple[int | None, ...]  # None: any length


def check_evaluation(found: Any, models: int, task: str) -> None:
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
        raise BenchError(f"{task}.evaluate returned {problem}")


def _problems(found: Any, models: int) -> Iterator[str]:
    """One after another; what comes later may rely on what came before."""
    missing = [part for part in PARTS if not hasattr(found, part)]
    if missing:
        yield f"{type(found).__name__} without '{missing[0]}', expected tasks.base.Evaluation"
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


def _finite(what: str, values: Any, shape: Shape) -> Iterator[str]:
    """Numbers that have to be finite."""
    yield from _form(what, values, shape, FLOATS)
    yield from _rows(f"{what} with NaN or inf", ~values.isfinite(), "finite numbers")


def _form(what: str, values: Any, shape: Shape, types: list[torch.dtype]) -> Iterator[str]:
    """The shape and type of a tensor."""
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    expected = f"expected {types[0]} of shape ({sizes})"
    if not isinstance(values, Tensor):
        yield f"{what} as {type(values).__name__}, {expected}"
    fits = len(values.shape) == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape, values.shape, strict=True)
    )
    if not fits or values.dtype not in types:
        yield f"{what} as {values.dtype} of shape {tuple(values.shape)}, {expected}"


def _rows(what: str, bad: Tensor, expected: str) -> Iterator[str]:
    """Models, one a row, with a number that must not be."""
    count = int(bad.reshape(len(bad), -1).any(1).sum()) if bad.numel() else 0
    if count:
        yield f"{what} for {count} of {len(bad)} models, expected {expected}"
