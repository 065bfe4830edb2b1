"""Checkpoints with their values in another order."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Generator
from bench.contract.zoo import Zoo


@dataclass
class Shuffled(Generator):
    """A checkpoint drawn at random whose values are shuffled within each tensor: right sizes, and nothing learned."""

    made_of: ClassVar[str] = "broken"

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Keep the checkpoints."""
        self.vectors_, self.sizes_ = zoo.vectors, zoo.layout.sizes
        return self

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Draw checkpoints with replacement, and shuffle each tensor of each."""
        samples = self.vectors_[torch.randint(len(self.vectors_), (n,), generator=rng)]
        for row in samples:
            for piece in row.split(self.sizes_):
                piece.copy_(piece[torch.randperm(len(piece), generator=rng)])
        return samples
