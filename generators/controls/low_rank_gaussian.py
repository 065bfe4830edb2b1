"""A normal distribution in the first principal directions of the checkpoints."""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Generator, check
from bench.contract.zoo import Zoo
from generators.controls.full_gaussian import FullGaussian

BLOCK = 2**20  # parameters at a time, so that all are never there in float64


@dataclass
class LowRankGaussian(FullGaussian, Generator):
    """The normal with the checkpoints' mean and covariance, in their first principal directions alone."""

    rank: int = 8

    def __post_init__(self) -> None:
        check(self.rank >= 1, f"rank is {self.rank}, expected at least 1")

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Project the deviations of the full covariance onto their ``rank`` first principal directions."""
        super().fit(zoo, rng=rng)
        directions = torch.linalg.eigh(gram(self.deviations_)).eigenvectors[:, -self.rank :]
        self.deviations_ = (directions @ directions.T).float() @ self.deviations_
        return self


def gram(rows: Float[Tensor, "K D"]) -> Float[Tensor, "K K"]:
    """Return the inner products of all pairs of rows, summed in float64."""
    products = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for block in rows.split(BLOCK, dim=1):
        products += block.double() @ block.double().T
    return products
