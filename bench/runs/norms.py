"""Batch normalization in state dicts: running statistics that differ between checkpoints become parameters."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from bench.errors import BadRequest

EPS = 1e-5  # torch's default, which is added to every running variance
MEAN, VARIANCE, COUNTER = "running_mean", "running_var", "num_batches_tracked"
STATISTICS = (MEAN, VARIANCE, COUNTER)


def is_statistic(name: str) -> bool:
    """Return whether a tensor is no parameter but a running statistic or its counter, by the last part of its name."""
    return name.rpartition(".")[2] in STATISTICS


def is_counter(name: str) -> bool:
    """Return whether a tensor counts the batches that statistics were taken of, which no evaluation uses."""
    return name.rpartition(".")[2] == COUNTER


def layers(names: Iterable[str]) -> list[str]:
    """Return the layers that these statistics belong to, in order.

    >>> layers(["bn1.running_mean", "bn1.running_var", "fc.weight"])
    ['bn1']
    """
    whole = (name.rpartition(".") for name in names)
    return list(dict.fromkeys(layer for layer, _, last in whole if last in (MEAN, VARIANCE)))


def folded(
    state: Mapping[str, Tensor], wanted: Sequence[str], eps: float, where: object
) -> dict[str, Tensor]:
    """Return a state dict in which layers have a running mean of 0 and variance of 1, and compute what they did.

    w (x - m) / sqrt(v + e) + b is w' x / sqrt(1 + e) + b' with w' = w sqrt(1 + e) / sqrt(v + e) and
    b' = b - w m / sqrt(v + e).

    Args:
        state: the state dict.
        wanted: names of the layers.
        eps: e, of all these layers.
        where: the file, for messages.

    Raises:
        BadRequest: a layer has no weight and bias to take the statistics up, or a variance below 0.
    """
    new = dict(state)
    for layer in wanted:
        dot = f"{layer}." if layer else ""
        names = [f"{dot}{last}" for last in ("weight", "bias", MEAN, VARIANCE)]
        missing = [name for name in names if name not in state]
        if missing:
            raise BadRequest(
                f"{where}: the statistics of '{layer}' differ between checkpoints and cannot be folded: "
                f"there is no '{missing[0]}'"
            )
        weight, bias, mean, variance = (state[name].double() for name in names)
        check_variance(variance, names[3], where)
        scale = weight / (variance + eps).sqrt()
        values = (
            scale * (1 + eps) ** 0.5,
            bias - scale * mean,
            torch.zeros_like(mean),
            torch.ones_like(mean),
        )
        new |= {name: value.float() for name, value in zip(names, values, strict=True)}
    return new


def check_variance(variance: Tensor, name: str, where: object) -> None:
    """Check that a running variance is 0 or more everywhere.

    Raises:
        BadRequest: it is not.
    """
    if not bool((variance >= 0).all()):
        raise BadRequest(f"{where}: '{name}' has a value that is not 0 or more")
