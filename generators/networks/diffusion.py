"""Diffusion by diffusers' schedulers: noise is added to values in steps, and removed again."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.contract import check
from generators.networks.checks import at_least, one_of

SAMPLERS = ("ddpm", "ddim")
Network = Callable[[Float[Tensor, "n *v"], Int[Tensor, " n"]], Float[Tensor, "n *v"]]


@dataclasses.dataclass(frozen=True)
class Process:
    """A diffusion, and how it is reversed.

    Attributes:
        timesteps: T, at which noise is (almost) all that is left.
        beta_start: noise variance of the first step; linear in between.
        beta_end: noise variance of the last step.
        prediction: what the network finds in noisy values: the "sample" without noise, or the noise, "epsilon".
        sampler: "ddpm" (ancestral) or "ddim".
        steps: of the reverse process.
        eta: noise that ddim adds again, as a share of what ddpm does.
    """

    timesteps: int
    beta_start: float
    beta_end: float
    prediction: str
    sampler: str
    steps: int
    eta: float = 0.0

    def __post_init__(self) -> None:
        one_of("sampler", self.sampler, SAMPLERS)
        at_least("timesteps", self.timesteps, 2)
        check(
            1 <= self.steps <= self.timesteps,
            f"sampler_steps is {self.steps}, expected 1 to timesteps, which is {self.timesteps}",
        )
        first, last = self.beta_start, self.beta_end
        check(
            0 < first <= last < 1,
            f"beta_start is {first} and beta_end {last}, expected 0 < beta_start <= beta_end < 1",
        )
        check(0 <= self.eta <= 1, f"eta is {self.eta}, expected 0 to 1")

    def scheduler(self) -> Any:
        """Return the diffusers scheduler that adds noise and removes it."""
        import diffusers  # here, because it takes two seconds

        made: Callable[..., Any] = getattr(diffusers, f"{self.sampler.upper()}Scheduler")
        return made(
            num_train_timesteps=self.timesteps,
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            beta_schedule="linear",
            prediction_type=self.prediction,
            timestep_spacing="trailing",  # from T itself, and no step twice
            clip_sample=False,  # weights are not pictures: they exceed 1
        )

    def draw(self, n: int, rng: torch.Generator, device: str | torch.device) -> Int[Tensor, " n"]:
        """Draw timesteps, all equally likely."""
        return torch.randint(self.timesteps, (n,), generator=rng, device=device)

    def reverse(
        self, network: Network, noise: Float[Tensor, "n *v"], rng: torch.Generator
    ) -> Iterator[Float[Tensor, "n *v"]]:
        """Yield the noise, and the values after every step of the reverse process.

        Args:
            network: what ``prediction`` names, of noisy values and their timesteps.
            noise: where the process starts.
            rng: of the noise that is added on the way.
        """
        x, scheduler = noise, self.scheduler()
        options = {"eta": self.eta} if self.sampler == "ddim" else {}
        scheduler.set_timesteps(self.steps, device=noise.device)
        yield x
        for t in scheduler.timesteps:
            with torch.no_grad():  # not around the yield, where the caller's code runs
                found = network(x, t.expand(len(x)))
                x = scheduler.step(found, t, x, generator=rng, **options).prev_sample
            yield x


def along(states: Iterable[Tensor], total: int, count: int) -> list[Tensor]:
    """Return at most ``count`` of ``total`` states, evenly spread, first and last included; of one the last."""
    last = torch.tensor([total - 1.0])
    chosen = last if count == 1 else torch.linspace(0, total - 1, min(count, total))
    wanted = set(chosen.round().long().tolist())
    return [state for number, state in enumerate(states) if number in wanted]
