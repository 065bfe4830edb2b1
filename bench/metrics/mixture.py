"""Mixtures of populations: which shares of known populations best reproduce the models of another (composition).

The energy distance (Székely and Rizzo 2013) of two populations is 2 E d(x, y) - E d(x, x') - E d(y, y'), for x, x' of
the one and y, y' of the other. It is 0 for equal distributions alone, and a quadratic function of the shares of a
mixture: its minimum over shares that are not negative and sum to 1 is kernel mean matching (Huang et al. 2006) with the
energy kernel.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import nnls
from torch import Tensor

from bench.metrics.statistics import resamples

RESAMPLES = 200  # of the bootstrap: intervals of shares, and the residual where the mixture is true


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


@dataclasses.dataclass(frozen=True)
class _Part:
    """One population of a mixture, as it is and in every resample.

    Attributes:
        group: its models.
        counts: how often each model counts: once each, then as it was drawn.
        sums: distances from every model to all of the part's, counted so.
        within: mean distance within.
    """

    group: Group
    counts: Float[Tensor, "B n"]
    sums: Float[Tensor, "N B"]
    within: Float[Tensor, " B"]

    def mean_to(self, rows: Int64[Tensor, " m"], counts: Float[Tensor, "B m"]) -> Tensor:
        """Return the mean distance to other models, counted so often, in every resample."""
        total = (counts.T * self.sums[rows]).sum(0)
        return total / (counts.sum(1) * self.counts.sum(1))


class Mixtures:
    """Mixtures of the same populations, for one target after another.

    The bootstrap draws the models of the parts once for all targets.

    Args:
        distances: between all models.
        parts: the populations.
        rng: of the bootstrap.
        count: resamples.
    """

    def __init__(
        self,
        distances: Float[Tensor, "N N"],
        parts: Sequence[Group],
        rng: torch.Generator,
        count: int = RESAMPLES,
    ) -> None:
        self.distances, self.count = distances.double(), count
        self.parts = [self._part(group, rng) for group in parts]

    def fit(
        self,
        target: Group,
        rng: torch.Generator,
        replaced: Mapping[int, Group] | None = None,
    ) -> Mixture:
        """Find the mixture that best reproduces the target.

        The p-value is that of a bootstrap: as many models as the target has are drawn from the fitted mixture, the
        parts are resampled, and the mixture is fitted again.

        Args:
            target: the models to be reproduced; none of them is in a part.
            rng: of the bootstrap.
            replaced: other models in the place of a part's, by the part's number.
        """
        replaced = replaced or {}
        parts = [
            self._part(replaced[number], rng) if number in replaced else part
            for number, part in enumerate(self.parts)
        ]
        among = self._among(replaced, parts)
        counts = self._counts(target, rng)
        to_target = torch.stack([part.mean_to(target.rows, counts) for part in parts], 1)
        shares, residuals = solve(among, to_target, self._within(target, counts))
        residual = float(residuals[0])
        null = self._null(parts, among, shares[0], len(target.rows), rng)
        p = (1 + int((null >= residual).sum())) / (1 + self.count)
        return Mixture(shares[0], residual, shares[1:], p)

    def _null(
        self,
        parts: Sequence[_Part],
        among: Float[Tensor, "B P P"],
        shares: Float[Tensor, " P"],
        models: int,
        rng: torch.Generator,
    ) -> Float[Tensor, " R"]:
        """Return the residuals of samples that are drawn from the mixture itself."""
        rows = torch.cat([part.group.rows for part in parts])
        sizes = torch.tensor([len(part.group.rows) for part in parts])
        chance = (shares / sizes).repeat_interleave(sizes).expand(self.count, -1)
        drawn = torch.multinomial(chance, models, replacement=True, generator=rng)
        # A model that is drawn twice stands for two models of its population, unless this is the population.
        stand_in = torch.cat([self._usual(part.group) for part in parts])
        pairs = self.distances[rows[drawn][:, :, None], rows[drawn][:, None, :]]
        same = drawn[:, :, None] == drawn[:, None, :]
        pairs = torch.where(same, stand_in[drawn][:, :, None], pairs)
        pairs.diagonal(dim1=1, dim2=2).zero_()
        within = pairs.sum((1, 2)) / max(1, models * (models - 1))
        to_target, start = [], 0
        for part, size in zip(parts, sizes.tolist(), strict=True):
            sums = part.sums[rows][
                :, 1:
            ]  # of every model to the part's, but for the models that meet themselves
            own = slice(start, start := start + size)
            sums[own] += part.counts[1:].T * self._usual(part.group)[:, None]
            total = sums.gather(0, drawn.T).sum(0)
            to_target.append(total / (models * part.counts[1:].sum(1)))
        return solve(among[1:], torch.stack(to_target, 1), within)[1]

    def _part(self, group: Group, rng: torch.Generator) -> _Part:
        counts = self._counts(group, rng)
        sums = self.distances[:, group.rows] @ counts.T
        return _Part(group, counts, sums, self._within(group, counts))

    def _counts(self, group: Group, rng: torch.Generator) -> Float[Tensor, "B n"]:
        """Return how often each model counts: once, and then as drawn; a whole population is not resampled."""
        n = len(group.rows)
        once = torch.ones(1, n, dtype=torch.float64)
        drawn = once.expand(self.count, -1) if group.whole else resamples(n, rng, self.count)
        return torch.cat([once, drawn])

    def _usual(self, group: Group) -> Float[Tensor, " n"]:
        """Return the distance that stands for that of a model to itself: its mean to the others of a sample, or 0."""
        n = len(group.rows)
        if group.whole or n < 2:
            return torch.zeros(n, dtype=torch.float64)
        block = self.distances[group.rows[:, None], group.rows]
        return block.sum(1) / (n - 1)

    def _within(self, group: Group, counts: Float[Tensor, "B n"]) -> Float[Tensor, " B"]:
        """Return the mean distance of two draws from a group; only a whole population's may be one model twice."""
        block = self.distances[group.rows[:, None], group.rows] + torch.diag(self._usual(group))
        total = ((counts @ block) * counts).sum(1)
        n = counts.sum(1)
        if group.whole:
            return total / n**2
        return (total - counts @ block.diagonal()) / (n * (n - 1)).clamp(min=1)

    @functools.cached_property
    def _means(self) -> Float[Tensor, "B P P"]:
        """The mean distances between the parts in every resample."""
        return _table([part.within for part in self.parts], self.parts)

    def _among(self, replaced: Mapping[int, Group], parts: Sequence[_Part]) -> Tensor:
        """Return the mean distances between parts, of which some were replaced."""
        means = self._means.clone() if replaced else self._means
        for number in replaced:
            for other, part in enumerate(parts):
                own = parts[number]
                mean = own.within if other == number else own.mean_to(part.group.rows, part.counts)
                means[:, number, other] = means[:, other, number] = mean
        return means


def _table(within: Sequence[Float[Tensor, " B"]], parts: Sequence[_Part]) -> Tensor:
    means = torch.stack(list(within), 1).diag_embed()
    for i, one in enumerate(parts):
        for j, other in enumerate(parts[:i]):
            mean = one.mean_to(other.group.rows, other.counts)
            means[:, i, j] = means[:, j, i] = mean
    return means


def solve(
    among: Float[Tensor, "B P P"], to_target: Float[Tensor, "B P"], within: Float[Tensor, " B"]
) -> tuple[Float[Tensor, "B P"], Float[Tensor, " B"]]:
    """Return the shares of P parts that minimise the energy distance to the target, and that distance.

    Args:
        among: mean distances between the parts.
        to_target: mean distances between the parts and the target.
        within: mean distance within the target.
    """
    kernel = to_target[:, :, None] + to_target[:, None, :] - among
    shares = torch.from_numpy(_simplex(kernel.numpy()))
    return shares, torch.einsum("bi,bij,bj->b", shares, kernel, shares) - within


def _simplex(kernels: Float[np.ndarray, "B P P"]) -> Float[np.ndarray, "B P"]:
    """Minimise w' kernel w over shares w (not negative, sum 1) for every kernel.

    As non-negative least squares with a heavy equation for the sum (Heinz and Chang 2001). Estimated from samples, a
    kernel may have eigenvalues below 0; they count as 0.
    """
    values, vectors = np.linalg.eigh(kernels)
    roots = np.sqrt(values.clip(min=0))[:, :, None] * vectors.swapaxes(1, 2)
    heavy = 1e3 * np.sqrt(values[:, -1].clip(min=np.finfo(float).tiny))
    equations = np.concatenate(
        [roots, np.broadcast_to(heavy[:, None, None], values[:, None].shape)], 1
    )
    wanted = np.zeros(equations.shape[:2])
    wanted[:, -1] = heavy
    shares: Float[np.ndarray, "B P"] = np.empty(values.shape)
    for share, one, right in zip(shares, equations, wanted, strict=True):
        share[:] = nnls(one, right)[0]
    shares /= shares.sum(1, keepdims=True)
    return shares
