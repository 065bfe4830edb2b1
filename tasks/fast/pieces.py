"""A few images at a time through a detector's backbone: what it needs in between grows with their number."""

import functools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOST = 16
CPU_PIXELS = 2**20  # of the images that run at once on a CPU: one of COCO's, or 16 small ones

Features = dict[str, Tensor]


def at_once(pixels: int, device: torch.device) -> int:
    """How many images of this many pixels to run at once."""
    return max(1, min(MOST, CPU_PIXELS // pixels)) if device.type == "cpu" else MOST


def run_in_pieces(backbone: nn.Module) -> None:
    """Let a frozen backbone run over a few images at a time, without gradients; its features are the same."""
    whole = functools.partial(type(backbone).forward, backbone)  # however often this was called
    setattr(backbone, "forward", functools.partial(_features, whole))  # noqa: B010 - mypy knows it as a method


@torch.no_grad()
def _features(whole: Callable[[Tensor], Features], images: Float[Tensor, "B 3 H W"]) -> Features:
    pieces = images.split(at_once(images.shape[2] * images.shape[3], images.device))
    found = [whole(piece) for piece in pieces]
    return {name: torch.cat([piece.pop(name) for piece in found]) for name in list(found[0])}
