"""Collecting checkpoints: a base network, then a trajectory of one run or independent runs; all of it resumable."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.errors import BenchError
from bench.progress import track
from bench.randomness import derive
from bench.store import atomic
from bench.timing import Stopwatch
from bench.zoo import Layout
from tasks.dependence import Parts, split
from tasks.images import Images
from tasks.training import (
    Batches,
    Recipe,
    StackedTraining,
    Training,
    check_finite,
    optimizer_tensors,
    restore_optimizer,
)

# Runs train together as far as this much memory goes: on a GPU for activations, on a CPU for values, gradients and
# momenta, which have to stay in its cache.
STACK_BYTES = {"cuda": 2 * 1024**3, "cpu": 32 * 1024**2}
Curve = list[tuple[float, float]]


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Tensors to a safetensors file, atomically."""
    with atomic(path) as temporary:
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, temporary)


def train_base(model: nn.Module, data: Batches, score: Callable[[], float], state: Path) -> Curve:
    """Train a whole network in place; returns (seconds of training, score) after each epoch, more often in the first.

    Args:
        model: on its device; left in eval mode.
        data: the batches; their recipe says how long.
        score: the model's validation score, called in eval mode; its time does not count.
        state: file that keeps the state after every epoch, so that a killed run goes on from there.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = Training(model, list(model.parameters()), data)
    watch, curve, first = Stopwatch(data.images.device), [], 0
    if state.exists():
        tensors = load_tensors(state)
        named = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
        model.load_state_dict(named)
        restore_optimizer(training.optimizer, tensors)
        curve = [(seconds, value) for seconds, value in tensors["curve"].tolist()]
        first, watch.seconds = len(tensors["epochs"]), curve[-1][0]
    for epoch in track(range(first, data.recipe.epochs), "train the base network, epochs"):
        begin, end = epoch * data.per_epoch, (epoch + 1) * data.per_epoch
        early = {end // 8, end // 4, end // 2} - {0} if epoch == 0 else set()
        for stop in sorted({*early, end}):
            model.train()
            with watch:
                training.run(begin, stop)
            model.eval()
            curve.append((watch.seconds, score()))
            begin = stop
        save_tensors(
            {f"model.{n}": t for n, t in model.state_dict().items()}
            | optimizer_tensors(training.optimizer)
            | {"curve": torch.tensor(curve, dtype=torch.float64), "epochs": torch.ones(epoch + 1)},
            state,
        )
    return curve


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what ``save_tensors`` wrote.

    Raises:
        BenchError: the file is damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BenchError(f"the cached file {path} is damaged ({error}): delete it") from error


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
        self.state = load_tensors(self._state_path) if self._state_path.exists() else {}
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


def part_training(
    base: nn.Module, layout: Layout, data: Batches, lr: float | None
) -> tuple[Training, list[Tensor]]:
    """Plain training of the generated part of a frozen network in eval mode, and the tensors it trains.

    What does not depend on the generated part runs without gradients, and its normalization statistics stand still:
    a checkpoint is completely described by the base and its row.
    """
    images = data.images
    parts = split(base, layout.names, images.inputs(images.pixels[:2]))
    base.requires_grad_(False)
    own = [base.get_parameter(name).requires_grad_(True) for name in layout.names]

    def forward(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            shared = parts.features(inputs)
        logits: Tensor = parts.own(*shared)
        return logits

    return Training(forward, own, data, lr=lr), own


def put(vector: Float[Tensor, " D"], layout: Layout, tensors: Sequence[Tensor]) -> None:
    """Copy a vector into the tensors of its layout."""
    with torch.no_grad():
        for tensor, value in zip(tensors, layout.unflatten(vector).values(), strict=True):
            tensor.copy_(value)


def take(tensors: Sequence[Tensor]) -> Float[Tensor, " D"]:
    """The tensors as one vector on the CPU."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).cpu()


def trajectory(
    base: nn.Module, layout: Layout, data: Batches, rows: Rows, *, lr: float, every: int
) -> None:
    """Go on training only the generated part, and keep a checkpoint every few steps."""
    training, own = part_training(base, layout, data, lr)
    watch = Stopwatch(data.images.device)
    if rows.done:
        put(rows.vectors[rows.done - 1], layout, own)
        restore_optimizer(training.optimizer, rows.state)
        watch.seconds = float(rows.seconds[rows.done - 1])
    for row in track(range(rows.done, rows.k), "collect checkpoints"):
        with watch:
            training.run(row * every, (row + 1) * every)
        rows.keep(take(own)[None], [watch.seconds], optimizer_tensors(training.optimizer))


def seeds(
    fresh: Callable[[torch.Generator], nn.Module],
    base: nn.Module | None,
    layout: Layout,
    images: Images,
    recipe: Recipe,
    rows: Rows,
    rng: torch.Generator,
) -> None:
    """Independent runs, each from its own start and on its own batches.

    Args:
        fresh: makes a network from a source of randomness.
        base: None to train whole networks, or the frozen network whose generated part is trained anew.
        layout: the generated part.
        images, recipe: what to train on, and how.
        rows: gets one row a run.
        rng: the source of the runs' seeds.
    """
    together = stack_size(layout, images, recipe) if base is None or images.device != "cpu" else 1
    for low in track(range(rows.done, rows.k, together), "train seeds"):
        keys = [derive(rng, seed) for seed in range(low, min(low + together, rows.k))]
        starts = [fresh(derive(key, "start")) for key in keys]
        watch = Stopwatch(images.device)
        with watch:
            if base is None:
                vectors = train_whole(starts, layout, images, recipe, keys)
            else:
                own = [take([start.get_parameter(n) for n in layout.names]) for start in starts]
                vectors = train_part(base, layout, torch.stack(own), images, recipe, keys)
        # A run's share of the time its stack took: SGD at its best, one run alone takes longer.
        rows.keep(vectors, [watch.seconds / len(keys)] * len(keys), {})


def stack_size(layout: Layout, images: Images, recipe: Recipe) -> int:
    """How many runs to train at once; on a CPU, networks with kernels train faster one after another."""
    kind = torch.device(images.device).type
    activations = 4 * 40 * recipe.batch_size * images.mean.numel() * images.size**2
    each = activations if kind == "cuda" else 3 * 4 * layout.dim
    kernels = any(len(shape) == 4 for shape in layout.shapes)
    return 1 if kind == "cpu" and kernels else max(1, min(200, STACK_BYTES[kind] // each))


def train_whole(
    starts: list[nn.Module],
    layout: Layout,
    images: Images,
    recipe: Recipe,
    keys: Sequence[torch.Generator],
) -> Float[Tensor, "S D"]:
    """Train whole networks in train mode, then express each one's running statistics in its affine parameters."""
    model = starts[0].train()
    tensors: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    if len(starts) == 1:
        data = Batches(images, recipe, keys[0])
        alone = Training(model, list(model.parameters()), data)
        alone.run(0, alone.steps)
        tensors, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    else:
        tensors = {n: torch.stack([s.get_parameter(n) for s in starts]) for n in layout.names}
        state = {
            n: torch.stack([s.get_buffer(n) for s in starts]) for n, _ in model.named_buffers()
        }
        stacked = StackedTraining(model, tensors, state, recipe)
        run_stack(stacked, images, recipe, keys)
        tensors, buffers = stacked.parameters, stacked.buffers
    folded = layout.flatten(fold_statistics(model, tensors, buffers)).detach().cpu()
    return folded.reshape(len(starts), layout.dim)


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
    """Train S versions of the generated part, each on its own batches, everything in eval mode.

    Args:
        base: the frozen network, in eval mode.
        layout: the generated part.
        vectors: where each version starts.
        images, recipe: what to train on, and how.
        keys: the source of each version's data order and augmentation.
        steps: optimizer steps; None takes the recipe's epochs.
        lr: a constant learning rate; None takes the recipe's schedule.
    """
    if images.device != "cpu":
        parts = split(base, layout.names, images.inputs(images.pixels[:2]))
        start = layout.unflatten(vectors.to(images.device))
        stacked = StackedTraining(parts.own, start, {}, recipe)
        run_stack(stacked, images, recipe, keys, parts, steps, lr)
        return layout.flatten(stacked.parameters).detach().cpu()
    trained = []
    for vector, key in zip(vectors, keys, strict=True):
        training, own = part_training(base, layout, Batches(images, recipe, key), lr)
        put(vector, layout, own)
        training.run(0, training.steps if steps is None else steps)
        trained.append(take(own))
    return torch.stack(trained)


def run_stack(
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


def fold_statistics(
    model: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Express batch normalization's running statistics in its weight and bias.

    w (x - m) / sqrt(v + e) + b equals w' x / sqrt(1 + e) + b' with w' = w sqrt(1 + e) / sqrt(v + e) and
    b' = b - w m / sqrt(v + e). So networks that differ in their statistics can share one base, with mean 0 and variance
    1, and each is described by its parameters alone.

    Args:
        model: names its batch normalizations.
        parameters, buffers: by name, any batch dimensions in front.
    """
    folded: dict[str, Tensor] = dict(parameters)
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
