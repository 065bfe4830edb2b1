"""A normal distribution in the first principal directions of the checkpoints."""

from dataclasses import dataclass
from typing import Self

import torch

from bench.contract import Generator, check
from bench.contract.zoo import Zoo
from generators.controls.full_gaussian import FullGaussian
from generators.networks.principal import gram


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
