"""Comparing models."""

import numpy as np
import torch

from bench.metrics import similarity
from bench.system.randomness import generator


def test_similarity_1401(versus, short):
    """IoU of the wrong sets of 1,401 models on 10,000 units, against a loop over pairs in numpy."""
    count, units, sample = (700, 10_000, 500) if short else (1401, 10_000, 2000)
    rng = generator(0, "wrong")
    wrong = torch.rand(count, units, generator=rng) < 0.3
    rows = wrong.numpy()
    pairs = torch.randint(count, (sample, 2), generator=rng).tolist()

    def plain():
        found = np.empty(sample)
        for index, (i, j) in enumerate(pairs):
            either = np.logical_or(rows[i], rows[j]).sum()
            found[index] = np.logical_and(rows[i], rows[j]).sum() / either if either else 1.0
        return found

    def agree(matrix, found):
        assert np.array_equal([float(matrix[i, j]) for i, j in pairs], found.astype(np.float32))

    versus(lambda: similarity.iou(wrong, wrong), plain, agree, scale=count**2 / sample, rounds=5)
