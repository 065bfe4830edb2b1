"""Training with SGD or AdamW: one network (or a part of one) by plain steps, or many stacked."""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bench.errors import BenchError
from bench.system.randomness import derive
from tasks.data.images import AUGMENTATIONS, Images

Loss = Callable[[int], Tensor]  # the loss of the batch of a step
Criterion = Callable[[Tensor, Tensor], Tensor]  # logits and labels to a loss


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        optimizer: "sgd" (momentum 0.9, Nesterov) or "adamw".
        epochs: passes over the training split.
        batch_size: examples a step.
        lr: peak learning rate; linear warm-up over a tenth of the steps, then cosine to zero.
        weight_decay: of the optimizer.
        augment: how training images vary, as the task names it; "none" leaves them as they are.
        precision: "float32", or "bfloat16" for autocast.
    """

    optimizer: str = "sgd"
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4
    augment: str = "none"
    precision: str = "float32"

    def make_optimizer(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        """The optimizer over these tensors; ``rate`` gives its learning rate step by step."""
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parameters, weight_decay=self.weight_decay, fused=True)
        return torch.optim.SGD(
            parameters, momentum=0.9, nesterov=True, weight_decay=self.weight_decay, fused=True
        )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate at a step: warm-up, then cosine."""
        warm = max(1, steps // 10)
        if step < warm:
            return self.lr * (step + 1) / warm
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class Batches:
    """Training batches by number: the order and the augmentation of step i depend on the seed and i alone."""

    def __init__(self, images: Images, recipe: Recipe, rng: torch.Generator) -> None:
        self.images, self.recipe, self.rng = images, recipe, rng
        self.size = min(recipe.batch_size, len(images))
        self.per_epoch = len(images) // self.size
        self._order = functools.lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> Int64[Tensor, " M"]:
        return torch.randperm(len(self.images), generator=derive(self.rng, "order", epoch))

    def rows(self, step: int) -> Int64[Tensor, " B"]:
        """Which images a step trains on."""
        epoch, position = divmod(step, self.per_epoch)
        return self._order(epoch)[position * self.size : (position + 1) * self.size]

    def __call__(self, step: int) -> tuple[Float[Tensor, "B C S S"], Shaped[Tensor, "B *mask"]]:
        """Augmented inputs and labels of one step."""
        pixels, labels = self.drawn(step)
        return self.images.inputs(pixels), labels

    def drawn(self, step: int) -> tuple[UInt8[Tensor, "B C H W"], Shaped[Tensor, "B *mask"]]:
        """The same before normalization: augmented pixels, and labels."""
        rows = self.rows(step)
        pixels = self.images.pixels.index_select(0, rows.to(self.images.pixels.device))
        if self.recipe.augment != "none":
            vary = AUGMENTATIONS[self.recipe.augment]
            pixels = vary(pixels, derive(self.rng, "augment", step))
        return pixels, self.images.labels[rows.to(self.images.device)]


def drawn(
    sources: Sequence[Batches], step: int
) -> tuple[UInt8[Tensor, "B C H W"], Shaped[Tensor, "B *mask"]]:
    """What several sources draw for a step, one behind the other."""
    pixels, labels = zip(*(source.drawn(step) for source in sources), strict=True)
    return torch.cat(pixels), torch.cat(labels)


def supervise(
    forward: Callable[[Tensor], Tensor],
    data: Batches,
    criterion: Criterion = F.cross_entropy,
) -> Loss:
    """What a network (inputs to logits) loses on the batch of each step, in the recipe's precision.

    Args:
        forward: the network.
        data: the batches.
        criterion: float32 logits and labels to the loss.
    """
    kind = torch.device(data.images.device).type
    mixed = data.recipe.precision == "bfloat16"

    def loss(step: int) -> Tensor:
        inputs, labels = data(step)
        with torch.autocast(kind, torch.bfloat16, enabled=mixed):
            logits = forward(inputs.contiguous(memory_format=torch.channels_last))
        return criterion(logits.float(), labels)

    return loss


class Training:
    """Trains the given tensors of one network by plain steps.

    Args:
        loss: of the batch of each step, as a function of the tensors.
        parameters: what is trained, in place.
        recipe: how, and for how many epochs.
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
        """Steps number ``start`` to ``end - 1``.

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
        """What a killed run needs to go on, beside the parameters."""
        return optimizer_tensors(self.optimizer)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
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
        """The optimizer's, the copy's weights, and the number of steps."""
        live = {f"live.{n}": t for n, t in self.live.state_dict().items()}
        return {**super().state(), **live, "averaged": torch.tensor(self.done)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        super().restore(state)
        live = {n.removeprefix("live."): t for n, t in state.items() if n.startswith("live.")}
        self.live.load_state_dict(live)
        self.done = int(state["averaged"])


class StackedTraining:
    """Trains S copies of the same parameters at once, each with its own values, data order and optimizer state.

    Args:
        module: the network, or the part of it that the parameters belong to.
        parameters: each with S in front.
        buffers: each with S in front; updated in place where the module is in train mode.
        recipe: how.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Mapping[str, Tensor],
        buffers: dict[str, Tensor],
        recipe: Recipe,
    ) -> None:
        self.parameters = {n: t.detach().contiguous().clone() for n, t in parameters.items()}
        self.buffers = buffers
        self.optimizer = recipe.make_optimizer(list(self.parameters.values()))

        def loss(
            tensors: dict[str, Tensor], state: dict[str, Tensor], inputs: Any, labels: Tensor
        ) -> Tensor:
            logits = functional_call(module, {**tensors, **state}, inputs)
            return F.cross_entropy(logits.float(), labels)

        self._gradients = vmap(grad_and_value(loss), randomness="error")

    def step(
        self, inputs: tuple[Tensor, ...], labels: Int64[Tensor, "S B"], rate: float
    ) -> Float[Tensor, " S"]:
        """One optimizer step of every copy on its own batch; returns the losses before it."""
        set_rate(self.optimizer, rate)
        gradients, losses = self._gradients(self.parameters, self.buffers, inputs, labels)
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[
                name
            ].contiguous()  # as the parameters are: fused steps want it
        self.optimizer.step()
        return losses  # type: ignore[no-any-return]


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
    """The optimizer's state as named tensors, for a safetensors file."""
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
