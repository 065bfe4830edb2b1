"""SANE: hyper-representations of networks as sequences of tokens (ICML 2024, arXiv 2406.09997; HSG-AIML/SANE)."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Generator, Score, check
from bench.contract.zoo import Zoo
from bench.system.randomness import derive, scoped
from generators.networks.backbone import STANDARDIZATIONS
from generators.networks.checks import at_least, one_of, positive, share
from generators.networks.standardizer import Standardizer
from generators.networks.token_autoencoder import TokenAutoencoder, nt_xent
from generators.networks.tokens import Tokens, masked_error
from generators.networks.training import batch, in_chunks, minimise, normal_like, one_cycle

DENSITIES = ("token", "joint")
SELECTIONS = ("none", "subsample", "bootstrap")


@dataclasses.dataclass
class Sane(Generator):
    """SANE: a transformer autoencoder of tokens, and a kernel density of its latents (Schürholt et al. 2024).

    ``fit`` standardises the checkpoints and cuts them into tokens, one for each output channel, its weights beside its
    bias; a long one is split. An autoencoder with a latent for each token is trained on windows of neighbouring tokens:
    to reconstruct them, padding aside, and to tell two views of a checkpoint from views of others. ``sample`` draws the
    latents of all tokens from Gaussian kernel densities over those of the checkpoints, the anchors, and decodes them.
    With ``selection = "subsample"`` it draws 50 models and keeps the 10 with the best score, again and again; with
    "bootstrap" the best models are the anchors of the next draw, a few times, and the last anchors are what is sampled
    from.

    The method aligns hidden units first, wherever there are any that can be permuted.

    Departures, with their reasons: the published program draws every token with the same random state, so that all
    tokens of a model are of one checkpoint, under one and the same noise; here the noise of every token is its own. So
    is its checkpoint with ``density = "token"``, as the method is described, and in ``paper``; by default all tokens of
    a model are of one checkpoint, as in the program, because tokens of independent networks do not fit together,
    however well they are reconstructed. The program's views are a checkpoint with its hidden units in another order,
    and one as it is; which units can be permuted is not told to a generator, so that views here are the checkpoint
    under multiplicative noise, which the program has too, with some values erased, and what is reconstructed is the
    checkpoint itself. The bandwidth is a share of the spread of the latents, which their training leaves open.
    Statistics of normalization are not computed anew: they are folded into the weights, or frozen. The defaults are for
    two CPU cores: small transformers, a high learning rate, few iterations, all tokens of most networks at once.

    Attributes:
        align: whether hidden units of the checkpoints are aligned first.
        standardize: mean 0 and std 1 for each named "tensor", or each single "parameter", so that what does not vary
            comes back exactly.
        i_dim: most values of a token.
        lat_dim: length of a token's latent.
        d_model: features of a token inside the transformers.
        num_layers: of the encoder, and of the decoder.
        nhead: heads of attention of each layer.
        windowsize: neighbouring tokens that it is trained on at a time.
        halo_window: tokens that are encoded or decoded at a time once it is trained.
        halo: tokens before and after them that it sees then.
        gamma: weight of the contrastive loss; that of the reconstruction is the rest.
        temperature: of the contrastive loss.
        projection: features that the contrastive loss compares.
        noise: std of the factors, about 1, that values of a view are multiplied by.
        erase: share of the values of a view that are set to 0, their mean.
        iterations: of the training.
        batch_size: checkpoints an iteration.
        learning_rate: of AdamW, at its highest; it rises from a 25th of it for three tenths of the iterations, then
            falls to 0, both along a cosine.
        weight_decay: of AdamW.
        density: of each "token" on its own, or "joint" of all tokens: whether the tokens of a model are of several
            checkpoints, or of one.
        bandwidth: std of the kernel, as a share of the std of the anchors' latents.
        selection: which models are kept by their score on the training split: "none", "subsample" or "bootstrap".
        draws: models of which the best are kept.
        keep: how many are kept.
        bootstrap_iterations: how many times the kept ones become anchors.
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    needs_where: ClassVar[dict[str, dict[str, list[str]]]] = {
        "score": {"selection": ["subsample", "bootstrap"]}
    }
    has_latents: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "d_model": 1024,
            "num_layers": 8,
            "nhead": 8,
            "windowsize": 64,
            "halo_window": 128,
            "halo": 64,
            "iterations": 5_500,  # 50 epochs of 700 networks, each at five epochs
            "batch_size": 32,
            "learning_rate": 1e-4,
            "density": "token",
        }
    }

    align: bool = True
    standardize: str = "tensor"
    i_dim: int = 289
    lat_dim: int = 128
    d_model: int = 64
    num_layers: int = 2
    nhead: int = 4
    windowsize: int = 512
    halo_window: int = 512
    halo: int = 0
    gamma: float = 0.05
    temperature: float = 0.1
    projection: int = 30
    noise: float = 0.1
    erase: float = 0.1
    iterations: int = 1_000
    batch_size: int = 8
    learning_rate: float = 3e-3
    weight_decay: float = 3e-9
    density: str = "joint"
    bandwidth: float = 0.2
    selection: str = "none"
    draws: int = 50
    keep: int = 10
    bootstrap_iterations: int = 3

    def __post_init__(self) -> None:
        one_of("standardize", self.standardize, STANDARDIZATIONS)
        one_of("density", self.density, DENSITIES)
        one_of("selection", self.selection, SELECTIONS)
        for name in ("i_dim", "lat_dim", "num_layers", "nhead", "windowsize", "halo_window", "projection",
                     "iterations", "keep", "bootstrap_iterations"):  # fmt: skip
            at_least(name, getattr(self, name), 1)
        for name in ("halo", "noise", "weight_decay", "bandwidth"):
            at_least(name, getattr(self, name), 0)
        at_least("batch_size", self.batch_size, 2)
        positive("temperature", self.temperature)
        positive("learning_rate", self.learning_rate)
        share("erase", self.erase)
        check(0 <= self.gamma <= 1, f"gamma is {self.gamma}, expected 0 to 1")
        width, heads = self.d_model, self.nhead
        good = width >= 2 and width % 2 == 0 and width % heads == 0
        check(good, f"d_model is {width}, expected an even multiple of nhead, which is {heads}")
        good = self.draws >= self.keep
        check(good, f"draws is {self.draws}, expected at least keep, which is {self.keep}")

    def fit(self, zoo: Zoo, *, rng: torch.Generator, score: Score | None = None) -> Self:
        """Train the autoencoder, and encode the anchors."""
        vectors = zoo.vectors.to(self.device)
        layout = zoo.layout if self.standardize == "tensor" else None
        self.standardizer_ = Standardizer.fit(vectors, layout)
        longest = int(Tokens.of_channels(zoo.layout, self.i_dim).mask.sum(1).max())
        self.tokens_ = Tokens.of_channels(zoo.layout, longest).to(self.device)
        values = self.standardizer_.apply(vectors)
        with scoped(derive(rng, "autoencoder")):
            self.autoencoder_ = self.new_autoencoder().to(self.device)
        self._train(values, derive(rng, "batches", device=self.device))
        self.score_ = score
        self.anchors_ = in_chunks(self._encode, vectors, self.batch_size)
        if self.selection == "bootstrap":
            self._bootstrap(derive(rng, "bootstrap"))
        return self

    def new_autoencoder(self) -> TokenAutoencoder:
        """Make the autoencoder of the tokens, and the head of its contrastive loss."""
        tokens = self.tokens_
        where = torch.stack([torch.arange(len(tokens)), tokens.layer.cpu(), tokens.channel.cpu()])
        return TokenAutoencoder(
            where.T, tokens.length, self.lat_dim,
            width=self.d_model, layers=self.num_layers, heads=self.nhead,
            window=self._window(), projection=self.projection,
        )  # fmt: skip

    def _window(self) -> int:
        return min(self.windowsize, len(self.tokens_))

    def _train(self, values: Float[Tensor, "K D"], draws: torch.Generator) -> None:
        network = self.autoencoder_.train()
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        minimise(
            network,
            lambda: self.loss(network, batch(values, self.batch_size, draws), draws),
            optimizer,
            one_cycle(self.iterations),
            "autoencoder",
            self.iterations,
            None,
        )

    def loss(
        self, network: TokenAutoencoder, values: Float[Tensor, "b D"], rng: torch.Generator
    ) -> Float[Tensor, ""]:
        """Return the loss of a window of tokens, drawn at random: reconstruction and contrast of two views."""
        window = self._window()
        starts = len(self.tokens_) - window + 1
        start = int(torch.randint(starts, (), generator=rng, device=values.device))
        tokens = self.tokens_.cut(values)[:, start : start + window]
        one, other = (network.encode(self.view(tokens, rng), start) for _ in range(2))
        found = torch.cat([network.decode(one, start), network.decode(other, start)])
        mask = self.tokens_.mask[start : start + window].expand_as(found)
        error = masked_error(found, tokens.repeat(2, 1, 1), mask)
        contrast = nt_xent(network.project(one), network.project(other), self.temperature)
        return self.gamma * contrast + (1 - self.gamma) * error

    def view(
        self, tokens: Float[Tensor, "b t length"], rng: torch.Generator
    ) -> Float[Tensor, "b t length"]:
        """Return tokens under multiplicative noise, some of their values erased."""
        kept = torch.rand(tokens.shape, generator=rng, device=tokens.device) >= self.erase
        return tokens * (1 + self.noise * normal_like(tokens, rng)) * kept

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Draw latents from the kernel density, and decode them; of many the best where it is asked for."""
        if self.selection != "subsample":
            return self._decode_all(self.draw(n, derive(rng, "latents"))).cpu()
        rounds = range(math.ceil(n / self.keep))
        kept = [self._best(self.draw(self.draws, derive(rng, "latents", i)))[1] for i in rounds]
        return torch.cat(kept)[:n].cpu()

    def draw(self, n: int, rng: torch.Generator) -> Float[Tensor, "n T latent"]:
        """Draw latents from the kernel density over those of the anchors.

        A Gaussian kernel density is a mixture of as many Gaussians: one of the anchors at random, and noise.
        """
        draws = derive(rng, "kernel density", device=self.device)
        tokens = len(self.tokens_)
        apart = tokens if self.density == "token" else 1
        chosen = torch.randint(
            len(self.anchors_), (n, apart), generator=draws, device=self.device
        ).expand(n, tokens)
        z = self.anchors_[chosen, torch.arange(tokens, device=self.device)]
        spread = self.anchors_.std(0, correction=0).square().mean().sqrt()
        return z + self.bandwidth * spread * normal_like(z, draws)

    def _bootstrap(self, rng: torch.Generator) -> None:
        """Put the best of the models that are drawn in place of the anchors, several times."""
        for iteration in range(self.bootstrap_iterations):
            self.anchors_ = self._best(self.draw(self.draws, derive(rng, iteration)))[0]

    def _best(
        self, z: Float[Tensor, "draws T latent"]
    ) -> tuple[Float[Tensor, "keep T latent"], Float[Tensor, "keep D"]]:
        """Return the latents and the vectors of the models with the best scores, the best first."""
        assert self.score_ is not None  # as needs_where says
        vectors = self._decode_all(z)
        scores = self.score_(vectors.cpu()).nan_to_num(-math.inf)
        best = scores.argsort(descending=True, stable=True)[: self.keep].to(z.device)
        return z[best], vectors[best]

    def latents(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n l"]:
        """Return the latents of all tokens, one after the other."""
        return in_chunks(self._encode, vectors.to(self.device), self.batch_size).flatten(1).cpu()

    def _encode(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n T latent"]:
        tokens = self.tokens_.cut(self.standardizer_.apply(vectors))
        return self._in_windows(self.autoencoder_.encode, tokens)

    def _decode(self, z: Float[Tensor, "n T latent"]) -> Float[Tensor, "n D"]:
        tokens = self._in_windows(self.autoencoder_.decode, z)
        return self.standardizer_.undo(self.tokens_.paste(tokens))

    def _decode_all(self, z: Float[Tensor, "n T latent"]) -> Float[Tensor, "n D"]:
        return in_chunks(self._decode, z, self.batch_size)

    def _in_windows(
        self, network: Callable[[Tensor, int], Tensor], x: Float[Tensor, "n T a"]
    ) -> Float[Tensor, "n T b"]:
        """Return what a network makes of all tokens, a window at a time, which it sees with the halo around it."""
        size, parts = self.halo_window, []
        for start in range(0, x.shape[1], size):
            first = max(0, start - self.halo)
            seen = x[:, first : start + size + self.halo]
            parts.append(network(seen, first)[:, start - first : start - first + size])
        return torch.cat(parts, 1)
