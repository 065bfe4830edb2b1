"""p-diff: a diffusion model over the latents of an autoencoder of network parameters (arXiv 2402.13144)."""

import dataclasses
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bench.randomness import derive, scoped
from bench.zoo import Zoo
from generators import networks
from generators.base import Generator, check
from generators.networks import Backbone, at_least, normal_like, one_of

SAMPLERS = ("ddpm", "ddim", "dpm-solver++")


@dataclasses.dataclass
class PDiff(Backbone, Generator):
    """p-diff: autoencoder of the parameters, diffusion model over its latents.

    """

    input_noise: float = 0.001
    latent_noise: float = 0.1
    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    ema_decay: float = 0.995
    sampler: str = "dpm-solver++"
    sampler_steps: int = 20
    denoiser_channels: tuple[int, ...] = (16, 32, 64)
    autoencoder_iterations: int = 500
    denoiser_iterations: int = 1500
    autoencoder_learning_rate: float = 1e-3
    denoiser_learning_rate: float = 1e-3
    latent_scaling: str = "whiten"
    precondition: bool = True

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Train the autoencoder on the standardised vectors, then the denoiser on their latents."""
        vectors = zoo.vectors.to(self.device)
        layout = zoo.layout if self.standardize == "tensor" else None
        self.standardizer_ = networks.Standardizer.fit(vectors, layout)
        values = self.standardizer_.apply(vectors)
        self._fit_autoencoder(values, rng)
        self._fit_denoiser(self._encode(values), rng)
        return self

    def _fit_autoencoder(self, values, rng):
        with scoped(derive(rng, "autoencoder", "initialisation")):
            self.encoder_ = self.encoder(values.shape[1], self.latent_dim)
            self.decoder_ = self.decoder(values.shape[1])
        both = nn.ModuleList([self.encoder_, self.decoder_]).to(self.device)
        g = derive(rng, "autoencoder", device=self.device)

        def loss():
            v = networks.batch(values, self.batch_size, g)
            z = self.encoder_(v + self.input_noise * normal_like(v, g))
            return F.mse_loss(self.decoder_(z + self.latent_noise * normal_like(z, g)), v)

        networks.train(both, loss, part="autoencoder", iterations=self.autoencoder_iterations,
            learning_rate=self.autoencoder_learning_rate, weight_decay=self.weight_decay, schedule=self.schedule)

    @torch.no_grad()
    def _encode(self, values):
        return torch.cat([self.encoder_(v) for v in values.split(self.batch_size)])

    def _fit_denoiser(self, latents, rng):
        self.zmean_ = latents.mean(0)
        c = latents - self.zmean_
        if self.latent_scaling == "global":
            self.zmat_ = torch.eye(c.shape[1], device=c.device) * c.square().mean().sqrt()
        elif self.latent_scaling == "dimension":
            self.zmat_ = torch.diag(c.std(0, correction=0))
        elif self.latent_scaling == "whiten":
            u, s, v = torch.linalg.svd(c.double(), full_matrices=False)
            s = s / len(c) ** 0.5
            s = torch.where(s > 1e-5 * s[0], s, 0)
            m = torch.zeros(c.shape[1], c.shape[1], dtype=torch.float64, device=c.device)
            m[: len(s)] = s[:, None] * v
            self.zmat_ = m.float()
        inv = torch.linalg.pinv(self.zmat_.double(), rtol=1e-6).float()
        data = c @ inv
        with scoped(derive(rng, "denoiser", "initialisation")):
            if self.blocks == "conv":
                net = networks.ConvDenoiser(self.latent_dim, self.denoiser_channels, self.kernel, self.normalization)
            else:
                net = networks.DenseDenoiser(self.latent_dim, self.width, 4, self.normalization)
        self.net_ = net.to(self.device)
        self.ema_ = networks.ema(self.net_, self.ema_decay)
        sch = self._scheduler("ddpm")
        self.alphas_ = sch.alphas_cumprod.to(self.device)
        g = derive(rng, "denoiser", device=self.device)
        bs = self.batch_size

        def loss():
            z = networks.batch(data, bs, g)
            eps = normal_like(z, g)
            t = torch.randint(self.timesteps, (len(z),), generator=g, device=z.device)
            return F.mse_loss(self._eps(self.net_, sch.add_noise(z, eps, t), t), eps)

        networks.train(self.net_, loss, part="denoiser", iterations=self.denoiser_iterations,
            learning_rate=self.denoiser_learning_rate, weight_decay=self.weight_decay, schedule=self.schedule, average=self.ema_)

    def _eps(self, net, x, t):
        out = net(x, t)
        if not self.precondition:
            return out
        a = self.alphas_[t][:, None]
        return (1 - a).sqrt() * x + a.sqrt() * out

    def _scheduler(self, name):
        from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
        kw = dict(num_train_timesteps=self.timesteps, beta_start=self.beta_start, beta_end=self.beta_end, beta_schedule="linear")
        if name == "ddpm":
            return DDPMScheduler(**kw, clip_sample=False)
        if name == "ddim":
            return DDIMScheduler(**kw, clip_sample=False)
        return DPMSolverMultistepScheduler(**kw, algorithm_type="dpmsolver++")

    @torch.no_grad()
    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Noise, the reverse process, the decoder."""
        g = derive(rng, "sample", device=self.device)
        z = torch.randn((n, self.latent_dim), generator=g, device=self.device)
        sch = self._scheduler(self.sampler)
        sch.set_timesteps(self.sampler_steps, device=self.device)
        for t in sch.timesteps:
            e = self._eps(self.ema_.module, z, t.expand(n))
            extra = {} if self.sampler == "ddim" else {"generator": g}
            z = sch.step(e, t, z, **extra).prev_sample
        self.zs_ = z
        z = z @ self.zmat_ + self.zmean_
        return torch.cat([self.standardizer_.undo(self.decoder_(c)).cpu() for c in z.split(self.batch_size)])
