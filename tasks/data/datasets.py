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

How a file's pixels become 8-bit grey or colour is in ``tasks.data.decoding``, which files are images in
``tasks.data.sources``; what is left out, and what was not taken as it stands, is counted and said in every run.

Images of the right size stay untouched. Others are resized (bilinear) and centre-cropped: to 28, 32
or 96 pixels by the shorter side, and for the 224-pixel sets shorter side 256, then a crop of 224.
One whose longer side is more than ``LONGEST`` times the shorter is refused: the crop would show next
to nothing of it, and the resized image could take any amount of memory.
"""

import collections
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from bench.errors import BenchError, unknown
from bench.system import store
from bench.system.progress import say, track
from tasks.data import cached, decoding
from tasks.data.decoding import UNREADABLE, Refused, last_line
from tasks.data.sources import SPECS, Opened, Spec, Undecoded, download, find

BLOCK = 256  # images decoded, hashed and counted at a time
IN_MEMORY = 2 << 30  # arrays of at least this many bytes are memory-mapped instead
LONGEST = 100  # times the shorter side, at most, where an image is resized
FORMAT = 2  # part of the cache's address: raise it when decoding changes
_SPLITS, _PARTS = ("train", "val"), ("images", "labels")  # <split>-<part>.npy, in the cache


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
    ``notes`` are sentences about what was left out or not taken as it stands.
    """

    name: str
    train: Split
    val: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    hash: str
    notes: tuple[str, ...] = ()


NAMES: tuple[str, ...] = ("digits", *SPECS)


def load(name: str, data_dir: Path | None = None) -> ImageData:
    """The data set of that name, from ``data_dir`` (default: ``data`` in the cache folder).

    The first call decodes it into the cache folder; later calls read it from there for as long as
    the source files are the very same: path, device, inode, size, and times of modification and of
    change. Its notes are said by every call.

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
    address = store.digest([FORMAT, PIL.__version__, spec.size, spec.mode, *source.identity()])
    folder = store.home() / "decoded" / f"{name}-{address}"
    data = store.stage(
        folder / "meta.json",
        load=lambda path: _read_cache(name, path),
        make=lambda: _decode(name, source.open(), folder),
        save=_save_meta,
    )
    for note in data.notes:
        say(f"note: {note}")
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


def _describe(
    name: str, train: Split, val: Split, classes: tuple[str, ...], notes: tuple[str, ...] = ()
) -> ImageData:
    """Both splits with their statistics and their hash."""
    mean, std = _moments(train.images)
    return ImageData(name, train, val, classes, mean, std, _hash(train, val, len(classes)), notes)


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


class _Item(NamedTuple):
    """One decoded image, its class, and what is to be counted of it."""

    pixels: UInt8[np.ndarray, "C H W"]
    label: int
    remarks: frozenset[str]


def _decode(name: str, opened: Opened, folder: Path) -> ImageData:
    """Decode both splits into the cache's folder; its ``meta.json``, written last, completes it."""
    for stale in folder.glob(".*.npy.*"):  # of a run that was killed
        stale.unlink(missing_ok=True)
    remarks = _write_split(folder, "train", opened.train, SPECS[name])
    remarks += _write_split(folder, "val", opened.val, SPECS[name])
    train, val = (
        _split(*(cached.load_array(folder / f"{split}-{part}.npy", IN_MEMORY) for part in _PARTS))
        for split in _SPLITS
    )
    notes = (*opened.left_out, *decoding.notes(remarks))
    return _describe(name, train, val, opened.classes, notes)


def _write_split(
    folder: Path, split: str, images: Undecoded, spec: Spec
) -> "collections.Counter[str]":
    """Decode one split, in blocks, to ``<split>-images.npy`` and ``<split>-labels.npy``; what is to be counted."""
    labels: list[int] = []
    remarks: collections.Counter[str] = collections.Counter()
    header = {"descr": "|u1", "fortran_order": False, "shape": (images.count, *spec.shape)}
    with store.atomic(folder / f"{split}-images.npy") as path, path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in _decoded_blocks(images, spec, f"decoding {spec.title}, {split}"):
            file.writelines(item.pixels.tobytes() for item in block)
            labels += [item.label for item in block]
            for item in block:
                remarks.update(item.remarks)
    with store.atomic(folder / f"{split}-labels.npy") as path, path.open("wb") as file:
        np.save(file, np.array(labels, np.int64))
    return remarks


def _decoded_blocks(images: Undecoded, spec: Spec, description: str) -> Iterator[list[_Item]]:
    """Every image in order, a block at a time, decoded by a thread per core."""
    decoding.formats()  # registers every format once, before the threads do
    starts = range(0, images.count, BLOCK)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in track(starts, description, len(starts)):
            indices = range(start, min(start + BLOCK, images.count))
            yield list(pool.map(lambda index: _decode_image(images, index, spec), indices))


def _decode_image(images: Undecoded, index: int, spec: Spec) -> _Item:
    """Decode one image.

    Raises:
        BadRequest: it cannot be read or used; the message names its file.
    """
    try:
        image, label = images.read(index)
        decoded, remarks = decoding.as_mode(image, spec.mode)
        return _Item(_fitted(decoded, spec), label, remarks)
    except UNREADABLE as error:
        raise decoding.refusal(images.name(index), error) from error


def _fitted(image: Image.Image, spec: Spec) -> UInt8[np.ndarray, "C H W"]:
    """The pixels of an image, in the data set's size (see the module's text).

    Raises:
        Refused: its sides are too different.
    """
    from torchvision.transforms import functional

    if max(image.size) > LONGEST * min(image.size):
        wide, tall = image.size
        raise Refused(
            f"it is {wide} x {tall} pixels, and one side may be at most {LONGEST} times the other"
        )
    if image.size != (spec.size, spec.size):
        shorter = 256 if spec.size == 224 else spec.size
        image = functional.center_crop(functional.resize(image, [shorter]), [spec.size])
    return np.asarray(image).reshape(spec.size, spec.size, -1).transpose(2, 0, 1)


def _split(images: UInt8[np.ndarray, "M C H W"], labels: Int64[np.ndarray, " M"]) -> Split:
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def _save_meta(data: ImageData, path: Path) -> None:
    """Describe the data set and its arrays in ``meta.json`` beside these."""
    files = {
        f"{split}-{part}": {
            "shape": list(getattr(getattr(data, split), part).shape),
            **cached.describe(path.parent / f"{split}-{part}.npy"),
        }
        for split in _SPLITS
        for part in _PARTS
    }
    fields = ("classes", "mean", "std", "hash", "notes")
    cached.write_json({**{key: getattr(data, key) for key in fields}, "files": files}, path)


def _read_cache(name: str, path: Path) -> ImageData:
    """The data set that this ``meta.json`` and the arrays beside it hold.

    Raises:
        BenchError: a part is missing, damaged, or not what was written there.
    """
    meta = cached.read_json(path)

    def array(key: str) -> Any:
        said = meta["files"][key]
        return cached.read_array(
            path.with_name(f"{key}.npy"), said, tuple(said["shape"]), IN_MEMORY
        )

    try:
        train, val = (_split(*(array(f"{split}-{part}") for part in _PARTS)) for split in _SPLITS)
        lists = {key: tuple(meta[key]) for key in ("classes", "mean", "std", "notes")}
        return ImageData(name=name, train=train, val=val, hash=meta["hash"], **lists)
    except (ValueError, LookupError, TypeError) as error:
        raise BenchError(f"{path.parent} is damaged: {last_line(error)}") from error
