"""Agreement of models: error consistency, Cohen's kappa of being wrong."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.metrics.similarity import overlaps


def error_consistency(a: Bool[Tensor, "N M"], b: Bool[Tensor, "P M"]) -> Float[Tensor, "N P"]:
    """Return Cohen's kappa of being wrong for every pair of rows: agreement beyond that of independent errors.

    kappa = (observed - expected) / (1 - expected), where observed is the share of units that both models get right or
    both get wrong, and expected is that of independent errors at the same two error rates. So unlike IoU it does not
    rise with the error count. From counts: a and b wrong units of M, w of them shared,

        kappa = 2 (M w - a b) / (M (a + b) - 2 a b)

    1 where expected agreement is 1: both models get everything right, or everything wrong, and agree on all.

    Source: Geirhos et al. 2020, arXiv 2006.16736, equation 3; Cohen 1960. Means over pairs, the nearest of all
    originals and an original's nearest other one are taken from the matrix as from that of IoUs
    (``bench.metrics.similarity``).

    Args:
        a, b: which of M units each model gets wrong.

    >>> error_consistency(torch.tensor([[True, True, False, False]]), torch.tensor([[True, False, False, False]]))
    tensor([[0.5000]], dtype=torch.float64)
    """
    return consistency_of(*overlaps(a, b), a.shape[1])


def consistency_of(
    both: Float[Tensor, "N P"],
    size_a: Float[Tensor, "N 1"],
    size_b: Float[Tensor, " P"],
    units: int,
) -> Float[Tensor, "N P"]:
    """Return the error consistency of every pair from what ``similarity.overlaps`` counted of this many units."""
    both, wrong_a, wrong_b = both.double(), size_a.double(), size_b.double()
    chance = wrong_a * wrong_b
    beyond = 2 * (units * both - chance)
    possible = units * (wrong_a + wrong_b) - 2 * chance
    return torch.where(possible == 0, 1.0, beyond / possible)
