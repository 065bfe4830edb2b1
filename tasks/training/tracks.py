"""Training of a base, then a trajectory of one run or independent runs; all of it goes on after an interruption."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.contract.zoo import Layout
from bench.system.progress import track
from bench.system.randomness import derive
from bench.system.timing import Stopwatch
from tasks.training.part import put, take
from tasks.training.rows import Rows, load_tensors, save_tensors
from tasks.training.steps import Training

Curve = list[tuple[float, float]]  # seconds of training, and the score then


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
        if epoch + 1 == training.recipe.epochs:
            break  # who asked for the base keeps it now
        save_tensors(
            {f"model.{n}": t for n, t in model.state_dict().items()}
            | training.state()
            | {"curve": torch.tensor(curve, dtype=torch.float64), "epochs": torch.ones(epoch + 1)},
            state,
        )
    return curve


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
