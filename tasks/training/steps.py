"""Training with SGD or AdamW: one network (or a part of one) by plain steps, or many stacked."""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bench.errors import BenchError
from bench.system.randomness import derive
from tasks.data.source import Source, channels_last

Loss = Callable[[int], Tensor]  # the loss of the batch of a step
Criterion = Callable[[Tensor, Tensor], Tensor]  # logits and labels to a loss


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe of training.

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
        """Return the optimizer over these tensors; ``rate`` gives its learning rate step by step."""
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parameters, weight_decay=self.weight_decay, fused=True)
        return torch.optim.SGD(
            parameters, momentum=0.9, nesterov=True, weight_decay=self.weight_decay, fused=True
        )

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate at a step: warm-up, then cosine."""
        warm = max(1, steps // 10)
        if step < warm:
            return self.lr * (step + 1) / warm
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class Order:
    """The examples that each step trains on: a shuffled split every epoch, by the seed and the step's number alone.

    Args:
        count: examples in the split.
        batch_size: examples a step, at most.
        rng: the source of the order.

    Attributes:
        per_epoch: steps an epoch; what is left over at the end of an epoch is not seen in it.
    """

    def __init__(self, count: int, batch_size: int, rng: torch.Generator) -> None:
        self.count, self.size, self.rng = count, min(batch_size, count), rng
        self.per_epoch = count // self.size
        self._latest: tuple[int, Int64[Tensor, " M"]] | None = None

    def epoch(self, number: int) -> Int64[Tensor, " M"]:
        """Return the order of the whole split in one epoch; that of the latest is kept."""
        if self._latest is None or self._latest[0] != number:
            draw = derive(self.rng, "order", number)
            self._latest = number, torch.randperm(self.count, generator=draw)
        return self._latest[1]

    def rows(self, step: int) -> Int64[Tensor, " B"]:
        """Return the numbers of the examples of one step."""
        number, position = divmod(step, self.per_epoch)
        return self.epoch(number)[position * self.size : (position + 1) * self.size]


class Batches:
    """Training batches by number: order and augmentation of a step depend on the seed and the step's number alone.

    Args:
        source: the training split.
        recipe: says how large batches are, and how examples vary.
        rng: the source of order and augmentation.
    """

    def __init__(self, source: Source, recipe: Recipe, rng: torch.Generator) -> None:
        self.source, self.recipe, self.rng = source, recipe, rng
        self.order = Order(len(source), recipe.batch_size, rng)

    def __call__(self, step: int) -> tuple[Shaped[Tensor, "B *input"], Shaped[Tensor, "B *label"]]:
        """Return a network's inputs and the labels of one step, on the device."""
        examples, labels = self.drawn(step)
        return self.source.inputs(examples), labels

    def drawn(self, step: int) -> tuple[Shaped[Tensor, "B *any"], Shaped[Tensor, "B *label"]]:
        """Return the augmented examples of one step, where the source keeps them, and their labels on the device."""
        rows, source = self.order.rows(step), self.source
        examples = source.examples.index_select(0, rows.to(source.examples.device))
        labels = source.labels[rows.to(source.labels.device)]
        if self.recipe.augment != "none":
            draw = derive(self.rng, "augment", step)
            examples, labels = source.augmented(examples, labels, self.recipe.augment, draw)
        return examples, labels.to(source.device)


def drawn(
    runs: Sequence[Batches], step: int
) -> tuple[Shaped[Tensor, "SB *any"], Shaped[Tensor, "SB *label"]]:
    """Return the examples and labels that several runs draw for a step, run after run."""
    examples, labels = zip(*(batches.drawn(step) for batches in runs), strict=True)
    return torch.cat(examples), torch.cat(labels)


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
        """Take one optimizer step of every copy on its own batch; return the losses before it."""
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
