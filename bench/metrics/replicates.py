"""How far the mean of a score's replicates may lie from the score itself. Imports no torch."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

SIGMAS = 3  # standard deviations of replicates
ROUNDING = 1e-5  # relative: replicates are kept as float32


def slack(score: float, replicates: Sequence[float], resampled: str) -> float:
    """Return how far the mean of B replicates may lie from the score that they are replicates of.

    It is off by the bias that resampling adds, which is less than what resampling spreads. Each jackknife replicate
    lacks one of B groups besides: if a distance of n examples is too large by c / n (Chong and Forsyth 2020), at most
    the whole distance, they are larger by at most 1 / (B - 1) of it. Twice that is allowed.

    Args:
        score: of all examples.
        replicates: B scores, two or more.
        resampled: "bootstrap" or "jackknife", as ``bench.contract.metric.Metric`` says.

    >>> round(slack(10.0, [10.0] * 21, "jackknife"), 3)
    1.0
    """
    lacking = 2 * abs(score) / (len(replicates) - 1) if resampled == "jackknife" else 0.0
    return SIGMAS * stdev(replicates) + lacking + ROUNDING * max(1.0, abs(score))


def plausible(score: float, replicates: Sequence[float], resampled: str) -> bool:
    """Return whether the mean of replicates is near enough to the score; see ``slack``."""
    return math.fabs(fmean(replicates) - score) <= slack(score, replicates, resampled)
