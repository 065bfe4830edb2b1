"""Many classifiers trained at once: stacked parameters, one optimizer over the stack."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from bench.contract.zoo import Layout
from bench.system.progress import track
from tasks.data.images import Images
from tasks.fast.frozen import Frozen
from tasks.training.collecting import fold_statistics
from tasks.training.steps import Batches, Recipe, StackedTraining, check_finite, drawn

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
    frozen: Frozen,
    layout: Layout,
    vectors: Float[Tensor, "S D"],
    recipe: Recipe,
    keys: Sequence[torch.Generator],
    *,
    steps: int | None = None,
    lr: float | None = None,
) -> Float[Tensor, "S D"]:
    """Train S versions of the generated part, everything in eval mode; see ``Trained.train_part``."""
    start = layout.unflatten(vectors.to(frozen.images.device))
    stacked = StackedTraining(frozen.parts.own, start, {}, recipe)
    run(stacked, frozen.images, recipe, keys, frozen, steps, lr)
    return layout.flatten(stacked.parameters).detach().cpu()


def run(
    training: StackedTraining,
    images: Images,
    recipe: Recipe,
    keys: Sequence[torch.Generator],
    frozen: Frozen | None = None,
    steps: int | None = None,
    lr: float | None = None,
) -> None:
    """The steps of all runs of a stack, each on its own batches; what is ``frozen`` needs no gradients."""
    sources = [Batches(images, recipe, key) for key in keys]
    total = recipe.epochs * sources[0].per_epoch
    for step in track(range(total if steps is None else steps), "steps"):
        if frozen is None:
            pixels, labels = drawn(sources, step)
            shared: tuple[Tensor, ...] = (images.inputs(pixels),)
        else:
            shared, labels = frozen.shared(sources, step)
        rate = recipe.rate(step, total) if lr is None else lr
        inputs = tuple(_stacked(tensor, sources) for tensor in shared)
        losses = training.step(inputs, _stacked(labels, sources), rate)
    check_finite(losses)


def _stacked(
    tensor: Shaped[Tensor, "SB *any"], sources: Sequence[Batches]
) -> Shaped[Tensor, "S B *any"]:
    """What lies one behind the other, with the runs in front."""
    return tensor.view(len(sources), -1, *tensor.shape[1:])
