"""Training with SGD or AdamW: one network, a trajectory of its generated part, or many seeds stacked."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from bench.errors import BenchError
from bench.progress import track
from bench.randomness import derive
from bench.store import atomic
from bench.timing import Stopwatch
from tasks.images import Images, crop_flip

Score = Callable[[], float]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        optimizer: "sgd" (momentum 0.9, Nesterov) or "adamw".
        epochs: passes over the training split.
        batch_size: examples a step.
        lr: peak learning rate; linear warm-up over a tenth of the steps, then cosine to zero.
        weight_decay: of the optimizer.
        augment: "none" or "crop-flip".
        precision: "float32", or "bfloat16" for autocast.
    """

    optimizer: str = "sgd"
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4
    augment: str = "none"
    precision: str = "float32"

    def make_optimizer(self, parameters: list[Tensor], lr: float) -> torch.optim.Optimizer:
        """The optimizer over these tensors."""
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=self.weight_decay
        )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate at a step: warm-up, then cosine."""
        warm = max(1, steps // 10)
        if step < warm:
            return self.lr * (step + 1) / warm
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def batches(
    count: int, batch_size: int, rng: torch.Generator, epoch: int
) -> Iterator[Int64[Tensor, " B"]]:
    """Indices of one epoch's full batches, in an order that only the seed and the epoch's number decide."""
    order = torch.randperm(count, generator=derive(rng, "order", epoch))
    batch_size = min(batch_size, count)
    yield from order[: count - count % batch_size].split(batch_size)


class BaseTraining:
    """Trains a whole network; its state is saved after every epoch, so that a killed run goes on from there.

    Args:
        model: on its device; trained in place.
        images: the training split.
        recipe: how.
        rng: the source of data order and augmentation.
        state: file for the state while training is unfinished.
    """

    def __init__(
        self, model: nn.Module, images: Images, recipe: Recipe, rng: torch.Generator, state: Path
    ) -> None:
        self.model, self.images, self.recipe, self.rng, self.state = (
            model,
            images,
            recipe,
            rng,
            state,
        )
        self.optimizer = recipe.make_optimizer(list(model.parameters()), recipe.lr)
        self.watch = Stopwatch(images.device)
        self.curve: list[tuple[float, float]] = []
        self.epoch = 0

    def run(self, score: Score) -> None:
        """Train to the end; ``curve`` gets (seconds of training, score) after each epoch, more often in the first."""
        self._resume()
        epochs = range(self.epoch, self.recipe.epochs)
        for epoch in track(epochs, "train the base network"):
            self._run_epoch(epoch, score)
            self.epoch = epoch + 1
            self._save()
        self.model.eval()

    def _run_epoch(self, epoch: int, score: Score) -> None:
        order = list(batches(len(self.images), self.recipe.batch_size, self.rng, epoch))
        marks = {len(order) // 8, len(order) // 4, len(order) // 2} if epoch == 0 else set()
        random = derive(self.rng, "augment", epoch)
        total = self.recipe.epochs * len(order)
        start = 0
        for end in sorted({*marks - {0}, len(order)}):
            with self.watch:
                self.model.train()
                for step in track(range(start, end), f"epoch {epoch + 1}"):
                    self._step(
                        order[step], self.recipe.rate(epoch * len(order) + step, total), random
                    )
            self.model.eval()
            self.curve.append((self.watch.seconds, score()))
            start = end

    def _step(self, rows: Tensor, rate: float, random: torch.Generator) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        device = self.images.device
        loss = loss_of(
            self.model, *batch(self.images, rows, self.recipe, random), device, self.recipe
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def _save(self) -> None:
        tensors = {f"model.{n}": t for n, t in self.model.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizer)
        tensors["curve"] = torch.tensor(self.curve, dtype=torch.float64)
        tensors["progress"] = torch.tensor([self.epoch, self.watch.seconds], dtype=torch.float64)
        save_tensors(tensors, self.state)

    def _resume(self) -> None:
        if not self.state.exists():
            return
        tensors = load_file(self.state)
        self.model.load_state_dict(
            {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
        )
        restore_optimizer(self.optimizer, tensors)
        self.curve = [(row[0], row[1]) for row in tensors["curve"].tolist()]
        self.epoch = int(tensors["progress"][0])
        self.watch.seconds = float(tensors["progress"][1])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors, for a safetensors file."""
    return {
        f"optimizer.{index}.{name}": tensor
        for index, slots in optimizer.state_dict()["state"].items()
        for name, tensor in slots.items()
        if tensor is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimizer back the state that ``optimizer_tensors`` took from it."""
    content = optimizer.state_dict()
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".", 2)
            content["state"].setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict(content)


def batch(
    images: Images, rows: Int64[Tensor, " B"], recipe: Recipe, random: torch.Generator
) -> tuple[Float[Tensor, "B C S S"], Int64[Tensor, " B"]]:
    """Augmented inputs and labels at these rows."""
    pixels = images.pixels[rows.to(images.pixels.device)]
    if recipe.augment == "crop-flip":
        pixels = crop_flip(pixels, random)
    return images.inputs(pixels), images.labels[rows.to(images.device)]


def loss_of(
    model: nn.Module, inputs: Tensor, labels: Tensor, device: str, recipe: Recipe
) -> Float[Tensor, ""]:
    """Mean cross-entropy, under autocast where the recipe says so."""
    with torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=recipe.precision == "bfloat16"
    ):
        logits = model(inputs.contiguous(memory_format=torch.channels_last))
    return F.cross_entropy(logits.float(), labels)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Tensors to a safetensors file, atomically."""
    with atomic(path) as temporary:
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, temporary)


Apply = Callable[[dict[str, Tensor], dict[str, Tensor], Any], Tensor]


class StackedTraining:
    """Trains S copies of the same parameters at once, each with its own values, data order and optimizer state.

    Args:
        module: the network, or the part of it that the parameters belong to.
        parameters: each with S in front.
        buffers: each with S in front, updated in place where the module is in train mode.
        recipe: how.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        recipe: Recipe,
    ) -> None:
        self.parameters = {n: t.detach().clone() for n, t in parameters.items()}
        self.buffers = buffers
        self.recipe = recipe
        self.optimizer = recipe.make_optimizer(list(self.parameters.values()), recipe.lr)

        def loss(
            tensors: dict[str, Tensor], state: dict[str, Tensor], inputs: Any, labels: Tensor
        ) -> Tensor:
            logits = functional_call(module, {**tensors, **state}, inputs)
            return F.cross_entropy(logits.float(), labels)

        self._gradients = vmap(grad_and_value(loss), randomness="error")

    def step(self, inputs: Any, labels: Int64[Tensor, "S B"], rate: float) -> Float[Tensor, " S"]:
        """One optimizer step of every copy on its own batch; returns the losses before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        gradients, losses = self._gradients(self.parameters, self.buffers, inputs, labels)
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[name]
        self.optimizer.step()
        return losses


def check_finite(losses: Tensor, what: str) -> None:
    """Raise where a loss is not finite.

    Raises:
        BenchError: training diverged.
    """
    if not bool(losses.isfinite().all()):
        raise BenchError(f"{what} diverged (a loss is not finite): lower the learning rate")
