"""Many classifiers trained at once: stacked parameters, one optimizer over the stack."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.progress import track
from bench.zoo import Layout
from tasks.collecting import fold_statistics
from tasks.dependence import Parts, split
from tasks.images import Images
from tasks.training import Batches, Recipe, StackedTraining, check_finite

# Runs train together as far as this much memory goes: on a GPU for activations, on a CPU for values, gradients and
# momenta, which have to stay in its cache.
STACK_BYTES = {"cuda": 2 * 1024**3, "cpu": 32 * 1024**2}


def size(layout: Layout, images: Images, recipe: Recipe) -> int:
    """How many runs to train at once; on a CPU, networks with kernels train faster one after another."""
    kind = torch.device(images.device).type
    activations = 4 * 40 * recipe.batch_size * images.mean.numel() * images.size**2
    each = activations if kind == "cuda" else 3 * 4 * layout.dim
    kernels = any(len(shape) == 4 for shape in layout.shapes)
    return 1 if kind == "cpu" and kernels else max(1, min(200, STACK_BYTES[kind] // each))


def train_whole(
    starts: Sequence[nn.Module],
    layout: Layout,
    images: Images,
    recipe: Recipe,
    keys: Sequence[torch.Generator],
) -> Float[Tensor, "S D"]:
    """Train whole networks in train mode, then express each one's running statistics in its affine parameters."""
    model = starts[0].train()
    tensors = {n: torch.stack([s.get_parameter(n) for s in starts]) for n in layout.names}
    state = {n: torch.stack([s.get_buffer(n) for s in starts]) for n, _ in model.named_buffers()}
    stacked = StackedTraining(model, tensors, state, recipe)
    run(stacked, images, recipe, keys)
    folded = fold_statistics(model, stacked.parameters, stacked.buffers)
    return layout.flatten(folded).detach().cpu()


def train_part(
    base: nn.Module,
    layout: Layout,
    vectors: Float[Tensor, "S D"],
    images: Images,
    recipe: Recipe,
    keys: Sequence[torch.Generator],
    *,
    steps: int | None = None,
    lr: float | None = None,
) -> Float[Tensor, "S D"]:
    """Train S versions of the generated part, everything in eval mode; see ``Trained.train_part``."""
    parts = split(base, layout.names, images.inputs(images.pixels[:2]))
    start = layout.unflatten(vectors.to(images.device))
    stacked = StackedTraining(parts.own, start, {}, recipe)
    run(stacked, images, recipe, keys, parts, steps, lr)
    return layout.flatten(stacked.parameters).detach().cpu()


def run(
    training: StackedTraining,
    images: Images,
    recipe: Recipe,
    keys: Sequence[torch.Generator],
    parts: Parts | None = None,
    steps: int | None = None,
    lr: float | None = None,
) -> None:
    """The steps of all runs of a stack, each on its own batches; what ``parts`` share needs no gradients."""
    sources = [Batches(images, recipe, key) for key in keys]
    total = recipe.epochs * sources[0].per_epoch
    for step in track(range(total if steps is None else steps), "steps"):
        pixels, labels = map(
            torch.stack, zip(*(source.drawn(step) for source in sources), strict=True)
        )
        inputs: tuple[Tensor, ...] = (images.inputs(pixels),)
        if parts is not None:
            with torch.no_grad():
                outputs = parts.features(inputs[0].flatten(0, 1))
            inputs = tuple(tensor.unflatten(0, labels.shape) for tensor in outputs)
        losses = training.step(inputs, labels, recipe.rate(step, total) if lr is None else lr)
    check_finite(losses)
