"""Novelty: 1 - IoU with the nearest original, and the score above a control's at the same novelty."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import isotonic_regression
from torch import Tensor

from bench.metrics.draws import RESAMPLES, TYPICAL
from bench.metrics.statistics import percentiles, resamples

Bounds = tuple[float, float, float]  # value, low, high


class Advantage(NamedTuple):
    """A population's scores above a control's curve.

    Attributes:
        mean, typical: mean and quantile ``TYPICAL`` of the compared models' advantages, each with its 95 % interval;
            None where no model is compared.
        beyond: share of models that are more novel than all of the control's, and so not compared.
    """

    mean: Bounds | None
    typical: Bounds | None
    beyond: float


def novelty(similarity: Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
    """Return 1 - the largest IoU with any original for each model, from the IoUs of N models and K originals."""
    return 1 - similarity.max(dim=1).values


class Curve:
    """A control's score as a function of novelty: an isotonic fit, scores get no better as novelty grows.

    Between two of the control's models the curve is that of the less novel one, and below its least novel one it is
    constant: gaps in the control never count in favour of what is compared with it.

    Args:
        scores, novelties: of the control; L levels (amplitudes) of P draws. Draws of different levels with one number
            may start from one checkpoint, so they are resampled together.
        rng: of the bootstrap.
        higher_is_better: of the scores.
        count: resamples.

    Attributes:
        sign: 1 where higher is better, otherwise -1; fits are of ``sign`` times the scores.
        knots: the control's different novelties, ascending.
        fitted, resampled: the curve at every knot, and that of every bootstrap resample of the draws.
    """

    def __init__(
        self,
        scores: Float[Tensor, "L P"],
        novelties: Float[Tensor, "L P"],
        *,
        rng: torch.Generator,
        higher_is_better: bool = True,
        count: int = RESAMPLES,
    ) -> None:
        self.sign = 1.0 if higher_is_better else -1.0
        self.knots, place = novelties.double().flatten().unique(return_inverse=True)
        signed, draws = self.sign * scores.double().flatten(), scores.shape[1]
        self.fitted = self._fit(torch.ones(1, draws, dtype=torch.float64), signed, place)[0]
        self.resampled = self._fit(resamples(draws, rng, count), signed, place)

    def _fit(
        self, counts: Float[Tensor, "B P"], signed: Float[Tensor, " N"], place: Int64[Tensor, " N"]
    ) -> Float[Tensor, "B U"]:
        """Return the curve at every knot, with draws weighted by ``counts``; N is L levels times P draws."""
        tiled = counts.repeat(1, len(signed) // counts.shape[1])
        zeros = torch.zeros(len(counts), len(self.knots), dtype=torch.float64)
        places = place.expand(len(counts), -1)
        weights = zeros.scatter_add(1, places, tiled)
        sums = zeros.scatter_add(1, places, tiled * signed)
        return torch.from_numpy(_isotonic(sums.numpy(), weights.numpy()))

    def place(self, novelties: Float[Tensor, " N"]) -> Int64[Tensor, " N"]:
        """Return the knot that stands for each novelty: the last that is not above it, or the first."""
        return (torch.searchsorted(self.knots, novelties.double(), right=True) - 1).clamp(min=0)

    @property
    def reach(self) -> float:
        """The largest novelty of the control."""
        return float(self.knots[-1])


def _isotonic(
    sums: Float[np.ndarray, "B U"], weights: Float[np.ndarray, "B U"]
) -> Float[np.ndarray, "B U"]:
    """Fit non-increasing least squares through the weighted means of every row.

    Knots without weight take the value before them.
    """
    there = weights > 0
    places = np.maximum(there.cumsum(axis=1) - 1, 0)
    fitted = [
        isotonic_regression(total[here] / weight[here], weights=weight[here], increasing=False).x
        for total, weight, here in zip(sums, weights, there, strict=True)
    ]
    return np.stack([values[place] for values, place in zip(fitted, places, strict=True)])


def advantage(
    scores: Float[Tensor, " N"],
    novelties: Float[Tensor, " N"],
    curve: Curve,
    *,
    rng: torch.Generator,
) -> Advantage:
    """Return the score above the control's curve at each model's own novelty; positive is better.

    Intervals are of the percentile bootstrap; models and control are both resampled, and the curve is fitted again each
    time, so that they hold the control's own uncertainty. Models more novel than any of the control's are counted, not
    extrapolated to.

    Args:
        scores, novelties: of the models.
        curve: the control's.
        rng: of the bootstrap over models.
    """
    inside = novelties.double() <= curve.reach
    beyond = 1 - float(inside.double().mean())
    if not inside.any():
        return Advantage(None, None, beyond)
    signed, place = curve.sign * scores[inside].double(), curve.place(novelties[inside])
    above = signed - curve.fitted[place]
    chosen = torch.randint(len(signed), (len(curve.resampled), len(signed)), generator=rng)
    resampled = signed[chosen] - curve.resampled.gather(1, place[chosen])
    return Advantage(
        (float(above.mean()), *percentiles(resampled.mean(1))),
        (float(_typical(above[None])), *percentiles(_typical(resampled))),
        beyond,
    )


def _typical(values: Float[Tensor, "B n"]) -> Float[Tensor, " B"]:
    """Return the quantile ``TYPICAL`` of every row; ``torch.quantile`` takes ten times as long."""
    return torch.from_numpy(np.quantile(values.numpy(), TYPICAL, axis=1))
