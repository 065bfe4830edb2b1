"""Principal component analysis of many more parameters than checkpoints, through the K x K inner products."""

import dataclasses
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 2**20  # parameters at a time, so that all are never there in float64
_NEGLIGIBLE = 1e-6  # of the largest singular value: below it a direction holds rounding errors only


def gram(rows: Float[Tensor, "K D"]) -> Float[Tensor, "K K"]:
    """Return the inner products of all pairs of rows, summed in float64."""
    products = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for block in rows.split(BLOCK, dim=1):
        products += block.double() @ block.double().T
    return products


@dataclasses.dataclass(frozen=True)
class PrincipalAxes:
    """The affine map from vectors to coordinates along their first principal directions, and back.

    Attributes:
        mean: of the vectors.
        axes: orthonormal rows, by falling variance; at least one, of zeros where the vectors do not vary.
    """

    mean: Float[Tensor, " D"]
    axes: Float[Tensor, "c D"]

    @classmethod
    def fit(cls, vectors: Float[Tensor, "K D"], components: int) -> Self:
        """Find the first principal directions of K vectors, at most as many as they vary along.

        With U S V' the singular value decomposition of the centred vectors, their products are U S^2 U', and the
        directions are the rows of S^-1 U' times the vectors.
        """
        mean = vectors.mean(0, dtype=torch.float64).to(vectors.dtype)
        centred = vectors - mean
        squares, left = torch.linalg.eigh(gram(centred.cpu()))
        singular = squares.clamp(min=0).sqrt().flip(0)[:components]
        kept = max(1, int((singular > _NEGLIGIBLE * singular[0]).sum()))
        scale = torch.where(singular > 0, 1 / singular, 0.0)[:kept, None]
        weights = (scale * left.T.flip(0)[:kept]).to(vectors)
        return cls(mean, weights @ centred)

    def apply(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n c"]:
        """Return the coordinates of vectors."""
        return (vectors - self.mean) @ self.axes.T

    def undo(self, coordinates: Float[Tensor, "n c"]) -> Float[Tensor, "n D"]:
        """Return the vectors of coordinates."""
        return torch.addmm(self.mean, coordinates, self.axes)
