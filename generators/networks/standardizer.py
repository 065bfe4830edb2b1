"""Standardisation of parameters."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract.zoo import Layout


@dataclasses.dataclass(frozen=True)
class Standardizer:
    """The affine map that gives parameters mean 0 and standard deviation 1, and its inverse.

    Attributes:
        mean: subtracted; one number a parameter.
        std: divided by; 0 where the zoo does not vary, so that its one value comes back exactly.
    """

    mean: Float[Tensor, " D"]
    std: Float[Tensor, " D"]

    @classmethod
    def fit(cls, vectors: Float[Tensor, "K D"], layout: Layout | None) -> "Standardizer":
        """Take mean and std of each named tensor over all checkpoints, or without a layout of each parameter."""
        if layout is None:
            std, mean = torch.std_mean(vectors, dim=0, correction=0)
        else:
            pieces = torch.split(vectors, list(layout.sizes), dim=1)
            pairs = [torch.std_mean(piece, correction=0) for piece in pieces]
            sizes = torch.tensor(layout.sizes, device=vectors.device)
            std, mean = (torch.stack(p).repeat_interleave(sizes) for p in zip(*pairs, strict=True))
        return cls(torch.where(std > 0, mean, vectors[0]), std)

    def apply(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Standardise parameters; values are 0 where the zoo does not vary."""
        return (vectors - self.mean) / torch.where(self.std > 0, self.std, 1.0)

    def undo(self, values: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Return the parameters of standardised values."""
        return values * self.std + self.mean
