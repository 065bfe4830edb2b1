"""Images of one class each, in two splits, with their statistics and the hash of their content."""

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64, UInt8
from torch import Tensor

BLOCK = 256  # images hashed and counted at a time


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and their classes, on the CPU; a large set's images lie in a memory map."""

    images: UInt8[Tensor, "M C H W"]
    labels: Int64[Tensor, " M"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A data set whose images have a class each.

    Attributes:
        name: of the data set.
        train, val: the splits.
        classes: the classes' names.
        mean, std: per channel, of the training images in [0, 1]; ``std`` is 1 for a channel that never varies.
        hash: SHA-256 of both splits' shapes, pixels and labels and of the class count: it names the content, wherever
            it was read from.
        notes: sentences about images that were left out or not taken as they stand.
    """

    name: str
    train: Split
    val: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    hash: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        train: Split,
        val: Split,
        classes: tuple[str, ...],
        notes: tuple[str, ...] = (),
    ) -> "ImageData":
        """Compute the statistics and the hash of two splits."""
        mean, std = moments(train.images)
        digest = content_hash(train, val, len(classes))
        return cls(name, train, val, classes, mean, std, digest, notes)


def moments(
    images: UInt8[Tensor, "M C H W"], block: int = BLOCK
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and std of every channel in [0, 1], exact: from the counts of the 256 values."""
    counts = np.zeros((images.shape[1], 256), np.int64)
    for part in _blocks(images, block):
        for channel, pixels in enumerate(part.swapaxes(0, 1)):
            counts[channel] += np.bincount(pixels.ravel(), minlength=256)
    values = np.arange(256) / 255
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def content_hash(train: Split, val: Split, classes: int, block: int = BLOCK) -> str:
    """Return the SHA-256 of the class count and of both splits' shapes, pixels and labels."""
    content = hashlib.sha256(str(classes).encode())
    for split in (train, val):
        content.update(str(tuple(split.images.shape)).encode())
        for part in _blocks(split.images, block):
            content.update(part.tobytes())
        content.update(split.labels.numpy().astype("<i8").tobytes())
    return content.hexdigest()


def _blocks(images: UInt8[Tensor, "M C H W"], block: int) -> Iterator[UInt8[np.ndarray, "N C H W"]]:
    """Yield the images, a block at a time: a memory map need never be in memory as a whole."""
    for start in range(0, len(images), block):
        yield images[start : start + block].numpy()
