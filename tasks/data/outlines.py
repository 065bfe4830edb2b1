"""Checks of masks in COCO's two forms, polygons and run lengths, before pycocotools' C code decodes them.

That code does not check its input: a polygon with a corner at 1e9 or truncated run lengths end the process, and a
polygon needs about 50 bytes of memory for each pixel of its outline.
"""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
from pycocotools import mask as masks

from bench.errors import BadRequest
from tasks.data.contradictions import Contradiction, Extent
from tasks.data.fields import Content, Number, Numbers, numbers, shown

Masks = list[Numbers] | Content  # polygons, or a run-length encoding
LONGEST = 2**20  # the most pixels that an outline may have: about 50 MB of memory
LETTERS = 6  # the most letters of a compressed run length: 30 bits, more than any image within the limits needs


@dataclasses.dataclass(frozen=True)
class Outline:
    """The checked mask of one annotation.

    Attributes:
        masks: the mask in COCO's form.
        extent: smallest box around the mask, in pixels; None if no polygon is left.
        dropped: number of polygons that were left out because they have fewer than three points.
    """

    masks: Masks
    extent: Extent | None
    dropped: int = 0


def outline(segmentation: Any, image: Content, subject: str) -> Outline:
    """Check a mask: polygons, or a run-length encoding of the image's size.

    Args:
        segmentation: value of the annotation's key ``segmentation``, unchecked.
        image: checked entry of the annotation's image.
        subject: the annotation, as error messages name it.

    Raises:
        BadRequest: the mask has neither form, or is damaged.
        Contradiction: no pixel of the mask is in the image, or a polygon is far outside.
    """
    if isinstance(segmentation, list):
        return _polygons(segmentation, image, subject)
    return _run_lengths(segmentation, image, subject)


def _polygons(segmentation: list[Any], image: Content, subject: str) -> Outline:
    """Check a list of polygons, and leave out those of fewer than three points."""
    polygons = [numbers(polygon, subject, "a polygon in segmentation") for polygon in segmentation]
    if any(len(polygon) % 2 for polygon in polygons):
        raise BadRequest(f"{subject} has a polygon with an odd number of coordinates")
    kept = [polygon for polygon in polygons if len(polygon) >= 6]
    extent = _extent(kept, image, subject) if kept else None
    return Outline(kept, extent, len(polygons) - len(kept))


def _extent(polygons: list[Numbers], image: Content, subject: str) -> Extent:
    """Return the smallest box around polygons; if they reach out of the image, around their pixels inside it.

    Raises:
        BadRequest: the outline is too long to decode.
        Contradiction: no pixel of the polygons is in the image, or one is far outside.
    """
    across, down = ([v for polygon in polygons for v in polygon[axis::2]] for axis in (0, 1))
    box = (min(across), min(down), max(across), max(down))
    wide, high = image["width"], image["height"]
    if box[0] < -wide or box[1] < -high or box[2] > 2 * wide or box[3] > 2 * high:
        raise Contradiction(
            "a polygon far outside their image",
            f"has a polygon from {box[:2]} to {box[2:]}, far outside its image of {wide} x {high}",
        )
    most = len(across) * max(
        box[2] - box[0], box[3] - box[1]
    )  # an upper bound, quicker to compute than the sum
    if most > LONGEST and sum(map(_length, polygons)) > LONGEST:
        raise BadRequest(
            f"{subject} has polygons with an outline of more than {LONGEST} pixels, expected less"
        )
    if box[0] >= 0 and box[1] >= 0 and box[2] <= wide and box[3] <= high:
        return box
    left, top, width, height = masks.toBbox(masks.merge(masks.frPyObjects(polygons, high, wide)))
    if not width * height:
        raise Contradiction(
            "a mask outside their image",
            f"has a mask with no pixel in its image of {wide} x {high}",
        )
    return left, top, left + width, top + height


def _length(polygon: Numbers) -> Number:
    """Estimate the number of pixels on the outline of a polygon."""
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    sides = itertools.pairwise([*points, points[0]])
    return sum(max(abs(a - c), abs(b - d)) for (a, b), (c, d) in sides)


def _run_lengths(segmentation: Any, image: Content, subject: str) -> Outline:
    """Check a run-length encoding."""
    size: list[int] = [image["height"], image["width"]]
    if not isinstance(segmentation, dict) or segmentation.get("size") != size:
        raise BadRequest(f"{subject} has a mask that is neither polygons nor of the image's size")
    runs = segmentation.get("counts")
    lengths = _decode_runs(runs) if isinstance(runs, str) else runs
    if not _fit(lengths, math.prod(size)):
        raise BadRequest(
            f"{subject} has a mask whose counts are not those of the image's size: {shown(runs)}"
        )
    return Outline({"size": size, "counts": runs}, _box_of_runs(np.array(lengths), size))


def _fit(lengths: Any, pixels: int) -> bool:
    """Return whether ``lengths`` is a list of run lengths, whole numbers from 0, with the sum ``pixels``."""
    if not isinstance(lengths, list) or not all(type(length) is int for length in lengths):
        return False
    return min(lengths, default=0) >= 0 and sum(lengths) == pixels


def _box_of_runs(lengths: Any, size: list[int]) -> Extent:
    """Return the smallest box around the pixels of run lengths.

    Args:
        lengths: lengths of runs outside and inside of the mask in turn, down each column, columns from left to right.
        size: height and width of the image.

    Raises:
        Contradiction: no pixel is inside.
    """
    ends = np.cumsum(lengths)
    stops, inside = ends[1::2], lengths[1::2] > 0
    if not inside.any():
        raise Contradiction("a mask without a pixel", "has a mask without a pixel")
    first, last = (stops - lengths[1::2])[inside], stops[inside] - 1
    high = size[0]
    left, right = first[0] // high, last[-1] // high + 1
    if (first // high != last // high).any():  # a run reaches into the next column
        return float(left), 0.0, float(right), float(high)
    return float(left), float((first % high).min()), float(right), float((last % high).max() + 1)


def _decode_runs(text: str) -> list[int] | None:
    """Decode the compressed run lengths of COCO (pycocotools' ``rleFrString``); return None if they are damaged.

    A letter carries five bits of a number, the lowest bits first, and a sixth bit that says whether the number goes on.
    From the fourth on, a number is the difference of a run length to the one two before it.
    """
    lengths: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift == 5 * LETTERS:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code & 16) << (shift - 4)  # the sign
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return lengths if shift == 0 else None
