"""The generated part of a network: its tensors as a vector, and their training."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.contract.zoo import Layout
from tasks.training.problem import Problem
from tasks.training.steps import Training


def free(model: nn.Module, layout: Layout) -> list[Tensor]:
    """Freeze a network except for the layout's parameters, which are returned."""
    model.requires_grad_(False)
    return [model.get_parameter(name).requires_grad_(True) for name in layout.names]


def put(vector: Float[Tensor, " D"], layout: Layout, tensors: Sequence[Tensor]) -> None:
    """Copy a vector into the tensors of its layout."""
    with torch.no_grad():
        for tensor, value in zip(tensors, layout.unflatten(vector).values(), strict=True):
            tensor.copy_(value)


def take(tensors: Sequence[Tensor]) -> Float[Tensor, " D"]:
    """Return the tensors as one vector on the CPU."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).cpu()


class Part:
    """The generated part of a frozen network in eval mode, trained by plain steps.

    What does not depend on the part runs without gradients, and normalization statistics stand still: a checkpoint is
    completely described by the base and its row.

    Args:
        problem: what is trained.
        model: the network, on the device.
        layout: the generated part.

    Attributes:
        tensors: the parameters that are trained, in the order of the layout.
    """

    def __init__(self, problem: Problem, model: nn.Module, layout: Layout) -> None:
        self.problem, self.layout = problem, layout
        self.tensors: list[Tensor] = free(model, layout)
        self._loss = problem.part_loss(model, layout)

    def training(self, rng: torch.Generator, lr: float | None) -> Training:
        """Return the training of the part from where its tensors are.

        Args:
            rng: the source of data order and augmentation.
            lr: a constant learning rate; None takes the recipe's schedule.
        """
        recipe, per_epoch = self.problem.recipe, self.problem.per_epoch
        return Training(self._loss(rng), self.tensors, recipe, per_epoch, lr=lr)
