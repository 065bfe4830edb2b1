"""Many classifiers trained at once: stacked parameters, one optimizer over the stack."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from bench.contract.zoo import Layout
from tasks.data.source import Source
from tasks.fast.frozen import Frozen
from tasks.training.batches import Batches, drawn
from tasks.training.folding import fold_statistics
from tasks.training.problem import Problem
from tasks.training.recipe import Recipe
from tasks.training.runs import Runs, TrainPart, lengths
from tasks.training.steps import check_finite, set_rate

# Runs train together as far as this much memory goes: on a GPU for activations, on a CPU for values, gradients and
# momenta, which have to stay in its cache.
STACK_BYTES = {"cuda": 2 * 1024**3, "cpu": 32 * 1024**2}
# On a CPU, parts are stacked whose widest activation of a batch is this small: there a step is mostly overhead.
SMALL = 2**20
# The parameters that describe trained networks, from one of them, and from the parameters and buffers of all.
Describe = Callable[[nn.Module, Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]]


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
            tensors: dict[str, Tensor],
            state: dict[str, Tensor],
            inputs: tuple[Tensor, ...],
            labels: Tensor,
        ) -> Tensor:
            logits = functional_call(module, {**tensors, **state}, inputs)
            return F.cross_entropy(logits.float(), labels)

        self._gradients = vmap(grad_and_value(loss), randomness="error")

    def step(
        self, inputs: tuple[Tensor, ...], labels: Shaped[Tensor, "S B *label"], rate: float
    ) -> Float[Tensor, " S"]:
        """Take one optimizer step of every copy on its own batch; return the losses before it."""
        set_rate(self.optimizer, rate)
        gradients, losses = self._gradients(self.parameters, self.buffers, inputs, labels)
        for name, parameter in self.parameters.items():
            # As the parameters are: fused steps want it.
            parameter.grad = gradients[name].contiguous()
        self.optimizer.step()
        return losses  # type: ignore[no-any-return]


def size(layout: Layout, source: Source, recipe: Recipe) -> int:
    """Return how many runs to train at once; on a CPU, networks with kernels train faster one after another."""
    kind = torch.device(source.device).type
    activations = 4 * 40 * recipe.batch_size * source.inputs(source.examples[:1]).numel()
    each = activations if kind == "cuda" else 3 * 4 * layout.dim
    kernels = any(len(shape) == 4 for shape in layout.shapes)
    return 1 if kind == "cpu" and kernels else max(1, min(200, STACK_BYTES[kind] // each))


def train_whole(
    starts: Sequence[nn.Module],
    layout: Layout,
    source: Source,
    recipe: Recipe,
    keys: Sequence[torch.Generator],
    describe: Describe = fold_statistics,
) -> Float[Tensor, "S D"]:
    """Train whole networks in train mode, then describe each one by its parameters; see ``Runs.described``."""
    model = starts[0].train()
    tensors = {n: torch.stack([s.get_parameter(n) for s in starts]) for n in layout.names}
    state = {n: torch.stack([s.get_buffer(n) for s in starts]) for n, _ in model.named_buffers()}
    stacked = StackedTraining(model, tensors, state, recipe)
    run(stacked, source, recipe, keys)
    described = describe(model, stacked.parameters, stacked.buffers)
    return layout.flatten(described).detach().cpu()


def train_part(
    frozen: Frozen,
    layout: Layout,
    vectors: Float[Tensor, "S D"],
    recipe: Recipe,
    keys: Sequence[torch.Generator],
    *,
    steps: int | Sequence[int] | None = None,
    lr: float | None = None,
) -> Float[Tensor, "S D"]:
    """Train S versions of the generated part, everything in eval mode; see ``TrainPart``.

    A version that ends before others goes on with them; the vector that it had at its end is returned.
    """
    start = layout.unflatten(vectors.to(frozen.source.device))
    stacked = StackedTraining(frozen.parts.generated, start, {}, recipe)
    usual = recipe.epochs * Batches(frozen.source, recipe, keys[0]).order.per_epoch
    ends = torch.tensor(lengths(steps, len(keys), usual))
    trained, done = vectors.clone(), 0
    for end in ends.unique().tolist():
        run(stacked, frozen.source, recipe, keys, frozen, done, end, lr)
        here, done = ends == end, end
        trained[here] = layout.flatten(stacked.parameters).detach().cpu()[here]
    return trained


def run(
    training: StackedTraining,
    source: Source,
    recipe: Recipe,
    keys: Sequence[torch.Generator],
    frozen: Frozen | None = None,
    start: int = 0,
    end: int | None = None,
    lr: float | None = None,
) -> None:
    """Take steps of all runs of a stack, each on its own batches; ``frozen`` parts get no gradients.

    Args:
        training: the stack.
        source, recipe, keys: of the runs' batches.
        frozen: what comes before the trained part; None trains whole networks.
        start, end: the numbers of the first step, and of the one after the last; None takes the recipe's epochs.
        lr: a constant learning rate; None takes the recipe's schedule.

    Raises:
        BenchError: training diverged.
    """
    runs = [Batches(source, recipe, key) for key in keys]
    total = recipe.epochs * runs[0].order.per_epoch
    losses = torch.zeros(())
    for step in range(start, total if end is None else end):
        if frozen is None:
            examples, labels = drawn(runs, step)
            shared: tuple[Tensor, ...] = (source.inputs(examples),)
        else:
            shared, labels = frozen.shared(runs, step)
        rate = recipe.rate(step, total) if lr is None else lr
        inputs = tuple(_stacked(tensor, runs) for tensor in shared)
        losses = training.step(inputs, _stacked(labels, runs), rate)
    check_finite(losses)


def _stacked(
    tensor: Shaped[Tensor, "SB *any"], runs: Sequence[Batches]
) -> Shaped[Tensor, "S B *any"]:
    """Give the runs, which lie one behind the other, a dimension of their own in front."""
    return tensor.view(len(runs), -1, *tensor.shape[1:])


class StackedRuns(Runs):
    """Trains independent runs of a classifier as stacks: whole networks of products, and on a GPU generated parts.

    Args:
        problem: what is trained.
        source: the training split.
    """

    def __init__(self, problem: Problem, source: Source) -> None:
        super().__init__(problem)
        self.source = source

    def together(self, layout: Layout, *, whole: bool) -> int:
        """Return how many runs to train at once."""
        if not whole and self.problem.device == "cpu":
            return 1
        return size(layout, self.source, self.problem.recipe)

    def whole(
        self, starts: Sequence[nn.Module], layout: Layout, keys: Sequence[torch.Generator]
    ) -> Float[Tensor, "S D"]:
        """Train several networks as one stack; one alone by plain steps."""
        if len(starts) == 1:
            return super().whole(starts, layout, keys)
        recipe = self.problem.recipe
        return train_whole(starts, layout, self.source, recipe, keys, self.described)

    def part(self, base: nn.Module, layout: Layout) -> TrainPart:
        """Return what trains as many versions as fit as one stack; one after another where that is faster."""
        recipe, device = self.problem.recipe, self.problem.device
        together = size(layout, self.source, recipe)
        alone = super().part(base, layout) if device == "cpu" else None
        if alone and (together == 1 or recipe.precision != "float32"):
            return alone
        frozen = Frozen(base, layout, self.source, recipe, "float32")
        activations = 4 * recipe.batch_size * frozen.parts.widest_generated

        def train(
            vectors: Float[Tensor, "S D"],
            keys: Sequence[torch.Generator],
            *,
            steps: int | Sequence[int] | None = None,
            lr: float | None = None,
        ) -> Float[Tensor, "S D"]:
            if alone and (len(keys) == 1 or activations > SMALL):
                return alone(vectors, keys, steps=steps, lr=lr)
            ends = lengths(steps, len(keys), recipe.epochs * self.problem.per_epoch)
            slices = [slice(low, low + together) for low in range(0, len(vectors), together)]
            parts = [
                train_part(
                    frozen, layout, vectors[rows], recipe, keys[rows], steps=ends[rows], lr=lr
                )
                for rows in slices
            ]
            return torch.cat(parts)

        return train
