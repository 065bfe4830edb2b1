"""Training checkpoints drawn at random."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Generator
from bench.contract.zoo import Zoo


@dataclass
class Copy(Generator):
    """A training checkpoint drawn at random: what a generator that memorises would give."""

    made_of: ClassVar[str] = "copies"

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Keep the checkpoints."""
        self.vectors_ = zoo.vectors
        return self

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Draw with replacement."""
        return self.vectors_[torch.randint(len(self.vectors_), (n,), generator=rng)]
