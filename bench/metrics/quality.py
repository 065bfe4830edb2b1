"""Quality: a population's mean score against the reference's."""

from typing import NamedTuple

from jaxtyping import Float
from scipy.special import stdtr, stdtrit
from torch import Tensor

from bench.metrics.draws import LEVEL
from bench.metrics.novelty import Bounds


class Quality(NamedTuple):
    """How much a population's mean score differs from the reference's.

    Attributes:
        difference: generated minus reference, with its 95 % interval.
        equivalence: p-value against the hypothesis that the means are apart by the margin or more.
    """

    difference: Bounds
    equivalence: float


def quality(
    generated: Float[Tensor, " n"], reference: Float[Tensor, " m"], margin: float
) -> Quality | None:
    """Return the difference of two mean scores, with Welch's interval and the p-value of two one-sided tests.

    Welch (1947): t = difference / e with e^2 = s^2 / n + r^2 / m, variances s^2 and r^2, and Satterthwaite's degrees of
    freedom. Schuirmann (1987): the means are shown to be equivalent where both "difference <= -margin" and "difference
    >= margin" are rejected; p is the larger of both, P(T <= (|difference| - margin) / e). Models are taken to be
    independent, which neighbours on a trajectory are not.

    Args:
        generated, reference: score of each model.
        margin: the smallest difference that matters, in units of the score.

    Returns:
        None where either population is a single model.
    """
    n, m = len(generated), len(reference)
    if min(n, m) < 2:
        return None
    difference = float(generated.double().mean() - reference.double().mean())
    own, other = float(generated.double().var()) / n, float(reference.double().var()) / m
    error = (own + other) ** 0.5
    if error == 0:
        return Quality((difference,) * 3, float(abs(difference) >= margin))
    share = own / (own + other)
    freedom = 1 / (share**2 / (n - 1) + (1 - share) ** 2 / (m - 1))
    half = error * float(stdtrit(freedom, (1 + LEVEL) / 2))
    bounds = (difference, difference - half, difference + half)
    return Quality(bounds, float(stdtr(freedom, (abs(difference) - margin) / error)))
