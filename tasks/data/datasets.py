"""Read images of one class each from files, decoded once to uint8 arrays in memory or in a memory map.

A data set is looked for in ``data_dir/<name>`` and in ``data_dir`` itself, there in this order:

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
import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
from jaxtyping import Int64, UInt8
from PIL import Image

from bench.contract.declarations import DataSet
from bench.errors import BenchError
from bench.system import store
from bench.system.progress import say, track
from tasks.data import cached, decoding
from tasks.data.decoding import UNREADABLE, Refused, last_line
from tasks.data.labelled import ImageData, Split
from tasks.data.sources import Opened, Spec, Undecoded, download, find

BLOCK = 256  # images decoded at a time
IN_MEMORY = 2 << 30  # arrays of at least this many bytes are memory-mapped instead
LONGEST = 100  # times the shorter side, at most, where an image is resized
FORMAT = 2  # part of the cache's address: raise it when decoding changes
_SPLITS, _PARTS = ("train", "val"), ("images", "labels")  # <split>-<part>.npy, in the cache


def load(
    data_set: DataSet,
    data_dir: Path | None,
    *,
    block: int = BLOCK,
    in_memory: int = IN_MEMORY,
    **source: Any,
) -> ImageData:
    """Return the data set's images, from ``data_dir`` (default: ``data`` in the cache folder).

    The first call decodes them into the cache folder; later calls read them from there for as long as
    the source files are the very same: path, device, inode, size, and times of modification and of
    change. Notes are said by every call.

    Args:
        data_set: its name is that of the folder; its size and channels are those that images get.
        data_dir: the folder of real data.
        block: images decoded at a time.
        in_memory: arrays of at least this many bytes are memory-mapped.
        source: the title, and how torchvision keeps the data set, see ``tasks.data.sources.Spec``.

    Raises:
        BadRequest: files that cannot be used; the message names the file.
        BenchError: it is not there and could not be downloaded.
    """
    spec = Spec(data_set, **source)
    data_dir = (data_dir or store.home() / "data").expanduser()
    found = find(spec, data_dir) or download(spec, data_dir)
    address = store.digest([FORMAT, PIL.__version__, data_set.size, spec.mode, *found.identity()])
    folder = store.home() / "decoded" / f"{data_set.name}-{address}"
    cache = _Cache(spec, folder, block, in_memory)
    data = store.stage(
        folder / "meta.json",
        load=cache.read,
        make=lambda: cache.decode(found.open()),
        save=_save_meta,
    )
    for note in data.notes:
        say(f"note: {note}")
    if len(data.classes) != data_set.classes:
        classes = f"{len(data.classes)} classes in these files"
        say(f"note: {classes}, {spec.title} has {data_set.classes}")
    return data


# --- the cache of decoded arrays ------------------------------------------------------------------


class _Item(NamedTuple):
    """One decoded image, its class, and the remarks that are counted."""

    pixels: UInt8[np.ndarray, "C H W"]
    label: int
    remarks: frozenset[str]


@dataclasses.dataclass(frozen=True)
class _Cache:
    """The arrays of one data set in the cache folder.

    Attributes:
        spec: what its images become.
        folder: where the arrays lie.
        block, in_memory: see ``load``.
    """

    spec: Spec
    folder: Path
    block: int
    in_memory: int

    def decode(self, opened: Opened) -> ImageData:
        """Decode both splits into the folder; its ``meta.json``, written last, completes it."""
        for stale in self.folder.glob(".*.npy.*"):  # of a run that was killed
            stale.unlink(missing_ok=True)
        remarks = self._write("train", opened.train) + self._write("val", opened.val)
        train, val = (
            _split(
                *(
                    cached.load_array(self.folder / f"{split}-{part}.npy", self.in_memory)
                    for part in _PARTS
                )
            )
            for split in _SPLITS
        )
        notes = (*opened.left_out, *decoding.notes(remarks))
        return ImageData.of(self.spec.name, train, val, opened.classes, notes)

    def _write(self, split: str, images: Undecoded) -> "collections.Counter[str]":
        """Decode one split, in blocks, to ``<split>-images.npy`` and ``<split>-labels.npy``; return what to count."""
        labels: list[int] = []
        remarks: collections.Counter[str] = collections.Counter()
        shape = (images.count, *self.spec.shape)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        with store.atomic(self.folder / f"{split}-images.npy") as path, path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for block in self._blocks(images, f"decoding {self.spec.title}, {split}"):
                file.writelines(item.pixels.tobytes() for item in block)
                labels += [item.label for item in block]
                for item in block:
                    remarks.update(item.remarks)
        with store.atomic(self.folder / f"{split}-labels.npy") as path, path.open("wb") as file:
            np.save(file, np.array(labels, np.int64))
        return remarks

    def _blocks(self, images: Undecoded, description: str) -> Iterator[list[_Item]]:
        """Yield every image in order, a block at a time, decoded by a thread per core."""
        decoding.formats()  # registers every format once, before the threads do
        starts = range(0, images.count, self.block)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in track(starts, description, len(starts)):
                indices = range(start, min(start + self.block, images.count))
                yield list(pool.map(lambda index: _decode_image(images, index, self.spec), indices))

    def read(self, path: Path) -> ImageData:
        """Return the data set that this ``meta.json`` and the arrays beside it hold.

        Raises:
            BenchError: a part is missing, damaged, or not what was written there.
        """
        meta = cached.read_json(path)

        def array(key: str) -> Any:
            said = meta["files"][key]
            file = path.with_name(f"{key}.npy")
            return cached.read_array(file, said, tuple(said["shape"]), self.in_memory)

        try:
            train, val = (
                _split(*(array(f"{split}-{part}") for part in _PARTS)) for split in _SPLITS
            )
            lists = {key: tuple(meta[key]) for key in ("classes", "mean", "std", "notes")}
            return ImageData(self.spec.name, train, val, hash=meta["hash"], **lists)
        except (ValueError, LookupError, TypeError) as error:
            raise BenchError(f"{path.parent} is damaged: {last_line(error)}") from error


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
    """Return the pixels of an image, in the data set's size (see the module's text).

    Raises:
        Refused: its sides are too different.
    """
    from torchvision.transforms import functional

    if max(image.size) > LONGEST * min(image.size):
        wide, tall = image.size
        raise Refused(
            f"it is {wide} x {tall} pixels, and one side may be at most {LONGEST} times the other"
        )
    _, side, _ = spec.shape
    if image.size != (side, side):
        shorter = 256 if side == 224 else side
        image = functional.center_crop(functional.resize(image, [shorter]), [side])
    return np.asarray(image).reshape(side, side, -1).transpose(2, 0, 1)


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
