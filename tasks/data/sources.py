"""Where the images of a data set come from: folders, zip files, torchvision's own files, or a download.

Every file in a class folder whose name ends as that of an image (``tasks.data.decoding.extensions``) is used. What else
lies in the folders of the splits is counted and said, but for hidden files and ``__MACOSX``.
"""

import collections
import contextlib
import gzip
import http.client
import itertools
import math
import os
import re
import shutil
import socket
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import filelock
from PIL import Image

from bench.contract.declarations import DataSet
from bench.errors import BadRequest, BenchError
from bench.system import reading, store
from bench.system.reading import locked
from tasks.data import decoding
from tasks.data.decoding import PIXELS, UNREADABLE, Refused, last_line

TIMEOUT = 30.0  # seconds without an answer after which a download has failed

_LAYOUT = "train/<class>/* and test/<class>/* (or val/<class>/*), as folders or in zip files"
_PARTS = ("train", "test", "val")
_ENTRY = re.compile(r"(?:^|/)(train|test|val)/([^/]+)/(.*)$", re.DOTALL)
_LOOSE = re.compile(r"(?:^|/)(train|test|val)/([^/]+)$")
_BYTES = 8 * PIXELS  # of an image file, at most: no image of so many pixels needs more
HEADER = 16  # bytes of a file of MNIST before its pixels
_KINDS = 5  # of files that are left out, that are named
_NOT_DOWNLOADED = (OSError, RuntimeError, EOFError, tarfile.TarError, http.client.HTTPException)


@dataclass(frozen=True)
class Spec:
    """What a data set's images become, and how torchvision keeps and calls them.

    Attributes:
        declared: the data set.
        title: its name in messages.
        builder: the class in torchvision.datasets.
        folder: where that class keeps its files under the root; "" where it keeps an ImageFolder.
        train, val: arguments of the class, for each part of the split.
    """

    declared: DataSet
    title: str
    builder: str
    folder: str
    train: tuple[dict[str, Any], ...] = ({"split": "train"},)
    val: tuple[dict[str, Any], ...] = ({"split": "test"},)

    @property
    def name(self) -> str:
        """The data set's name, and that of its folder."""
        return self.declared.name

    @property
    def mode(self) -> str:
        """Pillow's mode of its images."""
        return {1: "L", 3: "RGB"}[self.declared.channels]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.declared.channels, self.declared.size, self.declared.size


@dataclass(frozen=True)
class Undecoded:
    """One split before decoding: read the i-th image and its label; its name in messages."""

    count: int
    read: Callable[[int], tuple[Image.Image, int]]
    name: Callable[[int], str]


@dataclass(frozen=True)
class Opened:
    """Both splits before decoding, and sentences about what is left out of them."""

    classes: tuple[str, ...]
    train: Undecoded
    val: Undecoded
    left_out: tuple[str, ...] = ()


class Stamp(NamedTuple):
    """A file as it is now: whatever is done to it, or put in its place, changes one of these."""

    name: str
    device: int
    inode: int
    size: int  # bytes
    modified: int  # ns
    changed: int  # ns; not even who sets the time of modification back leaves it as it was


@dataclass(frozen=True)
class Source:
    """A data set found on disk: the folder, the files in it, and how to open it."""

    root: Path
    files: list[Stamp]
    open: Callable[[], Opened]

    def identity(self) -> list[Any]:
        """Return plain data that tells these files from all others, for an address in the cache."""
        return [str(self.root.resolve()), self.files]


def find(spec: Spec, data_dir: Path) -> Source | None:
    """Find the data set in ``data_dir/<name>`` or in ``data_dir``; None where it is in neither.

    Raises:
        BadRequest: a zip file cannot be read, or ``train`` is there without ``test`` and ``val``.
    """
    roots = (data_dir / spec.name, data_dir)
    if spec.builder == "ImageNet":
        _unpack_imagenet(roots)
    for root in roots:
        if found := _find_folders(root) or _find_zips(root) or _find_torchvision(spec, root):
            return found
    for root in roots:
        if (root / "train").is_dir():
            raise BadRequest(f"{root} has a folder 'train' but no folder 'test' or 'val' beside it")
    return None


def _find_folders(root: Path) -> Source | None:
    """Find the folders ``train`` and ``test`` or ``val`` in ``root``; None where they are not there."""
    parts = [part for part in _PARTS if (root / part).is_dir()]
    if "train" not in parts or len(parts) < 2:
        return None
    files = list_files(root, parts)

    def open_() -> Opened:
        folders = (
            f"{part}/{entry.name}/"
            for part in parts
            for entry in os.scandir(root / part)
            if entry.is_dir()
        )
        names = itertools.chain(folders, (file.name for file in files))
        return _open_tree(
            str(root), names, lambda name: read_file(root / name), lambda name: str(root / name)
        )

    return Source(root, files, open_)


def _find_zips(root: Path) -> Source | None:
    """Find the zip files in ``root`` with an ImageFolder tree in them; None where there are none."""
    zips = [path for path in sorted(root.glob("*.zip")) if any(map(_ENTRY.search, zip_names(path)))]
    if not zips:
        return None
    return Source(root, [stamp(path, path.name) for path in zips], lambda: _open_zips(zips))


def zip_names(path: Path) -> list[str]:
    """List the names in a zip file.

    Raises:
        BadRequest: it is not a readable zip file.
    """
    reading.check_regular(path, "zip file")
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except UNREADABLE as error:
        raise BadRequest(f"{path} is not a readable zip file: {last_line(error)}") from error


def _open_zips(zips: list[Path]) -> Opened:
    """Open an ImageFolder tree in zip files, whose members are read in place.

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
        lambda name: read_member(homes[name], name),
        lambda name: f"'{name}' in {homes[name].filename}",
    )


def read_file(path: Path) -> bytes:
    """Read the bytes of an image file.

    Raises:
        Refused: it is too large for one.
        One of ``UNREADABLE``: it cannot be read.
    """
    _check_size(path.stat().st_size)
    if not path.is_file():  # a pipe would be waited for
        raise Refused("it is no regular file")
    return path.read_bytes()


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read the bytes of an image file in a zip file; errors as of ``read_file``."""
    entry = archive.getinfo(name)
    _check_size(entry.file_size)
    for problem in locked(entry):
        raise Refused(problem)
    return archive.read(name)


def _check_size(size: int) -> None:
    if size > _BYTES:
        raise Refused(f"it has {size:,} bytes, expected at most {_BYTES:,}")


# --- ImageFolder ----------------------------------------------------------------------------------


@dataclass
class _Tree:
    """The files of an ImageFolder tree, by what they are; an empty class folder has an empty list."""

    images: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # by split and class
    strange: dict[str, list[str]] = field(default_factory=dict)  # in class folders, by split
    loose: dict[str, list[str]] = field(default_factory=dict)  # beside them, by split

    def split(self, part: str) -> dict[str, list[str]]:
        """Return the images of every class of one split."""
        return self.images.get(part, {})

    def left_out(self, parts: tuple[str, ...]) -> Iterator[str]:
        """Yield sentences about the files of these splits that are no images of a class."""
        strange = [name for part in parts for name in self.strange.get(part, [])]
        if strange:
            yield f"left out {_files(strange)} of classes that are no images by name: {_kinds(strange)}"
        for part in parts:
            if loose := self.loose.get(part):
                yield (
                    f"left out {_files(loose)} directly in {part}/, where no class is known: "
                    + _kinds(loose)
                )


def _files(names: list[str]) -> str:
    return f"{len(names)} file{'s' * (len(names) > 1)}"


def _kinds(names: list[str]) -> str:
    """Say how many of these files have which extension."""
    ends = collections.Counter(_extension(name) or "without an extension" for name in names)
    kinds = sorted(ends.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count} {end}" for end, count in kinds[:_KINDS]]
    if rest := sum(count for _, count in kinds[_KINDS:]):
        told.append(f"{rest} others")
    return ", ".join(told)


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _index(names: Iterable[str]) -> _Tree:
    """Sort names of files and folders into a tree; the names of folders end in a slash."""
    tree = _Tree()
    for name in names:
        if entry := _ENTRY.search(name):
            part, label = entry[1], entry[2]
            if _is_metadata(name, entry):
                continue
            if entry[3] == "":
                tree.images.setdefault(part, {}).setdefault(label, [])
            elif _extension(name) in decoding.extensions():
                tree.images.setdefault(part, {}).setdefault(label, []).append(name)
            elif not name.endswith("/"):
                tree.strange.setdefault(part, []).append(name)
        elif (entry := _LOOSE.search(name)) and not _is_metadata(name, entry):
            tree.loose.setdefault(entry[1], []).append(name)
    return tree


def _is_metadata(name: str, entry: re.Match[str]) -> bool:
    """Return whether this is a hidden file, or one that macOS puts into zip files."""
    hidden = any(step.startswith(".") for step in entry[0].split("/"))
    return hidden or "__MACOSX" in name.split("/")


def _open_tree(
    title: str, names: Iterable[str], read: Callable[[str], bytes], describe: Callable[[str], str]
) -> Opened:
    """Open both splits of an ImageFolder tree, given the names of its files and folders.

    Raises:
        BadRequest: a split or a class has no images, or the splits' classes differ.
    """
    tree = _index(names)
    held_out = "test" if tree.split("test") else "val"
    train, val = tree.split("train"), tree.split(held_out)
    left_out = list(tree.left_out(("train", "test") if held_out == "test" else _PARTS))
    if held_out == "test" and (unused := sum(map(len, tree.split("val").values()))):
        left_out.append(f"left out val/ with its {unused} images, because test/ is there too")
    hint = "".join(f"; {sentence}" for sentence in left_out)
    for part, split in (("train", train), ("test' or 'val", val)):
        if not any(split.values()):
            raise BadRequest(f"no images in '{part}' of {title}: expected {_LAYOUT}{hint}")
    for name in sorted(train.keys() | val.keys()):
        if not (train.get(name) and val.get(name)):
            part = "the test split" if train.get(name) else "train"
            raise BadRequest(
                f"class '{name}' has no images in {part} of {title}: both splits need every class{hint}"
            )

    def images(split: dict[str, list[str]]) -> Undecoded:
        items = [
            (name, label) for label, key in enumerate(sorted(split)) for name in sorted(split[key])
        ]
        return Undecoded(
            len(items),
            lambda index: (decoding.open_image(read(items[index][0])), items[index][1]),
            lambda index: describe(items[index][0]),
        )

    return Opened(tuple(sorted(train)), images(train), images(val), tuple(left_out))


def list_files(root: Path, parts: Iterable[str]) -> list[Stamp]:
    """List every file under these folders of ``root``, named relative to ``root``, in the order of names."""
    return sorted(
        stamp(path := Path(folder, name), path.relative_to(root).as_posix())
        for part in parts
        for folder, _, names in os.walk(root / part, followlinks=True)
        for name in names
    )


def stamp(path: Path, name: str) -> Stamp:
    """Return the file as it is now, under this name.

    Raises:
        BadRequest: it cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}") from error
    return Stamp(
        name,
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


# --- torchvision ----------------------------------------------------------------------------------


def _find_torchvision(spec: Spec, root: Path) -> Source | None:
    """Find torchvision's own files under ``root``; None where there are none."""
    if not spec.folder or not (root / spec.folder).is_dir():
        return None
    files = list_files(root, [spec.folder])
    return Source(root, files, lambda: _open_torchvision(spec, root)) if files else None


def _open_torchvision(spec: Spec, root: Path) -> Opened:
    """Open both splits as torchvision reads them; files that it finds incomplete are downloaded again.

    Raises:
        BadRequest: the files are damaged, or the splits' classes differ.
        BenchError: the files are incomplete, and the download failed.
    """
    try:
        train, val = _build(spec, root, download=False)
    except UNREADABLE as error:
        if "download=True" not in str(error):  # torchvision's words for "missing or incomplete"
            raise BadRequest(f"{root / spec.folder} is damaged: {last_line(error)}") from error
        train, val = _build_downloading(spec, root)
    classes, others = (
        tuple(getattr(parts[0], "classes", map(str, range(spec.declared.classes))))
        for parts in (train, val)
    )
    if classes != others:
        raise BadRequest(
            f"the training and test files in {root / spec.folder} have different classes"
        )
    return Opened(classes, _torchvision_images(train), _torchvision_images(val))


def _build(spec: Spec, root: Path, *, download: bool) -> tuple[list[Any], list[Any]]:
    """Make torchvision's objects for the parts of the train and of the val split; stdout stays clean."""
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
def _mnist_unpacked(spec: Spec, root: Path, *, skip: bool) -> Iterator[Path]:
    """Yield ``root``; for MNIST kept as ``.gz`` files, a temporary root with all of them unpacked."""
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
            _gunzip(path, place / path.stem, HEADER + spec.declared.train * math.prod(spec.shape))
        yield Path(temporary)


def _gunzip(path: Path, target: Path, most: int) -> None:
    """Unpack a file of at most ``most`` bytes.

    Raises:
        BadRequest: it is damaged, or larger.
    """
    reading.check_regular(path, "gzip file")
    try:
        with gzip.open(path) as source:
            content = source.read(most + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadRequest(f"{path} is not a readable gzip file: {last_line(error)}") from error
    if len(content) > most:
        raise BadRequest(f"{path} unpacks to more than {most:,} bytes")
    target.write_bytes(content)


def _torchvision_images(parts: list[Any]) -> Undecoded:
    """Return the images of torchvision data sets, one after the other.

    Where these are files of their own, they are opened here: torchvision would convert them in its own way.
    """
    items = [(part, index) for part in parts for index in range(len(part))]

    def file(part: Any, index: int) -> Path | None:
        files = getattr(part, "_image_files", None) or getattr(part, "_images", None)
        return Path(files[index]) if files else None

    def read(position: int) -> tuple[Image.Image, int]:
        part, index = items[position]
        path, labels = file(part, index), getattr(part, "_labels", None)
        if path and labels:
            return decoding.open_image(read_file(path)), int(labels[index])
        image, label = part[index]
        return image, int(label)

    def name(position: int) -> str:
        part, index = items[position]
        return str(file(part, index) or f"image {index} of {part.root}")

    return Undecoded(len(items), read, name)


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
        except (*UNREADABLE, tarfile.TarError) as error:
            raise BenchError(
                f"ImageNet's archives in {root} cannot be unpacked: {last_line(error)}"
            ) from error


def download(spec: Spec, data_dir: Path) -> Source:
    """Download the data set to ``data_dir/<name>`` and find it there.

    Raises:
        BenchError: it cannot be downloaded; the message says what to do without a network.
    """
    root = data_dir if data_dir.name == spec.name else data_dir / spec.name
    _build_downloading(spec, root)
    if found := find(spec, data_dir):
        return found
    raise BenchError(f"the download of {spec.title} left nothing usable in {root}")


def _build_downloading(spec: Spec, root: Path) -> tuple[list[Any], list[Any]]:
    """Make torchvision's objects, downloading missing files, one process at a time.

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
            f"{last_line(error)}; without a network, put {_LAYOUT}, into that folder or name "
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
