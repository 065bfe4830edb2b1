"""Steps from one checkpoint towards another."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Generator, check
from bench.contract.zoo import Zoo


@dataclass
class Step(Generator):
    """A point between two checkpoints drawn at random: 10 to 50 % of the way from one to the other."""

    made_of: ClassVar[str] = "averages"
    aligned_too: ClassVar[bool] = True
    least: float = 0.1
    most: float = 0.5

    def __post_init__(self) -> None:
        check(0 <= self.least <= 1, f"least is {self.least}, expected a share of the way")
        check(self.least <= self.most <= 1, f"most is {self.most}, expected {self.least:g} to 1")

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Keep the checkpoints."""
        self.vectors_ = zoo.vectors
        return self

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Draw two different checkpoints (the same one twice in a zoo of one), and the share of the way."""
        count = len(self.vectors_)
        start = torch.randint(count, (n,), generator=rng)
        ahead = torch.randint(1, max(2, count), (n,), generator=rng)
        share = self.least + (self.most - self.least) * torch.rand(n, 1, generator=rng)
        return self.vectors_[start].lerp(self.vectors_[(start + ahead) % count], share)
