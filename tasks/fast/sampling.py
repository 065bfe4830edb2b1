"""Draw images with many denoising networks at once that differ in few parameters."""

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from bench.contract.zoo import Layout
from bench.errors import BadRequest, unknown
from tasks.fast.finite import not_finite

# Deterministic ones: all that differs between two images from the same noise is the weights.
SAMPLERS: dict[str, Callable[[], Any]] = {
    "ddim": DDIMScheduler,  # Song et al. 2021, eta = 0
    "dpm-solver++": DPMSolverMultistepScheduler,  # Lu et al. 2022, second order
}
TIMESTEPS = (
    1000  # of training; betas from 1e-4 to 0.02 in a line, as in DDPM and by diffusers' default
)


class PerCandidate(nn.Module):
    """A layer of which every candidate has its own; a batch holds the candidates' images one after another."""

    def __init__(self, layer: nn.Module, count: int) -> None:
        super().__init__()
        self.copies = nn.ModuleList(copy.deepcopy(layer) for _ in range(count))
        self.used = count

    def put(self, name: str, values: Float[Tensor, "n *shape"]) -> None:
        """Set a parameter of the first n copies; these are used from now on."""
        self.used = len(values)
        for layer, value in zip(self.copies, values, strict=False):
            layer.get_parameter(name).copy_(value)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return each candidate's share of the rows through its own copy."""
        if self.used == 1:
            only: Tensor = self.copies[0](inputs)
            return only
        pieces = inputs.chunk(self.used)
        return torch.cat([layer(piece) for layer, piece in zip(self.copies, pieces, strict=False)])


def together(layout: Layout) -> bool:
    """Return whether candidates gain from running at once.

    Those with matrices or kernels of their own share too little, and those with an embedding of time of their own need
    one each.
    """
    vectors = all(len(shape) == 1 for shape in layout.shapes)
    return vectors and not any("time_emb" in name for name in layout.names)


class Denoiser:
    """The network of several candidates at once, at the fixed times of a sampler.

    What the candidates share runs as one batch of all their images. On the first step, where they all start from the
    same noise, the blocks before their first own layer run once for all. So does the embedding of time.

    Args:
        model: the base, a UNet2DModel in eval mode on its device; its generated layers are replaced.
        layout: which parameters the candidates' vectors hold.
        count: how many candidates at once, at most.
        times: the sampler's timesteps.
    """

    def __init__(self, model: Any, layout: Layout, count: int, times: Int64[Tensor, " T"]) -> None:
        self.model, self.layout, self.times = model, layout, times.to(model.device)
        self.own: dict[str, PerCandidate] = {}
        for name in layout.names:
            layer = name.rpartition(".")[0]
            if layer not in self.own:
                self.own[layer] = PerCandidate(model.get_submodule(layer), count)
                model.set_submodule(layer, self.own[layer])
        self.blocks = [*model.down_blocks, model.mid_block, *model.up_blocks]
        differs = (any(isinstance(m, PerCandidate) for m in b.modules()) for b in self.blocks)
        self.first = next((i for i, own in enumerate(differs) if own), len(self.blocks))

    def put(self, vectors: Float[Tensor, "n D"]) -> None:
        """Make these the candidates."""
        self.count = len(vectors)
        for name, values in self.layout.unflatten(vectors.to(self.model.device)).items():
            layer, _, parameter = name.rpartition(".")
            self.own[layer].put(parameter, values)
        self.embedded = self.model.time_embedding(self.model.time_proj(self.times))

    def __call__(self, images: Float[Tensor, "B C S S"], step: int) -> Float[Tensor, "nB C S S"]:
        """Predict the noise in images of n candidates, one after another; step 0 takes those that all share."""
        model, time = self.model, self.embedded[step, None]
        shared = step == 0 and not isinstance(model.conv_in, PerCandidate)
        hidden = model.conv_in(images if shared or step else self.spread(images))
        skips = [hidden]
        for index, block in enumerate(self.blocks):
            if shared and index == self.first:
                hidden, skips = self.spread(hidden), [self.spread(skip) for skip in skips]
            if index < len(model.down_blocks):
                hidden, passed = block(hidden, time)
                skips += passed
            elif index == len(model.down_blocks):
                hidden = block(hidden, time)
            else:
                few = len(skips) - len(block.resnets)
                hidden, skips = block(hidden, tuple(skips[few:]), time), skips[:few]
        if shared and self.first == len(self.blocks):
            hidden = self.spread(hidden)
        noise: Tensor = model.conv_out(model.conv_act(model.conv_norm_out(hidden)))
        return noise

    def spread(self, rows: Float[Tensor, "B C s s"]) -> Float[Tensor, "nB C s s"]:
        """Repeat the rows for every candidate, one candidate after another."""
        return rows if self.count == 1 else torch.cat([rows] * self.count)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How images are made of noise: a scheduler of diffusers by its name in ``SAMPLERS``, and a number of steps."""

    name: str
    steps: int

    def __post_init__(self) -> None:
        if self.name not in SAMPLERS:
            raise unknown("sampler", self.name, SAMPLERS)
        if not 1 <= self.steps <= TIMESTEPS:
            raise BadRequest(f"steps is {self.steps}, expected 1 to {TIMESTEPS}")

    @functools.cached_property
    def _scheduler(self) -> Any:
        return SAMPLERS[self.name]()

    @property
    def times(self) -> Int64[Tensor, " T"]:
        """The timesteps at which the network is asked."""
        self._scheduler.set_timesteps(self.steps)
        times: Tensor = self._scheduler.timesteps
        return times

    def __call__(
        self, denoise: Denoiser, noise: Float[Tensor, "B C S S"]
    ) -> Float[Tensor, "nB C S S"]:
        """Draw images of every candidate from the same noise, one candidate after another; values about -1 to 1.

        An image is NaN as a whole if any value on its way was not finite: a scheduler that clips makes 1 of inf.
        """
        images, bad = noise, []
        for step, time in enumerate(self.times):
            found = denoise(images, step)
            before = images if step else denoise.spread(images)
            (images, *_) = self._scheduler.step(found, time, before, return_dict=False)
            bad += [not_finite(found.flatten(1)), not_finite(images.flatten(1))]
        return images.masked_fill(torch.stack(bad).any(0)[:, None, None, None], torch.nan)


def pixels(images: Float[Tensor, "*N C S S"]) -> UInt8[Tensor, "*N C S S"]:
    """Return finite images, clipped to [-1, 1], as bytes, rounded as diffusers' pipelines do."""
    return (images / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
