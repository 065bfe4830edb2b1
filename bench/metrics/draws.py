"""The bootstrap without torch, on the same random numbers that ``bench.system.randomness`` and torch draw.

torch's source of random numbers on a CPU is the Mersenne Twister that numpy has too, and a whole number below ``high``
is one of its outputs modulo ``high``. So the very resamples that a record's intervals were made with can be drawn
again, and the intervals must come out as they were (``bench.metrics.statistics`` has the same formulas on tensors).
"""

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95
TYPICAL = 0.4  # quantile of a typical model's advantage: a few odd models on top do not move it far
BLOCK = 4_000_000  # draws at a time: all at once would fill the memory where there are many models

Floats = NDArray[np.float64]
Interval = tuple[float, float]


class Stream:
    """Draws what a ``torch.Generator`` with this seed draws on a CPU, in order.

    Args:
        seed: of the generator.
        block: draws in memory at a time; it changes none of them.
    """

    def __init__(self, seed: int, block: int = BLOCK) -> None:
        self.block = block
        # The seeding that torch has too; numpy's newer generators have another.
        self._source = np.random.RandomState(seed & 0xFFFFFFFF)

    def integers(self, high: int, rows: int, columns: int) -> NDArray[np.int64]:
        """Return the matrix of ``torch.randint(high, (rows, columns))``: whole numbers from 0 to ``high`` - 1."""
        drawn = self._source.randint(0, 2**32, size=(rows, columns), dtype=np.uint32)
        return (drawn % high).astype(np.int64)

    def skip(self, n: int) -> None:
        """Skip the draws that the resamples of n models would take."""
        for low in range(0, RESAMPLES, max(1, self.block // n)):
            self.integers(n, min(max(1, self.block // n), RESAMPLES - low), n)

    def resamples(self, n: int, count: int = RESAMPLES) -> Floats:
        """Count how often each of n models is drawn in each of ``count`` bootstrap resamples: count x n."""
        drawn = self.integers(n, count, n) + n * np.arange(count)[:, None]
        return np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).astype(float)

    def mean_interval(self, values: Floats) -> Interval:
        """Return the 95 % percentile bootstrap interval of the mean over models."""
        rows = max(1, self.block // len(values))
        blocks = (min(rows, RESAMPLES - low) for low in range(0, RESAMPLES, rows))
        means = [values[self.integers(len(values), count, len(values))].mean(1) for count in blocks]
        low, high = percentiles(np.concatenate(means))
        return max(low, float(values.min())), min(high, float(values.max()))

    def pair_interval(self, matrix: Floats) -> Interval | None:
        """Return the 95 % bootstrap interval of the mean over pairs of different models; None for fewer than three."""
        if len(matrix) < 3:
            return None
        pairs = matrix - np.diag(np.diagonal(matrix))
        weights = self.resamples(len(matrix))
        total = ((weights @ pairs) * weights).sum(1)
        count = weights.sum(1) ** 2 - (weights**2).sum(1)
        return percentiles(total[count > 0] / count[count > 0])

    def cross_interval(self, matrix: Floats) -> Interval:
        """Return the 95 % bootstrap interval of the mean over all pairs of two populations, both resampled."""
        rows, columns = (self.resamples(size) for size in matrix.shape)
        return percentiles(((rows @ matrix) * columns).sum(1) / matrix.size)


def percentiles(statistics: Floats) -> Interval:
    """Return the bounds of the central 95 % of bootstrap statistics."""
    low, high = np.quantile(statistics, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def mean_off_diagonal(matrix: Floats) -> float | None:
    """Return the mean over pairs of different models; None for a single model."""
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1))) if n > 1 else None
