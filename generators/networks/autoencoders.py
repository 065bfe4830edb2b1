"""Convolutional encoder and decoder of parameter vectors."""

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from generators.networks.blocks import Down, Expand, Up

_SHORTEST = 8  # positions a feature map keeps, so that normalising over positions stays meaningful


def total_strides(dim: int, channels: Sequence[int], stride: int) -> tuple[int, ...]:
    """Return for how many parameters one position of each layer's feature map stands, at vector length ``dim``.

    It grows by at most ``stride`` a layer; it never exceeds the layer's channels, so that no feature
    map holds fewer values than the vector; and it leaves a few positions of a short vector.

    >>> total_strides(2048, (16, 16, 32, 32), 16)
    (16, 16, 32, 32)
    >>> total_strides(100, (16, 16, 32, 32), 16)
    (12, 12, 12, 12)
    """
    totals = [1]
    for width in channels:
        room = min(width, max(1, dim // _SHORTEST)) // totals[-1]
        totals.append(totals[-1] * max(1, min(stride, room)))
    return tuple(totals[1:])


@dataclasses.dataclass(frozen=True)
class Convolutions:
    """The convolutions of an encoder, which a decoder mirrors.

    Attributes:
        channels: of each layer.
        kernel: positions a convolution sees.
        stride: a convolution shortens by at most this much.
        normalization: of every layer, see ``generators.networks.blocks.norm``.
    """

    channels: tuple[int, ...]
    kernel: int
    stride: int
    normalization: str

    def plan(self, dim: int) -> tuple[tuple[int, ...], int]:
        """Return the stride of each layer and the length of the last feature map, at vector length ``dim``."""
        totals = total_strides(dim, self.channels, self.stride)
        strides = tuple(b // a for a, b in pairwise((1, *totals)))
        return strides, max(_SHORTEST, -(-dim // totals[-1]))


class ConvEncoder(nn.Module):
    """Vectors to ``outputs`` features: convolutions, then a projection that is not normalised."""

    def __init__(self, dim: int, outputs: int, shape: Convolutions) -> None:
        super().__init__()
        strides, length = shape.plan(dim)
        self.pad = length * math.prod(strides) - dim
        sizes = pairwise((1, *shape.channels))
        self.layers = nn.Sequential(
            *(
                Down(a, b, shape.kernel, stride, shape.normalization)
                for (a, b), stride in zip(sizes, strides, strict=True)
            )
        )
        self.project = nn.Linear(shape.channels[-1] * length, outputs)

    def forward(self, v: Float[Tensor, "n D"]) -> Float[Tensor, "n outputs"]:
        """Return the features of the vectors."""
        h = self.layers(F.pad(v, (0, self.pad))[:, None, None])
        z: Tensor = self.project(h.permute(0, 2, 3, 1).flatten(1))
        return z


class ConvDecoder(nn.Module):
    """Features to vectors: the mirror image of ``ConvEncoder``, its last layer not normalised."""

    def __init__(self, inputs: int, dim: int, shape: Convolutions) -> None:
        super().__init__()
        self.dim, self.width = dim, shape.channels[-1]
        strides, self.length = shape.plan(dim)
        self.project = nn.Linear(inputs, self.width * self.length)
        sizes = pairwise(shape.channels[::-1])
        self.layers = nn.Sequential(
            *(
                Up(a, b, shape.kernel, stride, shape.normalization)
                for (a, b), stride in zip(sizes, strides[:0:-1], strict=True)
            ),
            Expand(shape.channels[0], 1, shape.kernel, strides[0]),
        )

    def forward(self, z: Float[Tensor, "n inputs"]) -> Float[Tensor, "n D"]:
        """Return the vectors of the features."""
        h = self.project(z).view(len(z), 1, self.length, self.width).permute(0, 3, 1, 2)
        v: Tensor = self.layers(h)
        return v.flatten(1)[:, : self.dim]
