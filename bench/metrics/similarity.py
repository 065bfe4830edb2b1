"""Similarity of models: IoU of their wrong predictions (paper, equation 7), as matrix products."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def iou(a: Bool[Tensor, "N M"], b: Bool[Tensor, "P M"]) -> Float[Tensor, "N P"]:
    """Intersection over union of wrong sets for every pair of rows; 1.0 where both are empty.

    >>> iou(torch.tensor([[True, True, False]]), torch.tensor([[True, False, False]]))
    tensor([[0.5000]])
    """
    both = a.float() @ b.float().T  # counts below 2^24 are exact in float32
    either = a.sum(1, dtype=torch.float32)[:, None] + b.sum(1, dtype=torch.float32) - both
    return torch.where(either == 0, 1.0, both / either.clamp(min=1))


def mean_off_diagonal(matrix: Float[Tensor, "N N"]) -> float | None:
    """Mean over pairs of different models, or None for a single one."""
    n = len(matrix)
    if n < 2:
        return None
    return float((matrix.double().sum() - matrix.diagonal().double().sum()) / (n * (n - 1)))


def nearest_l2_ratio(
    generated: Float[Tensor, "n D"], originals: Float[Tensor, "K D"]
) -> float | None:
    """Median distance to the nearest original over the originals' own median nearest-neighbour distance.

    None where that is undefined: a single original, or originals that mostly coincide.
    """
    if len(originals) < 2:
        return None
    exact = "donot_use_mm_for_euclid_dist"
    among = torch.cdist(originals, originals, compute_mode=exact).fill_diagonal_(torch.inf)
    usual = float(among.min(1).values.quantile(0.5))
    nearest = torch.cdist(generated, originals, compute_mode=exact).min(1).values
    return float(nearest.quantile(0.5)) / usual if usual > 0 else None
