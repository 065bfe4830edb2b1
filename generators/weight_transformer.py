"""Diffusion by a transformer over tokens of weights: HyperDiffusion (ICCV 2023) and, given a score, G.pt (2022)."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.contract import Generator, Score, check
from bench.contract.zoo import Zoo
from bench.system.randomness import derive, scoped
from generators.networks.checks import at_least, one_of, positive
from generators.networks.diffusion import Process, along
from generators.networks.standardizer import Standardizer
from generators.networks.tokens import Tokens
from generators.networks.training import SCHEDULES, batch, decay, ema, minimise, normal_like
from generators.networks.transformer import TokenTransformer

CONDITIONS = ("none", "score")
NORMALIZERS = ("centre", "parameter", "global", "none")
_GLOBAL_STD = 0.538  # of weights that are normalised "global"
TIME_RATES = [10_000 ** (-step / 32) for step in range(32)]  # radians a timestep
SCORE_RATES = [2.0**power for power in range(-2, 4)]  # radians a standard deviation of the scores


@dataclasses.dataclass
class WeightTransformer(Generator):
    """A transformer over tokens of weights, which a diffusion trains to find the weights without noise.

    ``fit`` cuts checkpoints into tokens and trains the transformer to find them in their noisy tokens and the timestep
    (HyperDiffusion, Erkoç et al. 2023, arXiv 2303.17015, sec. 3.2: weights themselves are diffused, and the network
    predicts them rather than the noise). ``sample`` runs the reverse process from noise.

    With ``condition = "score"`` the transformer is told the checkpoint's score too, and is asked for one above the best
    (G.pt, Peebles et al. 2022, arXiv 2209.12892, sec. 3: a token for each number that is given, matrices of its own
    for each chunk of weights). Of independent runs, say ``--align``: neither method knows that hidden units can be
    permuted.

    Departures, with their reasons: tokens are runs of at most ``chunk_size`` values of one tensor, as in G.pt, where
    HyperDiffusion has one for each tensor, however large; G.pt is also given an earlier checkpoint of the same run and
    its loss, which a zoo does not tell, so that it is asked for a score alone; it sees permuted copies of its
    checkpoints, here they are aligned; it was made for tens of thousands of runs. The defaults are for two CPU cores,
    where the paper preset is HyperDiffusion's: a small transformer; every parameter has mean 0, because checkpoints of
    one run differ by far less than their parameters are large; the average of the network's parameters samples, as in
    G.pt; and noise is added on the way (ddpm), which corrects what a short training gets wrong early on: without it
    (ddim) models of aligned MLPs on digits score a point lower.

    The matrices of the tokens hold about 2 x D x ``n_embd`` parameters.

    Attributes:
        condition: what the transformer is told of a checkpoint, "none" or "score".
        above: how far above the best checkpoint's score it is asked for, in standard deviations of the scores.
        chunk_size: values of a token.
        n_embd: features of a token inside the transformer.
        n_layer: its layers.
        n_head: heads of attention of each layer.
        normalizer: mean 0 of each parameter and one std for all, 1 ("centre"); mean 0 and std 1 of each ("parameter");
            std 0.538 of all ("global", as in G.pt); or "none" (as in HyperDiffusion).
        timesteps: T.
        beta_start: noise variance of the first step; linear in between.
        beta_end: noise variance of the last step.
        sampler: "ddim" or "ddpm".
        sampler_steps: steps of the reverse process.
        iterations: of the training.
        batch_size: checkpoints an iteration.
        learning_rate: of AdamW, at its highest.
        weight_decay: of AdamW.
        schedule: of the learning rate, "constant" or "cosine" (with a short warm-up).
        ema_decay: of the average of the network's parameters that samples.
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    needs_where: ClassVar[dict[str, dict[str, list[str]]]] = {"score": {"condition": ["score"]}}
    has_path: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "chunk_size": 1000,
            "n_embd": 2880,
            "n_layer": 12,
            "n_head": 16,
            "normalizer": "none",
            "timesteps": 500,
            "beta_start": 2e-4,
            "beta_end": 4e-2,
            "sampler": "ddim",
            "sampler_steps": 500,
            "iterations": 42_000,  # 6,000 epochs of 200 checkpoints
            "batch_size": 32,
            "learning_rate": 2e-4,
            "schedule": "constant",
            "ema_decay": 0.9999,
        }
    }

    condition: str = "none"
    above: float = 0.5
    chunk_size: int = 4000
    n_embd: int = 256
    n_layer: int = 2
    n_head: int = 4
    normalizer: str = "centre"
    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    sampler: str = "ddpm"
    sampler_steps: int = 50
    iterations: int = 1_000
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    schedule: str = "cosine"
    ema_decay: float = 0.99

    def __post_init__(self) -> None:
        one_of("condition", self.condition, CONDITIONS)
        one_of("normalizer", self.normalizer, NORMALIZERS)
        one_of("schedule", self.schedule, SCHEDULES)
        for name in ("chunk_size", "n_embd", "n_layer", "n_head", "iterations", "batch_size"):
            at_least(name, getattr(self, name), 1)
        for name in ("above", "weight_decay"):
            at_least(name, getattr(self, name), 0)
        positive("learning_rate", self.learning_rate)
        check(0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}, expected 0 <= decay < 1")
        check(
            self.n_embd % self.n_head == 0,
            f"n_embd is {self.n_embd}, expected a multiple of n_head, which is {self.n_head}",
        )
        self.process()  # checks the rest

    def process(self) -> Process:
        """Return the diffusion of the tokens."""
        return Process(
            self.timesteps,
            self.beta_start,
            self.beta_end,
            "sample",
            self.sampler,
            self.sampler_steps,
        )

    def fit(self, zoo: Zoo, *, rng: torch.Generator, score: Score | None = None) -> Self:
        """Train the transformer, and the average of its parameters."""
        vectors = zoo.vectors.to(self.device)
        length = min(self.chunk_size, max(zoo.layout.sizes))
        self.tokens_ = Tokens.of_tensors(zoo.layout, length).to(self.device)
        self.standardizer_ = self._standardizer(vectors)
        self.known_ = self._known(zoo.vectors, score).to(self.device)
        rows = torch.cat([self.standardizer_.apply(vectors), self.known_], 1)
        with scoped(derive(rng, "transformer")):
            network = self.new_network().to(self.device)
        self.network_ = ema(network, self.ema_decay)
        self._train(network, rows, derive(rng, "batches", device=self.device))
        return self

    def _standardizer(self, vectors: Float[Tensor, "K D"]) -> Standardizer:
        """Fit the map that ``normalizer`` names."""
        each = Standardizer.fit(vectors, None)
        if self.normalizer == "parameter":
            return each
        if self.normalizer == "centre":
            return Standardizer(each.mean, each.std.square().mean().sqrt().expand_as(each.std))
        std = torch.ones_like(vectors[0])
        if self.normalizer == "global" and (spread := vectors.std(correction=0)) > 0:
            std *= spread / _GLOBAL_STD
        return Standardizer(torch.zeros_like(std), std)

    def _known(self, vectors: Float[Tensor, "K D"], score: Score | None) -> Float[Tensor, "K c"]:
        """Return what the transformer is told of each checkpoint: nothing, or its score in standard deviations."""
        if self.condition == "none":
            return vectors.new_zeros(len(vectors), 0)
        assert score is not None  # as needs_where says
        scores = score(vectors).double()
        scores = scores.nan_to_num(float(scores[scores.isfinite()].min()))
        spread, mean = torch.std_mean(scores, correction=0)
        return ((scores - mean) / (spread if spread > 0 else 1.0)).to(vectors)[:, None]

    def new_network(self) -> TokenTransformer:
        """Make the transformer over the tokens of the zoo, a timestep, and a score where it is told one."""
        return TokenTransformer(
            *self.tokens_.index.shape,
            width=self.n_embd,
            layers=self.n_layer,
            heads=self.n_head,
            rates=[TIME_RATES, *([SCORE_RATES] if self.condition == "score" else [])],
        )

    def _train(
        self, network: TokenTransformer, rows: Float[Tensor, "K d"], draws: torch.Generator
    ) -> None:
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        scheduler = self.process().scheduler()
        dim = len(self.tokens_.inverse)

        def loss() -> Float[Tensor, ""]:
            some = batch(rows, self.batch_size, draws)
            return self.loss(network, scheduler, some[:, :dim], some[:, dim:], draws)

        minimise(
            network.train(),
            loss,
            optimizer,
            decay(self.schedule, self.iterations),
            "transformer",
            self.iterations,
            self.network_,
        )

    def loss(
        self,
        network: Callable[..., Tensor],
        scheduler: Any,
        x0: Float[Tensor, "b D"],
        known: Float[Tensor, "b c"],
        rng: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Return the squared error of the weights that are found in noisy ones, a mean over weights."""
        t = self.process().draw(len(x0), rng, x0.device)
        noisy = scheduler.add_noise(x0, normal_like(x0, rng), t)
        found = network(self.tokens_.cut(noisy), t.float(), *known.T)
        return self.tokens_.error(found, self.tokens_.cut(x0))

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
        dim = len(self.tokens_.inverse)
        noise = torch.randn((n, dim), generator=draws, device=self.device)
        asked = [(known.max() + self.above).expand(n) for known in self.known_.T]

        def found(x: Float[Tensor, "n D"], t: Int[Tensor, " n"]) -> Float[Tensor, "n D"]:
            tokens: Tensor = self.network_(self.tokens_.cut(x), t.float(), *asked)
            return self.tokens_.paste(tokens)

        return self.process().reverse(found, noise, draws)
