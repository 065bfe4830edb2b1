"""Class probabilities as coordinates: the Euclidean distance of two models is their Hellinger distance.

The Hellinger distance of two distributions p and q is the Euclidean distance of their roots over the root of 2, between
0 and 1. Over several units the root of the mean of its squares is taken.
"""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tasks.fast.finite import not_finite

VALUES = 2**15  # coordinates of one model, at most


def evenly_spaced(units: int, values: int) -> Int64[Tensor, " u"]:
    """Return the numbers of evenly spaced units, as many as give at most ``VALUES`` coordinates, but at least one.

    Args:
        units: number of all units.
        values: coordinates of one unit.

    >>> evenly_spaced(5, values=VALUES // 3).tolist()
    [0, 2, 4]
    """
    count = min(units, max(1, VALUES // values))
    return torch.linspace(0, units - 1, count).round().long()


def roots_of_probabilities(
    logits: Float[Tensor, "*rows classes"],
) -> Float[Tensor, "*rows classes"]:
    """Return the roots of the softmax of finite logits, in a third of the time on a CPU.

    They are exponentials of half the logits, scaled to length 1.
    """
    halves = (logits - logits.amax(-1, keepdim=True)).mul_(0.5).exp_()
    return halves.div_(halves.norm(dim=-1, keepdim=True))


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
        self._chosen = evenly_spaced(self.units, classes)
        self._roots = torch.zeros(self.models, len(self._chosen), classes, device=self.device)

    def fill(
        self,
        models: slice,
        units: slice,
        logits: Float[Tensor, "n B C"],
        invalid: Bool[Tensor, "n B"] | None = None,
    ) -> None:
        """Take over what some models put out for a stretch of units.

        A unit with a logit that is not finite has no class: all its coordinates are 0.

        Args:
            models, units: numbers of the models and of the units.
            logits: of the stretch.
            invalid: which units have no class for another reason; None: no unit.
        """
        if not hasattr(self, "_roots"):
            self._start(logits.shape[-1])
        low, high = torch.searchsorted(
            self._chosen, torch.tensor([units.start, units.stop])
        ).tolist()
        places = (self._chosen[low:high] - units.start).to(self.device)
        kept = logits.index_select(1, places).float()
        none = not_finite(kept) if invalid is None else not_finite(kept) | invalid[:, places]
        roots = roots_of_probabilities(kept).div_(math.sqrt(2 * len(self._chosen)))
        self._roots[models, low:high] = roots.masked_fill_(none[..., None], 0)

    @property
    def values(self) -> Float[Tensor, "N P"]:
        """The coordinates, on the CPU; 1 apart where two models agree on no class of any unit."""
        return self._roots.flatten(1).cpu()
