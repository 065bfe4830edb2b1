"""A normal distribution for every parameter."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Generator
from bench.contract.zoo import Zoo


@dataclass
class Gaussian(Generator):
    """Every parameter drawn from a normal with its own mean and std over the checkpoints, independently."""

    made_of: ClassVar[str] = "averages"
    aligned_too: ClassVar[bool] = True

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Compute the mean and the (biased) standard deviation of every parameter over the checkpoints."""
        self.mean_ = zoo.vectors.mean(dim=0)
        self.std_ = zoo.vectors.std(dim=0, correction=0)
        return self

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Draw every parameter from its own normal distribution."""
        return self.mean_ + self.std_ * torch.randn(n, len(self.mean_), generator=rng)
