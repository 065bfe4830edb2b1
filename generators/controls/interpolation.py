"""Means of a few random checkpoints."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Generator, check
from bench.contract.zoo import Zoo


@dataclass
class Interpolation(Generator):
    """The mean of 16 checkpoints drawn at random (the control of the audit arXiv 2506.07998)."""

    made_of: ClassVar[str] = "averages"
    aligned_too: ClassVar[bool] = True
    members: int = 16

    def __post_init__(self) -> None:
        check(self.members >= 1, f"members is {self.members}, expected at least 1")

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Keep the checkpoints."""
        self.vectors_ = zoo.vectors
        return self

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Draw ``members`` different checkpoints for each sample (all of them in a smaller zoo) and average."""
        count = len(self.vectors_)
        members = min(self.members, count)
        weights = torch.zeros(n, count)
        for row in weights:
            row[torch.randperm(count, generator=rng)[:members]] = 1 / members
        return weights @ self.vectors_
