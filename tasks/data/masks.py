"""Data for semantic segmentation: images and masks of COCO's format, decoded once to squares of one size.

Class 0 is the background; the others are categories of the annotations: all of them, or those that the task declares,
in the declared order.

An image is resized (bilinear with antialiasing; its mask by the nearest pixel) until its longer side has the requested
size, then padded at the right and at the bottom to a square: the image with the mean colour, the mask with ``IGNORED``.
Scores are counted at that size. An image that is such a square already is not changed.

The decoded arrays are cached, four bytes a pixel, each with a JSON file that holds its hash (``tasks.data.cached``);
arrays of 2 GiB and more are memory-mapped.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from bench.contract import registry
from bench.contract.declarations import DataSet
from bench.system import store
from bench.system.progress import track
from tasks.data import cached, coco, decoding
from tasks.data.coco import IGNORED, CocoData, CocoSplit
from tasks.data.images import Images, fits, flip

# Of ImageNet's pixels in [0, 1], by channel: torchvision's networks expect inputs normalised by them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FORMAT = 2  # part of the cache's key: raise it when decoding changes
BLOCK = 64  # images decoded at a time
IN_MEMORY = 2 << 30  # arrays of at least this many bytes are memory-mapped instead


@dataclasses.dataclass(frozen=True)
class MaskedSplit:
    """The images and masks of one split, on the CPU.

    Attributes:
        images: pixels, 0 to 255.
        masks: class of every pixel, or ``IGNORED``.
    """

    images: UInt8[Tensor, "M 3 S S"]
    masks: UInt8[Tensor, "M S S"]

    def __len__(self) -> int:
        return len(self.images)

    def on(self, device: str) -> "MaskedImages":
        """Return the split for use on a device; it is moved there only if it fits into half of the free memory.

        Inputs will be normalised by ImageNet's mean and deviation.
        """
        home = device if fits(self.images.numel() + self.masks.numel(), device) else "cpu"
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (MEAN, STD))
        size = self.images.shape[-1]
        return MaskedImages(self.images.to(home), self.masks.to(home), mean, std, size, device)


@dataclasses.dataclass(frozen=True)
class MaskedImages(Images):
    """A split on the device whose labels are masks; augmentation changes an image and its mask alike."""

    def augmented(
        self,
        examples: UInt8[Tensor, "B C H W"],
        labels: UInt8[Tensor, "B H W"],
        name: str,
        rng: torch.Generator,
    ) -> tuple[UInt8[Tensor, "B C H W"], UInt8[Tensor, "B H W"]]:
        """Augment a batch of images and their masks at random.

        Args:
            examples: the images.
            labels: the masks.
            name: key of this module's ``AUGMENTATIONS``.
            rng: generator of the random numbers.
        """
        both = AUGMENTATIONS[name](torch.cat([examples, labels[:, None]], dim=1), rng)
        return both[:, :-1], both[:, -1]


def symmetries(squares: UInt8[Tensor, "B C S S"], rng: torch.Generator) -> UInt8[Tensor, "B C S S"]:
    """Apply one of the square's eight symmetries (rotations and reflections) to each image, drawn at random."""
    draw = torch.rand(3, len(squares), generator=rng, device=rng.device) < 0.5
    left, top, corner = draw[:, :, None, None, None].to(squares.device)
    squares = squares.flip(-1).where(left, squares)
    squares = squares.flip(-2).where(top, squares)
    return squares.transpose(-1, -2).where(corner, squares)


AUGMENTATIONS = {"flip": flip, "symmetries": symmetries}


@dataclasses.dataclass(frozen=True)
class MaskedData:
    """A data set for segmentation.

    Attributes:
        train, val: the splits.
        classes: names of the classes, the background first.
        hash: SHA-256 of the content, as ``tasks.data.coco`` defines it.
    """

    train: MaskedSplit
    val: MaskedSplit
    classes: tuple[str, ...]
    hash: str


def load(
    data_set: DataSet,
    data_dir: Path | None,
    *,
    size: int,
    categories: Sequence[int] | None = None,
    limit: int | None = None,
    in_memory: int = IN_MEMORY,
) -> MaskedData:
    """Return the images and masks of a data set.

    Args:
        data_set: declaration; ``source`` names the data set for detection that holds the images and annotations.
        data_dir: folder to look in; None is the default of ``tasks.data.coco.load``.
        size: side of the squares in pixels.
        categories: ids of the classes in the annotations; None takes all categories.
        limit: largest number of images of each split; None takes all.
        in_memory: size in bytes from which arrays are memory-mapped.

    Raises:
        BadRequest: the data set is missing, or a file cannot be used.
    """
    source = registry.data_set(data_set.source or "", "boxes")
    data = source.load(CocoData, data_dir, limit=limit)
    categories = data.category_ids if categories is None else categories
    names = dict(zip(data.category_ids, data.classes, strict=True))
    classes = ("background", *(names.get(category, str(category)) for category in categories))
    splits = {
        split: _decoded(getattr(data, split), categories, size, [data.hash, split], in_memory)
        for split in ("train", "val")
    }
    return MaskedData(**splits, classes=classes, hash=data.hash)


def _decoded(
    split: CocoSplit, categories: Sequence[int], size: int, content: list[str], in_memory: int
) -> MaskedSplit:
    """Return one split from the cache; decode it first if it is not there.

    The cached array has four channels: the colours, then the mask. ``content`` identifies the split's data in its key.
    """
    key = store.digest([FORMAT, PIL.__version__, content, categories, size])
    path = store.home() / "decoded" / f"masks-{key}.npy"
    shape = (len(split), 4, size, size)
    write = functools.partial(_write, path, split, categories, shape)
    squares = torch.from_numpy(cached.stage_array(path, write, shape, in_memory))
    return MaskedSplit(squares[:, :3], squares[:, 3])


def _write(
    path: Path, split: CocoSplit, categories: Sequence[int], shape: tuple[int, int, int, int]
) -> None:
    """Decode all images and masks into an array file, block by block, with a thread for each core."""
    decoding.formats()  # registers Pillow's formats before several threads do so at once
    with store.atomic(path) as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:
        squares = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        for start in track(range(0, len(split), BLOCK), "decode images and masks"):
            rows = range(start, min(start + BLOCK, len(split)))
            decoded = pool.map(lambda row: _square(split, row, categories, shape[-1]), rows)
            squares[start : rows.stop] = torch.stack(list(decoded)).numpy()
        squares.flush()


def _square(
    split: CocoSplit, row: int, categories: Sequence[int], size: int
) -> UInt8[Tensor, "4 S S"]:
    """Return the pixels and the mask of one image, resized and padded (see the module's docstring)."""
    image, mask = split.image(row), coco.semantic_mask(split, row, categories)
    tall, wide = image.shape[1:]
    if max(tall, wide) != size:
        shape = [max(1, round(side * size / max(tall, wide))) for side in (tall, wide)]
        image = functional.resize(image, shape, InterpolationMode.BILINEAR, antialias=True)
        mask = functional.resize(mask[None], shape, InterpolationMode.NEAREST_EXACT)[0]
    square = torch.empty(4, size, size, dtype=torch.uint8)
    square[:3] = torch.tensor(MEAN).mul(255).round()[:, None, None]
    square[3] = IGNORED
    square[:3, : image.shape[1], : image.shape[2]] = image
    square[3, : mask.shape[0], : mask.shape[1]] = mask
    return square
