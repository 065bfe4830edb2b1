"""Training with SGD or AdamW: one network, or a part of one, by plain steps."""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bench.errors import BenchError
from tasks.data.source import channels_last
from tasks.training.batches import Batches
from tasks.training.recipe import Recipe

Loss = Callable[[int], Tensor]  # the loss of the batch of a step
Criterion = Callable[[Tensor, Tensor], Tensor]  # logits and labels to a loss


def supervise(
    forward: Callable[[Tensor], Tensor],
    data: Batches,
    criterion: Criterion = F.cross_entropy,
) -> Loss:
    """Return the loss of a network (inputs to logits) on the batch of each step, in the recipe's precision.

    Args:
        forward: the network.
        data: the batches.
        criterion: float32 logits and labels to the loss.
    """
    kind = torch.device(data.source.device).type
    mixed = data.recipe.precision == "bfloat16"

    def loss(step: int) -> Tensor:
        inputs, labels = data(step)
        with torch.autocast(kind, torch.bfloat16, enabled=mixed):
            logits = forward(channels_last(inputs))
        return criterion(logits.float(), labels)

    return loss


class Training:
    """Trains the given tensors of one network by plain steps.

    Args:
        loss: of the batch of each step, as a function of the parameters.
        parameters: the tensors that are trained, in place.
        recipe: the optimizer, its rate and the number of epochs.
        per_epoch: steps an epoch.
        lr: a constant learning rate; None takes the recipe's schedule.

    Attributes:
        steps: of the whole recipe.
        device: of the parameters.
    """

    def __init__(
        self,
        loss: Loss,
        parameters: Sequence[Tensor],
        recipe: Recipe,
        per_epoch: int,
        *,
        lr: float | None = None,
    ) -> None:
        self.loss, self.recipe, self.per_epoch, self.lr = loss, recipe, per_epoch, lr
        self.optimizer = recipe.make_optimizer(parameters)
        self.steps = recipe.epochs * per_epoch
        self.device = parameters[0].device

    def run(self, start: int, end: int) -> None:
        """Take the steps number ``start`` to ``end - 1``.

        Raises:
            BenchError: training diverged.
        """
        loss = torch.zeros(())
        for step in range(start, end):
            rate = self.recipe.rate(step, self.steps) if self.lr is None else self.lr
            set_rate(self.optimizer, rate)
            loss = self.loss(step)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        check_finite(loss.detach())

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that a killed run needs to go on, beside the parameters."""
        return optimizer_tensors(self.optimizer)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that ``state`` returned."""
        restore_optimizer(self.optimizer, state)


class AveragedTraining(Training):
    """Trains a copy of a network; the network itself holds the moving average of the copy's weights.

    Diffusion models are used with such an average (Ho et al. 2020, appendix B). Its decay after s steps is
    (1 + s) / (10 + s), until that reaches the given one, so that the beginning of a short training is forgotten.

    Args:
        model: on its device.
        loss: of a network, on the batch of each step.
        recipe, per_epoch: see ``Training``.
        decay: share of the average that a step keeps.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module], Loss],
        recipe: Recipe,
        per_epoch: int,
        *,
        decay: float,
    ) -> None:
        self.live, self.decay, self.done = copy.deepcopy(model).train(), decay, 0
        self.live.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(loss(self.live), list(self.live.parameters()), recipe, per_epoch)
        self.pair = [list(one.parameters()) for one in (model, self.live)]
        self.optimizer.register_step_post_hook(lambda *_: self._average())

    def _average(self) -> None:
        self.done += 1
        rate = min(self.decay, (1 + self.done) / (10 + self.done))
        get_ema_multi_avg_fn(rate)(*self.pair, self.done)

    def state(self) -> dict[str, Tensor]:
        """Return the optimizer's state, the copy's weights, and the number of steps."""
        live = {f"live.{n}": t for n, t in self.live.state_dict().items()}
        return {**super().state(), **live, "averaged": torch.tensor(self.done)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that ``state`` returned."""
        super().restore(state)
        live = {n.removeprefix("live."): t for n, t in state.items() if n.startswith("live.")}
        self.live.load_state_dict(live)
        self.done = int(state["averaged"])


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def check_finite(losses: Tensor) -> None:
    """Raise where a loss is not finite.

    Raises:
        BenchError: training diverged.
    """
    if not bool(losses.isfinite().all()):
        raise BenchError(
            "training a checkpoint diverged (a loss is not finite): lower --set task.lr or task.subset_lr"
        )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as named tensors, for a safetensors file."""
    return {
        f"optimizer.{index}.{name}": tensor
        for index, slots in optimizer.state_dict()["state"].items()
        for name, tensor in slots.items()
        if tensor is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer back the state that ``optimizer_tensors`` took from it."""
    content = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".", 2)
            like = parameters[int(index)]
            if tensor.shape == like.shape:  # fused steps want both in the same memory format
                tensor = torch.empty_like(like).copy_(tensor)
            content["state"].setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict(content)
