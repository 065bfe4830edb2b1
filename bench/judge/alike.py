"""How alike every pair of models of two populations is: by their similarity, and by the agreement of their errors."""

import dataclasses

from jaxtyping import Float
from torch import Tensor

from bench.judge.population import Population
from bench.metrics import similarity as similar
from bench.metrics.agreement import consistency_of


@dataclasses.dataclass(frozen=True)
class Alike:
    """How alike every model of one population is to every model of another.

    Attributes:
        similarity: IoU of wrong units, or the same of features, see ``bench.metrics.similarity``.
        kappa: error consistency, Cohen's kappa of being wrong; None where models have no wrong units.
    """

    similarity: Float[Tensor, "N P"]
    kappa: Float[Tensor, "N P"] | None

    @classmethod
    def of(cls, a: Population, b: Population) -> "Alike":
        """Compare N models with P others; both numbers come from one count of shared wrong units."""
        if a.wrong is None or b.wrong is None:
            return cls(similar.pairwise(a.compared, b.compared), None)
        counts = similar.overlaps(a.wrong, b.wrong)
        return cls(similar.iou_of(*counts), consistency_of(*counts, a.wrong.shape[1]))
