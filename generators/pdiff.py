"""p-diff: diffusion over the latents of an autoencoder of parameters (arXiv 2402.13144)."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bench.contract import Generator, check
from bench.contract.zoo import Zoo
from bench.system.randomness import derive, scoped
from generators.networks.backbone import Backbone
from generators.networks.checks import at_least, one_of, positive, share, widths
from generators.networks.denoisers import ConvDenoiser, DenseDenoiser
from generators.networks.training import batch, ema, in_chunks, normal_like

SAMPLERS = ("ddpm", "ddim", "dpm-solver++")
PREDICTIONS = ("velocity", "epsilon")
SCALINGS = ("whiten", "dimension", "global", "none")
_NEGLIGIBLE = 1e-4  # of the largest std: below it a latent direction holds rounding errors only


@dataclasses.dataclass(frozen=True)
class LatentScaler:
    """The affine map from latents to the coordinates that are diffused, and its inverse.

    Attributes:
        mean: of the latents.
        axes: orthonormal rows, the directions of the coordinates.
        std: divided by, one number a direction; 0 where latents do not vary, nor then samples.
    """

    mean: Float[Tensor, " l"]
    axes: Float[Tensor, "l l"]
    std: Float[Tensor, " l"]

    @classmethod
    def fit(cls, latents: Float[Tensor, "K l"], scaling: str) -> "LatentScaler":
        """Fit scales to std 1 along principal axes ("whiten"), along each "dimension", over all ("global"), or none."""
        if scaling == "none":
            ones = torch.ones_like(latents[0])
            return cls(torch.zeros_like(ones), ones.diag(), ones)
        z = latents.double().cpu()
        centred = z - z.mean(dim=0)
        axes = torch.eye(z.shape[1], dtype=z.dtype)
        if scaling == "whiten":
            axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.T.flip(0)
        std = (centred @ axes.T).square().mean(dim=0).sqrt()
        if scaling == "global":
            std = std.square().mean().sqrt().expand_as(std)
        std = torch.where(std > _NEGLIGIBLE * std.max(), std, 0.0)
        return cls(*(x.to(latents) for x in (z.mean(dim=0), axes, std)))

    def apply(self, z: Float[Tensor, "n l"]) -> Float[Tensor, "n l"]:
        """Return latents as scaled coordinates, 0 where the latents do not vary."""
        scale = torch.where(self.std > 0, 1 / self.std, 0.0)
        return (z - self.mean) @ self.axes.T * scale

    def undo(self, x: Float[Tensor, "n l"]) -> Float[Tensor, "n l"]:
        """Return scaled coordinates as latents."""
        return (x * self.std) @ self.axes + self.mean


@dataclasses.dataclass
class PDiff(Backbone, Generator):
    """p-diff: latent diffusion over an autoencoder of the parameters (Wang et al. 2024).

    ``fit`` standardises the vectors, trains the autoencoder (Eq. 4 and 5), scales its latents and
    trains the denoiser on them (Eq. 6). ``sample`` runs the reverse process (Eq. 2) and decodes.

    The defaults are for two CPU cores. Three departures from the paper make a short training enough:
    whitened latents, a network that predicts velocity, and a learning rate that decays.

    The preset ``official`` is the recipe of the published program (github.com/NUS-HPC-AI-Lab/Neural-Network-Diffusion,
    commit 0ecca89; that of its main tables), which trains for far shorter than the paper says. Its autoencoder has
    batch normalization that stays in training mode: the denoiser is trained on what the encoder makes of each batch,
    and the decoder gets one latent at a time, whose statistics are not those of any batch. Departures: blocks have a
    residual connection, the learning rate has a short warm-up, layers of a large fan-in take smaller steps, and
    numbers are float32, where the program has bfloat16. It is made for 300 checkpoints (``--k 300``).

    Attributes:
        input_noise: xi_V of Eq. 4, std of the noise on standardised parameters.
        latent_noise: xi_Z of Eq. 4, std of the noise on latents.
        timesteps: T.
        beta_start: noise variance of the first step; linear in between.
        beta_end: noise variance of the last step.
        ema_decay: of the average of the denoiser's parameters that samples.
        sampler: "ddpm" (ancestral, the paper's), "ddim" or "dpm-solver++".
        sampler_steps: steps of the reverse process.
        prediction: what the network puts out, "epsilon" or "velocity"; Eq. 6 is the loss either way.
        latent_scaling: std 1 along principal axes ("whiten"), each "dimension" or over all ("global"), or "none".
        denoiser_channels: on the U-Net's way down; up mirrors it. If "linear", their number matters.
        autoencoder_iterations: of its training.
        autoencoder_learning_rate: at its highest.
        denoiser_iterations: of its training.
        denoiser_learning_rate: at its highest.
    """

    has_latents: ClassVar[bool] = True
    has_path: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "channels": (64, 128, 256, 256, 32),
            "stride": 2,
            "width": 1024,
            "standardize": "tensor",
            "batch_size": 200,
            "schedule": "constant",
            "compiled": True,
            "ema_decay": 0.9999,
            "sampler": "ddpm",
            "sampler_steps": 1000,
            "prediction": "epsilon",
            "latent_scaling": "global",
            "denoiser_channels": (64, 128, 256, 512),
            "autoencoder_iterations": 30_000,
            "autoencoder_learning_rate": 1e-3,
            "denoiser_iterations": 30_000,
        },
        "official": {
            "channels": (64, 128, 256, 256, 32),
            "stride": 2,
            "normalization": "batch-train",
            "standardize": "tensor",
            "batch_size": 50,
            "weight_decay": 0.0,
            "ema_decay": 0.0,
            "sampler": "ddpm",
            "sampler_steps": 1000,
            "prediction": "epsilon",
            "latent_scaling": "none",
            "denoiser_channels": (64, 128, 256, 512),
            "autoencoder_iterations": 500,
            "autoencoder_learning_rate": 2e-5,
            "denoiser_iterations": 2_000,
            "denoiser_learning_rate": 1e-4,
        },
    }

    input_noise: float = 0.001
    latent_noise: float = 0.1
    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    ema_decay: float = 0.995
    sampler: str = "dpm-solver++"
    sampler_steps: int = 20
    prediction: str = "velocity"
    latent_scaling: str = "whiten"
    denoiser_channels: tuple[int, ...] = (16, 32, 64)
    autoencoder_iterations: int = 400
    autoencoder_learning_rate: float = 3e-3
    denoiser_iterations: int = 800
    denoiser_learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("sampler", self.sampler, SAMPLERS)
        one_of("prediction", self.prediction, PREDICTIONS)
        one_of("latent_scaling", self.latent_scaling, SCALINGS)
        self.denoiser_channels = widths("denoiser_channels", self.denoiser_channels)
        at_least("input_noise", self.input_noise, 0)
        at_least("latent_noise", self.latent_noise, 0)
        at_least("autoencoder_iterations", self.autoencoder_iterations, 1)
        at_least("denoiser_iterations", self.denoiser_iterations, 1)
        positive("autoencoder_learning_rate", self.autoencoder_learning_rate)
        positive("denoiser_learning_rate", self.denoiser_learning_rate)
        share("ema_decay", self.ema_decay)
        self._check_process()

    def _check_process(self) -> None:
        at_least("timesteps", self.timesteps, 2)
        steps, first, last = self.sampler_steps, self.beta_start, self.beta_end
        check(
            1 <= steps <= self.timesteps,
            f"sampler_steps is {steps}, expected 1 to timesteps, which is {self.timesteps}",
        )
        check(
            0 < first <= last < 1,
            f"beta_start is {first} and beta_end {last}, expected 0 < beta_start <= beta_end < 1",
        )

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Train the autoencoder on the standardised vectors, then the denoiser on their latents."""
        vectors = zoo.vectors.to(self.device)
        self.standardizer_ = self.standardizer(vectors, zoo.layout)
        values = self.standardizer_.apply(vectors)
        self._fit_autoencoder(values, rng)
        latents = in_chunks(self.encoder_, values, self.batch_size)
        self.scaler_ = LatentScaler.fit(latents, self.latent_scaling)
        self._fit_denoiser(self._latent_batches(values, self.scaler_.apply(latents)), rng)
        return self

    def _latent_batches(
        self, values: Float[Tensor, "K D"], latents: Float[Tensor, "K l"]
    ) -> Callable[[torch.Generator], Float[Tensor, "b l"]]:
        """Return what draws a batch of latents, encoded together where a latent depends on its batch."""
        if self.normalization != "batch-train":
            return lambda draws: batch(latents, self.batch_size, draws)

        @torch.no_grad()
        def encoded(draws: torch.Generator) -> Float[Tensor, "b l"]:
            return self.scaler_.apply(self.encoder_(batch(values, self.batch_size, draws)))

        return encoded

    def _fit_autoencoder(self, values: Float[Tensor, "K D"], rng: torch.Generator) -> None:
        """Train encoder and decoder by Eq. 4 and 5."""
        with scoped(derive(rng, "autoencoder")):
            self.encoder_ = self.new_encoder(values.shape[1], self.latent_dim).to(self.device)
            self.decoder_ = self.new_decoder(values.shape[1]).to(self.device)
        draws = derive(rng, "autoencoder", "batches", device=self.device)
        networks = nn.ModuleList([self.encoder_, self.decoder_])
        encode, decode = map(self.to_train, networks)
        self.minimise(
            networks,
            lambda: self.reconstruction_loss(
                encode, decode, batch(values, self.batch_size, draws), draws
            ),
            part="autoencoder",
            iterations=self.autoencoder_iterations,
            learning_rate=self.autoencoder_learning_rate,
        )

    def reconstruction_loss(
        self, encode: nn.Module, decode: nn.Module, v: Float[Tensor, "b D"], rng: torch.Generator
    ) -> Float[Tensor, ""]:
        """Return the loss of Eq. 5, of ``v' = decoder(encoder(v + xi_V) + xi_Z)`` (Eq. 4); a mean over parameters."""
        z = encode(v + self.input_noise * normal_like(v, rng))
        return F.mse_loss(decode(z + self.latent_noise * normal_like(z, rng)), v)

    def _fit_denoiser(
        self, latents: Callable[[torch.Generator], Float[Tensor, "b l"]], rng: torch.Generator
    ) -> None:
        """Train the denoiser by Eq. 6 on batches of latents, and the moving average of its parameters."""
        self.process_ = self.scheduler("ddpm")
        self.alpha_bar_ = self.process_.alphas_cumprod.to(self.device)
        with scoped(derive(rng, "denoiser")):
            denoiser = self._new_denoiser().to(self.device)
        self.denoiser_ = ema(denoiser, self.ema_decay)
        draws = derive(rng, "denoiser", "batches", device=self.device)
        denoise = self.to_train(denoiser)
        self.minimise(
            denoiser,
            lambda: self.diffusion_loss(denoise, latents(draws), draws),
            part="denoiser",
            iterations=self.denoiser_iterations,
            learning_rate=self.denoiser_learning_rate,
            average=self.denoiser_,
        )

    def _new_denoiser(self) -> nn.Module:
        kind = "batch" if self.normalization == "batch-train" else self.normalization
        if self.blocks == "conv":
            return ConvDenoiser(self.latent_dim, self.denoiser_channels, self.kernel, kind)
        return DenseDenoiser(self.latent_dim, self.width, len(self.denoiser_channels), kind)

    def diffusion_loss(
        self, denoiser: nn.Module, z: Float[Tensor, "b l"], rng: torch.Generator
    ) -> Float[Tensor, ""]:
        """Return the loss of Eq. 6: ``|eps - eps_theta(sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) eps, t)|^2``."""
        noise = normal_like(z, rng)
        t = torch.randint(self.timesteps, (len(z),), generator=rng, device=z.device)
        return F.mse_loss(self.epsilon(denoiser, self.process_.add_noise(z, noise, t), t), noise)

    def epsilon(
        self, denoiser: nn.Module, z: Float[Tensor, "n l"], t: Int[Tensor, " n"]
    ) -> Float[Tensor, "n l"]:
        """Return the predicted noise, eps_theta(z, t).

        From a velocity v it is ``sqrt(alpha_bar_t) v + sqrt(1 - alpha_bar_t) z``: v = 0 already is the
        best guess for standard normal latents, and training has only the rest to learn.
        """
        output: Tensor = denoiser(z, t)
        if self.prediction == "epsilon":
            return output
        alpha_bar = self.alpha_bar_[t][:, None]
        noise: Tensor = alpha_bar.sqrt() * output + (1 - alpha_bar).sqrt() * z
        return noise

    def scheduler(self, sampler: str) -> Any:
        """Return the diffusers scheduler that adds noise (Eq. 1) and removes it (Eq. 2)."""
        import diffusers  # here, because it takes two seconds

        options = {
            "num_train_timesteps": self.timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "beta_schedule": "linear",
            "timestep_spacing": "trailing",  # from T itself, and no step twice
        }
        if sampler != "dpm-solver++":
            options["clip_sample"] = False  # latents are not pictures: they exceed 1
        name = {"ddpm": "DDPM", "ddim": "DDIM", "dpm-solver++": "DPMSolverMultistep"}[sampler]
        return getattr(diffusers, f"{name}Scheduler")(**options)

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Run the reverse process from noise, undo the scaling, decode, undo the standardisation."""
        latents = self.scaler_.undo(self.sample_latents(n, rng))
        return in_chunks(self._decode, latents, self.together)

    def _decode(self, latents: Float[Tensor, "n l"]) -> Float[Tensor, "n D"]:
        return self.standardizer_.undo(self.decoder_(latents)).cpu()

    def latents(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n l"]:
        """Return scaled latents: what the denoiser models."""
        values = self.standardizer_.apply(vectors.to(self.device))
        return self.scaler_.apply(in_chunks(self.encoder_, values, self.together)).cpu()

    def sampling_path(self, n: int, steps: int, *, rng: torch.Generator) -> Float[Tensor, "n s D"]:
        """Return the vectors decoded from the latents along the reverse process (the paper's Fig. 5a)."""
        z = torch.stack(list(self._reverse(n, rng)))
        chosen = z[torch.linspace(0, len(z) - 1, min(steps, len(z))).round().long()]
        latents = self.scaler_.undo(chosen.transpose(0, 1).flatten(0, 1))
        vectors: Tensor = in_chunks(self._decode, latents, self.together)
        return vectors.reshape(n, len(chosen), -1)

    def sample_latents(self, n: int, rng: torch.Generator) -> Float[Tensor, "n l"]:
        """Draw n scaled latents: Eq. 2 from standard normal noise."""
        return deque(self._reverse(n, rng), maxlen=1)[0]

    @torch.no_grad()
    def _reverse(self, n: int, rng: torch.Generator) -> Iterator[Float[Tensor, "n l"]]:
        """Yield the noise, and the latents after every step of the reverse process."""
        draws = derive(rng, "reverse process", device=self.device)
        z = torch.randn((n, self.latent_dim), generator=draws, device=self.device)
        yield z
        scheduler = self.scheduler(self.sampler)
        scheduler.set_timesteps(self.sampler_steps, device=self.device)
        for t in scheduler.timesteps:
            epsilon = self.epsilon(self.denoiser_, z, t.expand(n))
            z = scheduler.step(epsilon, t, z, generator=draws).prev_sample
            yield z
