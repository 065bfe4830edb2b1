"""Distances between sets of images in the features of a network: Fréchet distance, KID, precision and recall.

Every function takes N sets of generated images at once and compares each with one set of real images.
"""

import dataclasses
from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from bench.errors import BenchError

BLOCK = 2048  # images at a time in kernels and distances: all pairs at once would fill the memory
NEIGHBOURS = 3  # of precision and recall, as in their paper
GROUPS = 10  # groups of images in the jackknife
HALVINGS = 4  # random halvings of the images in the unbiased estimate


@dataclasses.dataclass(frozen=True)
class Moments:
    """Sums over images from which mean and covariance follow; in float64, so that images can come in any batches.

    Attributes:
        count: images.
        total: sum of the features, relative to ``origin``.
        products: sum of the features' outer products, relative to ``origin``.
        origin: a point near the features, which keeps the products small.
    """

    count: int
    total: Float[Tensor, "*N d"]
    products: Float[Tensor, "*N d d"]
    origin: Float[Tensor, " d"]

    @classmethod
    def zero(cls, shape: Sequence[int], origin: Float[Tensor, " d"]) -> Self:
        """Return the sums over no images, for as many sets as ``shape`` says (without the features' dimension)."""
        zeros = torch.zeros(*shape, len(origin), dtype=torch.float64, device=origin.device)
        products = zeros[..., None].expand(*zeros.shape, len(origin)).clone()
        return cls(0, zeros, products, origin.double())

    def add(self, features: Float[Tensor, "*N n d"]) -> Self:
        """Return the sums with n more images of every set."""
        total, products = self.total, self.products
        for block in features.split(BLOCK, dim=-2):
            centred = block.double() - self.origin
            total, products = total + centred.sum(-2), products + centred.mT @ centred
        count = self.count + features.shape[-2]
        return dataclasses.replace(self, count=count, total=total, products=products)

    def __sub__(self, part: Self) -> Self:
        """Return the sums without those of a part of the images, about the same origin."""
        return dataclasses.replace(
            self,
            count=self.count - part.count,
            total=self.total - part.total,
            products=self.products - part.products,
        )

    def gaussian(self) -> "Gaussian":
        """Return the mean and the unbiased covariance of the images' features.

        Raises:
            BenchError: fewer than two images, or features that are not finite.
        """
        if self.count < 2:
            raise BenchError(f"a covariance needs at least 2 images, there is {self.count}")
        if not bool(self.products.isfinite().all()):
            raise BenchError("features of images are not finite (NaN or inf)")
        mean = self.total / self.count
        scatter = self.products - self.count * mean[..., None] * mean[..., None, :]
        return Gaussian(self.origin + mean, scatter / (self.count - 1))


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """The normal distribution that stands for a set of images: mean and covariance of its features, in float64."""

    mean: Float[Tensor, "*N d"]
    covariance: Float[Tensor, "*N d d"]

    @classmethod
    def of(cls, features: Float[Tensor, "*N n d"]) -> Self:
        """Fit the distribution to features that are all in memory, n images of each of N sets."""
        origin = features.flatten(0, -2).mean(0, dtype=torch.float64)
        fitted = Moments.zero(features.shape[:-2], origin).add(features).gaussian()
        return cls(fitted.mean, fitted.covariance)


def root(gaussian: Gaussian) -> Float[Tensor, "*N d d"]:
    """Return the symmetric square root of the covariance."""
    values, vectors = torch.linalg.eigh(gaussian.covariance)
    symmetric: Tensor = (vectors * _roots(values)[..., None, :]) @ vectors.mT
    return symmetric


def frechet(
    generated: Gaussian, real: Gaussian, real_root: Float[Tensor, "d d"] | None = None
) -> Float[Tensor, "*N"]:
    """Return the squared Fréchet distance of two normal distributions.

    Source: Dowson and Landau 1982; as FID, Heusel et al. 2017, equation 6.

    |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2). The eigenvalues of C1 C2 are those of R C1 R with the symmetric
    root R of C2, which is symmetric: they are real, and no root of an unsymmetric matrix is needed.

    Args:
        generated: one or N distributions.
        real: one.
        real_root: its ``root``, if it is known.

    >>> one = Gaussian(torch.zeros(1).double(), torch.ones(1, 1).double())
    >>> frechet(one, Gaussian(one.mean + 3, 4 * one.covariance))
    tensor(10., dtype=torch.float64)
    """
    real_root = root(real) if real_root is None else real_root
    between = torch.linalg.eigvalsh(real_root @ generated.covariance @ real_root)
    common = _roots(between).sum(-1)
    traces = sum(one.covariance.diagonal(dim1=-2, dim2=-1).sum(-1) for one in (generated, real))
    return (generated.mean - real.mean).square().sum(-1) + traces - 2 * common


def _roots(values: Float[Tensor, "*N d"]) -> Float[Tensor, "*N d"]:
    """Return the square roots of ascending eigenvalues, with 0 for those that are zero but for rounding.

    Covariances of fewer images than features, or with features that never change, have many such eigenvalues, and the
    roots of rounding (1e-8 of 1e-16) would add up. The bound is that of a matrix's numerical rank.
    """
    rounding = values[..., -1:] * values.shape[-1] * torch.finfo(values.dtype).eps
    return torch.where(values > rounding, values, 0).sqrt()


def unbiased(
    features: Float[Tensor, "N n d"],
    real: Gaussian,
    *,
    rng: torch.Generator,
    real_root: Float[Tensor, "d d"] | None = None,
) -> Float[Tensor, " N"]:
    """Estimate the Fréchet distance at infinitely many generated images.

    Source: FID-infinity, Chong and Forsyth 2020, section 3.

    The distance of n images is too large by about c / n, with a c that differs between models, so that the line through
    the distances of n and of n / 2 images, at 1 / n = 0, has no such bias. The latter is the mean over both halves of
    several random halvings. (The paper draws a line through 15 single subsets from a tenth of the images on. Few images
    a feature are no longer on a line that far down, and means over halves leave less noise.) What the number of real
    images adds stays.

    Args:
        features: of the generated images of N models.
        real: of the real images; ``real_root`` its ``root``, if it is known.
        rng: of the halvings, which all models share.

    Raises:
        BenchError: fewer than four images.
    """
    count = features.shape[1]
    if count < 4:
        raise BenchError(f"to extrapolate from half of the images there must be 4, got {count}")
    real_root = root(real) if real_root is None else real_root
    none = Moments.zero(features.shape[:1], real.mean)
    whole, halves = none.add(features), []
    for _ in range(HALVINGS):
        half = torch.randperm(count, generator=rng)[: count // 2].to(features.device)
        first = none.add(features[:, half])
        halves += [frechet(part.gaussian(), real, real_root) for part in (first, whole - first)]
    return 2 * frechet(whole.gaussian(), real, real_root) - torch.stack(halves).mean(0)


def standard_error(
    features: Float[Tensor, "N n d"], real: Gaussian, real_root: Float[Tensor, "d d"] | None = None
) -> Float[Tensor, " N"]:
    """Estimate how far the Fréchet distance would move with other images of the same models: the grouped jackknife.

    The images are left out in ``GROUPS`` groups, one after another (Quenouille 1956; Efron and Tibshirani 1993, chapter
    11).

    Raises:
        BenchError: fewer than two images a group.
    """
    if features.shape[1] < 2 * GROUPS:
        raise BenchError(
            f"the jackknife needs at least {2 * GROUPS} images, there are {features.shape[1]}"
        )
    real_root = root(real) if real_root is None else real_root
    parts = without_groups(features.tensor_split(GROUPS, dim=1))
    distances = [frechet(part.gaussian(), real, real_root) for part in parts]
    error: Tensor = torch.stack(distances).std(0, correction=0) * (GROUPS - 1) ** 0.5
    return error


def without_groups(groups: Sequence[Float[Tensor, "*N _ d"]]) -> list[Moments]:
    """Return the moments of all images but those of one group, for every group; each image is summed once.

    Args:
        groups: features of the images of every group, whose sizes may differ.
    """
    origin = torch.cat(list(groups), dim=-2).flatten(0, -2).mean(0, dtype=torch.float64)
    none = Moments.zero(groups[0].shape[:-2], origin)
    parts = [none.add(group) for group in groups]
    whole = none.add(torch.cat(list(groups), dim=-2))
    return [whole - part for part in parts]


def kid(
    features: Float[Tensor, "N n d"], real: Float[Tensor, "m d"], block: int = BLOCK
) -> Float[Tensor, " N"]:
    """Return the kernel inception distance: unbiased squared MMD, kernel (x.y / d + 1)^3 (Binkowski et al. 2018).

    Over all pairs of images instead of an average over random subsets: as unbiased, and less noisy.

    Args:
        features: of the generated images of N models.
        real: of the real images.
        block: images at a time.

    Raises:
        BenchError: fewer than two images on either side.
    """
    n, m = features.shape[1], len(real)
    if min(n, m) < 2:
        raise BenchError(f"KID needs at least 2 images of both kinds, got {n} and {m}")
    real = real.double()
    of_real = (_kernel(real, real, block) - _diagonal(real)) / (m * (m - 1))
    distances = []
    for images in features.double():
        within = (_kernel(images, images, block) - _diagonal(images)) / (n * (n - 1))
        distances.append(within + of_real - 2 * _kernel(images, real, block) / (n * m))
    return torch.stack(distances)


def _kernel(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], block: int) -> Float[Tensor, ""]:
    """Return the kernel summed over all pairs."""
    sums = [(x @ b.T / b.shape[1] + 1).pow(3).sum() for x in a.split(block)]
    return torch.stack(sums).sum()


def _diagonal(a: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return the kernel of every image with itself, summed."""
    return (a.square().sum(1) / a.shape[1] + 1).pow(3).sum()


def precision_recall(
    features: Float[Tensor, "N n d"], real: Float[Tensor, "m d"], block: int = BLOCK
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Return improved precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2).

    Precision: the share of generated images within the distance of some real image to its third nearest real one.
    Recall: the same with the two exchanged.

    Args:
        features: of the generated images of N models.
        real: of the real images.
        block: images at a time.

    Raises:
        BenchError: not more images than neighbours on either side.
    """
    n, m = features.shape[1], len(real)
    if min(n, m) <= NEIGHBOURS:
        raise BenchError(
            f"precision and recall need more than {NEIGHBOURS} images of both kinds, got {n} and {m}"
        )
    radii = _radii(real, block)
    shares = [
        (_covered(x, real, radii, block), _covered(real, x, _radii(x, block), block))
        for x in features
    ]
    precision, recall = (torch.stack(column) for column in zip(*shares, strict=True))
    return precision, recall


def _radii(points: Float[Tensor, "n d"], block: int) -> Float[Tensor, " n"]:
    """Return each point's distance to its third nearest neighbour; the nearest of all is the point itself."""
    blocks = (torch.cdist(rows, points) for rows in points.split(block))
    return torch.cat([distances.kthvalue(NEIGHBOURS + 1).values for distances in blocks])


def _covered(
    points: Float[Tensor, "n d"],
    centres: Float[Tensor, "m d"],
    radii: Float[Tensor, " m"],
    block: int,
) -> Float[Tensor, ""]:
    """Return the share of points within the radius of some centre."""
    blocks = (torch.cdist(rows, centres) <= radii for rows in points.split(block))
    return torch.cat([near.any(1) for near in blocks]).double().mean()
