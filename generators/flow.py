"""Flow matching over whole networks, as DeepWeightFlow (ICLR 2026; github.com/NNeuralDynamics/DeepWeightFlow, MIT)."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchdiffeq import odeint

from bench.contract import Generator
from bench.contract.zoo import Zoo
from bench.system.randomness import derive, scoped
from generators.networks.checks import at_least, positive, share
from generators.networks.principal import PrincipalAxes
from generators.networks.training import batch, decay, ema, minimise, normal_like
from generators.networks.velocity import VelocityNetwork

_UNIT = 1e-12  # smallest spread of coordinates that is divided by


@dataclasses.dataclass
class Flow(Generator):
    """DeepWeightFlow: an ordinary differential equation carries noise to principal components of checkpoints.

    ``fit`` takes principal components of the checkpoints and trains a velocity by flow matching (Lipman et al. 2023,
    arXiv 2210.02747): at a random time t, between noise x0 and a checkpoint x1 that have nothing to do with each
    other, it is to be x1 - x0 at (1 - t) x0 + t x1. ``sample`` follows the velocity from noise by Runge and Kutta's
    method of order 4.

    The method aligns hidden units first, wherever there are any that can be permuted. Its models are affine
    combinations of the checkpoints wherever there are principal components.

    Departures, with their reasons: coordinates are divided by their overall spread, so that one ``source_std`` suits
    checkpoints of one run too, which differ little; noise is drawn anew in every iteration, which is what the loss is
    the mean of; the average of the network's parameters samples, where the published program takes those of the
    luckiest small batch, which are chance; all directions are kept that the checkpoints vary along, where
    it keeps 99 of 100 (``paper`` keeps 99); and the short training has twice its learning rate.

    Attributes:
        align: whether hidden units of the checkpoints are aligned first.
        components: principal components, at most as many as the checkpoints vary along; 0: none, parameters as they
            are.
        hidden: width of the first hidden layer; the second has half of it.
        time_width: of the embedding of time.
        dropout: share of features that are dropped after the first two layers, in training.
        source_std: of the noise that the flow starts from; 1 is the spread of the checkpoints.
        path_noise: std of noise on the way, in training.
        iterations: of the training.
        learning_rate: at its highest; it rises for the first twentieth of the iterations, then falls to 0 along a
            cosine.
        batch_size: checkpoints an iteration.
        weight_decay: of AdamW, whose betas are 0.9 and 0.95.
        ema_decay: of the average of the network's parameters that samples.
        ode_steps: of the method of Runge and Kutta, of equal length.
    """

    has_latents: ClassVar[bool] = True
    has_path: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "components": 99,
            "iterations": 30_000,
            "learning_rate": 5e-4,
            "ema_decay": 0.999,
            "ode_steps": 99,
        }
    }

    align: bool = True
    components: int = 1_000
    hidden: int = 512
    time_width: int = 64
    dropout: float = 0.1
    source_std: float = 0.01
    path_noise: float = 0.001
    iterations: int = 2_000
    learning_rate: float = 1e-3
    batch_size: int = 8
    weight_decay: float = 1e-5
    ema_decay: float = 0.99
    ode_steps: int = 50

    def __post_init__(self) -> None:
        for name in ("components", "path_noise", "weight_decay"):
            at_least(name, getattr(self, name), 0)
        for name in ("time_width", "iterations", "batch_size", "ode_steps"):
            at_least(name, getattr(self, name), 1)
        at_least("hidden", self.hidden, 2)
        positive("source_std", self.source_std)
        positive("learning_rate", self.learning_rate)
        for name in ("dropout", "ema_decay"):
            share(name, getattr(self, name))

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Find the principal components, and train the velocity and the average of its parameters."""
        vectors = zoo.vectors.to(self.device)
        self.axes_ = PrincipalAxes.fit(vectors, self.components) if self.components else None
        self.mean_ = vectors.mean(0)
        moved = self._moved(vectors)
        self.spread_ = moved.square().mean().sqrt().clamp(min=_UNIT)
        points = moved / self.spread_
        with scoped(derive(rng, "flow")):  # of dropout too
            network = self.new_network(points.shape[1]).to(self.device)
            self.network_ = ema(network, self.ema_decay)
            self._train(network, points, derive(rng, "batches", device=self.device))
        return self

    def new_network(self, dim: int) -> VelocityNetwork:
        """Make the network of a velocity over points of this many coordinates."""
        widths = (self.hidden, self.hidden // 2, self.hidden)
        return VelocityNetwork(dim, widths, time_width=self.time_width, dropout=self.dropout)

    def _train(
        self, network: nn.Module, points: Float[Tensor, "K c"], draws: torch.Generator
    ) -> None:
        optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=self.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=self.weight_decay,
            fused=True,
        )
        minimise(
            network.train(),
            lambda: self.loss(network, batch(points, self.batch_size, draws), draws),
            optimizer,
            decay("cosine", self.iterations),
            "flow",
            self.iterations,
            self.network_,
        )

    def loss(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        x1: Float[Tensor, "b c"],
        rng: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Return the squared error of the velocity, a mean over coordinates."""
        x0 = self.source_std * normal_like(x1, rng)
        t = torch.rand((len(x1), 1), generator=rng, device=x1.device, dtype=x1.dtype)
        between = (1 - t) * x0 + t * x1 + self.path_noise * normal_like(x1, rng)
        return F.mse_loss(network(between, t), x1 - x0)

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Follow the velocity from noise, and undo the principal components."""
        ends = torch.tensor([0.0, 1.0], device=self.device)
        return self._vectors(self._flow(n, ends, rng)[-1]).cpu()

    def latents(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n c"]:
        """Return the coordinates that the flow moves."""
        return (self._moved(vectors.to(self.device)) / self.spread_).cpu()

    def sampling_path(self, n: int, steps: int, *, rng: torch.Generator) -> Float[Tensor, "n s D"]:
        """Return the vectors at evenly spread times."""
        times = torch.linspace(0, 1, min(steps, self.ode_steps + 1), device=self.device)
        if len(times) < 2:
            times = times.new_tensor([0.0, 1.0])
        path = self._flow(n, times, rng).transpose(0, 1)
        return self._vectors(path.flatten(0, 1)).reshape(n, len(times), -1).cpu()[:, -steps:]

    @torch.no_grad()
    def _flow(
        self, n: int, times: Float[Tensor, " s"], rng: torch.Generator
    ) -> Float[Tensor, "s n c"]:
        """Return the points at some times, the first of which is 0."""
        draws = derive(rng, "source", device=self.device)
        dim = len(self.axes_.axes) if self.axes_ else len(self.mean_)
        start = torch.randn((n, dim), generator=draws, device=self.device)

        def velocity(t: Float[Tensor, ""], x: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
            moved: Tensor = self.network_(x, t.expand(len(x), 1))
            return moved

        step = {"step_size": 1 / self.ode_steps}
        path: Tensor = odeint(velocity, self.source_std * start, times, method="rk4", options=step)
        return path

    def _moved(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n c"]:
        """Return principal components, or without them what vectors differ by from the mean."""
        return self.axes_.apply(vectors) if self.axes_ else vectors - self.mean_

    def _vectors(self, points: Float[Tensor, "n c"]) -> Float[Tensor, "n D"]:
        moved = points * self.spread_
        return self.axes_.undo(moved) if self.axes_ else moved + self.mean_
