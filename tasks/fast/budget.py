"""Budgets of memory for running many candidates at once: they decide time and memory, and no number."""

import dataclasses

import torch

MIB = 1024**2


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much may be kept, and run at once, while candidates are scored.

    Attributes:
        keep: bytes of shared tensors of a split that are kept between calls; beyond it they are computed again.
        work: bytes of the widest tensor of one chunk of candidates.
        images: images that run at once, at most.
    """

    keep: int
    work: int
    images: int


@dataclasses.dataclass(frozen=True)
class DetectorBudget(Budget):
    """The same for detectors.

    Attributes:
        pixels: of the images that run at once, at most; None leaves it to ``images``.
        boxes: that non-maximum suppression compares with each other at once: on a CPU its time grows with their square.
    """

    pixels: int | None
    boxes: int

    def at_once(self, pixels: int) -> int:
        """Return how many images of this many pixels run at once."""
        return (
            self.images if self.pixels is None else max(1, min(self.images, self.pixels // pixels))
        )


# On a CPU fresh large blocks cost page faults.
_CANDIDATES = {
    "cpu": Budget(2048 * MIB, 16 * MIB, images=250),
    "cuda": Budget(2048 * MIB, 1024 * MIB, images=250),
}
# 2**20 pixels are one image of COCO's, or 16 small ones.
_DETECTOR = {
    "cpu": DetectorBudget(1024 * MIB, 16 * MIB, images=16, pixels=2**20, boxes=500),
    "cuda": DetectorBudget(1024 * MIB, 1024 * MIB, images=16, pixels=None, boxes=20_000),
}


def of_candidates(device: torch.device) -> Budget:
    """Return the usual budget of the candidates of a classifier or a segmentation network on a device."""
    return _CANDIDATES[device.type]


def of_detector(device: torch.device) -> DetectorBudget:
    """Return the usual budget of a detector on a device."""
    return _DETECTOR[device.type]
