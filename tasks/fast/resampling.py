"""Bootstrap resamples of a split's images, the same ones in every run."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.metrics.statistics import resamples
from bench.system.randomness import generator

REPLICATES = 100


def counts(useful: Bool[Tensor, " M"], replicates: int = REPLICATES) -> Float[Tensor, "B M"]:
    """Count how often each of M images is drawn in each of B resamples of M images, with replacement.

    A resample without any useful image, on which no score could be computed, is drawn again.

    Args:
        useful: whether there is anything to find in each image.
        replicates: number of resamples B.

    Raises:
        ValueError: no image is useful.
    """
    if not bool(useful.any()):
        raise ValueError("no image has anything to find, so no resample can be scored")
    rng, weights = generator(0, "replicates"), useful.double()
    kept = torch.zeros(0, len(useful), dtype=torch.float64)
    while len(kept) < replicates:
        drawn = resamples(len(useful), rng, replicates)
        kept = torch.cat([kept, drawn[drawn @ weights > 0]])
    return kept[:replicates]
