"""A few more optimizer steps from a checkpoint."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Generator, Train, check
from bench.contract.zoo import Zoo


@dataclass
class FineTune(Generator):
    """A checkpoint drawn at random and trained for a few more steps on the training split."""

    needs: ClassVar[tuple[str, ...]] = ("train",)
    share_of_models: ClassVar[float] = 0.25
    steps: int = 20

    def __post_init__(self) -> None:
        check(self.steps >= 1, f"steps is {self.steps}, expected at least 1")

    def fit(self, zoo: Zoo, *, rng: torch.Generator, train: Train) -> Self:  # type: ignore[override]
        """Keep the checkpoints, and the way to train them."""
        self.vectors_, self.train_ = zoo.vectors, train
        return self

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Draw with replacement; every sample sees batches of its own."""
        start = self.vectors_[torch.randint(len(self.vectors_), (n,), generator=rng)]
        return self.train_(start, steps=self.steps, rng=rng)
