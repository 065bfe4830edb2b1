"""Masks in COCO's two forms, polygons and run lengths, checked before pycocotools' C code sees them.

That code trusts what it is given: a corner of a polygon at 1e9 or run lengths that break off end the process, and a
polygon takes about 50 bytes for each pixel of its outline.
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
LONGEST = 2**20  # pixels of an outline: about 50 MB
LETTERS = 6  # of a run length in the compressed form: 30 bits, more than any image here needs


@dataclasses.dataclass(frozen=True)
class Outline:
    """The checked mask of one annotation.

    Attributes:
        masks: in COCO's form.
        extent: what it covers of its image, in pixels; None where there is no polygon.
        dropped: how many polygons of fewer than three points were left out.
    """

    masks: Masks
    extent: Extent | None
    dropped: int = 0


def outline(segmentation: Any, image: Content, what: str) -> Outline:
    """Check a mask: polygons, or a run-length encoding of the image's size.

    Args:
        segmentation: as it stands in the file.
        image: its checked entry.
        what: the annotation, for messages.

    Raises:
        BadRequest: it is neither, or is damaged.
        Contradiction: nothing of it is in the image, or a polygon is far outside.
    """
    if isinstance(segmentation, list):
        return _polygons(segmentation, image, what)
    return _run_lengths(segmentation, image, what)


def _polygons(segmentation: list[Any], image: Content, what: str) -> Outline:
    polygons = [numbers(polygon, what, "a polygon in segmentation") for polygon in segmentation]
    if any(len(polygon) % 2 for polygon in polygons):
        raise BadRequest(f"{what} has a polygon with an odd number of coordinates")
    good = [polygon for polygon in polygons if len(polygon) >= 6]
    extent = _extent(good, image, what) if good else None
    return Outline(good, extent, len(polygons) - len(good))


def _extent(polygons: list[Numbers], image: Content, what: str) -> Extent:
    """Return the pixels of an image that polygons cover; they may reach out of it, as objects at its edge do."""
    across, down = ([v for polygon in polygons for v in polygon[axis::2]] for axis in (0, 1))
    found = (min(across), min(down), max(across), max(down))
    wide, high = image["width"], image["height"]
    if found[0] < -wide or found[1] < -high or found[2] > 2 * wide or found[3] > 2 * high:
        raise Contradiction(
            "a polygon far outside their image",
            f"has a polygon from {found[:2]} to {found[2:]}, far outside its image of {wide} x {high}",
        )
    most = len(across) * max(found[2] - found[0], found[3] - found[1])  # quicker than the sum
    if most > LONGEST and sum(map(_length, polygons)) > LONGEST:
        raise BadRequest(
            f"{what} has polygons with an outline of more than {LONGEST} pixels, expected less"
        )
    if found[0] >= 0 and found[1] >= 0 and found[2] <= wide and found[3] <= high:
        return found
    left, top, width, height = masks.toBbox(masks.merge(masks.frPyObjects(polygons, high, wide)))
    if not width * height:
        raise Contradiction(
            "a mask outside their image",
            f"has a mask with no pixel in its image of {wide} x {high}",
        )
    return left, top, left + width, top + height


def _length(polygon: Numbers) -> Number:
    """Estimate how many pixels the outline runs through."""
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    sides = itertools.pairwise([*points, points[0]])
    return sum(max(abs(a - c), abs(b - d)) for (a, b), (c, d) in sides)


def _run_lengths(segmentation: Any, image: Content, what: str) -> Outline:
    size: list[int] = [image["height"], image["width"]]
    if not isinstance(segmentation, dict) or segmentation.get("size") != size:
        raise BadRequest(f"{what} has a mask that is neither polygons nor of the image's size")
    runs = segmentation.get("counts")
    lengths = _unpacked(runs) if isinstance(runs, str) else runs
    if not _fit(lengths, math.prod(size)):
        raise BadRequest(
            f"{what} has a mask whose counts are not those of the image's size: {shown(runs)}"
        )
    return Outline({"size": size, "counts": runs}, _covered(np.array(lengths), size))


def _fit(lengths: Any, pixels: int) -> bool:
    """Return whether these are run lengths, as many pixels together."""
    if not isinstance(lengths, list) or not all(type(length) is int for length in lengths):
        return False
    return min(lengths, default=0) >= 0 and sum(lengths) == pixels


def _covered(lengths: Any, size: list[int]) -> Extent:
    """Return the pixels that run lengths cover: down the columns, left to right, outside and inside in turn."""
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


def _unpacked(text: str) -> list[int] | None:
    """Unpack the run lengths of COCO's compressed form; None where it is damaged: pycocotools decodes without a check.

    Each number is written in letters of five bits, the lowest first, with one bit more that says whether it goes on;
    from the fourth on it is the difference to the number two before.
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
