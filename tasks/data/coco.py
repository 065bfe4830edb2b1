"""Data sets in COCO's format: ``annotations/instances_{train,val}2017.json``, and images in folders or zip files.

A data set is looked for in ``data_dir/<name>``, then in ``data_dir`` itself. The images of a split are in a folder
``train2017`` (or ``val2017``), or in one or several zip files ``train2017*.zip``, with or without that folder inside.
The scenes that the suite draws (``tasks.data.scenes``) have the same format and are read by the same code.

``limit`` draws that many images of each split at random, the same ones in every run; a lower limit takes the first
images of the same draw. Images without annotations are kept: a detector is also judged by its false alarms there.

``CocoData.hash`` is the SHA-256 of the checked annotations and of the bytes of every image that is used. Bytes are
hashed instead of names and sizes to notice an image that was replaced, and to give a folder and a zip file of the same
images the same hash. All images are read once for it. The result is cached until a file differs in path, device, inode,
size, or time of modification or change. An image that changes later is refused when it is read. The hash includes the
notes on images that could not be taken as stored (``tasks.data.decoding``).

Annotations refer to stored pixels: an image's EXIF orientation is followed only if the image has the size that the
annotations state after the turn alone.

``tasks.data.annotations`` says how annotations are checked and which are left out. A crowd (``iscrowd``) outlines many
objects at once: detectors are neither trained on crowds nor scored for detections in them, and segmentation ignores
the pixels of a crowd, except where a single object is annotated.
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

FORMAT = 2  # part of the cache's key: raise it when checking, choosing or decoding changes
IGNORED = 255  # label of a pixel that does not count, in a semantic mask
_SPLITS = ("train", "val")
_LAYOUT = (
    "annotations/instances_train2017.json and instances_val2017.json, and the images in folders "
    "train2017 and val2017 or in train2017.zip and val2017.zip"
)
Read = Callable[[str], bytes]  # returns the bytes of an image file by its name in the split


@dataclasses.dataclass(frozen=True)
class CocoSplit:
    """The images and annotations of one split, in the order of the image ids.

    Attributes:
        api: the annotations, as pycocotools indexes them.
        read: function that returns the bytes of an image file by its name.
    """

    api: COCO
    read: Read

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def ids(self) -> tuple[int, ...]:
        """Return the id of each image in the annotations."""
        return tuple(self.api.imgs)

    @functools.cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Return the height and width of each image, in pixels, as the annotations state them."""
        return tuple((image["height"], image["width"]) for image in self.api.imgs.values())

    def image(self, index: int) -> UInt8[Tensor, "3 H W"]:
        """Return the pixels of the image at position ``index``.

        Raises:
            BadRequest: the file cannot be read or used, has changed, or has another size than the annotations state.
        """
        name, (tall, wide) = self.api.imgs[self.ids[index]]["file_name"], self.sizes[index]
        try:
            image = decoding.open_image(self.read(name))
            if sorted(image.size) == sorted((wide, tall)):  # else refused below, without decoding
                image = decoding.as_mode(image, "RGB", (wide, tall)).image
        except UNREADABLE as error:
            raise decoding.refusal(name, error) from error
        if image.size != (wide, tall):
            actual, stated = (f"{w} x {h}" for w, h in (image.size, (wide, tall)))
            raise BadRequest(f"{name} is {actual} pixels, its annotations are for {stated}")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def annotations(self, index: int) -> list[Content]:
        """Return the annotations of the image at position ``index``, each an object of COCO's format."""
        entries: list[Content] = self.api.imgToAnns.get(self.ids[index], [])
        return entries

    def subset(self, rows: Sequence[int]) -> "CocoSplit":
        """Return the split of the images at these positions alone, in the order of their ids."""
        return CocoSplit(index(_take(self.api.dataset, rows)), self.read)


@dataclasses.dataclass(frozen=True)
class CocoData:
    """A data set of two splits, with its categories in the order of their ids.

    Attributes:
        name: name of the data set.
        classes: names of the categories.
        category_ids: ids of the categories in the annotations: 1 or more, with gaps in COCO.
        train, val: the splits.
        hash: SHA-256 of the annotations and images that are used, see the module's docstring.
    """

    name: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    train: CocoSplit
    val: CocoSplit
    hash: str


def load(data_set: DataSet, data_dir: Path | None, *, limit: int | None = None) -> CocoData:
    """Find the folder of a data set, and read and check the data set.

    Args:
        data_set: declaration of the data set; the folder has its name.
        data_dir: folder to look in; None is ``data`` in the cache folder.
        limit: largest number of images of each split; None takes all.

    Raises:
        BadRequest: the data set is missing, or a file cannot be used; the message names the file.
    """
    return read(data_set.name, _root(data_set.name, data_dir), limit)


def read(name: str, root: Path, limit: int | None) -> CocoData:
    """Read and check the data set in a folder.

    Args:
        name: name of the data set.
        root: folder with the folder ``annotations`` in it.
        limit: largest number of images of each split; None takes all.

    Raises:
        BadRequest: a file is missing or cannot be used; the message names the file.
    """
    if limit is not None and limit < 1:
        raise BadRequest(f"limit is {limit}, expected at least 1")
    readers = {split: _reader(root, f"{split}2017") for split in _SPLITS}
    files = [_stamp_of(root, split) for split in _SPLITS]
    files += [file for reader in readers.values() for file in reader.files]
    key = store.digest([FORMAT, PIL.__version__, str(root.resolve()), limit, files])
    used = store.stage(
        store.home() / "coco" / f"{name}-{key}.json",
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
        train=CocoSplit(
            index(used["train"]), _unchanged(readers["train"], used["sha256"]["train"])
        ),
        val=CocoSplit(index(used["val"]), _unchanged(readers["val"], used["sha256"]["val"])),
        hash=used["hash"],
    )


def index(content: Content) -> COCO:
    """Index images, annotations and categories with pycocotools, without printing its messages."""
    api = COCO()
    api.dataset = {"info": {}, **content}
    with quiet():
        api.createIndex()
    return api


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discard all output to standard output within the block: pycocotools prints there, and it is for results."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def semantic_mask(split: CocoSplit, row: int, category_ids: Sequence[int]) -> UInt8[Tensor, "H W"]:
    """Return the class of every pixel of an image: 0 is background, k the k-th of ``category_ids``.

    A pixel that is inside objects of two of these categories is ``IGNORED``, as in torchvision's reference training
    (references/segmentation/coco_utils.py), and so is a pixel that is inside crowds alone. Objects of other categories
    are background.

    Args:
        split: the images and annotations.
        row: position of the image in the split.
        category_ids: ids of the classes in the annotations.

    Raises:
        BadRequest: an object has no mask, or a mask that cannot be decoded.
    """
    numbers = {category: number for number, category in enumerate(category_ids, 1)}
    objects = np.zeros(split.sizes[row], np.uint8)
    crowds = np.zeros(split.sizes[row], bool)
    for annotation in split.annotations(row):
        number = numbers.get(annotation["category_id"])
        if number is None:
            continue
        inside = object_mask(annotation, split.sizes[row])
        if annotation["iscrowd"]:
            crowds |= inside
        else:
            objects[inside & (objects != 0) & (objects != number)] = IGNORED
            objects[inside & (objects != IGNORED)] = number
    objects[crowds & (objects == 0)] = IGNORED
    return torch.from_numpy(objects)


def object_mask(annotation: Content, size: tuple[int, int]) -> Any:
    """Return the mask of an annotation, a boolean array of ``size`` (height, width).

    Raises:
        BadRequest: the annotation has no mask, or a mask that cannot be decoded.
    """
    subject = f"annotation {annotation['id']} of image {annotation['image_id']}"
    if "segmentation" not in annotation:
        raise BadRequest(f"{subject} has no segmentation: it is for detection alone")
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
        raise BadRequest(f"{subject} has a mask that cannot be decoded: {error}") from error


# --- files --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Reader:
    """The image files of one split.

    Attributes:
        read: function that returns the bytes of an image file by its name.
        files: state of every image file, or of the zip files that hold them.
    """

    read: Read
    files: list[Stamp]


def _root(name: str, data_dir: Path | None) -> Path:
    """Return the folder of a data set, which has the folder ``annotations`` in it.

    Raises:
        BadRequest: there is none.
    """
    data_dir = (data_dir or store.home() / "data").expanduser()
    for root in (data_dir / name, data_dir):
        if (root / "annotations").is_dir():
            return root
    raise BadRequest(
        f"no COCO data in {data_dir}: name the folder with --data-dir; expected {_LAYOUT} "
        "(https://cocodataset.org/#download)"
    )


def _annotation_file(root: Path, split: str) -> Path:
    """Return the path of a split's annotation file."""
    return root / "annotations" / f"instances_{split}2017.json"


def _stamp_of(root: Path, split: str) -> Stamp:
    """Return the state of a split's annotation file.

    Raises:
        BadRequest: the file does not exist.
    """
    path = _annotation_file(root, split)
    if not path.is_file():
        raise BadRequest(f"no file {path}: expected {_LAYOUT}")
    return stamp(path, path.name)


def _reader(root: Path, part: str) -> _Reader:
    """Return the image files of a split, from a folder or from zip files.

    Args:
        root: folder of the data set.
        part: ``train2017`` or ``val2017``.

    Raises:
        BadRequest: there is neither a folder nor a zip file, or a zip file is not readable.
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


# --- annotations and images that are used -------------------------------------------------------------------------


def _use(root: Path, readers: dict[str, _Reader], limit: int | None) -> Content:
    """Read both splits and return the content that is cached, as plain data.

    Returns:
        ``train`` and ``val``: the checked annotations of the images that ``limit`` chose; ``sha256``: by split, the
        SHA-256 of each image by file name; ``notes``: lines for the user; ``hash``: that of ``CocoData``.

    Raises:
        BadRequest: a file cannot be used, no annotation is left, or the splits have different categories.
    """
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
    image_notes = decoding.notes(remarks)
    content.update("".join(image_notes).encode())
    notes += [f"note: {note}" for note in image_notes]
    return {**used, "notes": notes, "hash": content.hexdigest()}


def _remarks(data: bytes, image: Content) -> frozenset[str]:
    """Return the remarks on an image file; none if it is unreadable: reading its pixels will raise the error."""
    try:
        return decoding.remarks_on(data, (image["width"], image["height"]))
    except UNREADABLE:
        return frozenset()


def _unchanged(reader: _Reader, digests: dict[str, str]) -> Read:
    """Return a function that reads an image file and refuses it if its SHA-256 is not the one in ``digests``."""

    def read(name: str) -> bytes:
        data = reader.read(name)
        if hashlib.sha256(data).hexdigest() != digests[name]:
            raise Refused("it has changed since the data set was read; run the command again")
        return data

    return read


def _limit(content: Content, split: str, limit: int | None) -> Content:
    """Draw at most ``limit`` images at random, the same ones in every run, with their annotations."""
    order = torch.randperm(len(content["images"]), generator=generator(0, "limit", split))
    return _take(content, order[:limit].tolist())


def _take(content: Content, rows: Sequence[int]) -> Content:
    """Return the images at these positions, with their annotations."""
    images = [content["images"][row] for row in sorted(rows)]
    ids = {image["id"] for image in images}
    entries = [entry for entry in content["annotations"] if entry["image_id"] in ids]
    return {**content, "images": images, "annotations": entries}


def _bytes(reader: _Reader, image: Content, path: Path) -> bytes:
    """Read the file of an image that the annotation file ``path`` lists.

    Raises:
        BadRequest: the file is missing or cannot be read.
    """
    try:
        return reader.read(image["file_name"])
    except UNREADABLE as error:
        raise BadRequest(
            f"the image {image['file_name']} of {path} is not there or cannot be read: {last_line(error)}"
        ) from error
