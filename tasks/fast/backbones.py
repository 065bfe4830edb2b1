"""Run a detector with another module in the place of its backbone: a few images at a time, or known features."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tasks.fast.budget import DetectorBudget, of_detector

Features = dict[str, Tensor]


@contextlib.contextmanager
def in_place_of_backbone(detector: Any, module: nn.Module) -> Iterator[None]:
    """Let a detector run with another module instead of its backbone within the block."""
    backbone = detector.backbone
    detector.backbone = module
    try:
        yield
    finally:
        detector.backbone = backbone


class Given(nn.Module):
    """Gives features that are there already."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Features:
        """Return the features, whatever the images are."""
        return self.features


class _Pieces(nn.Module):
    """A frozen backbone over a few images at a time, without gradients."""

    def __init__(self, backbone: nn.Module, budget: DetectorBudget | None) -> None:
        super().__init__()
        self.backbone, self.budget = backbone, budget

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        """Return the features of all images."""
        budget = self.budget or of_detector(images.device)
        pieces = images.split(budget.at_once(images.shape[2] * images.shape[3]))
        features = [self.backbone(piece) for piece in pieces]
        return {
            name: torch.cat([piece.pop(name) for piece in features]) for name in list(features[0])
        }


class InPieces(nn.Module):
    """A detector whose frozen backbone runs over a few images at a time: what it needs in between grows with them.

    Args:
        detector: stays as it is; its losses and detections are the same.
        budget: how many images at a time; None takes the device's usual one.
    """

    def __init__(self, detector: nn.Module, budget: DetectorBudget | None = None) -> None:
        super().__init__()
        self.detector = detector
        self.pieces = _Pieces(detector.get_submodule("backbone"), budget)

    def forward(self, *inputs: Any) -> Any:
        """Run the detector."""
        with in_place_of_backbone(self.detector, self.pieces):
            return self.detector(*inputs)
