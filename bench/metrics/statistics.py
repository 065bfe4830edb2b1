"""Intervals, by bootstrap over models, vectorised as products with resampling counts; and a paired test."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.metrics import exact
from bench.metrics.draws import LEVEL, RESAMPLES


def resamples(n: int, rng: torch.Generator, count: int = RESAMPLES) -> Float[Tensor, "B n"]:
    """Count how often each of n models is drawn in each of B bootstrap resamples."""
    drawn = torch.randint(n, (count, n), generator=rng)
    return torch.zeros(count, n, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones_like(drawn, dtype=torch.float64)
    )


def percentiles(statistics: Float[Tensor, " B"]) -> tuple[float, float]:
    """Return the bounds of the central 95 % of bootstrap statistics."""
    tail = (1 - LEVEL) / 2
    low, high = statistics.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def mean_interval(values: Float[Tensor, " n"], rng: torch.Generator) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean over models."""
    values = values.double()
    low, high = percentiles(resamples(len(values), rng) @ values / len(values))
    # A mean of equal values may differ from them in its last digit; an interval never leaves the data's range.
    return max(low, float(values.min())), min(high, float(values.max()))


def pair_interval(matrix: Float[Tensor, "N N"], rng: torch.Generator) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of the mean over pairs of different models; models are resampled, not pairs.

    Pairs that a resample makes of one model with itself are left out. None for fewer than three models.
    """
    if len(matrix) < 3:
        return None
    pairs = matrix.double().clone().fill_diagonal_(0)
    weights = resamples(len(matrix), rng)
    total = ((weights @ pairs) * weights).sum(1)
    count = weights.sum(1) ** 2 - (weights**2).sum(1)
    return percentiles(total[count > 0] / count[count > 0])


def cross_interval(matrix: Float[Tensor, "N P"], rng: torch.Generator) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over all pairs of two populations, both resampled."""
    rows, columns = (resamples(size, rng) for size in matrix.shape)
    return percentiles(((rows @ matrix.double()) * columns).sum(1) / matrix.numel())


def mcnemar(a: Bool[Tensor, " M"], b: Bool[Tensor, " M"]) -> tuple[int, int, float]:
    """Return how many units only a gets right, how many only b, and the exact two-sided McNemar p-value.

    Args:
        a, b: which of M units each of two models gets wrong.

    >>> mcnemar(torch.tensor([False] * 5), torch.tensor([True] * 5))
    (5, 0, 0.0625)
    """
    wins, losses = int((b & ~a).sum()), int((a & ~b).sum())
    return wins, losses, exact.mcnemar(wins, losses)
