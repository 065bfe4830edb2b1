"""Blocks of 1-D convolutional and of dense networks.

A feature map is ``n C 1 L`` in ``channels_last`` memory, a 1-D convolution a 2-D one of height 1: on a CPU that is
several times faster than ``conv1d``, and lengthening a map is a mere reshape.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_GROUPS = 8
NORMALIZATIONS = ("none", "batch", "batch-train", "group", "instance")


def norm(kind: str, channels: int, groups: int) -> nn.Module:
    """Make the normalization of ``channels`` channels.

    "instance" is over each of ``groups`` groups; "batch-train" is batch normalization that is never put into eval mode:
    it always takes the statistics of the batch at hand.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "batch":
        return _BatchNorm(channels)
    if kind == "batch-train":
        return _BatchNorm(channels, track_running_stats=False)
    return nn.GroupNorm(groups if kind == "instance" else math.gcd(_GROUPS, channels), channels)


class _BatchNorm(nn.BatchNorm2d):
    """Batch normalization of ``n C 1 L`` and of ``n C``."""

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim == 2:
            return self(input[..., None, None])[..., 0, 0]  # type: ignore[no-any-return]
        if not self.track_running_stats and input.numel() == self.num_features:
            return super().forward(torch.cat([input, input]))[:1]  # a value alone is its mean
        return super().forward(input)


def _residual(y: Tensor, normalize: nn.Module) -> Tensor:
    """Return ``y + act(norm(y))``: the identity keeps the scale that instance normalization takes away."""
    return F.leaky_relu(normalize(y), 0.1).add_(y)  # in place: allocating is slow


class Down(nn.Module):
    """Convolution that shortens by ``stride``, then ``y + act(norm(y))``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, kind: str) -> None:
        super().__init__()
        size = max(kernel, stride)
        padding = (size - stride + 1) // 2
        self.conv = nn.Conv2d(inputs, outputs, (1, size), (1, stride), (0, padding))
        self.norm = norm(kind, outputs, outputs)

    def forward(self, x: Float[Tensor, "n C 1 L"]) -> Float[Tensor, "n C2 1 L2"]:
        """Shorten a feature map."""
        return _residual(self.conv(x), self.norm)


class Expand(nn.Module):
    """Convolution that lengthens: each position yields the channels of ``stride`` positions."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.conv = nn.Conv2d(inputs, outputs * stride, (1, kernel), padding=(0, kernel // 2))

    def forward(self, x: Float[Tensor, "n C 1 L"]) -> Float[Tensor, "n C2 1 L2"]:
        """Lengthen a feature map."""
        rows: Tensor = self.conv(x).permute(0, 2, 3, 1)
        return rows.reshape(len(x), 1, -1, self.outputs).permute(0, 3, 1, 2)


class Up(nn.Module):
    """Convolution that lengthens by ``stride``, then ``y + act(norm(y))``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, kind: str) -> None:
        super().__init__()
        self.expand = Expand(inputs, outputs, kernel, stride)
        self.norm = norm(kind, outputs, outputs)

    def forward(self, x: Float[Tensor, "n C 1 L"]) -> Float[Tensor, "n C2 1 L2"]:
        """Lengthen a feature map."""
        return _residual(self.expand(x), self.norm)


class Dense(nn.Module):
    """Linear layer, then ``y + act(norm(y))``; instance normalization is over all features."""

    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = norm(kind, outputs, 1)

    def forward(self, x: Float[Tensor, "n I"]) -> Float[Tensor, "n O"]:
        """Return new features."""
        return _residual(self.linear(x), self.norm)


def dense(inputs: int, hidden: Sequence[int], outputs: int, kind: str) -> nn.Sequential:
    """Make fully connected layers of these widths, then a projection that is not normalised."""
    sizes = (inputs, *hidden)
    return nn.Sequential(
        *(Dense(a, b, kind) for a, b in pairwise(sizes)), nn.Linear(sizes[-1], outputs)
    )
