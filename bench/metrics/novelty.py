"""Novelty: 1 - IoU with the nearest original, and the score above a control's at the same novelty."""

import numpy as np
import torch
from jaxtyping import Float
from sklearn.isotonic import IsotonicRegression
from torch import Tensor


def novelty(similarity: Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
    """1 - the largest IoU with any original, from the IoU matrix of models and originals."""
    return 1 - similarity.max(dim=1).values


def advantage(
    scores: Float[Tensor, " N"],
    novelties: Float[Tensor, " N"],
    control_scores: Float[Tensor, " P"],
    control_novelties: Float[Tensor, " P"],
    *,
    higher_is_better: bool = True,
) -> Float[Tensor, " n"]:
    """Score above the control's curve at each model's own novelty; positive is better.

    The curve is the isotonic fit of the control's scores, which get no better as novelty grows. Models outside the
    control's range of novelty are left out, not extrapolated.
    """
    inside = (novelties >= control_novelties.min()) & (novelties <= control_novelties.max())
    sign = 1.0 if higher_is_better else -1.0
    curve = IsotonicRegression(increasing=False, out_of_bounds="clip")
    curve.fit(_numpy(control_novelties), _numpy(sign * control_scores))
    if not inside.any():
        return torch.empty(0, dtype=torch.float64)
    expected = curve.predict(_numpy(novelties[inside]))
    return sign * scores[inside].double() - torch.from_numpy(np.asarray(expected, dtype=np.float64))


def _numpy(values: Tensor) -> np.ndarray:
    return values.double().numpy()
