"""Exact tests. Imports no torch."""

from scipy.stats import binomtest


def mcnemar(wins: int, losses: int) -> float:
    """Return the two-sided p-value of McNemar's exact test of two models on the same units.

    Under the null hypothesis a unit that only one of the models gets right is as likely to favour either.

    Args:
        wins, losses: how many units only the first, or only the second, model gets right.

    >>> mcnemar(5, 0), mcnemar(0, 0)
    (0.0625, 1.0)
    """
    total = wins + losses
    return float(binomtest(wins, total).pvalue) if total else 1.0
