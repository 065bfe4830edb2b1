"""Checks of COCO's annotation files: a defect is an error that names the file, unless a rule below covers it.

Every value that is used must have the right type and lie within bounds:

* ids are whole numbers from 0 to 2^53, those of categories from 1 to 65535, because a detector has an output for each;
* sides of images are whole numbers up to 65535, with at most 2^27 pixels in all;
* boxes, areas and polygons are finite numbers;
* texts, ``true`` and 1.0 are no whole numbers; texts and ``true`` are no numbers;
* ``iscrowd`` is 0, 1, ``false`` or ``true``, and 0 if it is missing;
* a missing ``area`` is that of the box, and a missing ``name`` of a category is its id, but ``null`` is an error.

Further errors: an unknown image or category, an id that occurs twice, a file name of two images or one that leads out
of the images' folder, a name of two categories, a box with a negative side, a negative area, a mask of another size
than its image, damaged run lengths, polygons with an outline of more than 2^20 pixels, and a file without annotations.

The following rules do not stop the run; a note on standard error counts how often each one applied:

* A box without area (width or height 0; COCO has some) can be neither learned nor detected: its annotation is left out.
  So is an annotation if the part of its box inside the image is less than a tenth of a pixel wide or high.
* A box may reach out of its image by 2 pixels; boxes of COCO do by up to about one. Detectors are trained on the part
  inside, but scored against the whole box, as by pycocotools, if the part inside is at least 96% of it: a detector that
  predicts the part it was trained on still passes COCO's highest IoU threshold, 0.95. If less of a (small) box is
  inside, the part inside replaces the box for training and scoring.
* A polygon of fewer than three points has no area and is left out; the annotation and its box are kept. Polygons may
  reach out of the image, by no more than its size; pixels outside do not count.
* An annotation that contradicts itself is left out (``tasks.data.contradictions``): its box reaches out of the image by
  more than 2 pixels, or lies within the first pixel; its mask reaches out of its box by more than 2 pixels and more
  than a tenth of the box's side, or has no pixel in the image; a polygon is far outside of the image; its area is
  larger than its box (one pixel wider and higher), or less than that of a line a tenth of a pixel wide through the box;
  or its box is written as corners x1, y1, x2, y2: the four numbers are the edges of the mask, or, without a mask, the
  area is right for corners and wrong for x, y, width, height. A few such annotations are slips, but **a file with more
  than 1% of them is refused**: it is in another format, and all scores from it would be wrong. So in a file of fewer
  than a hundred annotations a single contradiction is an error.
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
MOST_SIDE = 65535  # pixels; the limit of JPEG
MOST_PIXELS = 2**27  # Pillow refuses images of more than 1.3 times as many
MOST_CATEGORY = 65535
LEAST_SIDE = 0.1  # pixels; float32 can hardly tell the corners of a smaller box apart
KEPT = 0.96  # share of a box inside its image from which it is not cut; above COCO's highest IoU threshold
MOST_CONTRADICTIONS = 0.01  # share of the annotations of a file
# Notes on the rules that applied; the braces stand for the number of cases.
NO_AREA = "left out {} annotations whose box has no area in its image"
CUT = "cut {} boxes at the edges of their images"
DROPPED = "left out {} polygons of fewer than three points"


def read(path: Path) -> Content:
    """Read the lists of images, annotations and categories, unchecked, from an annotation file.

    Raises:
        BadRequest: the file cannot be read, or has not all three lists of objects.
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
    """Check the content of an annotation file by the rules in the module's docstring.

    Args:
        content: result of ``read``.
        path: the file, for messages.
        tell: function that is called with a note for every rule that applied.

    Returns:
        The three lists, each in the order of ids; the objects have only the keys that are used.

    Raises:
        BadRequest: an entry is unusable, or too many annotations contradict themselves.
    """
    if not content["annotations"]:
        raise BadRequest(f"the list 'annotations' of {path} is empty: there is nothing to learn")
    images = _check_all(content["images"], _image, path, "an image")
    _refuse_duplicates(images.values(), "file_name", posixpath.normpath, path)
    categories = _check_all(content["categories"], _category, path, "a category")
    _refuse_duplicates(categories.values(), "name", str.strip, path)
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
    """Check the annotations, and leave out those that the rules exclude.

    Args:
        items: the annotations, unchecked.
        images: checked images by id.
        categories: ids of the checked categories.
        tally: counts the rules that apply.
    """
    path, kept = tally.path, []
    for n, annotation in _by_id(items, path, "an annotation").items():
        subject = f"annotation {n} of {path}"
        image = images.get(whole(annotation, "image_id", subject))
        if image is None:
            raise BadRequest(f"{subject} is of image {annotation['image_id']}, which is not listed")
        if whole(annotation, "category_id", subject) not in categories:
            raise BadRequest(f"{subject} has the unknown category {annotation['category_id']}")
        try:
            kept += _annotation(annotation, image, subject, tally)
        except Contradiction as contradiction:
            tally.add(contradiction, n)
    tally.close(len(items))
    return kept


@dataclasses.dataclass
class _Tally:
    """The number of times that each rule applied in a file.

    Attributes:
        path: the file.
        tell: function that is called with each note.
        rules: number of cases by the template of the note.
        contradictions: number of annotations left out, by kind of contradiction.
        first: description of the first contradiction; empty if there is none.
    """

    path: Path
    tell: Callable[[str], None]
    rules: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    contradictions: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    first: str = ""

    def add(self, contradiction: Contradiction, annotation: int) -> None:
        """Count a contradiction of the annotation with this id; remember the first one as an example."""
        self.first = self.first or f"annotation {annotation} {contradiction.detail}"
        self.contradictions[contradiction.kind] += 1

    def close(self, total: int) -> None:
        """Write the notes on all rules that applied.

        Args:
            total: number of annotations in the file.

        Raises:
            BadRequest: too many of them contradict themselves.
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


def _check_all(
    items: list[Content], check_one: Callable[[Content, Path], Content], path: Path, kind: str
) -> dict[int, Content]:
    """Check objects with ``check_one``; return its results by id, in the order of the ids."""
    return {n: check_one(item, path) for n, item in _by_id(items, path, kind).items()}


def _by_id(items: list[Content], path: Path, kind: str) -> dict[int, Content]:
    """Return objects by id, in the order of the ids.

    Raises:
        BadRequest: an id is no whole number, or occurs twice.
    """
    entries: dict[int, Content] = {}
    for item in items:
        n = whole(item, "id", f"an entry for {kind} in {path}")
        if n in entries:
            raise BadRequest(f"{path} has two entries with the id {n} for {kind}")
        entries[n] = item
    return dict(sorted(entries.items()))


def _refuse_duplicates(
    entries: Iterable[Content], name: str, normalise: Callable[[str], str], path: Path
) -> None:
    """Refuse two entries with the same text at a key.

    Args:
        entries: checked entries.
        name: key of the text.
        normalise: function that maps texts with the same meaning to one text.
        path: the file, for messages.

    Raises:
        BadRequest: two entries have the same text.
    """
    ids: dict[str, int] = {}
    for entry in entries:
        first = ids.setdefault(normalise(entry[name]), entry["id"])
        if first != entry["id"]:
            raise BadRequest(
                f"{path} has two entries, with the ids {first} and {entry['id']}, of the same {name} "
                f"{shown(entry[name])}"
            )


def _image(image: Content, path: Path) -> Content:
    """Check an image's size and file name; return the keys that are used."""
    subject = f"image {image['id']} of {path}"
    width, height = (whole(image, name, subject, 1, MOST_SIDE) for name in ("width", "height"))
    if width * height > MOST_PIXELS:
        raise BadRequest(f"{subject} has {width} x {height} pixels, expected at most {MOST_PIXELS}")
    file = text(image.get("file_name"), subject, "file_name")
    steps = re.split(r"[/\\]", file)
    if ".." in steps or not steps[0] or PureWindowsPath(file).is_absolute():
        raise BadRequest(
            f"{subject} has file_name {shown(file)}, expected a path within the folder of the images"
        )
    return {"id": image["id"], "file_name": file, "width": width, "height": height}


def _category(category: Content, path: Path) -> Content:
    """Check a category's id and name; return the keys that are used."""
    if category["id"] < 1:
        raise BadRequest(
            f"{path} has the category id {category['id']}, expected at least 1: 0 is the background"
        )
    subject = f"category {category['id']} of {path}"
    n = whole(category, "id", subject, high=MOST_CATEGORY)
    return {"id": n, "name": text(category.get("name", str(n)), subject, "name")}


def _annotation(annotation: Content, image: Content, subject: str, tally: _Tally) -> list[Content]:
    """Check an annotation; return a list with the keys that are used, or an empty list if it is left out.

    Raises:
        BadRequest: the annotation is unusable.
        Contradiction: its parts contradict each other.
    """
    box, area = _box(annotation, subject), _area(annotation, subject)
    kept: Content = {name: annotation[name] for name in ("id", "image_id", "category_id")}
    kept["iscrowd"] = _crowd(annotation, subject)
    if min(box[2:]) == 0:
        tally.rules[NO_AREA] += 1
        return []
    box_in_image(box, image)
    extent = None
    if "segmentation" in annotation:
        mask = outline(annotation["segmentation"], image, subject)
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


def _box(annotation: Content, subject: str) -> Numbers:
    """Return the checked box: x, y, width and height."""
    box = numbers(annotation.get("bbox"), subject, "bbox")
    if len(box) != 4 or min(box[2:]) < 0:
        raise BadRequest(f"{subject} has bbox {shown(box)}, expected x, y, width and height")
    return box


def _area(annotation: Content, subject: str) -> Number | None:
    """Return the checked area in pixels squared; None if the annotation has none."""
    if "area" not in annotation:
        return None
    area = number(annotation["area"], subject, "area")
    if area < 0:
        raise BadRequest(f"{subject} has area {area}, expected 0 or more")
    return area


def _crowd(annotation: Content, subject: str) -> int:
    """Return the checked value of ``iscrowd``, 0 or 1."""
    crowd = annotation.get("iscrowd", 0)
    if type(crowd) not in (int, bool) or crowd not in (0, 1):
        raise BadRequest(f"{subject} has iscrowd {shown(crowd)}, expected 0 or 1")
    return int(crowd)


def _within(box: Numbers, image: Content) -> Numbers:
    """Return the part of a box inside its image; a side is negative if the box is outside."""
    x, y, width, height = box
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, image["width"]), min(y + height, image["height"])
    return [left, top, right - left, bottom - top]
