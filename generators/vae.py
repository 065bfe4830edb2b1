"""A vanilla variational autoencoder of network parameters, the p-diff paper's appendix B.2."""

import dataclasses
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.contract import Generator
from bench.contract.zoo import Zoo
from bench.system.randomness import derive, scoped
from generators.networks.backbone import Backbone
from generators.networks.checks import at_least, positive
from generators.networks.training import batch, in_chunks, normal_like

_LARGEST = (
    20.0  # of a log variance, either sign: beyond it the exponential is as good as 0 or infinite
)


@dataclasses.dataclass
class VAE(Backbone, Generator):
    """Vanilla variational autoencoder on the backbone of p-diff's autoencoder.

    Attributes:
        kl_weight: of the Kullback-Leibler term; 1 makes the loss the evidence lower bound.
        iterations: of the training.
        learning_rate: at its highest.
    """

    has_latents: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "channels": (64, 128, 256, 256, 32),
            "stride": 2,
            "width": 1024,
            "standardize": "tensor",
            "batch_size": 200,
            "schedule": "constant",
            "compiled": True,
            "iterations": 30_000,
            "learning_rate": 1e-3,
        }
    }

    kl_weight: float = 1.0
    iterations: int = 400
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("kl_weight", self.kl_weight, 0)
        at_least("iterations", self.iterations, 1)
        positive("learning_rate", self.learning_rate)

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Train encoder and decoder on the standardised vectors."""
        vectors = zoo.vectors.to(self.device)
        self.standardizer_ = self.standardizer(vectors, zoo.layout)
        values = self.standardizer_.apply(vectors)
        with scoped(derive(rng, "vae")):
            self.encoder_ = self.new_encoder(values.shape[1], 2 * self.latent_dim).to(self.device)
            self.decoder_ = self.new_decoder(values.shape[1]).to(self.device)
        draws = derive(rng, "vae", "batches", device=self.device)
        networks = nn.ModuleList([self.encoder_, self.decoder_])
        encode, decode = map(self.to_train, networks)
        self.minimise(
            networks,
            lambda: self.loss(encode, decode, batch(values, self.batch_size, draws), draws),
            part="VAE",
            iterations=self.iterations,
            learning_rate=self.learning_rate,
        )
        return self

    def loss(
        self, encode: nn.Module, decode: nn.Module, v: Float[Tensor, "b D"], rng: torch.Generator
    ) -> Float[Tensor, ""]:
        """Return the negative evidence lower bound, up to a constant, a parameter."""
        mean, log_variance = encode(v).chunk(2, dim=1)
        log_variance = log_variance.clamp(-_LARGEST, _LARGEST)
        z = mean + (log_variance / 2).exp() * normal_like(mean, rng)
        error = (decode(z) - v).square().sum() / 2
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
        bound: Tensor = (error + self.kl_weight * divergence) / v.numel()
        return bound

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Decode standard normal latents."""
        draws = derive(rng, "prior", device=self.device)
        latents = torch.randn((n, self.latent_dim), generator=draws, device=self.device)
        return in_chunks(self._decode, latents, self.together)

    def latents(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n l"]:
        """Return the means that the encoder gives."""
        values = self.standardizer_.apply(vectors.to(self.device))
        return in_chunks(self.encoder_, values, self.together)[:, : self.latent_dim].cpu()

    def _decode(self, latents: Float[Tensor, "n l"]) -> Float[Tensor, "n D"]:
        return self.standardizer_.undo(self.decoder_(latents)).cpu()
