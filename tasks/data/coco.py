"""Data sets in COCO's format: ``annotations/instances_{train,val}2017.json``, and images in folders or zip files.

Looked for in ``data_dir/<name>`` and in ``data_dir`` itself. The images of a split lie in a folder ``train2017`` (or
``val2017``), or in one or several zip files ``train2017*.zip``, with or without that folder inside. The suite's own
scenes (``tasks.data.scenes``) are written in the same format, and read by the same code.

``limit`` takes that many images of each split at random, the same ones in every run, and the first of them where it is
lowered. Images without annotations count: a detector is also judged by what it finds where nothing is.

``CocoData.hash`` is the SHA-256 of what is used: the checked annotations and the bytes of every used image file. Bytes
and not names or sizes, so that an image that was replaced is noticed and a folder and a zip file of the same images are
the same data. They are read once for that; the result lies in the store for as long as all files are the very same:
path, device, inode, size, and times of modification and of change. An image that changes later is refused when it is
read. Where images were not taken as they stand (``tasks.data.decoding``), the hash sees the notes about that too.

Annotations are about stored pixels: an image's EXIF orientation is followed only where that alone gives it the size
that they say.

How annotations are checked, and which are left out, is in ``tasks.data.annotations``. Crowds (``iscrowd``) outline many
objects at once: detection neither learns from them nor counts what is found in them, and segmentation ignores their
pixels, unless an object of its own is there.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from jaxtyping import UInt8
from pycocotools import mask as masks
from pycocotools.coco import COCO
from torch import Tensor

from bench.contract.declarations import DataSet
from bench.errors import BadRequest
from bench.system import store
from bench.system.progress import say, track
from bench.system.randomness import generator
from tasks.data import annotations, cached, decoding
from tasks.data.decoding import UNREADABLE, Refused, last_line
from tasks.data.fields import Content
from tasks.data.sources import Stamp, list_files, read_file, read_member, stamp, zip_names

FORMAT = 2  # part of the cache's address: raise it when checking, choosing or decoding changes
IGNORED = 255  # in a semantic mask: neither right nor wrong
_SPLITS = ("train", "val")
_LAYOUT = (
    "annotations/instances_train2017.json and instances_val2017.json, and the images in folders "
    "train2017 and val2017 or in train2017.zip and val2017.zip"
)
Read = Callable[[str], bytes]  # a file's name in its split to its bytes


@dataclasses.dataclass(frozen=True)
class CocoSplit:
    """The images of one split, in the order of their ids.

    Attributes:
        api: pycocotools' view of the annotations.
        read: gives an image file's bytes by its name.
    """

    api: COCO
    read: Read

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def ids(self) -> tuple[int, ...]:
        """Each image's id in the annotations."""
        return tuple(self.api.imgs)

    @functools.cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Each image's height and width."""
        return tuple((image["height"], image["width"]) for image in self.api.imgs.values())

    def image(self, index: int) -> UInt8[Tensor, "3 H W"]:
        """Return the pixels of the image at this position.

        Raises:
            BadRequest: its file cannot be read or used, has changed, or has another size than the annotations say.
        """
        name, (tall, wide) = self.api.imgs[self.ids[index]]["file_name"], self.sizes[index]
        try:
            image = decoding.open_image(self.read(name))
            if sorted(image.size) == sorted((wide, tall)):  # others need not be decoded
                image = decoding.as_mode(image, "RGB", (wide, tall)).image
        except UNREADABLE as error:
            raise decoding.refusal(name, error) from error
        if image.size != (wide, tall):
            found, said = (f"{w} x {h}" for w, h in (image.size, (wide, tall)))
            raise BadRequest(f"{name} is {found} pixels, its annotations are for {said}")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def annotations(self, index: int) -> list[Content]:
        """Return the annotations of the image at this position, in COCO's form."""
        found: list[Content] = self.api.imgToAnns.get(self.ids[index], [])
        return found

    def subset(self, rows: Sequence[int]) -> "CocoSplit":
        """Return the images at these positions alone, still in the order of their ids."""
        return CocoSplit(index(_chosen(self.api.dataset, rows)), self.read)


@dataclasses.dataclass(frozen=True)
class CocoData:
    """A data set: both splits, and its categories in the order of their ids.

    Attributes:
        name: of the data set.
        classes: the categories' names.
        category_ids: their ids in the annotations; 1 or more, with gaps in COCO.
        train, val: the splits.
        hash: SHA-256 of what is used, see above.
    """

    name: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    train: CocoSplit
    val: CocoSplit
    hash: str


def load(data_set: DataSet, data_dir: Path | None, *, limit: int | None = None) -> CocoData:
    """Return the data set from its files.

    Args:
        data_set: its name is that of the folder.
        data_dir: where it lies; the default is ``data`` in the cache folder.
        limit: at most this many images of each split; None takes all.

    Raises:
        BadRequest: it is not there, or a file cannot be used; the message names it.
    """
    return read(data_set.name, _root(data_set.name, data_dir), limit)


def read(name: str, root: Path, limit: int | None) -> CocoData:
    """Read the data set that lies in a folder, and check it.

    Raises:
        BadRequest: a file is not there, or cannot be used; the message names it.
    """
    if limit is not None and limit < 1:
        raise BadRequest(f"limit is {limit}, expected at least 1")
    readers = {split: _reader(root, f"{split}2017") for split in _SPLITS}
    files = [_stamp_of(root, split) for split in _SPLITS]
    files += [file for reader in readers.values() for file in reader.files]
    address = store.digest([FORMAT, PIL.__version__, str(root.resolve()), limit, files])
    used = store.stage(
        store.home() / "coco" / f"{name}-{address}.json",
        load=cached.read_json,
        make=lambda: _use(root, readers, limit),
        save=cached.write_json,
    )
    for note in used["notes"]:
        say(note)
    categories = used["train"]["categories"]
    return CocoData(
        name=name,
        classes=tuple(category["name"] for category in categories),
        category_ids=tuple(category["id"] for category in categories),
        train=CocoSplit(index(used["train"]), _checked(readers["train"], used["sha256"]["train"])),
        val=CocoSplit(index(used["val"]), _checked(readers["val"], used["sha256"]["val"])),
        hash=used["hash"],
    )


def index(content: Content) -> COCO:
    """Return pycocotools' view of images, annotations and categories, without what it prints."""
    api = COCO()
    api.dataset = {"info": {}, **content}
    with quiet():
        api.createIndex()
    return api


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what pycocotools prints from standard output, which is for results."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def semantic_mask(split: CocoSplit, i: int, category_ids: Sequence[int]) -> UInt8[Tensor, "H W"]:
    """Return the class of every pixel of an image: 0 background, 1 for the first of these categories, and so on.

    A pixel that objects of two of these categories claim is ``IGNORED``, as in torchvision's reference training; so is
    one where only a crowd is. Objects of other categories are background.

    Raises:
        BadRequest: an object has no mask, or one that cannot be decoded.
    """
    numbers = {category: number for number, category in enumerate(category_ids, 1)}
    objects = np.zeros(split.sizes[i], np.uint8)
    crowds = np.zeros(split.sizes[i], bool)
    for annotation in split.annotations(i):
        number = numbers.get(annotation["category_id"])
        if number is None:
            continue
        inside = object_mask(annotation, split.sizes[i])
        if annotation["iscrowd"]:
            crowds |= inside
        else:
            objects[inside & (objects != 0) & (objects != number)] = IGNORED
            objects[inside & (objects != IGNORED)] = number
    objects[crowds & (objects == 0)] = IGNORED
    return torch.from_numpy(objects)


def object_mask(annotation: Content, size: tuple[int, int]) -> Any:
    """Return the pixels of one annotation, a boolean array of this height and width.

    Raises:
        BadRequest: it has no mask, or one that cannot be decoded.
    """
    what = f"annotation {annotation['id']} of image {annotation['image_id']}"
    if "segmentation" not in annotation:
        raise BadRequest(f"{what} has no segmentation: it is for detection alone")
    encoded = annotation["segmentation"]
    if encoded == []:
        return np.zeros(size, bool)
    try:
        if isinstance(encoded, list):
            encoded = masks.merge(masks.frPyObjects(encoded, *size))
        elif isinstance(encoded["counts"], list):
            encoded = masks.frPyObjects(encoded, *size)
        return masks.decode(encoded).astype(bool)
    except (ValueError, TypeError) as error:
        raise BadRequest(f"{what} has a mask that cannot be decoded: {error}") from error


# --- where the files are --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Reader:
    """The image files of one split: how to read one, and the files they lie in."""

    read: Read
    files: list[Stamp]


def _root(name: str, data_dir: Path | None) -> Path:
    """Return the folder with ``annotations`` in it."""
    data_dir = (data_dir or store.home() / "data").expanduser()
    for root in (data_dir / name, data_dir):
        if (root / "annotations").is_dir():
            return root
    raise BadRequest(
        f"no COCO data in {data_dir}: name the folder with --data-dir; expected {_LAYOUT} "
        "(https://cocodataset.org/#download)"
    )


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def _stamp_of(root: Path, split: str) -> Stamp:
    path = _annotation_file(root, split)
    if not path.is_file():
        raise BadRequest(f"no file {path}: expected {_LAYOUT}")
    return stamp(path, path.name)


def _reader(root: Path, part: str) -> _Reader:
    """Return the images of ``train2017`` or ``val2017``.

    Raises:
        BadRequest: there is neither a folder nor a zip file, or one that is not readable.
    """
    folder = root / part
    if folder.is_dir():
        return _Reader(lambda name: read_file(folder / name), list_files(root, [part]))
    zips = sorted(root.glob(f"{part}*.zip"))
    if not zips:
        raise BadRequest(f"neither {folder} nor {folder}.zip is there: expected {_LAYOUT}")
    homes = {
        name.removeprefix(f"{part}/"): (archive, name)
        for path in zips
        for names in (zip_names(path),)
        for archive in (zipfile.ZipFile(path),)
        for name in names
    }

    def read(name: str) -> bytes:
        archive, member = homes[name]
        return read_member(archive, member)

    return _Reader(read, [stamp(path, path.name) for path in zips])


# --- what is used of them -------------------------------------------------------------------------


def _use(root: Path, readers: dict[str, _Reader], limit: int | None) -> Content:
    """Read both splits: checked annotations of the chosen images, their SHA-256, notes, and the hash of all that."""
    used: Content = {"sha256": {}}
    content = hashlib.sha256()
    remarks: Counter[str] = Counter()
    notes: list[str] = []
    for split in _SPLITS:
        path = _annotation_file(root, split)
        checked = annotations.check(annotations.read(path), path, notes.append)
        used[split] = _limit(checked, split, limit)
        if not used[split]["annotations"]:
            raise BadRequest(
                f"no usable annotations of the {len(used[split]['images'])} chosen images in {path}"
                + ("" if limit is None else ": raise --limit")
            )
        content.update(json.dumps(used[split], sort_keys=True).encode())
        digests = used["sha256"][split] = {}
        for image in track(used[split]["images"], f"read the images of {path.name}"):
            data = _bytes(readers[split], image, path)
            digest = hashlib.sha256(data)
            content.update(digest.digest())
            digests[image["file_name"]] = digest.hexdigest()
            remarks.update(_remarks(data, image))
    if used["train"]["categories"] != used["val"]["categories"]:
        raise BadRequest(f"the two files in {root / 'annotations'} have different categories")
    of_images = decoding.notes(remarks)
    content.update("".join(of_images).encode())
    notes += [f"note: {note}" for note in of_images]
    return {**used, "notes": notes, "hash": content.hexdigest()}


def _remarks(data: bytes, image: Content) -> frozenset[str]:
    """Return the remarks on an image file that are counted; none on one that is refused when it is needed."""
    try:
        return decoding.remarks_on(data, (image["width"], image["height"]))
    except UNREADABLE:
        return frozenset()


def _checked(reader: _Reader, digests: dict[str, str]) -> Read:
    """Read image files, but only those that are still the same."""

    def read(name: str) -> bytes:
        data = reader.read(name)
        if hashlib.sha256(data).hexdigest() != digests[name]:
            raise Refused("it has changed since the data set was read; run the command again")
        return data

    return read


def _limit(content: Content, split: str, limit: int | None) -> Content:
    """Choose so many images at random, the same ones in every run."""
    order = torch.randperm(len(content["images"]), generator=generator(0, "limit", split))
    return _chosen(content, order[:limit].tolist())


def _chosen(content: Content, rows: Sequence[int]) -> Content:
    """Return the images at these positions, with their annotations."""
    chosen = [content["images"][row] for row in sorted(rows)]
    ids = {image["id"] for image in chosen}
    kept = [one for one in content["annotations"] if one["image_id"] in ids]
    return {**content, "images": chosen, "annotations": kept}


def _bytes(reader: _Reader, image: Content, path: Path) -> bytes:
    try:
        return reader.read(image["file_name"])
    except UNREADABLE as error:
        raise BadRequest(
            f"the image {image['file_name']} of {path} is not there or cannot be read: {last_line(error)}"
        ) from error
