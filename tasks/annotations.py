"""COCO's annotation files, checked: what is wrong in one is an error that names the file, or follows a rule below.

Rules, each counted in a note on standard error where it applied:

* A box without area (width or height 0; COCO has some) can be neither learned nor found: its annotation is left out.
* A polygon of fewer than three points has no area and is left out of its annotation, whose box stays.

A missing ``iscrowd`` is 0, and a missing ``area`` is the box's. Everything else that does not fit (an unknown image or
category, a box with a negative side or that is no four finite numbers, a mask of another size, an id that occurs twice,
no annotations at all) is an error.
"""

import collections
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import BadRequest
from bench.progress import say

Content = dict[str, Any]  # one JSON object
Numbers = list[int | float]
Masks = list[Numbers] | Content  # polygons, or a run-length encoding
LISTS = ("images", "annotations", "categories")


def read(path: Path) -> Content:
    """The file's images, annotations and categories, each a list of objects.

    Raises:
        BadRequest: it cannot be read, or one of them is missing.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadRequest(f"{path} is not a readable JSON file: {error}") from error
    for name in LISTS:
        items = content.get(name) if isinstance(content, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise BadRequest(f"{path} has no list '{name}' of objects: expected COCO's format")
    return {name: content[name] for name in LISTS}


def check(content: Content, path: Path) -> Content:
    """The same with the rules above applied: images and annotations by id, and nothing in them that is not used.

    Args:
        content: of ``read``.
        path: the file, for messages.

    Raises:
        BadRequest: an entry is unusable.
    """
    if not content["annotations"]:
        raise BadRequest(f"the list 'annotations' of {path} is empty: there is nothing to learn")
    images = {n: _image(one, path) for n, one in _by_id(content["images"], path, "image").items()}
    categories = {
        n: _category(one, path)
        for n, one in _by_id(content["categories"], path, "category").items()
    }
    counts: collections.Counter[str] = collections.Counter()
    kept = []
    for number, annotation in _by_id(content["annotations"], path, "annotation").items():
        what = f"annotation {number} of {path}"
        image = images.get(_whole(annotation, "image_id", what))
        if image is None:
            raise BadRequest(f"{what} is of image {annotation['image_id']}, which is not listed")
        if _whole(annotation, "category_id", what) not in categories:
            raise BadRequest(f"{what} has the unknown category {annotation['category_id']}")
        checked = _annotation(annotation, image, what, counts)
        if checked is not None:
            kept.append(checked)
    for reason, count in (+counts).items():
        say(f"note: left out {count} {reason} of {path.name}")
    return {
        "images": list(images.values()),
        "annotations": kept,
        "categories": list(categories.values()),
    }


def _by_id(items: list[Content], path: Path, kind: str) -> dict[int, Content]:
    """The objects in the order of their ids."""
    found: dict[int, Content] = {}
    for item in items:
        number = _whole(item, "id", f"an entry for an {kind} in {path}")
        if number in found:
            raise BadRequest(f"{path} has two entries with the id {number} for an {kind}")
        found[number] = item
    return dict(sorted(found.items()))


def _whole(item: Mapping[str, Any], name: str, what: str) -> int:
    value = item.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{what} has {name} {value!r}, expected a whole number")
    return value


def _image(image: Content, path: Path) -> Content:
    what = f"image {image['id']} of {path}"
    for name in ("width", "height"):
        if _whole(image, name, what) < 1:
            raise BadRequest(f"{what} has {name} {image[name]}, expected at least 1")
    file = image.get("file_name")
    if not isinstance(file, str) or not file:
        raise BadRequest(f"{what} has no file_name")
    return {"id": image["id"], "file_name": file, **{n: image[n] for n in ("width", "height")}}


def _category(category: Content, path: Path) -> Content:
    if category["id"] < 1:
        raise BadRequest(
            f"{path} has the category id {category['id']}, expected at least 1: 0 is the background"
        )
    return {"id": category["id"], "name": str(category.get("name", category["id"]))}


def _annotation(
    annotation: Content, image: Content, what: str, counts: collections.Counter[str]
) -> Content | None:
    """What is used of an annotation; None where it is left out."""
    box = _numbers(annotation.get("bbox"), what, "bbox")
    if len(box) != 4 or min(box[2:]) < 0:
        raise BadRequest(f"{what} has bbox {box}, expected x, y, width and height")
    if min(box[2:]) == 0:
        counts["annotations whose box has no area"] += 1
        return None
    (area,) = _numbers([annotation.get("area", box[2] * box[3])], what, "area")
    kept = {
        "id": annotation["id"],
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "iscrowd": int(bool(annotation.get("iscrowd", 0))),
        "area": area,
        "bbox": box,
    }
    if "segmentation" in annotation:
        kept["segmentation"] = _masks(annotation["segmentation"], image, what, counts)
    return kept


def _masks(masks: Any, image: Content, what: str, counts: collections.Counter[str]) -> Masks:
    """Polygons of three or more points, or a run-length encoding of the image's size."""
    if isinstance(masks, list):
        polygons = [_numbers(polygon, what, "segmentation") for polygon in masks]
        if any(len(polygon) % 2 for polygon in polygons):
            raise BadRequest(f"{what} has a polygon with an odd number of coordinates")
        good = [polygon for polygon in polygons if len(polygon) >= 6]
        counts["polygons of fewer than three points"] += len(polygons) - len(good)
        return good
    size: list[int] = [image["height"], image["width"]]
    if not isinstance(masks, dict) or masks.get("size") != size:
        raise BadRequest(f"{what} has a mask that is neither polygons nor of the image's size")
    runs = masks.get("counts")
    lengths = _unpacked(runs) if isinstance(runs, str) else _numbers(runs, what, "counts")
    if min(lengths, default=0) < 0 or sum(lengths) != math.prod(size):
        raise BadRequest(f"{what} has a mask whose counts are not those of the image's size")
    return {"size": size, "counts": runs}


def _unpacked(text: str) -> Numbers:
    """The run lengths of COCO's compressed form, which pycocotools decodes without counting them.

    Each number is written in letters of five bits, the lowest first, with one bit more that says whether it goes on;
    from the fourth on it is the difference to the number two before.
    """
    lengths: Numbers = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code & 16) << (shift - 4)  # the sign
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return lengths


def _numbers(values: Any, what: str, name: str) -> Numbers:
    if not isinstance(values, list) or not all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    ):
        raise BadRequest(f"{what} has {name} {str(values)[:60]}, expected a list of finite numbers")
    return values
