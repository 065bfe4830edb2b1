"""Checkpoints with Gaussian noise."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Generator, check
from bench.contract.zoo import Zoo, per_tensor_std


@dataclass
class Noise(Generator):
    """A checkpoint drawn at random plus Gaussian noise, relative to each tensor's own std or absolute."""

    amplitudes: ClassVar[tuple[float, ...]] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    share_of_models: ClassVar[float] = 0.5
    made_of: ClassVar[str] = "copies"
    broken_from: ClassVar[float] = 3.0
    amplitude: float = 0.1
    relative: bool = True

    def __post_init__(self) -> None:
        check(
            0 < self.amplitude < float("inf"),
            f"amplitude is {self.amplitude}, expected a number above 0",
        )

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Keep the checkpoints."""
        self.vectors_, self.layout_ = zoo.vectors, zoo.layout
        return self

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Add normal noise to checkpoints: amplitude times the std of the value's tensor in that checkpoint."""
        vectors = self.vectors_[torch.randint(len(self.vectors_), (n,), generator=rng)]
        scale = per_tensor_std(vectors, self.layout_) if self.relative else 1.0
        return vectors + self.amplitude * scale * torch.randn(vectors.shape, generator=rng)
