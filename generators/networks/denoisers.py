"""Networks that find the noise in a latent, at any timestep of a diffusion."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from generators.networks.blocks import Dense, Down, Expand, Up

_TIME = 64  # width of the time embedding


def time_embedding(t: Int[Tensor, " n"], width: int) -> Float[Tensor, "n width"]:
    """Embed timesteps: sines and cosines of geometrically spaced frequencies."""
    half = width // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _time_layers(widths: Sequence[int]) -> nn.Sequential:
    """Return the layers from the time embedding to what is added before every layer, all layers side by side."""
    return nn.Sequential(nn.Linear(_TIME, 2 * _TIME), nn.SiLU(), nn.Linear(2 * _TIME, sum(widths)))


class ConvDenoiser(nn.Module):
    """A 1-D U-Net over the latent, with the time embedding added before every layer.

    A second input channel holds a learned value for each position: the coordinates of a latent,
    unlike the pixels of a picture, each mean something else.
    """

    def __init__(self, latent_dim: int, channels: Sequence[int], kernel: int, kind: str) -> None:
        super().__init__()
        factor = 2 ** len(channels)
        self.length = factor * max(2, -(-latent_dim // factor))
        self.position = nn.Parameter(torch.randn(1, 1, 1, self.length))
        sizes = (2, *channels)
        self.down = nn.ModuleList(Down(a, b, kernel, 2, kind) for a, b in pairwise(sizes))
        self.up = nn.ModuleList(Up(a, b, kernel, 2, kind) for a, b in pairwise(channels[::-1]))
        self.project = _zeroed(Expand(channels[0], 1, kernel, 2))
        self.widths = [*sizes[:-1], *channels[::-1]]
        self.time = _time_layers(self.widths)

    def forward(self, z: Float[Tensor, "n l"], t: Int[Tensor, " n"]) -> Float[Tensor, "n l"]:
        """Return the noise (or velocity) in ``z`` at timesteps ``t``."""
        shifts = self.time(time_embedding(t, _TIME))[..., None, None].split(self.widths, dim=1)
        h, inputs = self._enter(z), []
        for layer, shift in zip(self.down, shifts, strict=False):
            inputs.append(h)
            h = layer(h + shift)
        for layer, shift in zip(self.up, shifts[len(self.down) :], strict=False):
            h = layer(h + shift) + inputs.pop()
        out: Tensor = self.project(h + shifts[-1])
        return out.flatten(1)[:, : z.shape[1]]

    def _enter(self, z: Float[Tensor, "n l"]) -> Float[Tensor, "n 2 1 L"]:
        padded = F.pad(z, (0, self.length - z.shape[1]))[:, None, None]
        both = torch.cat([padded, self.position.expand(len(z), -1, -1, -1)], dim=1)
        return both.contiguous(memory_format=torch.channels_last)


class DenseDenoiser(nn.Module):
    """Residual dense layers over the latent, with the time embedding added before every layer."""

    def __init__(self, latent_dim: int, width: int, depth: int, kind: str) -> None:
        super().__init__()
        self.enter = nn.Linear(latent_dim, width)
        self.layers = nn.ModuleList(Dense(width, width, kind) for _ in range(depth))
        self.project = _zeroed(nn.Linear(width, latent_dim))
        self.widths = [width] * depth
        self.time = _time_layers(self.widths)

    def forward(self, z: Float[Tensor, "n l"], t: Int[Tensor, " n"]) -> Float[Tensor, "n l"]:
        """Return the noise (or velocity) in ``z`` at timesteps ``t``."""
        shifts = self.time(time_embedding(t, _TIME)).split(self.widths, dim=1)
        h = self.enter(z)
        for layer, shift in zip(self.layers, shifts, strict=True):
            h = h + layer(h + shift)
        out: Tensor = self.project(h)
        return out


def _zeroed(module: nn.Module) -> nn.Module:
    """Set all parameters of a last layer to zero, so that the network starts as the zero function."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
