"""Sampling of images by many denoising networks at once that differ in few parameters."""

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

# All are deterministic: two images from the same noise differ by the networks' weights alone.
SAMPLERS: dict[str, Callable[[], Any]] = {
    "ddim": DDIMScheduler,  # Song et al. 2021, eta = 0
    "dpm-solver++": DPMSolverMultistepScheduler,  # Lu et al. 2022, second order
}
# Time steps of training; betas rise linearly from 1e-4 to 0.02, as in DDPM and by default in diffusers.
TIMESTEPS = 1000


class PerCandidate(nn.Module):
    """A layer with separate parameters for every candidate.

    A batch holds the rows of all candidates, one candidate after another.

    Args:
        layer: the base's layer, which is copied.
        count: largest number of candidates.

    Attributes:
        copies: a copy of the layer for each candidate.
        used: number of copies in use.
    """

    def __init__(self, layer: nn.Module, count: int) -> None:
        super().__init__()
        self.copies = nn.ModuleList(copy.deepcopy(layer) for _ in range(count))
        self.used = count

    def set_parameter(self, name: str, values: Float[Tensor, "n *shape"]) -> None:
        """Set the parameter ``name`` of the first n copies, and use only these from now on."""
        self.used = len(values)
        for layer, value in zip(self.copies, values, strict=False):
            layer.get_parameter(name).copy_(value)

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the candidates' copies, each to its share of the rows."""
        if self.used == 1:
            only: Tensor = self.copies[0](inputs)
            return only
        pieces = inputs.chunk(self.used)
        return torch.cat([layer(piece) for layer, piece in zip(self.copies, pieces, strict=False)])


def together(layout: Layout) -> bool:
    """Return whether candidates with these generated parameters run faster at once than one after another.

    They do not if a matrix or kernel is generated, because they share too little, nor if a parameter of the time
    embedding is, because ``Denoiser`` computes one embedding for all.
    """
    vectors = all(len(shape) == 1 for shape in layout.shapes)
    return vectors and not any("time_emb" in name for name in layout.names)


class Denoiser:
    """The denoising networks of several candidates at once, at the fixed time steps of a sampler.

    Layers that the candidates share run on one batch of all their images. On the first step, on which all start from
    the same noise, the blocks before the first generated layer run once for all candidates. So does the embedding of
    time.

    Args:
        model: the base, a UNet2DModel in eval mode on its device; its generated layers are replaced.
        layout: parameters that the candidates' vectors hold.
        count: largest number of candidates at once.
        times: time steps of the sampler.
    """

    def __init__(self, model: Any, layout: Layout, count: int, times: Int64[Tensor, " T"]) -> None:
        self.model, self.layout, self.times = model, layout, times.to(model.device)
        self.layers: dict[str, PerCandidate] = {}
        for name in layout.names:
            layer = name.rpartition(".")[0]
            if layer not in self.layers:
                self.layers[layer] = PerCandidate(model.get_submodule(layer), count)
                model.set_submodule(layer, self.layers[layer])
        self.blocks = [*model.down_blocks, model.mid_block, *model.up_blocks]
        differs = (any(isinstance(m, PerCandidate) for m in b.modules()) for b in self.blocks)
        self.first = next((i for i, generated in enumerate(differs) if generated), len(self.blocks))

    def set_candidates(self, vectors: Float[Tensor, "n D"]) -> None:
        """Set the parameters of the n candidates that the next calls run."""
        self.count = len(vectors)
        for name, values in self.layout.unflatten(vectors.to(self.model.device)).items():
            layer, _, parameter = name.rpartition(".")
            self.layers[layer].set_parameter(parameter, values)
        self.embedded = self.model.time_embedding(self.model.time_proj(self.times))

    def __call__(self, images: Float[Tensor, "B C S S"], step: int) -> Float[Tensor, "nB C S S"]:
        """Predict the noise in the images of n candidates, one candidate after another.

        Args:
            images: on step 0 the B images that all candidates share, later n x B images.
            step: number of the time step.
        """
        model, time = self.model, self.embedded[step, None]
        shared = step == 0 and not isinstance(model.conv_in, PerCandidate)
        hidden = model.conv_in(images if shared or step else self.repeat(images))
        skips = [hidden]
        for index, block in enumerate(self.blocks):
            if shared and index == self.first:
                hidden, skips = self.repeat(hidden), [self.repeat(skip) for skip in skips]
            if index < len(model.down_blocks):
                hidden, passed = block(hidden, time)
                skips += passed
            elif index == len(model.down_blocks):
                hidden = block(hidden, time)
            else:
                few = len(skips) - len(block.resnets)
                hidden, skips = block(hidden, tuple(skips[few:]), time), skips[:few]
        if shared and self.first == len(self.blocks):
            hidden = self.repeat(hidden)
        noise: Tensor = model.conv_out(model.conv_act(model.conv_norm_out(hidden)))
        return noise

    def repeat(self, rows: Float[Tensor, "B C s s"]) -> Float[Tensor, "nB C s s"]:
        """Repeat the rows for every candidate, in the order of candidates."""
        return rows if self.count == 1 else torch.cat([rows] * self.count)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """The method that turns noise into images.

    Attributes:
        name: key of ``SAMPLERS``, a scheduler of diffusers.
        steps: number of steps.
    """

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
        """Return the T time steps at which the network is evaluated, from the noisiest on."""
        self._scheduler.set_timesteps(self.steps)
        times: Tensor = self._scheduler.timesteps
        return times

    def __call__(
        self, denoise: Denoiser, noise: Float[Tensor, "B C S S"]
    ) -> Float[Tensor, "nB C S S"]:
        """Draw images of every candidate from the same noise.

        An image is NaN as a whole if any intermediate value was not finite; a scheduler that clips would turn inf
        into 1.

        Returns:
            The images, one candidate after another, with values of about -1 to 1.
        """
        images, invalid = noise, []
        for step, time in enumerate(self.times):
            predicted = denoise(images, step)
            before = images if step else denoise.repeat(images)
            (images, *_) = self._scheduler.step(predicted, time, before, return_dict=False)
            invalid += [not_finite(predicted.flatten(1)), not_finite(images.flatten(1))]
        return images.masked_fill(torch.stack(invalid).any(0)[:, None, None, None], torch.nan)


def pixels(images: Float[Tensor, "*N C S S"]) -> UInt8[Tensor, "*N C S S"]:
    """Convert images from [-1, 1] to 0..255, clipped and rounded as by diffusers' pipelines; all must be finite."""
    return (images / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
