"""Variety: how far a population's models are apart, over the same of a reference."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bench.metrics.draws import RESAMPLES
from bench.metrics.novelty import Bounds
from bench.metrics.similarity import mean_off_diagonal
from bench.metrics.statistics import percentiles

BLOCK = 4_000_000  # distances at a time: those of all subsamples at once would fill the memory


class Variety(NamedTuple):
    """A population's variety over that of the reference, each with its 95 % interval; 1 is as varied.

    Attributes:
        distance: ratio of the mean distances.
        vendi: ratio of the Vendi scores, at equal numbers of models.
    """

    distance: Bounds
    vendi: Bounds


def mean_distance(distances: Float[Tensor, "N N"]) -> float | None:
    """Return the mean distance of two different models; None for a single model."""
    return mean_off_diagonal(distances)


def vendi(similarities: Float[Tensor, "*B N N"]) -> Float[Tensor, "*B"]:
    """Return the Vendi score of populations of N models: how many models that share nothing would be as varied.

    The exponential of the von Neumann entropy of K / N, -sum of x log x over its eigenvalues x: 1 where all models are
    the same, N where no two are alike. It grows with N, so that only scores of equal N can be compared.

    Source: Friedman and Dieng 2023, arXiv 2210.02410, definition 3.1.

    Args:
        similarities: K, positive semidefinite, with ones on the diagonal.

    >>> round(float(vendi(torch.eye(4))), 6), round(float(vendi(torch.ones(4, 4))), 6)
    (4.0, 1.0)
    """
    values = torch.linalg.eigvalsh(similarities.double() / similarities.shape[-1])
    score: Tensor = torch.special.entr(values.clamp(min=0)).sum(-1).exp()
    return score


def variety(
    generated: Float[Tensor, "n n"],
    reference: Float[Tensor, "m m"],
    *,
    rng: torch.Generator,
    count: int = RESAMPLES,
) -> Variety | None:
    """Return mean distance and Vendi score of a population over the reference's, with intervals over models of both.

    The kernel of the Vendi score is exp(-d / s) with s the reference's median distance. It is positive definite for all
    distances of negative type (Schoenberg 1938): L2 and Hellinger as well as 1 - IoU, for which exp(-(d / s)^2) is not.

    Intervals are percentiles over random halves of both populations, drawn without replacement. The usual bootstrap
    draws a model twice, and a model is no pair with itself: such pairs can be left out of a mean distance, but not of a
    Vendi score. A mean over half of n models varies about that over all as the latter does about the truth: the
    variance S^2 / (n / 2) * (1 - 1 / 2) is S^2 / n (half-sampling: McCarthy 1969; the delete-d jackknife, Shao and Wu
    1989). Vendi scores are of b models each, half of the smaller population: a half of the larger one is cut into parts
    of b, and their scores are averaged.

    Args:
        generated, reference: finite distances of all pairs of models.
        rng: of the halves.
        count: number of halves.

    Returns:
        None for fewer than 4 models of either, or a reference whose models (mostly) coincide.
    """
    each = min(len(generated), len(reference)) // 2
    usual = float(_pairs(reference).median()) if each > 1 else 0.0
    if usual <= 0:
        return None
    (far, scores), (usually_far, usual_scores) = (
        _halves(distances.double() / usual, each, rng, count)
        for distances in (generated, reference)
    )
    if not bool((usually_far > 0).all()):
        return None
    return Variety(
        (
            float(_pairs(generated).mean() / _pairs(reference).mean()),
            *percentiles(far / usually_far),
        ),
        (float(scores.mean() / usual_scores.mean()), *percentiles(scores / usual_scores)),
    )


def _pairs(distances: Float[Tensor, "N N"]) -> Float[Tensor, " pairs"]:
    """Return the distances of all pairs of different models, once each."""
    rows, columns = torch.triu_indices(len(distances), len(distances), offset=1)
    return distances[rows, columns].double()


def _halves(
    distances: Float[Tensor, "N N"], each: int, rng: torch.Generator, count: int
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Return mean distance and Vendi score of random halves, as means over their parts of ``each`` models."""
    parts = len(distances) // 2 // each
    order = torch.rand(count, len(distances), generator=rng, dtype=torch.float64).argsort(1)
    drawn = order[:, : parts * each].view(count, parts, each)
    blocks = drawn.split(max(1, BLOCK // (parts * each**2)))
    far, scores = zip(*(_of_parts(distances, block) for block in blocks), strict=True)
    return torch.cat(far), torch.cat(scores)


def _of_parts(
    distances: Float[Tensor, "N N"], drawn: Int64[Tensor, "B parts each"]
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Return mean distance and Vendi score, both averaged over parts."""
    each = drawn.shape[-1]
    chosen = distances[drawn[..., :, None], drawn[..., None, :]]
    total = chosen.sum((-2, -1)) - chosen.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (total / (each * (each - 1))).mean(1), vendi((-chosen).exp()).mean(1)
