"""Class probabilities as coordinates: the Euclidean distance of two models is their Hellinger distance.

The Hellinger distance of two distributions p and q is the Euclidean distance of their roots over the root of 2, between
0 and 1. Over several units the root of the mean of its squares is taken.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tasks.fast.finite import not_finite

VALUES = 2**15  # coordinates of one model, at most


class Coordinates:
    """Coordinates of N models, filled block by block.

    Args:
        models: N.
        units: all units of the split. Some evenly spaced ones are taken: as many as give ``VALUES`` coordinates.
        device: where logits come from.
    """

    def __init__(self, models: int, units: int, device: torch.device | str) -> None:
        self.models, self.units, self.device = models, units, device

    def _start(self, classes: int) -> None:
        count = min(self.units, max(1, VALUES // classes))
        self._chosen = torch.linspace(0, self.units - 1, count).round().long().to(self.device)
        self._roots = torch.zeros(self.models, count, classes, device=self.device)

    def fill(self, models: slice, units: slice, logits: Float[Tensor, "n B C"]) -> None:
        """Take over what some models put out for a stretch of units.

        A unit with a logit that is not finite has no class: all its coordinates are 0.

        Args:
            models, units: numbers of the models and of the units.
            logits: of the stretch.
        """
        if not hasattr(self, "_roots"):
            self._start(logits.shape[-1])
        inside = (self._chosen >= units.start) & (self._chosen < units.stop)
        kept = logits[:, self._chosen[inside] - units.start].float()
        roots = kept.softmax(-1).sqrt()
        self._roots[models, inside] = roots.masked_fill(not_finite(kept)[..., None], 0)

    @property
    def values(self) -> Float[Tensor, "N P"]:
        """The coordinates, on the CPU; 1 apart where two models agree on no class of any unit."""
        return self._roots.flatten(1).cpu() / math.sqrt(2 * len(self._chosen))
