"""What a task is to training: a network, a loss, a score, and how long an epoch is."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.contract.zoo import Layout
from bench.system.randomness import scoped
from tasks.training.collecting import free
from tasks.training.steps import AveragedTraining, Loss, Recipe, Training

PartLoss = Callable[[torch.Generator], Loss]  # of a source of batches: the loss on each of them


@dataclasses.dataclass(frozen=True)
class Problem:
    """Data, network, loss and score of a task, as functions of a network.

    Attributes:
        name: of network and data, for messages.
        build: makes the network in eval mode, on the CPU, initialised from torch's global source or with pretrained
            weights (None, "released" or a file).
        whole_loss: of a network in train mode and a source of batches: the loss on the batch of each step.
        part_loss: of a network in eval mode and the layout of the parameters that are trained alone: what all runs of
            this part share, as a function of each run's source of batches.
        score: the validation score of one network in eval mode, as the task's scorer gives it.
        recipe: how networks are trained.
        per_epoch: optimizer steps an epoch.
        device: where networks live.
        ema: decay of the moving average of weights that a whole network ends as; None: it ends as its last weights.
    """

    name: str
    build: Callable[[str | None], nn.Module]
    whole_loss: Callable[[nn.Module, torch.Generator], Loss]
    part_loss: Callable[[nn.Module, Layout], PartLoss]
    score: Callable[[nn.Module], float]
    recipe: Recipe
    per_epoch: int
    device: str
    ema: float | None = None

    def fresh(self, pretrained: str | None, rng: torch.Generator) -> nn.Module:
        """Build a network on the device, initialised from this source alone."""
        with scoped(rng):
            return self.build(pretrained).to(self.device)

    def training(self, model: nn.Module, rng: torch.Generator) -> Training:
        """Return the training of a whole network, in place."""
        if self.ema is None:
            loss = self.whole_loss(model, rng)
            return Training(loss, list(model.parameters()), self.recipe, self.per_epoch)
        return AveragedTraining(
            model,
            lambda live: self.whole_loss(live, rng),
            self.recipe,
            self.per_epoch,
            decay=self.ema,
        )


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
