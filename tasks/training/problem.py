"""The problem that a task poses to training: a network, a loss and a score."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.contract.zoo import Layout
from bench.system.randomness import scoped
from tasks.training.recipe import Recipe
from tasks.training.steps import AveragedTraining, Loss, Training

DRAWING = (
    Tensor.uniform_, Tensor.normal_, Tensor.erfinv_,
    nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_,
)  # fmt: skip
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
        folds: whether whole networks of independent runs end as vectors with running statistics folded into scales and
            shifts; otherwise they end without their statistics.
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
    folds: bool = True
    ema: float | None = None

    def blank(self) -> nn.Module:
        """Build a network whose parameters are about to be replaced, or are never looked at: none is drawn."""
        with _Undrawn():
            return self.build(None)

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


class _Undrawn(TorchFunctionMode):
    """Leaves parameters as they lie in memory where they would be drawn at random, which takes most of a building."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        target = args[0] if args else named.get("tensor")
        if func in DRAWING and isinstance(target, nn.Parameter):
            return target
        return func(*args, **named)
