"""Several independent runs of one problem: one after another, unless a task can train many at once."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.contract.zoo import Layout
from tasks.training.folding import fold_statistics
from tasks.training.part import Part, put, take
from tasks.training.problem import Problem


@runtime_checkable
class TrainPart(Protocol):
    """Trains S versions of the generated part of one frozen network, each on its own batches."""

    def __call__(
        self,
        vectors: Float[Tensor, "S D"],
        keys: Sequence[torch.Generator],
        *,
        steps: int | Sequence[int] | None = None,
        lr: float | None = None,
    ) -> Float[Tensor, "S D"]:
        """Train from each of the vectors.

        Args:
            vectors: where each version starts.
            keys: the source of each version's data order and augmentation.
            steps: optimizer steps of all versions, or of each; None takes the recipe's epochs.
            lr: a constant learning rate; None takes the recipe's schedule.
        """
        ...


def lengths(steps: int | Sequence[int] | None, runs: int, usual: int) -> Sequence[int]:
    """Return the number of steps of each run; see ``TrainPart``."""
    return steps if isinstance(steps, Sequence) else [usual if steps is None else steps] * runs


class Runs:
    """Trains independent runs one after another.

    Args:
        problem: what is trained.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def together(self, layout: Layout, *, whole: bool) -> int:
        """Return how many runs to train at once."""
        return 1

    def whole(
        self, starts: Sequence[nn.Module], layout: Layout, keys: Sequence[torch.Generator]
    ) -> Float[Tensor, "S D"]:
        """Train whole networks in train mode, then describe each one by its parameters."""
        trained = []
        for model, key in zip(starts, keys, strict=True):
            training = self.problem.training(model.train(), key)
            training.run(0, training.steps)
            buffers = dict(model.named_buffers())
            described = self.described(model, dict(model.named_parameters()), buffers)
            trained.append(layout.flatten(described).detach().cpu())
        return torch.stack(trained)

    def described(
        self, model: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Return the parameters that describe trained networks, with their running statistics if the problem folds."""
        return fold_statistics(model, parameters, buffers) if self.problem.folds else parameters

    def part(self, base: nn.Module, layout: Layout) -> TrainPart:
        """Return what trains versions of the generated part, with everything that they share computed once.

        Args:
            base: the frozen network, in eval mode, on the device.
            layout: the generated part.
        """
        part = Part(self.problem, base, layout)

        def train(
            vectors: Float[Tensor, "S D"],
            keys: Sequence[torch.Generator],
            *,
            steps: int | Sequence[int] | None = None,
            lr: float | None = None,
        ) -> Float[Tensor, "S D"]:
            trained = []
            ends = lengths(steps, len(keys), self.problem.recipe.epochs * self.problem.per_epoch)
            for vector, key, end in zip(vectors, keys, ends, strict=True):
                training = part.training(key, lr)
                put(vector, layout, part.tensors)
                training.run(0, end)
                trained.append(take(part.tensors))
            return torch.stack(trained)

        return train
