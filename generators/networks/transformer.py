"""A transformer over the tokens of vectors."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def frequencies(
    values: Float[Tensor, "n c"], rates: Float[Tensor, " r"]
) -> Float[Tensor, "n c*2*r"]:
    """Embed numbers: sines and cosines of each of them times each rate."""
    angles = values[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(1)


class TokenTransformer(nn.Module):
    """Tokens to tokens, given some numbers, each of which is a token of its own before them.

    A token enters and leaves through matrices of its own, without bias; positions are learned; the layers normalise
    before attention and before the perceptron. The last matrices are 0, and the network begins as the zero function.
    """

    def __init__(
        self,
        tokens: int,
        length: int,
        *,
        width: int,
        layers: int,
        heads: int,
        rates: Sequence[Sequence[float]],
    ) -> None:
        """Make the network.

        Args:
            tokens: how many there are.
            length: values of a token.
            width: features of a token inside.
            layers: of the transformer.
            heads: of each layer.
            rates: of the sines and cosines of each number.
        """
        super().__init__()
        self.enter = nn.Parameter(torch.randn(tokens, length, width) / math.sqrt(length))
        self.leave = nn.Parameter(torch.zeros(tokens, width, length))
        self.position = nn.Parameter(0.02 * torch.randn(len(rates) + tokens, width))
        for number, some in enumerate(rates):
            self.register_buffer(f"rates{number}", torch.tensor(some), persistent=False)
        self.numbers = nn.ModuleList(nn.Linear(2 * len(some), width) for some in rates)
        layer = nn.TransformerEncoderLayer(
            width,
            heads,
            4 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(
            layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(
        self, x: Float[Tensor, "n T length"], *numbers: Float[Tensor, " n"]
    ) -> Float[Tensor, "n T length"]:
        """Return the new tokens of tokens and numbers, the last of ``numbers`` next to them."""
        first = [
            project(frequencies(number[:, None], self.get_buffer(f"rates{which}")))
            for which, (number, project) in enumerate(zip(numbers, self.numbers, strict=True))
        ]
        inside = torch.einsum("ntl,tlw->ntw", x, self.enter)
        h = torch.cat([torch.stack(first, 1), inside], 1) + self.position
        out: Tensor = self.layers(h)[:, len(first) :]
        return torch.einsum("ntw,twl->ntl", out, self.leave)
