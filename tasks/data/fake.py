"""Small random images to try things on: a class is told apart by brightness, so that there is something to learn."""

from pathlib import Path

import torch

from bench.contract.declarations import DataSet
from tasks.data.labelled import ImageData, Split

NOISE = 60  # of 256 grey levels; classes lie up to three quarters of this apart


def load(data_set: DataSet, data_dir: Path | None) -> ImageData:
    """Draw images as many, as large and of as many classes as the declaration says, the same ones on every machine."""
    rng = torch.Generator().manual_seed(0)
    train, val = (_split(count, data_set, rng) for count in (data_set.train, data_set.val))
    classes = tuple(f"class {number}" for number in range(data_set.classes))
    return ImageData.of(data_set.name, train, val, classes)


def _split(count: int, data_set: DataSet, rng: torch.Generator) -> Split:
    """Draw images of all classes in turn."""
    labels = torch.arange(count) % data_set.classes
    shape = (count, data_set.channels, data_set.size, data_set.size)
    noise = torch.randint(0, NOISE, shape, generator=rng)
    step = min(45, (255 - NOISE) // max(1, data_set.classes - 1))
    images = noise + step * labels.view(-1, 1, 1, 1)
    return Split(images.to(torch.uint8), labels)
