"""Student's t interval of the mean of a few values. Imports no torch."""

import math

from scipy.special import stdtrit

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
