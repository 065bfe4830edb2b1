"""Recurrent diffusion: a recurrent network tells the tokens of a vector of each other, a denoiser sees each alone."""

import importlib
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bench.contract import check
from generators.networks.denoisers import time_embedding

_TIME = 64  # features of the embedding of a timestep

RECURRENCES = ("lstm", "mamba")


def sequence(
    recurrence: str, width: int, layers: int, *, d_state: int, d_conv: int, expand: int
) -> nn.Module:
    """Make a recurrent network over sequences of features: LSTMs, or Mamba-2 blocks of the package mamba_ssm.

    Raises:
        BadRequest: the package is not there.
    """
    if recurrence == "lstm":
        return _Lstm(width, layers)
    try:
        mamba = importlib.import_module("mamba_ssm").Mamba2
    except ImportError:
        mamba = None
    check(
        mamba is not None,
        "recurrence is 'mamba', expected the package mamba_ssm: pip install mamba-ssm (it wants a CUDA device), or "
        "--set recurrence=lstm",
    )
    return nn.Sequential(
        *(mamba(width, d_state=d_state, d_conv=d_conv, expand=expand) for _ in range(layers))
    )


class _Lstm(nn.LSTM):
    """LSTMs, each over the outputs of the one before."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__(width, width, layers, batch_first=True)

    def forward(self, features: Float[Tensor, "n T w"]) -> Float[Tensor, "n T w"]:  # type: ignore[override]
        """Return the outputs of the last one."""
        outputs: Tensor = super().forward(features)[0]
        return outputs


class Prototypes(nn.Module):
    """What the denoiser is told of each token: a recurrent network over the positions of all tokens in their order.

    Where checkpoints are numbered, a learned embedding of the number is added to every position.
    """

    def __init__(
        self, positions: Float[Tensor, "T w"], recurrent: nn.Module, checkpoints: int
    ) -> None:
        """Make it, for so many numbered checkpoints; 0: they have no numbers."""
        super().__init__()
        self.register_buffer("positions", positions)
        self.recurrent = recurrent
        self.index = nn.Embedding(checkpoints, positions.shape[1]) if checkpoints else None

    def forward(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n T w"]:
        """Return the features of every token, for checkpoints of these numbers."""
        features: Tensor = self.get_buffer("positions")[None]
        if self.index is not None:
            features = features + self.index(index)[:, None]
        told: Tensor = self.recurrent(features)
        return told.expand(len(index), -1, -1)


def positions(
    layer: Int[Tensor, " T"], part: Int[Tensor, " T"], width: int
) -> Float[Tensor, "T w"]:
    """Return the embedding of a token's tensor in the first half of the features, of its place in it in the others."""
    first = width // 2
    return torch.cat([_sinusoids(layer, first), _sinusoids(part, width - first)], 1)


def _sinusoids(numbers: Int[Tensor, " T"], width: int) -> Float[Tensor, "T w"]:
    """Return sines and cosines of integers, as many as ``width``."""
    return time_embedding(numbers, width + width % 2)[:, :width]


class TokenDenoiser(nn.Module):
    """Finds the noise in a token by 1-D convolutions along its values.

    Before every convolution what is known of the token is added to its values, through a matrix, and an embedding of
    the timestep is multiplied in. Batch normalization and ELU follow, but for the last. What a convolution before the
    middle puts out is added to what its mirror image behind the middle does.
    """

    def __init__(self, length: int, told: int, channels: Sequence[int], kernel: int) -> None:
        """Make the network for tokens of ``length`` values, with ``told`` features known of each."""
        super().__init__()
        pairs = list(pairwise(channels))
        self.told = nn.ModuleList(nn.Linear(told, length) for _ in pairs)
        self.time = nn.ModuleList(nn.Linear(_TIME, length) for _ in pairs)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, (1, kernel), padding=(0, kernel // 2)) for a, b in pairs
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs[:-1])
        self.depth = len(pairs)

    def forward(
        self, x: Float[Tensor, "m length"], t: Int[Tensor, " m"], told: Float[Tensor, "m c"]
    ) -> Float[Tensor, "m length"]:
        """Return the noise in tokens at their timesteps, with what is known of each."""
        time = time_embedding(t, _TIME)
        kept: list[Tensor] = []
        h = x[:, None, None]
        for number, convolve in enumerate(self.convolutions):
            shift, scale = self.told[number](told), self.time[number](time)
            h = convolve((h + shift[:, None, None]) * scale[:, None, None])
            if number == self.depth - 1:
                break
            h = F.elu(self.norms[number](h), inplace=True)  # allocating is slow
            if number >= self.depth // 2:
                h = h + kept.pop()
            elif number < self.depth // 2 - 1:
                kept.append(h)
        return h[:, 0, 0]
