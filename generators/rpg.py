"""Recurrent diffusion for large-scale parameter generation, RPG (NeurIPS 2025, arXiv 2501.11587; code Apache-2.0)."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bench.contract import Generator, check
from bench.contract.zoo import Zoo
from bench.system.randomness import derive, scoped
from generators.networks.checks import at_least, one_of, positive, widths
from generators.networks.diffusion import Process, along
from generators.networks.recurrent import (
    RECURRENCES,
    Prototypes,
    TokenDenoiser,
    positions,
    sequence,
)
from generators.networks.standardizer import Standardizer
from generators.networks.tokens import Tokens, masked_error
from generators.networks.training import SCHEDULES, batch, decay, ema, minimise, normal_like

CONDITIONINGS = ("index", "none")
_VALUES = 2**20  # values of models that are denoised at a time


@dataclasses.dataclass
class Rpg(Generator):
    """RPG: a recurrent network over the tokens of a model, and a diffusion of each token (Wang et al. 2025).

    ``fit`` gives every tensor mean 0 and std 1, cuts it into tokens of ``dim_per_token`` values, and trains two
    networks together (sec. 2). The recurrent one turns the positions of all tokens (tensor, and token in it) into what
    the denoiser, a 1-D CNN, is told of each. The denoiser finds the noise in one token, and sees no other. Padding has
    no part in the loss. ``sample`` runs the reverse process of all tokens side by side.

    With ``conditioning = "index"``, as in the published program, the recurrent network is also given a learned
    embedding of the checkpoint's number, and of a number drawn at random when it samples: it can learn each checkpoint
    by heart. With "none" models differ by the noise of the diffusion alone, drawn for each token on its own.

    Departures, with their reasons: a tensor's std is that of all checkpoints together, where the program has the mean
    of their stds, which differs little; padding is 0 where it has NaN, because convolutions reach over the end of a
    tensor; running variances have no scale of their own, because normalization is folded into weights, or frozen. The
    defaults are for two CPU cores: small tokens, LSTMs instead of Mamba-2, few channels, a high learning rate, an
    average of the networks' parameters that samples by DDIM, whose steps and ``eta`` are the program's own.

    Attributes:
        conditioning: what the recurrent network is told beside the positions, "index" or "none".
        dim_per_token: values of a token.
        d_model: features of a token in the recurrent network.
        num_layers: of the recurrent network.
        recurrence: "lstm", or "mamba" (Mamba-2, of the package mamba_ssm).
        d_state: of Mamba.
        d_conv: of Mamba.
        expand: of Mamba.
        layer_channels: of the denoiser's feature maps, from 1 to 1, mirrored about the middle.
        kernel_size: values that a convolution sees.
        diffusion_batch: tokens that the denoiser is trained on in an iteration; 0: all of the batch.
        timesteps: T.
        beta_start: noise variance of the first step; linear in between.
        beta_end: noise variance of the last step.
        sampler: "ddim" or "ddpm".
        sampler_steps: steps of the reverse process.
        eta: noise that ddim adds again, as a share of what ddpm does.
        iterations: of the training.
        batch_size: checkpoints an iteration.
        learning_rate: of AdamW, at its highest.
        weight_decay: of AdamW.
        schedule: of the learning rate, "constant" or "cosine" (with a short warm-up).
        ema_decay: of the average of the networks' parameters that samples; 0: the last ones.
    """

    has_path: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "dim_per_token": 256,
            "d_model": 256,
            "recurrence": "mamba",
            "layer_channels": (1, 32, 64, 128, 64, 32, 1),
            "diffusion_batch": 0,
            "sampler": "ddpm",
            "sampler_steps": 1000,
            "iterations": 30_000,
            "learning_rate": 1e-4,
            "ema_decay": 0.0,
        }
    }

    conditioning: str = "index"
    dim_per_token: int = 128
    d_model: int = 128
    num_layers: int = 2
    recurrence: str = "lstm"
    d_state: int = 32
    d_conv: int = 4
    expand: int = 2
    layer_channels: tuple[int, ...] = (1, 4, 8, 4, 1)
    kernel_size: int = 7
    diffusion_batch: int = 256
    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    sampler: str = "ddim"
    sampler_steps: int = 60
    eta: float = 0.05
    iterations: int = 2_000
    batch_size: int = 8
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    schedule: str = "cosine"
    ema_decay: float = 0.99

    def __post_init__(self) -> None:
        one_of("conditioning", self.conditioning, CONDITIONINGS)
        one_of("recurrence", self.recurrence, RECURRENCES)
        one_of("schedule", self.schedule, SCHEDULES)
        for name in ("dim_per_token", "d_model", "num_layers", "d_state", "d_conv", "expand", "kernel_size",
                     "iterations"):  # fmt: skip
            at_least(name, getattr(self, name), 1)
        at_least("batch_size", self.batch_size, 2)
        at_least("diffusion_batch", self.diffusion_batch, 0)
        at_least("weight_decay", self.weight_decay, 0)
        positive("learning_rate", self.learning_rate)
        check(0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}, expected 0 <= decay < 1")
        check(
            self.kernel_size % 2 == 1, f"kernel_size is {self.kernel_size}, expected an odd number"
        )
        self._check_channels()
        self.process()  # checks the rest

    def _check_channels(self) -> None:
        self.layer_channels = channels = widths("layer_channels", self.layer_channels)
        check(
            channels[0] == 1
            and channels == channels[::-1]
            and len(channels) % 2 == 1
            and len(channels) > 1,
            f"layer_channels is {channels}, expected an odd number of them, mirrored, the first and the last 1",
        )

    def process(self) -> Process:
        """Return the diffusion of the tokens."""
        return Process(
            self.timesteps,
            self.beta_start,
            self.beta_end,
            "epsilon",
            self.sampler,
            self.sampler_steps,
            self.eta,
        )

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Train both networks, and the average of their parameters."""
        vectors = zoo.vectors.to(self.device)
        self.tokens_ = Tokens.of_tensors(zoo.layout, self.dim_per_token).to(self.device)
        self.standardizer_ = Standardizer.fit(vectors, zoo.layout)
        self.checkpoints_ = len(zoo)
        numbers = torch.arange(len(zoo), device=self.device)[:, None]  # exact as a float32
        rows = torch.cat([self.standardizer_.apply(vectors), numbers], 1)
        with scoped(derive(rng, "networks")):
            networks = self.new_networks().to(self.device)
        self.networks_ = ema(networks, self.ema_decay)
        self._train(networks, rows, derive(rng, "batches", device=self.device))
        return self

    def new_networks(self) -> nn.ModuleDict:
        """Make the two networks, "recurrent" and "denoiser"."""
        where = positions(self.tokens_.layer, self.tokens_.part, self.d_model)
        recurrent = sequence(
            self.recurrence, self.d_model, self.num_layers,
            d_state=self.d_state, d_conv=self.d_conv, expand=self.expand,
        )  # fmt: skip
        numbered = self.checkpoints_ if self.conditioning == "index" else 0
        return nn.ModuleDict(
            {
                "recurrent": Prototypes(where, recurrent, numbered),
                "denoiser": TokenDenoiser(
                    self.dim_per_token, self.d_model, self.layer_channels, self.kernel_size
                ),
            }
        )

    def _train(
        self, networks: nn.ModuleDict, rows: Float[Tensor, "K d"], draws: torch.Generator
    ) -> None:
        optimizer = torch.optim.AdamW(
            networks.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        scheduler = self.process().scheduler()

        def loss() -> Float[Tensor, ""]:
            some = batch(rows, self.batch_size, draws)
            return self.loss(networks, scheduler, some[:, :-1], some[:, -1].long(), draws)

        minimise(
            networks.train(),
            loss,
            optimizer,
            decay(self.schedule, self.iterations),
            "recurrent diffusion",
            self.iterations,
            self.networks_,
        )

    def loss(
        self,
        networks: nn.ModuleDict,
        scheduler: Any,
        x0: Float[Tensor, "b D"],
        index: Int[Tensor, " b"],
        rng: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Return the squared error of the noise that is found in tokens, a mean over values that are no padding."""
        told = networks["recurrent"](index).flatten(0, 1)
        noise, x0 = (self.tokens_.cut(v).flatten(0, 1) for v in (normal_like(x0, rng), x0))
        mask = self.tokens_.mask.repeat(len(index), 1)
        if 0 < self.diffusion_batch < len(mask):
            some = torch.randperm(len(mask), generator=rng, device=mask.device)
            some = some[: self.diffusion_batch]
            told, noise, x0, mask = (each[some] for each in (told, noise, x0, mask))
        t = self.process().draw(len(x0), rng, x0.device)
        found = networks["denoiser"](scheduler.add_noise(x0, noise, t), t, told)
        return masked_error(found, noise, mask)

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Run the reverse process from noise, and undo the normalisation."""
        values = deque(self._reverse(n, rng), maxlen=1)[0]
        return self.standardizer_.undo(values).cpu()

    def sampling_path(self, n: int, steps: int, *, rng: torch.Generator) -> Float[Tensor, "n s D"]:
        """Return the vectors along the reverse process."""
        states = along(self._reverse(n, rng), self.sampler_steps + 1, steps)
        return torch.stack([self.standardizer_.undo(state).cpu() for state in states], 1)

    def _reverse(self, n: int, rng: torch.Generator) -> Iterator[Float[Tensor, "n D"]]:
        """Yield noise, and the values after every step of the reverse process."""
        draws = derive(rng, "reverse process", device=self.device)
        networks = self.networks_.module
        assert isinstance(networks, nn.ModuleDict)
        index = torch.randint(self.checkpoints_, (n,), generator=draws, device=self.device)
        with torch.no_grad():
            told = networks["recurrent"](index)
        dim = len(self.tokens_.inverse)
        noise = torch.randn((n, dim), generator=draws, device=self.device)

        def found(x: Float[Tensor, "n D"], t: Int[Tensor, " n"]) -> Float[Tensor, "n D"]:
            some = max(1, _VALUES // dim)
            parts = zip(x.split(some), t.split(some), told.split(some), strict=True)
            return torch.cat([self._noise(networks["denoiser"], *part) for part in parts])

        return self.process().reverse(found, noise, draws)

    def _noise(
        self,
        denoise: Callable[..., Tensor],
        x: Float[Tensor, "n D"],
        t: Int[Tensor, " n"],
        told: Float[Tensor, "n T c"],
    ) -> Float[Tensor, "n D"]:
        """Return the noise that is found in the tokens of noisy values."""
        count = len(self.tokens_)
        tokens = self.tokens_.cut(x).flatten(0, 1)
        found = denoise(tokens, t.repeat_interleave(count), told.flatten(0, 1))
        return self.tokens_.paste(found.view(len(x), count, -1))
