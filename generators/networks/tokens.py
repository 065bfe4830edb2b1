"""Tokens: rows of equally many values that vectors are cut into along their layout, and pasted together from."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.contract.zoo import Layout

Rows = Int[
    Tensor, "_ _"
]  # where in a vector the values of a layer stand, a row for those that belong together


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The map between vectors of D values and T tokens of ``length`` values, the last of which may be padding.

    Every value of a vector is in exactly one token. A token's position is given by three numbers.

    Attributes:
        index: of the value of the vector at each place of each token; D where there is padding.
        inverse: of the place in all tokens, one after the other, that holds each value of the vector.
        layer: which tensor of the layout, or which layer, each token is of; counted from 0.
        channel: which output channel of that layer; 0 for all where tensors are cut without regard to channels.
        part: which token of that tensor or channel.
    """

    index: Int[Tensor, "T length"]
    inverse: Int[Tensor, " D"]
    layer: Int[Tensor, " T"]
    channel: Int[Tensor, " T"]
    part: Int[Tensor, " T"]

    @classmethod
    def of_tensors(cls, layout: Layout, length: int) -> Self:
        """Cut every tensor's values, in their order, into runs of ``length``, the last of them padded."""
        return cls._of([rows.reshape(1, -1) for rows in _by_channel(layout)], length)

    @classmethod
    def of_channels(cls, layout: Layout, length: int | None = None) -> Self:
        """Put the values of every output channel, weights and bias side by side, into a token.

        The tensors of one module that have equally many output channels (the first dimension; of a single number 1) are
        one layer. A channel of more than ``length`` values is split into several tokens.

        Args:
            layout: of the vectors.
            length: values of a token; None: as many as the largest channel has.
        """
        layers: dict[tuple[str, int], list[Rows]] = {}
        for name, rows in zip(_filled(layout), _by_channel(layout), strict=True):
            layers.setdefault((name.rpartition(".")[0], len(rows)), []).append(rows)
        together = [torch.cat(parts, 1) for parts in layers.values()]
        return cls._of(together, length or max((r.shape[1] for r in together), default=1))

    @classmethod
    def _of(cls, layers: Sequence[Rows], length: int) -> Self:
        """Split the rows of every layer into tokens."""
        dim = sum(rows.numel() for rows in layers)
        index, positions = [torch.empty(0, length, dtype=torch.long)], [_grid(0, 0, 0)]
        for number, rows in enumerate(layers):
            parts = -(-rows.shape[1] // length)
            padded = F.pad(rows, (0, parts * length - rows.shape[1]), value=dim)
            index.append(padded.reshape(-1, length))
            positions.append(_grid(number, len(rows), parts))
        places = torch.cat(index)
        filled = (places.flatten() < dim).nonzero().flatten()
        inverse = torch.empty_like(filled).scatter_(0, places.flatten()[filled], filled)
        return cls(places, inverse, *torch.cat(positions, 1))

    def to(self, device: str | torch.device) -> Self:
        """Return the map on a device."""
        return type(self)(
            *(getattr(self, field.name).to(device) for field in dataclasses.fields(self))
        )

    def __len__(self) -> int:
        """Return how many tokens there are, T."""
        return len(self.index)

    @property
    def length(self) -> int:
        """The number of places in a token."""
        return self.index.shape[1]

    @property
    def mask(self) -> Bool[Tensor, "T length"]:
        """Where there is a value, and no padding."""
        return self.index < len(self.inverse)

    def cut(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n T length"]:
        """Return the tokens of vectors; padding is 0."""
        values = F.pad(vectors, (0, 1)).index_select(1, self.index.flatten())
        return values.view(len(vectors), *self.index.shape)

    def paste(self, tokens: Float[Tensor, "n T length"]) -> Float[Tensor, "n D"]:
        """Return the vectors of tokens, whatever their padding holds."""
        return tokens.flatten(1).index_select(1, self.inverse)

    def error(
        self, found: Float[Tensor, "n T length"], expected: Float[Tensor, "n T length"]
    ) -> Float[Tensor, ""]:
        """Return the mean squared difference of two sets of tokens, over values alone: padding has no part in it."""
        return masked_error(found, expected, self.mask.expand_as(found))


def masked_error(
    found: Float[Tensor, "*t length"],
    expected: Float[Tensor, "*t length"],
    mask: Bool[Tensor, "*t length"],
) -> Float[Tensor, ""]:
    """Return the mean squared difference where ``mask`` is true; whatever else there is has no part in it."""
    return torch.where(mask, found - expected, 0.0).square().sum() / mask.sum()


def _filled(layout: Layout) -> Iterator[str]:
    """Yield the names of the tensors that have values."""
    return (name for name, size in zip(layout.names, layout.sizes, strict=True) if size)


def _by_channel(layout: Layout) -> Iterator[Rows]:
    """Yield where each tensor's values stand, a row for each output channel; of tensors that have values."""
    everything = torch.arange(layout.dim).split(layout.sizes)
    for shape, places in zip(layout.shapes, everything, strict=True):
        if len(places):
            yield places.reshape(shape[0] if shape else 1, -1)


def _grid(layer: int, channels: int, parts: int) -> Int[Tensor, "3 tokens"]:
    """Return layer, channel and part of the tokens of one layer."""
    channel = torch.arange(channels).repeat_interleave(parts)
    part = torch.arange(parts).repeat(channels)
    return torch.stack([torch.full_like(channel, layer), channel, part])
