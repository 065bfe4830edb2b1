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

import contextlib
import functools
import gzip
import hashlib
import http.client
import io
import itertools
import json
import os
import re
import shutil
import socket
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bench import store
from bench.errors import BadRequest, BenchError, unknown
from bench.progress import track

BLOCK = 256  # images decoded, hashed and counted at a time
IN_MEMORY = 2 << 30  # arrays of at least this many bytes are memory-mapped instead
TIMEOUT = 30.0  # seconds without an answer after which a download has failed
FORMAT = 1  # part of the cache's address: raise it when decoding changes

_LAYOUT = "train/<class>/* and test/<class>/* (or val/<class>/*), as folders or in zip files"
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_ENTRY = re.compile(r"(?:^|/)(train|test|val)/([^/]+)/(.*)$")
# What Pillow, zipfile and torchvision raise for a file that is damaged, encrypted or missing.
_UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    EOFError,
    AssertionError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)
_NOT_DOWNLOADED = (OSError, RuntimeError, EOFError, tarfile.TarError, http.client.HTTPException)


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


@dataclass(frozen=True)
class _Spec:
    """What a data set's images become, and how torchvision keeps and calls them."""

    title: str
    classes: int
    size: int
    mode: str  # Pillow's: "L" (1 channel) or "RGB" (3)
    builder: str  # the class in torchvision.datasets
    folder: str  # where that class keeps its files under the root; "" where it keeps an ImageFolder
    train: tuple[dict[str, Any], ...] = ({"split": "train"},)
    val: tuple[dict[str, Any], ...] = ({"split": "test"},)

    @property
    def shape(self) -> tuple[int, int, int]:
        return {"L": 1, "RGB": 3}[self.mode], self.size, self.size


@dataclass(frozen=True)
class _Images:
    """One split before decoding: read the i-th image and its label; its name in messages."""

    count: int
    read: Callable[[int], tuple[Image.Image, int]]
    name: Callable[[int], str]


@dataclass(frozen=True)
class _Opened:
    """Both splits before decoding."""

    classes: tuple[str, ...]
    train: _Images
    val: _Images


_TRAIN: tuple[dict[str, Any], ...] = ({"train": True},)
_TEST: tuple[dict[str, Any], ...] = ({"train": False},)
_SPECS = {
    "mnist": _Spec("MNIST", 10, 28, "L", "MNIST", "MNIST/raw", _TRAIN, _TEST),
    "cifar10": _Spec("CIFAR-10", 10, 32, "RGB", "CIFAR10", "cifar-10-batches-py", _TRAIN, _TEST),
    "cifar100": _Spec("CIFAR-100", 100, 32, "RGB", "CIFAR100", "cifar-100-python", _TRAIN, _TEST),
    "stl10": _Spec("STL-10", 10, 96, "RGB", "STL10", "stl10_binary"),
    "flowers102": _Spec(
        "Flowers-102",
        102,
        224,
        "RGB",
        "Flowers102",
        "flowers-102",
        train=({"split": "train"}, {"split": "val"}),
    ),
    "pets": _Spec(
        "Oxford-IIIT Pet",
        37,
        224,
        "RGB",
        "OxfordIIITPet",
        "oxford-iiit-pet",
        train=({"split": "trainval"},),
    ),
    "food101": _Spec("Food-101", 101, 224, "RGB", "Food101", "food-101"),
    "imagenet": _Spec("ImageNet", 1000, 224, "RGB", "ImageNet", "", val=({"split": "val"},)),
}

NAMES: tuple[str, ...] = ("digits", *_SPECS)


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
    source = _find(name, data_dir) or _download(name, data_dir)
    spec = _SPECS[name]
    address = store.digest([FORMAT, spec.size, spec.mode, *source.files])
    return store.stage(
        store.home() / "decoded" / f"{name}-{address}" / "meta.json",
        load=functools.partial(_read_cache, name),
        make=lambda: _decode(name, source.open(), address),
        save=_save_meta,
    )


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


def _decode(name: str, opened: _Opened, address: str) -> ImageData:
    """Decode both splits into the cache's folder; its ``meta.json``, written last, completes it."""
    folder = store.home() / "decoded" / f"{name}-{address}"
    for stale in folder.glob(".*.npy.*"):  # of a run that was killed
        stale.unlink(missing_ok=True)
    for split, images in (("train", opened.train), ("val", opened.val)):
        _write_split(folder, split, images, _SPECS[name])
    return _describe(name, _read_split(folder, "train"), _read_split(folder, "val"), opened.classes)


def _write_split(folder: Path, split: str, images: _Images, spec: _Spec) -> None:
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
    images: _Images, spec: _Spec, description: str
) -> Iterator[list[tuple[UInt8[np.ndarray, "C H W"], int]]]:
    """Pixels and label of every image in order, a block at a time, decoded by a thread per core."""
    Image.init()  # register every format once, before the threads do
    starts = range(0, images.count, BLOCK)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in track(starts, description, len(starts)):
            indices = range(start, min(start + BLOCK, images.count))
            yield list(pool.map(lambda index: _decode_image(images, index, spec), indices))


def _decode_image(
    images: _Images, index: int, spec: _Spec
) -> tuple[UInt8[np.ndarray, "C H W"], int]:
    """Pixels and label of one image.

    Raises:
        BadRequest: it cannot be read; the message names its file.
    """
    try:
        image, label = images.read(index)
        return _pixels(image, spec), label
    except _UNREADABLE as error:
        unidentified = isinstance(error, UnidentifiedImageError)
        reason = "no image format that Pillow knows" if unidentified else _last_line(error)
        raise BadRequest(f"{images.name(index)} is not a readable image: {reason}") from error


def _pixels(image: Image.Image, spec: _Spec) -> UInt8[np.ndarray, "C H W"]:
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
        raise BenchError(f"{path.parent} is damaged: {_last_line(error)}") from error


def _save_meta(data: ImageData, path: Path) -> None:
    meta = {"classes": data.classes, "mean": data.mean, "std": data.std, "hash": data.hash}
    store.write_text(path, json.dumps(meta))


def _last_line(error: BaseException) -> str:
    """The last line of an error's text: the cause, where torchvision lists what it tried."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix("<urlopen error ").removesuffix(">")


# --- where the images come from -------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """A data set found on disk: its files (name, size, time in ns) and how to open it."""

    files: list[tuple[str, int, int]]
    open: Callable[[], _Opened]


def _find(name: str, data_dir: Path) -> _Source | None:
    """The data set in ``data_dir/<name>`` or in ``data_dir``, or None where it is in neither.

    Raises:
        BadRequest: a zip file cannot be read, or ``train`` is there without ``test`` and ``val``.
    """
    spec = _SPECS[name]
    roots = (data_dir / name, data_dir)
    if name == "imagenet":
        _unpack_imagenet(roots)
    for root in roots:
        if found := _find_folders(root) or _find_zips(root) or _find_torchvision(spec, root):
            return found
    for root in roots:
        if (root / "train").is_dir():
            raise BadRequest(f"{root} has a folder 'train' but no folder 'test' or 'val' beside it")
    return None


def _find_folders(root: Path) -> _Source | None:
    """The folders ``train`` and ``test`` or ``val`` of ``root``, where they are there."""
    parts = [part for part in ("train", "test", "val") if (root / part).is_dir()]
    if "train" not in parts or len(parts) < 2:
        return None
    files = _files(root, parts)

    def open_() -> _Opened:
        folders = (
            f"{part}/{entry.name}/"
            for part in parts
            for entry in os.scandir(root / part)
            if entry.is_dir()
        )
        names = itertools.chain(folders, (name for name, _, _ in files))
        return _open_tree(
            str(root), names, lambda name: (root / name).read_bytes(), lambda name: str(root / name)
        )

    return _Source(files, open_)


def _find_zips(root: Path) -> _Source | None:
    """The zip files in ``root`` with an ImageFolder tree in them, where there are any."""
    zips = [
        path for path in sorted(root.glob("*.zip")) if any(map(_ENTRY.search, _zip_names(path)))
    ]
    if not zips:
        return None
    return _Source([_stamp(path, path.name) for path in zips], lambda: _open_zips(zips))


def _zip_names(path: Path) -> list[str]:
    """The names in a zip file.

    Raises:
        BadRequest: it is not a readable zip file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise BadRequest(f"{path} is not a readable zip file: {_last_line(error)}") from error


def _open_zips(zips: list[Path]) -> _Opened:
    """An ImageFolder tree in zip files, whose members are read in place.

    Raises:
        BadRequest: one file is in two of them, or the tree is not usable.
    """
    homes: dict[str, zipfile.ZipFile] = {}
    for path in zips:
        archive = zipfile.ZipFile(path)
        for name in archive.namelist():
            if name in homes and not name.endswith("/"):
                raise BadRequest(
                    f"{path} has '{name}', and so has {homes[name].filename}: keep one of them"
                )
            homes[name] = archive
    return _open_tree(
        ", ".join(map(str, zips)),
        homes,
        lambda name: homes[name].read(name),
        lambda name: f"'{name}' in {homes[name].filename}",
    )


def _open_tree(
    title: str, names: Iterable[str], read: Callable[[str], bytes], describe: Callable[[str], str]
) -> _Opened:
    """Both splits of an ImageFolder tree, given the names of its files and folders.

    Raises:
        BadRequest: a split or a class has no images, or the splits' classes differ.
    """
    tree = _index(names)
    train, val = tree.get("train", {}), tree.get("test") or tree.get("val") or {}
    for part, split in (("train", train), ("test' or 'val", val)):
        if not any(split.values()):
            raise BadRequest(f"no images in '{part}' of {title}: expected {_LAYOUT}")
    for name in sorted(train.keys() | val.keys()):
        if not (train.get(name) and val.get(name)):
            part = "the test split" if train.get(name) else "train"
            raise BadRequest(
                f"class '{name}' has no images in {part} of {title}: both splits need every class"
            )

    def images(split: dict[str, list[str]]) -> _Images:
        items = [
            (name, label) for label, key in enumerate(sorted(split)) for name in sorted(split[key])
        ]
        return _Images(
            len(items),
            lambda index: (Image.open(io.BytesIO(read(items[index][0]))), items[index][1]),
            lambda index: describe(items[index][0]),
        )

    return _Opened(tuple(sorted(train)), images(train), images(val))


def _index(names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """The image files of every class of every split; an empty class folder has an empty list."""
    tree: dict[str, dict[str, list[str]]] = {}
    for name in names:
        match = _ENTRY.search(name)
        if match is None or name.startswith("__MACOSX/") or match[2].startswith("."):
            continue
        if match[3] == "" or (
            name.lower().endswith(_EXTENSIONS) and not name.rpartition("/")[2].startswith(".")
        ):
            tree.setdefault(match[1], {}).setdefault(match[2], []).extend(
                [name] if match[3] else []
            )
    return tree


def _files(root: Path, parts: Iterable[str]) -> list[tuple[str, int, int]]:
    """Every file under these folders of ``root``: its name relative to ``root``, size and time."""
    return sorted(
        _stamp(path := Path(folder, name), path.relative_to(root).as_posix())
        for part in parts
        for folder, _, names in os.walk(root / part, followlinks=True)
        for name in names
    )


def _stamp(path: Path, name: str) -> tuple[str, int, int]:
    """The file's name, size and time of change."""
    try:
        status = path.stat()
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}") from error
    return name, status.st_size, status.st_mtime_ns


# --- torchvision ----------------------------------------------------------------------------------


def _find_torchvision(spec: _Spec, root: Path) -> _Source | None:
    """Torchvision's own files under ``root``, where they are there and complete."""
    if not spec.folder or not (root / spec.folder).is_dir():
        return None
    files = _files(root, [spec.folder])
    return _Source(files, lambda: _open_torchvision(spec, root)) if files else None


def _open_torchvision(spec: _Spec, root: Path) -> _Opened:
    """Both splits as torchvision reads them; what it finds incomplete is downloaded again.

    Raises:
        BadRequest: the files are damaged, or the splits' classes differ.
        BenchError: the files are incomplete, and the download failed.
    """
    try:
        train, val = _build(spec, root, download=False)
    except _UNREADABLE as error:
        if "download=True" not in str(error):  # torchvision's words for "missing or incomplete"
            raise BadRequest(f"{root / spec.folder} is damaged: {_last_line(error)}") from error
        train, val = _build_downloading(spec, root)
    classes, others = (
        tuple(getattr(parts[0], "classes", map(str, range(spec.classes)))) for parts in (train, val)
    )
    if classes != others:
        raise BadRequest(
            f"the training and test files in {root / spec.folder} have different classes"
        )
    return _Opened(classes, _torchvision_images(train), _torchvision_images(val))


def _build(spec: _Spec, root: Path, *, download: bool) -> tuple[list[Any], list[Any]]:
    """Torchvision's objects for the parts of the train and of the val split; stdout stays clean."""
    import torchvision.datasets

    builder = getattr(torchvision.datasets, spec.builder)
    with (
        contextlib.redirect_stdout(sys.stderr),
        _mnist_unpacked(spec, root, skip=download) as place,
    ):
        train, val = (
            [builder(place, download=download, **options) for options in split]
            for split in (spec.train, spec.val)
        )
    return train, val


@contextlib.contextmanager
def _mnist_unpacked(spec: _Spec, root: Path, *, skip: bool) -> Iterator[Path]:
    """``root``; for MNIST kept as ``.gz`` files, a temporary root with all of them unpacked."""
    folder = root / spec.folder
    packed = [path for path in folder.glob("*-ubyte.gz") if not path.with_suffix("").exists()]
    if skip or spec.builder != "MNIST" or not packed:
        yield root
        return
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary, spec.folder)
        place.mkdir(parents=True)
        for path in folder.glob("*-ubyte"):
            shutil.copyfile(path, place / path.name)
        for path in packed:
            _gunzip(path, place / path.stem)
        yield Path(temporary)


def _gunzip(path: Path, target: Path) -> None:
    """Unpack a file.

    Raises:
        BadRequest: it is damaged.
    """
    try:
        with gzip.open(path) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadRequest(f"{path} is not a readable gzip file: {_last_line(error)}") from error


def _torchvision_images(parts: list[Any]) -> _Images:
    """The images of torchvision data sets, one after the other."""
    items = [(part, index) for part in parts for index in range(len(part))]

    def read(position: int) -> tuple[Image.Image, int]:
        part, index = items[position]
        image, label = part[index]
        return image, int(label)

    def name(position: int) -> str:
        part, index = items[position]
        files = getattr(part, "_image_files", None) or getattr(part, "_images", None)
        return str(files[index]) if files else f"image {index} of {part.root}"

    return _Images(len(items), read, name)


def _unpack_imagenet(roots: Iterable[Path]) -> None:
    """Let torchvision unpack ImageNet's archives to ``train`` and ``val``, where only those lie.

    Raises:
        BenchError: they are incomplete or cannot be unpacked there.
    """
    import torchvision.datasets

    for root in roots:
        unpacked = (root / "train").is_dir() and (root / "val").is_dir()
        if unpacked or not any(root.glob("ILSVRC2012_img_*.tar")):
            continue
        try:
            with contextlib.redirect_stdout(sys.stderr):
                for split in ("train", "val"):
                    torchvision.datasets.ImageNet(root, split=split)
        except (*_UNREADABLE, tarfile.TarError) as error:
            raise BenchError(
                f"ImageNet's archives in {root} cannot be unpacked: {_last_line(error)}"
            ) from error


def _download(name: str, data_dir: Path) -> _Source:
    """Download the data set to ``data_dir/<name>`` and find it there.

    Raises:
        BenchError: it cannot be downloaded; the message says what to do without a network.
    """
    spec = _SPECS[name]
    root = data_dir if data_dir.name == name else data_dir / name
    _build_downloading(spec, root)
    if found := _find(name, data_dir):
        return found
    raise BenchError(f"the download of {spec.title} left nothing usable in {root}")


def _build_downloading(spec: _Spec, root: Path) -> tuple[list[Any], list[Any]]:
    """Torchvision's objects, downloading what is missing, one process at a time.

    Raises:
        BenchError: the download failed, or there is none; the message says what to do without it.
    """
    try:
        if not spec.folder:
            raise RuntimeError("it needs an account; put its archives (ILSVRC2012_*) there")
        lock = store.home() / "decoded" / f"{spec.builder}.download.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(lock), _timeout(TIMEOUT):
            return _build(spec, root, download=True)
    except _NOT_DOWNLOADED as error:
        raise BenchError(
            f"no complete {spec.title} in {root}, and the download of {spec.title} failed: "
            f"{_last_line(error)}; without a network, put {_LAYOUT}, into that folder or name "
            "another with --data-dir"
        ) from error


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Let sockets that torchvision opens give up after so many seconds of silence."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
