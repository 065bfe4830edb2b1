"""Are two populations alike? A permutation test of their energy distance."""

import torch
from jaxtyping import Float
from torch import Tensor

from bench.errors import BenchError

PERMUTATIONS = 9999  # p-values are multiples of 1e-4
ROUNDING = 1e-12  # of the largest distance: splits that differ by no more are tied


def energy_test(
    distances: Float[Tensor, "N N"], n: int, *, rng: torch.Generator, count: int = PERMUTATIONS
) -> tuple[float, float]:
    """Test whether the first n models and the m others are drawn alike, by permutations.

    The energy distance (Szekely and Rizzo 2004) is 2 E d(X, Y) - E d(X, X') - E d(Y, Y'), with means over all pairs of
    models, also of a model with itself. With weights a of 1 / n for models of the one population and -1 / m for those
    of the other it is -a' D a: one product with D for all permutations. Under the null hypothesis all splits are
    equally likely, so that p = (1 + number of random splits that are as far apart) / (1 + B) never rejects too often,
    for any B (Phipson and Smyth 2010). It tells all differences apart where the distance is of strong negative type, as
    L2 is.

    Args:
        distances: of all pairs of the pooled N = n + m models, finite.
        n: size of the first population.
        rng: of the permutations.
        count: B, number of permutations.

    Returns:
        The energy distance, and p.

    Raises:
        BenchError: an empty population, or distances that are not finite.
    """
    m = len(distances) - n
    if min(n, m) < 1:
        raise BenchError(f"a two-sample test needs models of both populations, got {n} and {m}")
    if not bool(distances.isfinite().all()):
        raise BenchError("distances of models are not finite (NaN or inf)")
    distances = distances.double()
    order = torch.rand(count, n + m, generator=rng, dtype=torch.float64).argsort(1)
    first = torch.cat([torch.arange(n)[None], order[:, :n]])
    weights = torch.full((1 + count, n + m), -1 / m, dtype=torch.float64).scatter_(1, first, 1 / n)
    apart = -((weights @ distances) * weights).sum(1)
    least = apart[0] - ROUNDING * distances.abs().max()
    return float(apart[0]), (1 + int((apart[1:] >= least).sum())) / (1 + count)
