"""Training of a generator's networks: batches, learning rates, moving averages."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bench.errors import BenchError
from bench.system.progress import track

SCHEDULES = ("constant", "cosine")
_LOOK_EVERY = 50  # iterations between two looks at the loss: each look waits for the device
_FAN_IN = 1024  # the fan-in up to which a layer trains at the full learning rate


def parameter_groups(module: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Return one optimizer group a parameter, with smaller steps where the fan-in is large.

    Adam moves every weight by about its learning rate, so a layer's output moves in proportion to its
    fan-in: with one rate for all, long vectors would diverge where short ones hardly learn.
    """
    fan_ins = (math.prod(p.shape[1:]) if p.ndim > 1 else 1 for p in module.parameters())
    return [
        {"params": [p], "lr": rate * min(1.0, _FAN_IN / fan_in)}
        for p, fan_in in zip(module.parameters(), fan_ins, strict=True)
    ]


def decay(schedule: str, iterations: int) -> Callable[[int], float]:
    """Return the factor of the learning rate as a function of the iteration."""
    if schedule == "constant":
        return lambda _: 1.0
    warmup = max(1, iterations // 20)
    return lambda i: min(1.0, (i + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * i / iterations))


def one_cycle(iterations: int) -> Callable[[int], float]:
    """Return the factor of the learning rate that rises along a cosine from 1/25, then falls along one to 1/250,000.

    It is at its highest after three tenths of the iterations (Smith and Topin 2018, arXiv 1708.07120).
    """
    top, last = 0.3 * iterations - 1, iterations - 1

    def factor(iteration: int) -> float:
        rising = iteration <= top
        start, end = (1 / 25, 1.0) if rising else (1.0, 1 / 250_000)
        done = iteration / top if rising else (iteration - top) / (last - top)
        return end + (start - end) / 2 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor


def ema(module: nn.Module, rate: float) -> AveragedModel:
    """Return the exponential moving average of a module's parameters (its buffers are copied)."""
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(rate)).eval()  # type: ignore[no-untyped-call]


def batch(rows: Float[Tensor, "K d"], size: int, rng: torch.Generator) -> Float[Tensor, "b d"]:
    """Draw distinct rows at random: ``size`` of them, or all if there are fewer; a single one twice."""
    count = max(2, len(rows))
    index = torch.randperm(count, generator=rng, device=rows.device)[:size]
    return rows[index % len(rows)]


def normal_like(x: Tensor, rng: torch.Generator) -> Tensor:
    """Draw standard normal values of the shape of ``x``."""
    return torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)


def in_chunks(
    network: Callable[[Tensor], Tensor], rows: Float[Tensor, "n *d"], size: int
) -> Float[Tensor, "n *e"]:
    """Return the network's outputs, computed at most ``size`` rows at a time."""
    with torch.no_grad():
        return torch.cat([network(chunk) for chunk in torch.split(rows, size)])


def minimise(
    module: nn.Module,
    loss: Callable[[], Float[Tensor, ""]],
    optimizer: torch.optim.Optimizer,
    factor: Callable[[int], float],
    part: str,
    iterations: int,
    average: AveragedModel | None,
) -> None:
    """Lower ``loss()`` step by step, ``average`` following; the module ends in eval mode.

    Args:
        module: what is trained.
        loss: of the next batch.
        optimizer: of the module's parameters.
        factor: of the learning rate at each iteration.
        part: what is trained, for progress and errors.
        iterations: optimizer steps.
        average: follows the module's parameters.

    Raises:
        BenchError: the loss is not finite; it says where.
    """
    scheduler = LambdaLR(optimizer, factor)
    for iteration in track(range(1, iterations + 1), f"training the {part}"):
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        if average is not None:
            average.update_parameters(module)
        if iteration % _LOOK_EVERY == 0 or iteration == iterations:
            _check_finite(value, part, iteration)
    module.eval()


def _check_finite(loss: Tensor, part: str, iteration: int) -> None:
    if not loss.isfinite():
        raise BenchError(
            f"the loss of the {part} is {loss.item()} at iteration {iteration}: "
            "try a lower learning rate or another normalization"
        )
