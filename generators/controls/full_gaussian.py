"""A normal distribution with the covariance of the checkpoints."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Generator
from bench.contract.zoo import Zoo


@dataclass
class FullGaussian(Generator):
    """All parameters drawn together from the normal with the checkpoints' mean and covariance."""

    made_of: ClassVar[str] = "averages"
    aligned_too: ClassVar[bool] = True

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Compute the mean, and K deviations from it whose products sum to the (biased) covariance."""
        self.mean_ = zoo.vectors.mean(dim=0, dtype=torch.float64).float()
        self.deviations_ = (zoo.vectors - self.mean_) / len(zoo) ** 0.5
        return self

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Add the deviations to the mean, each times a standard normal number: no D x D matrix is needed."""
        factors = torch.randn(n, len(self.deviations_), generator=rng)
        return torch.addmm(self.mean_, factors, self.deviations_)
