"""Collecting checkpoints: a base network, then a trajectory of one run or independent runs; all of it resumable."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.contract.zoo import Layout
from bench.errors import BenchError
from bench.system.progress import track
from bench.system.randomness import derive
from bench.system.store import atomic
from bench.system.timing import Stopwatch
from tasks.training.steps import Training

Curve = list[tuple[float, float]]


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file, atomically."""
    with atomic(path) as temporary:
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, temporary)


def train_base(
    model: nn.Module, training: Training, score: Callable[[], float], state: Path
) -> Curve:
    """Train a whole network in place; returns (seconds of training, score) after each epoch, more often in the first.

    Args:
        model: on its device; left in eval mode.
        training: of the model's parameters; its recipe says how long.
        score: the model's validation score, called in eval mode; its time does not count.
        state: file that keeps the state after every epoch, so that a killed run goes on from there.
    """
    if not training.recipe.epochs:  # pretrained weights as they are
        return [(0.0, score())]
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    watch, curve, first = Stopwatch(training.device), [], 0
    if state.exists():
        tensors = load_tensors(state)
        named = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
        model.load_state_dict(named)
        training.restore(tensors)
        curve = [(seconds, value) for seconds, value in tensors["curve"].tolist()]
        first, watch.seconds = len(tensors["epochs"]), curve[-1][0]
    for epoch in track(range(first, training.recipe.epochs), "train the base network, epochs"):
        begin, end = epoch * training.per_epoch, (epoch + 1) * training.per_epoch
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
            | training.state()
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


def free(model: nn.Module, layout: Layout) -> list[Tensor]:
    """Freeze a network except for the layout's parameters, which are returned."""
    model.requires_grad_(False)
    return [model.get_parameter(name).requires_grad_(True) for name in layout.names]


def put(vector: Float[Tensor, " D"], layout: Layout, tensors: Sequence[Tensor]) -> None:
    """Copy a vector into the tensors of its layout."""
    with torch.no_grad():
        for tensor, value in zip(tensors, layout.unflatten(vector).values(), strict=True):
            tensor.copy_(value)


def take(tensors: Sequence[Tensor]) -> Float[Tensor, " D"]:
    """Return the tensors as one vector on the CPU."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).cpu()


def trajectory(
    training: Training, own: Sequence[Tensor], layout: Layout, rows: Rows, *, every: int
) -> None:
    """Go on training only the generated part, and keep a checkpoint every few steps.

    Args:
        training: of the generated part.
        own: the tensors that it trains, in the order of the layout.
        layout: the generated part.
        rows: gets one row a checkpoint.
        every: steps between two checkpoints.
    """
    watch = Stopwatch(training.device)
    if rows.done:
        put(rows.vectors[rows.done - 1], layout, own)
        training.restore(rows.state)
        watch.seconds = float(rows.seconds[rows.done - 1])
    for row in track(range(rows.done, rows.k), "collect checkpoints"):
        with watch:
            training.run(row * every, (row + 1) * every)
        rows.keep(take(own)[None], [watch.seconds], training.state())


def seeds(
    train: Callable[[Sequence[torch.Generator]], Float[Tensor, "S D"]],
    rows: Rows,
    rng: torch.Generator,
    *,
    together: int,
    device: str,
) -> None:
    """Train independent runs, each from its own start and on its own batches.

    Args:
        train: one run for each source of randomness; the vectors they end at.
        rows: gets one row a run.
        rng: the source of the runs' seeds.
        together: how many runs to train at once.
        device: where they are trained.
    """
    for low in track(range(rows.done, rows.k, together), "train seeds"):
        keys = [derive(rng, seed) for seed in range(low, min(low + together, rows.k))]
        watch = Stopwatch(device)
        with watch:
            vectors = train(keys)
        # A run's share of the time its stack took: SGD at its best, one run alone takes longer.
        rows.keep(vectors, [watch.seconds / len(keys)] * len(keys), {})


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
