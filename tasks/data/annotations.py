"""COCO's annotation files, checked: what is wrong in one is an error that names the file, or follows a rule below.

Every value that is used must have its type and lie within bounds: whole numbers for ids (from 0 to 2^53; of a category
from 1 to 65535, because a detector has an output for each number) and sizes (a side up to 65535, 2^27 pixels
together), finite numbers for boxes, areas and polygons. Texts, ``true`` or 1.0 are no whole numbers, and texts or
``true`` no numbers. ``iscrowd`` is 0 or 1, or ``false`` or ``true``. A missing ``iscrowd`` is 0, a missing ``area`` is
the box's and a missing category ``name`` the id; there and empty (``null``) is an error. So is an unknown image or
category, an id that occurs twice, a file name that two images have or that leads out of the images' folder, a name
that two categories have, a box with a negative side, a negative area, a mask of another size, run lengths that are
damaged, polygons with an outline of more than a million pixels, and a file without annotations.

Rules, each counted in a note on standard error where it applied:

* A box without area (width or height 0; COCO has some) can be neither learned nor found: its annotation is left out. So
  is one of which less than a tenth of a pixel lies in its image.
* A box may reach out of its image by 2 pixels; COCO's do by up to about one. Detectors learn the part inside. Scores
  are of the whole box, so that they are pycocotools' own, as long as the part inside is 96% of it: a detector that
  finds exactly what it learned still passes COCO's highest threshold, an IoU of 0.95. Where less of a small box is
  inside, it is cut at the image's edges for both.
* A polygon of fewer than three points has no area and is left out of its annotation, whose box stays. Polygons may
  reach out of the image, by no more than its size; pixels outside do not count.
* An annotation that contradicts itself is left out (``tasks.data.contradictions``): its box reaches out of the image by
  more than 2 pixels, or is all within the first pixel; its mask reaches out of its box by more than 2 pixels and a
  tenth of the box's side, or has no pixel in the image; a polygon is far outside; its area is larger than its box (one
  pixel wider and higher), or less than that of a line a tenth of a pixel wide through it; or its bbox is x1, y1, x2,
  y2: these are the edges of the mask, or, without a mask, the area is right for them and wrong for x, y, width, height.
  A few such entries are slips. Where they are **more than 1% of a file, it is refused**: it is in another format, and
  every number from it would be wrong. So one such box among fewer than a hundred is an error, too.
"""

import collections
import dataclasses
import json
import math
import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PureWindowsPath

from bench.errors import BadRequest
from bench.system.progress import say
from tasks.data.contradictions import Contradiction, area_of_box, box_in_image, box_of_mask
from tasks.data.fields import Content, Number, Numbers, number, numbers, shown, text, whole
from tasks.data.outlines import outline

LISTS = ("images", "annotations", "categories")
MOST_SIDE = 65535  # pixels; JPEG's limit
MOST_PIXELS = 2**27  # Pillow opens no more than 1.3 times as many
MOST_CATEGORY = 65535
LEAST_SIDE = 0.1  # pixels; below, the corners of a box are hardly apart in float32
KEPT = 0.96  # of a box within its image: more than COCO's highest threshold
MOST_CONTRADICTIONS = 0.01  # of the annotations of a file
# Notes; the braces are how many.
NO_AREA = "left out {} annotations whose box has no area in its image"
CUT = "cut {} boxes at the edges of their images"
DROPPED = "left out {} polygons of fewer than three points"


def read(path: Path) -> Content:
    """Return the file's images, annotations and categories, each a list of objects.

    Raises:
        BadRequest: it cannot be read, or one of them is missing.
    """
    try:
        content = json.loads(path.read_bytes())
    except RecursionError:
        raise BadRequest(
            f"{path} is not in COCO's format: its values are nested too deep"
        ) from None
    except (OSError, ValueError) as error:
        raise BadRequest(f"{path} is not a readable JSON file: {error}") from error
    for name in LISTS:
        items = content.get(name) if isinstance(content, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise BadRequest(f"{path} has no list '{name}' of objects: expected COCO's format")
    return {name: content[name] for name in LISTS}


def check(content: Content, path: Path, tell: Callable[[str], None] = say) -> Content:
    """Apply the rules above: return images and annotations by id, with nothing in them that is not used.

    Args:
        content: of ``read``.
        path: the file, for messages.
        tell: gets a note for every rule that applied.

    Raises:
        BadRequest: an entry is unusable, or too many contradict themselves.
    """
    if not content["annotations"]:
        raise BadRequest(f"the list 'annotations' of {path} is empty: there is nothing to learn")
    images = _checked(content["images"], _image, path, "an image")
    _distinct(images.values(), "file_name", posixpath.normpath, path)
    categories = _checked(content["categories"], _category, path, "a category")
    _distinct(categories.values(), "name", str.strip, path)
    return {
        "images": list(images.values()),
        "annotations": _annotations(
            content["annotations"], images, set(categories), _Tally(path, tell)
        ),
        "categories": list(categories.values()),
    }


def _annotations(
    items: list[Content], images: dict[int, Content], categories: set[int], tally: "_Tally"
) -> list[Content]:
    """Check the annotations of these images and categories; return the parts that are used."""
    path, kept = tally.path, []
    for n, annotation in _by_id(items, path, "an annotation").items():
        what = f"annotation {n} of {path}"
        image = images.get(whole(annotation, "image_id", what))
        if image is None:
            raise BadRequest(f"{what} is of image {annotation['image_id']}, which is not listed")
        if whole(annotation, "category_id", what) not in categories:
            raise BadRequest(f"{what} has the unknown category {annotation['category_id']}")
        try:
            kept += _annotation(annotation, image, what, tally)
        except Contradiction as found:
            tally.add(found, n)
    tally.close(len(items))
    return kept


@dataclasses.dataclass
class _Tally:
    """How often each rule applied in a file, by the words of its note."""

    path: Path
    tell: Callable[[str], None]
    rules: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    contradictions: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    first: str = ""

    def add(self, found: Contradiction, annotation: int) -> None:
        """Count a contradiction; the first one is the example."""
        self.first = self.first or f"annotation {annotation} {found.detail}"
        self.contradictions[found.kind] += 1

    def close(self, total: int) -> None:
        """Say what was left out.

        Raises:
            BadRequest: too many of the annotations contradict themselves.
        """
        count = self.contradictions.total()
        if count > MOST_CONTRADICTIONS * total:
            kinds = ", ".join(f"{n} with {kind}" for kind, n in self.contradictions.items())
            raise BadRequest(
                f"{count} of {total} annotations of {self.path} contradict themselves ({kinds}), "
                f"expected at most {MOST_CONTRADICTIONS:.0%}: {self.first}"
            )
        for kind, n in self.contradictions.items():
            self.tell(f"note: left out {n} annotations with {kind} of {self.path.name}")
        if self.first:
            self.tell(f"note: the first of them in {self.path.name}: {self.first}")
        for rule, n in (+self.rules).items():
            self.tell(f"note: {rule.format(n)} of {self.path.name}")


def _checked(
    items: list[Content], check_one: Callable[[Content, Path], Content], path: Path, kind: str
) -> dict[int, Content]:
    """Check objects; return the parts that are used, in the order of their ids."""
    return {n: check_one(item, path) for n, item in _by_id(items, path, kind).items()}


def _by_id(items: list[Content], path: Path, kind: str) -> dict[int, Content]:
    """Return the objects in the order of their ids."""
    found: dict[int, Content] = {}
    for item in items:
        n = whole(item, "id", f"an entry for {kind} in {path}")
        if n in found:
            raise BadRequest(f"{path} has two entries with the id {n} for {kind}")
        found[n] = item
    return dict(sorted(found.items()))


def _distinct(
    entries: Iterable[Content], name: str, plain: Callable[[str], str], path: Path
) -> None:
    """Refuse two entries with the same text there.

    Args:
        entries: checked.
        name: the key of the text.
        plain: gives equal texts for what is the same.
        path: the file, for messages.
    """
    found: dict[str, int] = {}
    for entry in entries:
        first = found.setdefault(plain(entry[name]), entry["id"])
        if first != entry["id"]:
            raise BadRequest(
                f"{path} has two entries, with the ids {first} and {entry['id']}, of the same {name} "
                f"{shown(entry[name])}"
            )


def _image(image: Content, path: Path) -> Content:
    what = f"image {image['id']} of {path}"
    width, height = (whole(image, name, what, 1, MOST_SIDE) for name in ("width", "height"))
    if width * height > MOST_PIXELS:
        raise BadRequest(f"{what} has {width} x {height} pixels, expected at most {MOST_PIXELS}")
    file = text(image.get("file_name"), what, "file_name")
    steps = re.split(r"[/\\]", file)
    if ".." in steps or not steps[0] or PureWindowsPath(file).is_absolute():
        raise BadRequest(
            f"{what} has file_name {shown(file)}, expected a path within the folder of the images"
        )
    return {"id": image["id"], "file_name": file, "width": width, "height": height}


def _category(category: Content, path: Path) -> Content:
    if category["id"] < 1:
        raise BadRequest(
            f"{path} has the category id {category['id']}, expected at least 1: 0 is the background"
        )
    what = f"category {category['id']} of {path}"
    n = whole(category, "id", what, high=MOST_CATEGORY)
    return {"id": n, "name": text(category.get("name", str(n)), what, "name")}


def _annotation(annotation: Content, image: Content, what: str, tally: _Tally) -> list[Content]:
    """Check an annotation; return the parts that are used, None where it is left out.

    Raises:
        BadRequest: it is unusable.
        Contradiction: its parts contradict each other.
    """
    box, area = _box(annotation, what), _area(annotation, what)
    kept: Content = {name: annotation[name] for name in ("id", "image_id", "category_id")}
    kept["iscrowd"] = _crowd(annotation, what)
    if min(box[2:]) == 0:
        tally.rules[NO_AREA] += 1
        return []
    box_in_image(box, image)
    extent = None
    if "segmentation" in annotation:
        mask = outline(annotation["segmentation"], image, what)
        extent, kept["segmentation"] = mask.extent, mask.masks
        tally.rules[DROPPED] += mask.dropped
    if extent:
        box_of_mask(box, extent)
    if area is not None:
        area_of_box(area, box, masked=extent is not None)
    part = _within(box, image)
    if min(part[2:]) < LEAST_SIDE:
        tally.rules[NO_AREA] += 1
        return []
    if math.prod(part[2:]) < KEPT * math.prod(box[2:]):
        tally.rules[CUT] += 1
        box = part
    return [{**kept, "bbox": box, "area": math.prod(box[2:]) if area is None else area}]


def _box(annotation: Content, what: str) -> Numbers:
    box = numbers(annotation.get("bbox"), what, "bbox")
    if len(box) != 4 or min(box[2:]) < 0:
        raise BadRequest(f"{what} has bbox {shown(box)}, expected x, y, width and height")
    return box


def _area(annotation: Content, what: str) -> Number | None:
    """Return the area, or None where there is none."""
    if "area" not in annotation:
        return None
    area = number(annotation["area"], what, "area")
    if area < 0:
        raise BadRequest(f"{what} has area {area}, expected 0 or more")
    return area


def _crowd(annotation: Content, what: str) -> int:
    crowd = annotation.get("iscrowd", 0)
    if type(crowd) not in (int, bool) or crowd not in (0, 1):
        raise BadRequest(f"{what} has iscrowd {shown(crowd)}, expected 0 or 1")
    return int(crowd)


def _within(box: Numbers, image: Content) -> Numbers:
    """Return the part of a box that lies in its image; a side is negative where none does."""
    x, y, width, height = box
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, image["width"]), min(y + height, image["height"])
    return [left, top, right - left, bottom - top]
