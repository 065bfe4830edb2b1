"""Collecting checkpoints: a trajectory of one run, or independent runs trained many at a time."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from bench.progress import track
from bench.randomness import derive
from bench.timing import Stopwatch
from bench.zoo import Layout
from tasks.dependence import split
from tasks.images import Images
from tasks.training import (
    Recipe,
    StackedTraining,
    batch,
    check_finite,
    optimizer_tensors,
    restore_optimizer,
    save_tensors,
)

STACK_BYTES = 2 * 1024**3  # activations of one step of stacked training may take about this much


class Rows:
    """The K x D matrix while it is being collected: on disk, row by row, so that a killed run goes on.

    Args:
        folder: where ``vectors`` (raw float32) and ``state.safetensors`` lie.
        k, dim: the matrix's shape.

    Attributes:
        vectors: the matrix, mapped from the file; rows from ``done`` on are not written yet.
        done: how many rows are finished.
        seconds: training time up to (trajectory) or of (seeds) each row.
        state: tensors that were kept with the last row.
    """

    def __init__(self, folder: Path, k: int, dim: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._state_path = folder / "state.safetensors"
        self.state = load_file(self._state_path) if self._state_path.exists() else {}
        self.seconds = self.state.pop("seconds", torch.zeros(k, dtype=torch.float64))
        self.done = int(self.state.pop("done", torch.zeros(1)))
        self.k = k
        flat = torch.from_file(str(folder / "vectors"), shared=True, size=k * dim)
        self.vectors: Float[Tensor, "K D"] = flat.view(k, dim)

    def keep(
        self, vectors: Float[Tensor, "n D"], seconds: Sequence[float], state: dict[str, Tensor]
    ) -> None:
        """Write the next n rows, then the state that goes with them."""
        end = self.done + len(vectors)
        self.vectors[self.done : end] = vectors
        self.seconds[self.done : end] = torch.tensor(seconds, dtype=torch.float64)
        self.done, self.state = end, state
        facts = {"done": torch.tensor(end), "seconds": self.seconds}
        save_tensors({**facts, **state}, self._state_path)


def trajectory(
    model: nn.Module,
    layout: Layout,
    images: Images,
    recipe: Recipe,
    rows: Rows,
    rng: torch.Generator,
    *,
    lr: float,
    every: int,
) -> None:
    """Train only the generated part, everything in eval mode, and keep a checkpoint every few steps.

    What does not depend on the generated part runs without gradients, and its normalization statistics stand still:
    a checkpoint is completely described by the base and its row.
    """
    parts = split(model, layout.names, images.inputs(images.pixels[:2]))
    model.requires_grad_(False)
    if rows.done:
        model.load_state_dict(layout.unflatten(rows.vectors[rows.done - 1]), strict=False)
    own = [model.get_parameter(name).requires_grad_(True) for name in layout.names]
    optimizer = recipe.make_optimizer(own, lr)
    restore_optimizer(optimizer, rows.state)
    data = Batches(images, recipe, rng)
    watch = Stopwatch(images.device, float(rows.seconds[rows.done - 1]) if rows.done else 0.0)
    for row in track(range(rows.done, rows.k), "collect checkpoints"):
        with watch:
            for step in range(row * every, (row + 1) * every):
                inputs, labels = data(step)
                with torch.no_grad():
                    shared = parts.shared(inputs)
                loss = F.cross_entropy(parts.own(*shared).float(), labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        check_finite(loss.detach(), "the trajectory")
        vector = torch.cat([tensor.detach().reshape(-1) for tensor in own]).cpu()
        rows.keep(vector[None], [watch.seconds], optimizer_tensors(optimizer))


class Batches:
    """Training batches by number: the order and the augmentation of step i depend on the seed and i alone."""

    def __init__(self, images: Images, recipe: Recipe, rng: torch.Generator) -> None:
        self.images, self.recipe, self.rng = images, recipe, rng
        self.size = min(recipe.batch_size, len(images))
        self.per_epoch = len(images) // self.size
        self._order = functools.lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> Int64[Tensor, " M"]:
        return torch.randperm(len(self.images), generator=derive(self.rng, "order", epoch))

    def __call__(self, step: int) -> tuple[Float[Tensor, "B C S S"], Int64[Tensor, " B"]]:
        """Inputs and labels of one step."""
        epoch, position = divmod(step, self.per_epoch)
        rows = self._order(epoch)[position * self.size : (position + 1) * self.size]
        return batch(self.images, rows, self.recipe, derive(self.rng, "augment", step))


def seeds(
    fresh: Callable[[torch.Generator], nn.Module],
    base: nn.Module | None,
    layout: Layout,
    images: Images,
    recipe: Recipe,
    rows: Rows,
    rng: torch.Generator,
) -> None:
    """Independent runs: whole networks from their own start (``base`` None), or the generated part in a frozen base."""
    values = 4 * 40 * recipe.batch_size * images.mean.numel() * images.size**2
    together = max(1, min(50, STACK_BYTES // values))
    for low in track(range(rows.done, rows.k, together), "train seeds"):
        keys = [derive(rng, seed) for seed in range(low, min(low + together, rows.k))]
        starts = [fresh(derive(key, "start")) for key in keys]
        watch = Stopwatch(images.device)
        with watch:
            if base is None:
                vectors = _whole_networks(starts, layout, images, recipe, keys)
            else:
                tensors = [layout.flatten(dict(start.named_parameters())) for start in starts]
                steps = recipe.epochs * (len(images) // min(recipe.batch_size, len(images)))
                vectors = train_part(
                    base, layout, torch.stack(tensors).detach(), images, recipe, keys, steps=steps
                )
        # A run's share of the time its stack took: SGD at its best, one run alone takes longer.
        rows.keep(vectors.cpu(), [watch.seconds / len(keys)] * len(keys), {})


def _whole_networks(
    starts: list[nn.Module],
    layout: Layout,
    images: Images,
    recipe: Recipe,
    keys: list[torch.Generator],
) -> Float[Tensor, "S D"]:
    """Train whole networks in train mode, then express each one's running statistics in its affine parameters."""
    model = starts[0].train()
    parameters = {n: torch.stack([s.get_parameter(n) for s in starts]) for n in layout.names}
    buffers = {n: torch.stack([s.get_buffer(n) for s in starts]) for n, _ in model.named_buffers()}
    training = StackedTraining(model, parameters, buffers, recipe)
    steps = recipe.epochs * (len(images) // min(recipe.batch_size, len(images)))
    _run(training, images, recipe, keys, steps)
    folded = fold_statistics(model, training.parameters, training.buffers)
    return layout.flatten(folded).detach()


def train_part(
    base: nn.Module,
    layout: Layout,
    vectors: Float[Tensor, "S D"],
    images: Images,
    recipe: Recipe,
    keys: list[torch.Generator],
    *,
    steps: int,
    lr: float | None = None,
) -> Float[Tensor, "S D"]:
    """Train S versions of the generated part, each on its own batches, everything in eval mode.

    Args:
        base: the frozen network, in eval mode.
        layout: the generated part.
        vectors: where each version starts.
        images: the training split.
        recipe: how.
        keys: the source of each version's data order and augmentation.
        steps: optimizer steps.
        lr: a constant learning rate; None takes the recipe's schedule.
    """
    parts = split(base, layout.names, images.inputs(images.pixels[:2]))
    start = layout.unflatten(vectors.to(images.device))
    training = StackedTraining(parts.own, start, {}, recipe)
    _run(training, images, recipe, keys, steps, parts.shared, lr)
    return layout.flatten(training.parameters).detach()


def _run(
    training: StackedTraining,
    images: Images,
    recipe: Recipe,
    keys: list[torch.Generator],
    steps: int,
    shared: nn.Module | None = None,
    lr: float | None = None,
) -> None:
    """The optimizer steps of all runs of a stack, each on its own batches."""
    sources = [Batches(images, recipe, key) for key in keys]
    losses = torch.zeros(len(keys))
    for step in track(range(steps), "steps"):
        drawn = [source(step) for source in sources]
        labels = torch.stack([labels for _, labels in drawn])
        inputs: tuple[Any, ...] = (torch.stack([inputs for inputs, _ in drawn]),)
        if shared is not None:
            with torch.no_grad():
                outputs = shared(inputs[0].flatten(0, 1))
            inputs = tuple(tensor.unflatten(0, labels.shape) for tensor in outputs)
        losses = training.step(inputs, labels, recipe.rate(step, steps) if lr is None else lr)
    check_finite(losses, "training a stack of networks")


def fold_statistics(
    model: nn.Module, parameters: dict[str, Tensor], buffers: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Express batch normalization's running statistics in its weight and bias.

    w (x - m) / sqrt(v + e) + b equals w' x / sqrt(1 + e) + b' with w' = w sqrt(1 + e) / sqrt(v + e) and
    b' = b - w m / sqrt(v + e). So networks that differ in their statistics can share one base, with mean 0 and variance
    1, and each is described by its parameters alone.

    Args:
        model: names its batch normalizations.
        parameters, buffers: by name, any batch dimensions in front.
    """
    folded = dict(parameters)
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
            scale = (buffers[f"{name}.running_var"] + module.eps).rsqrt()
            folded[f"{name}.weight"] = weight * scale * (1 + module.eps) ** 0.5
            folded[f"{name}.bias"] = bias - weight * scale * buffers[f"{name}.running_mean"]
    return folded


def neutral_statistics(model: nn.Module) -> None:
    """Set every batch normalization's running mean to 0 and variance to 1: the base of folded networks."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
