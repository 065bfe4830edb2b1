"""The network of a flow: a velocity for every point and time."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


class VelocityNetwork(nn.Module):
    """Dense layers over a point and an embedding of its time; they begin as the velocity 0.

    Every hidden layer is linear, layer normalization, GELU; the first ``dropped`` of them are followed by dropout.
    """

    def __init__(
        self, dim: int, widths: Sequence[int], *, time_width: int, dropout: float, dropped: int = 2
    ) -> None:
        super().__init__()
        self.time = nn.Sequential(
            nn.Linear(1, time_width), nn.GELU(), nn.Linear(time_width, time_width)
        )
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(pairwise((dim + time_width, *widths))):
            layers += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.GELU()]
            layers += [nn.Dropout(dropout)] if number < dropped else []
        last = nn.Linear(widths[-1], dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Float[Tensor, "n d"], t: Float[Tensor, "n 1"]) -> Float[Tensor, "n d"]:
        """Return the velocities of points at their times, 0 to 1."""
        velocity: Tensor = self.layers(torch.cat([x, self.time(t)], 1))
        return velocity
