"""Uniform weight average."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Generator
from bench.contract.zoo import Zoo


@dataclass
class Average(Generator):
    """The uniform average of all checkpoints (the paper's "ensemble")."""

    deterministic: ClassVar[bool] = True
    made_of: ClassVar[str] = "averages"
    aligned_too: ClassVar[bool] = True

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Average in float64."""
        self.mean_ = zoo.vectors.double().mean(dim=0).float()
        return self

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Return the average n times."""
        return self.mean_.expand(n, -1).clone()
