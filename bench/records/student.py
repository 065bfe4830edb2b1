"""Student's distribution: intervals of the mean of a few values, and limits of tests. Imports no torch."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]

LEVEL = 0.95  # coverage of the interval


def half_width(spread: float, count: int) -> float:
    """Return half the width of the 95 % interval of a mean.

    Args:
        spread: standard deviation of the values, with n - 1 in its denominator.
        count: number of values, at least 2.

    >>> round(half_width(1.0, 3), 4)
    2.4841
    """
    return float(stdtrit(count - 1, (1 + LEVEL) / 2)) * spread / math.sqrt(count)


def limits(freedom: Floats, levels: Floats) -> Floats:
    """Return how far from 0 Student's distribution is with a chance of each level, on either side.

    Args:
        freedom: (F,) degrees of freedom, above 0; infinite where the distribution is normal.
        levels: (L,) chances.

    Returns:
        (F, L) limits.

    >>> limits(np.array([2.0, np.inf]), np.array([0.05])).round(3).tolist()
    [[4.303], [1.96]]
    """
    # The lower tail, where chances near 0 keep their digits.
    return np.asarray(-stdtrit(freedom[:, None], levels[None, :] / 2))
