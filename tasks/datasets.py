"""The data sets of image classification, decoded once to uint8 arrays in memory or in a memory map.

``digits`` ships with scikit-learn: its 1,797 images (values 0..16 scaled to 0..255) are split by
``train_test_split(..., train_size=1000, stratify=labels, random_state=0)``. Every other data set is
looked for in ``data_dir/<name>`` and in ``data_dir`` itself, there in this order:

1. an ImageFolder: ``train/<class>/*`` and ``test/<class>/*`` (or ``val/<class>/*``), as folders;
2. the same tree in one or several zip files, which are read in place;
3. torchvision's own files (for MNIST the ``.gz`` files alone are enough; ImageNet's archives are
   unpacked where they lie);

and is otherwise downloaded to ``data_dir/<name>`` (all but ImageNet, which cannot be). Where both
``test`` and ``val`` hold class folders, ``test`` is the one read. Classes are numbered in the
sorted order of their folders. Flowers-102's train split is its "train" and its "val" part together
(2,040 images), its val split is the "test" part, as in transfer learning.

Images keep the order of their source: an ImageFolder's are sorted by class and file name, so anyone
who wants a few of them should draw them at random. ``ImageData.hash`` sees that order too.

Images of the right size stay untouched. Others are resized (bilinear) and centre-cropped: to 28, 32
or 96 pixels by the shorter side, and for the 224-pixel sets shorter side 256, then a crop of 224.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bench import store
from bench.errors import BadRequest, BenchError, unknown
from bench.progress import say, track
from tasks.sources import (
    SPECS,
    UNREADABLE,
    Opened,
    Spec,
    Undecoded,
    download,
    find,
    last_line,
)

BLOCK = 256  # images decoded, hashed and counted at a time
IN_MEMORY = 2 << 30  # arrays of at least this many bytes are memory-mapped instead
FORMAT = 1  # part of the cache's address: raise it when decoding changes


@dataclass(frozen=True)
class Split:
    """Images and their classes, on the CPU; a large set's images lie in a memory map."""

    images: UInt8[Tensor, "M C H W"]
    labels: Int64[Tensor, " M"]


@dataclass(frozen=True)
class ImageData:
    """A data set: both splits, and per channel the training images' mean and std in [0, 1].

    ``std`` is 1 for a channel that never varies. ``hash`` is the SHA-256 of both splits' shapes,
    pixels and labels and of the class count: it names the content, wherever it was read from.
    """

    name: str
    train: Split
    val: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    hash: str


NAMES: tuple[str, ...] = ("digits", *SPECS)


def load(name: str, data_dir: Path | None = None) -> ImageData:
    """The data set of that name, from ``data_dir`` (default: ``data`` in the cache folder).

    The first call decodes it into the cache folder; later calls read it from there for as long as
    the source files keep their names, sizes and times.

    Raises:
        BadRequest: an unknown name, or files that cannot be used; the message names the file.
        BenchError: it is not there and could not be downloaded.

    >>> load("digits").train.images.shape
    torch.Size([1000, 1, 8, 8])
    """
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    if name == "digits":
        return _digits()
    data_dir = (data_dir or store.home() / "data").expanduser()
    source = find(name, data_dir) or download(name, data_dir)
    spec = SPECS[name]
    address = store.digest([FORMAT, spec.size, spec.mode, *source.files])
    data = store.stage(
        store.home() / "decoded" / f"{name}-{address}" / "meta.json",
        load=functools.partial(_read_cache, name),
        make=lambda: _decode(name, source.open(), address),
        save=_save_meta,
    )
    if len(data.classes) != spec.classes:
        say(f"note: {len(data.classes)} classes in these files, {spec.title} has {spec.classes}")
    return data


def _digits() -> ImageData:
    """Scikit-learn's digits: 1,000 training and 797 validation images of 8x8, 1 channel."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    parts = train_test_split(
        np.arange(len(labels)), train_size=1000, stratify=labels, random_state=0
    )
    train, val = (
        Split(torch.from_numpy(images[part]), torch.from_numpy(labels[part]).long())
        for part in parts
    )
    return _describe("digits", train, val, tuple(map(str, range(10))))


def _describe(name: str, train: Split, val: Split, classes: tuple[str, ...]) -> ImageData:
    """Both splits with their statistics and their hash."""
    mean, std = _moments(train.images)
    return ImageData(name, train, val, classes, mean, std, _hash(train, val, len(classes)))


def _moments(images: UInt8[Tensor, "M C H W"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of every channel in [0, 1], exact: from the counts of the 256 values."""
    counts = np.zeros((images.shape[1], 256), np.int64)
    for block in _blocks(images):
        for channel, pixels in enumerate(block.swapaxes(0, 1)):
            counts[channel] += np.bincount(pixels.ravel(), minlength=256)
    values = np.arange(256) / 255
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _hash(train: Split, val: Split, classes: int) -> str:
    """SHA-256 of the class count and of both splits' shapes, pixels and labels."""
    content = hashlib.sha256(str(classes).encode())
    for split in (train, val):
        content.update(str(tuple(split.images.shape)).encode())
        for block in _blocks(split.images):
            content.update(block.tobytes())
        content.update(split.labels.numpy().astype("<i8").tobytes())
    return content.hexdigest()


def _blocks(images: UInt8[Tensor, "M C H W"]) -> Iterator[UInt8[np.ndarray, "N C H W"]]:
    """The images, a block at a time: a memory map need never be in memory as a whole."""
    for start in range(0, len(images), BLOCK):
        yield images[start : start + BLOCK].numpy()


# --- the cache of decoded arrays ------------------------------------------------------------------


def _decode(name: str, opened: Opened, address: str) -> ImageData:
    """Decode both splits into the cache's folder; its ``meta.json``, written last, completes it."""
    folder = store.home() / "decoded" / f"{name}-{address}"
    for stale in folder.glob(".*.npy.*"):  # of a run that was killed
        stale.unlink(missing_ok=True)
    for split, images in (("train", opened.train), ("val", opened.val)):
        _write_split(folder, split, images, SPECS[name])
    return _describe(name, _read_split(folder, "train"), _read_split(folder, "val"), opened.classes)


def _write_split(folder: Path, split: str, images: Undecoded, spec: Spec) -> None:
    """Decode one split, in blocks, to ``<split>-images.npy`` and ``<split>-labels.npy``."""
    labels: list[int] = []
    header = {"descr": "|u1", "fortran_order": False, "shape": (images.count, *spec.shape)}
    with store.atomic(folder / f"{split}-images.npy") as path, path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in _decoded_blocks(images, spec, f"decoding {spec.title}, {split}"):
            file.writelines(pixels.tobytes() for pixels, _ in block)
            labels += [label for _, label in block]
    with store.atomic(folder / f"{split}-labels.npy") as path, path.open("wb") as file:
        np.save(file, np.array(labels, np.int64))


def _decoded_blocks(
    images: Undecoded, spec: Spec, description: str
) -> Iterator[list[tuple[UInt8[np.ndarray, "C H W"], int]]]:
    """Pixels and label of every image in order, a block at a time, decoded by a thread per core."""
    Image.init()  # register every format once, before the threads do
    starts = range(0, images.count, BLOCK)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in track(starts, description, len(starts)):
            indices = range(start, min(start + BLOCK, images.count))
            yield list(pool.map(lambda index: _decode_image(images, index, spec), indices))


def _decode_image(
    images: Undecoded, index: int, spec: Spec
) -> tuple[UInt8[np.ndarray, "C H W"], int]:
    """Pixels and label of one image.

    Raises:
        BadRequest: it cannot be read; the message names its file.
    """
    try:
        image, label = images.read(index)
        return _pixels(image, spec), label
    except UNREADABLE as error:
        unidentified = isinstance(error, UnidentifiedImageError)
        reason = "no image format that Pillow knows" if unidentified else last_line(error)
        raise BadRequest(f"{images.name(index)} is not a readable image: {reason}") from error


def _pixels(image: Image.Image, spec: Spec) -> UInt8[np.ndarray, "C H W"]:
    """The image in the data set's mode and size (see the module's text)."""
    from torchvision.transforms import functional

    image = image.convert(spec.mode)
    if image.size != (spec.size, spec.size):
        shorter = 256 if spec.size == 224 else spec.size
        image = functional.center_crop(functional.resize(image, [shorter]), [spec.size])
    return np.asarray(image).reshape(spec.size, spec.size, -1).transpose(2, 0, 1)


def _read_split(folder: Path, split: str) -> Split:
    """A decoded split; mode "c" maps it privately, so that torch takes the memory as writable."""
    path = folder / f"{split}-images.npy"
    images = np.load(path, mmap_mode="c" if path.stat().st_size >= IN_MEMORY else None)
    return Split(
        torch.from_numpy(images), torch.from_numpy(np.load(folder / f"{split}-labels.npy"))
    )


def _read_cache(name: str, path: Path) -> ImageData:
    """The data set whose decoded arrays lie beside this ``meta.json``.

    Raises:
        BenchError: a part is missing or damaged.
    """
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        train, val = (_read_split(path.parent, split) for split in ("train", "val"))
        lists = {key: tuple(meta[key]) for key in ("classes", "mean", "std")}
        return ImageData(name=name, train=train, val=val, hash=meta["hash"], **lists)
    except (OSError, ValueError, LookupError, TypeError, EOFError) as error:
        raise BenchError(f"{path.parent} is damaged: {last_line(error)}") from error


def _save_meta(data: ImageData, path: Path) -> None:
    meta = {"classes": data.classes, "mean": data.mean, "std": data.std, "hash": data.hash}
    store.write_text(path, json.dumps(meta))
