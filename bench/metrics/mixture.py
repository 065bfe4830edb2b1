"""Mixtures of populations: which shares of known populations best reproduce the models of another (composition).

The energy distance (Székely and Rizzo 2013) of two populations is 2 E d(x, y) - E d(x, x') - E d(y, y'), for x, x' of
the one and y, y' of the other. It is 0 for equal distributions alone, and a quadratic function of the shares of a
mixture: its minimum over shares that are not negative and sum to 1 is kernel mean matching (Huang et al. 2006) with the
energy kernel.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import nnls
from torch import Tensor

from bench.metrics.statistics import resamples

RESAMPLES = 400  # of the bootstrap: intervals of shares, and the residual where the mixture is true


@dataclasses.dataclass(frozen=True)
class Group:
    """Models of one population among all that distances are known of.

    Attributes:
        rows: their numbers.
        whole: whether they are the whole population (checkpoints of a zoo), and no sample of one.
    """

    rows: Int64[Tensor, " n"]
    whole: bool = False


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The mixture of P populations that best reproduces another.

    Attributes:
        shares: of the populations; they sum to 1.
        residual: energy distance that is left; about 0 (it can be negative) where the mixture is the truth.
        resampled: shares for every bootstrap resample of all models.
        p: share of bootstrap samples of the mixture itself that leave as large a residual.
    """

    shares: Float[Tensor, " P"]
    residual: float
    resampled: Float[Tensor, "B P"]
    p: float


def fit(
    distances: Float[Tensor, "N N"],
    target: Group,
    parts: Sequence[Group],
    rng: torch.Generator,
    count: int = RESAMPLES,
) -> Mixture:
    """Find the mixture of the parts that best reproduces the target.

    The p-value is that of a bootstrap: as many models as the target has are drawn from the fitted mixture, the parts
    are resampled, and the mixture is fitted again.

    Args:
        distances: between all models.
        target: the models to be reproduced; none of them is in a part.
        parts: the populations.
        rng: of the bootstrap.
        count: resamples.
    """
    filled = _stand_ins(distances, [target, *parts])
    ones = [torch.ones(1, len(one.rows), dtype=torch.float64) for one in parts]
    first = torch.ones(1, len(target.rows), dtype=torch.float64)
    shares, residuals = solve(mean_distances(filled, target, parts, first, ones))
    counts = [_resampled(one, count, rng) for one in parts]
    again = _resampled(target, count, rng)
    resampled, _ = solve(mean_distances(filled, target, parts, again, counts))
    everything = torch.cat([one.rows for one in parts])
    chance = torch.cat(
        [
            share.expand(len(one.rows)) / len(one.rows)
            for share, one in zip(shares[0], parts, strict=True)
        ]
    )
    drawn = torch.multinomial(
        chance.expand(count, -1), len(target.rows), replacement=True, generator=rng
    )
    simulated = _counts(drawn, len(everything))
    _, null = solve(mean_distances(filled, Group(everything), parts, simulated, counts))
    residual = float(residuals[0])
    p = (1 + int((null >= residual).sum())) / (1 + count)
    return Mixture(shares[0], residual, resampled, p)


def _stand_ins(distances: Float[Tensor, "N N"], groups: Sequence[Group]) -> Float[Tensor, "N N"]:
    """Return the distances with a usual one where a model of a sample meets itself.

    A model that a bootstrap draws twice stands for two models of its population, which are not the same: their distance
    is the mean one of the model to the others of its group.
    """
    filled = distances.double().clone()
    for group in groups:
        n = len(group.rows)
        if not group.whole and n > 1:
            block = filled[group.rows[:, None], group.rows]
            filled[group.rows, group.rows] = block.sum(1).sub(block.diagonal()) / (n - 1)
    return filled


def _resampled(group: Group, count: int, rng: torch.Generator) -> Float[Tensor, "B n"]:
    """Return how often each model of a group is drawn in each resample; a whole population is not resampled."""
    n = len(group.rows)
    if group.whole:
        return torch.ones(count, n, dtype=torch.float64)
    return resamples(n, rng, count)


def _counts(drawn: Int64[Tensor, "B n"], models: int) -> Float[Tensor, "B N"]:
    zeros = torch.zeros(len(drawn), models, dtype=torch.float64)
    return zeros.scatter_add(1, drawn, torch.ones_like(drawn, dtype=torch.float64))


def mean_distances(
    distances: Float[Tensor, "N N"],
    target: Group,
    parts: Sequence[Group],
    of_target: Float[Tensor, "B n"],
    of_parts: Sequence[Float[Tensor, "B _"]],
) -> Float[Tensor, "B G G"]:
    """Return the mean distance between every two groups, the target first, with models counted so often.

    Within a sample a draw does not meet itself; within a whole population it does.
    """
    groups, counts = [target, *parts], [of_target, *of_parts]
    means = torch.empty(len(of_target), len(groups), len(groups), dtype=torch.float64)
    for j, (group, count) in enumerate(zip(groups, counts, strict=True)):
        sums = distances[:, group.rows] @ count.T  # N x B
        for i in range(j + 1):
            rows, weights = groups[i].rows, counts[i]
            total = (weights.T * sums[rows]).sum(0)
            pairs = weights.sum(1) * count.sum(1)
            if i == j and not group.whole:
                total = total - count @ distances[rows, rows]
                pairs = pairs - count.sum(1)
            means[:, i, j] = means[:, j, i] = total / pairs.clamp(min=1)
    return means


def solve(
    means: Float[Tensor, "B G G"],
) -> tuple[Float[Tensor, "B P"], Float[Tensor, " B"]]:
    """Return the shares of the parts that minimise the energy distance to the target, and that distance.

    Args:
        means: mean distances between G = P + 1 groups: the target, which is first, and the parts.
    """
    to_target, within = means[:, 0, 1:], means[:, 0, 0]
    kernel = to_target[:, :, None] + to_target[:, None, :] - means[:, 1:, 1:]
    shares = torch.stack([torch.from_numpy(_simplex(one.numpy())) for one in kernel])
    return shares, torch.einsum("bi,bij,bj->b", shares, kernel, shares) - within


def _simplex(kernel: Float[np.ndarray, "P P"]) -> Float[np.ndarray, " P"]:
    """Minimise w' kernel w over shares w: not negative, sum 1.

    As non-negative least squares with a heavy equation for the sum (Heinz and Chang 2001). Estimated from samples, the
    kernel may have eigenvalues below 0; they count as 0.
    """
    values, vectors = np.linalg.eigh(kernel)
    largest = max(float(values[-1]), np.finfo(float).tiny)
    root = (vectors * np.sqrt(values.clip(min=0))).T
    heavy = 1e3 * np.sqrt(largest)
    equations = np.vstack([root, np.full(len(kernel), heavy)])
    found, _ = nnls(equations, np.append(np.zeros(len(kernel)), heavy))
    shares: Float[np.ndarray, " P"] = found / found.sum()
    return shares
