"""Checks that the parts of an annotation (box, mask, area) agree with each other and with the image.

Each function raises ``Contradiction`` if its rule is broken; ``tasks.data.annotations`` explains the rules. A single
contradiction may be a slip, but a file in which many annotations contradict themselves is in another format.
"""

import math

from tasks.data.fields import Content, Number, Numbers

REACH = 2.0  # pixels that a box may reach out of its image, and a mask out of its box; COCO's boxes reach about one
SLACK = 0.1  # share of a box's side that its mask may reach out, if it is more than ``REACH``
THINNEST = 0.1  # pixels: an area less than that of a line of this width along the box is a mistake
CORNERS = "is it x1, y1, x2, y2? COCO wants x, y, width, height within the image"

Extent = tuple[Number, Number, Number, Number]  # left, top, right, bottom


class Contradiction(Exception):
    """The error for an annotation that contradicts itself.

    Attributes:
        kind: kind of contradiction, worded to follow "annotations with".
        detail: numbers of this annotation, worded to follow its name.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


def box_in_image(box: Numbers, image: Content) -> None:
    """Check that a box is inside its image, but for ``REACH``, and in pixels instead of fractions of the image.

    Args:
        box: x, y, width and height.
        image: checked entry of the image.

    Raises:
        Contradiction: it is not.
    """
    x, y, width, height = box
    sides = image["width"], image["height"]
    reach = max(-x, -y, x + width - sides[0], y + height - sides[1])
    if reach > REACH:
        raise Contradiction(
            "a box outside their image",
            f"has bbox {box}, which reaches {reach:.6g} pixels out of its image of "
            f"{sides[0]} x {sides[1]}: {CORNERS}",
        )
    if max(box) <= 1 < min(sides):
        raise Contradiction(
            "a box within the first pixel",
            f"has bbox {box}, within the first pixel of its image of {sides[0]} x {sides[1]}: "
            "is it in fractions of the image? COCO wants pixels",
        )


def box_of_mask(box: Numbers, mask: Extent) -> None:
    """Check that a mask is inside its box, and that the box is not written as the corners of the mask.

    A box may be larger than its mask: some data sets outline only the visible part of an object.

    Args:
        box: x, y, width and height.
        mask: smallest box around the mask.

    Raises:
        Contradiction: the mask reaches further out of the box than ``REACH`` and ``SLACK`` allow, or the four numbers
            of the box are the left, top, right and bottom of the mask.
    """
    left, top, width, height = box
    right, bottom = left + width, top + height
    across, down = (max(REACH, SLACK * side) for side in (width, height))
    # x1, y1, x2, y2 read as x, y, width, height make a box that is too large and so always encloses the mask.
    as_corners = max(abs(a - b) for a, b in zip(box, mask, strict=True)) <= REACH
    if as_corners and max(right - mask[2], bottom - mask[3]) > REACH:
        raise Contradiction(
            "a box of corners", f"has bbox {box}, the corners of its mask: {CORNERS}"
        )
    if max(left - mask[0], mask[2] - right) > across or max(top - mask[1], mask[3] - bottom) > down:
        reach = ", ".join(f"{value:.6g}" for value in mask)
        raise Contradiction(
            "a mask outside their box",
            f"has bbox {box}, but its mask reaches from left, top to right, bottom = {reach}",
        )


def area_of_box(area: Number, box: Numbers, *, masked: bool) -> None:
    """Check that an area is plausible for its box.

    Args:
        area: area of the object, or of its box, in pixels squared.
        box: x, y, width and height.
        masked: whether the annotation has a mask. If so, ``box_of_mask`` finds boxes written as corners; the area of
            a mask says nothing about them.

    Raises:
        Contradiction: the area is larger than the box (one pixel wider and higher), less than that of a line of width
            ``THINNEST`` through the box, or, without a mask, right for a box written as corners.
    """
    x, y, width, height = box
    if area > (width + 1) * (height + 1):  # sides may have been rounded down
        raise Contradiction(
            "an area larger than their box", f"has area {area}, more than that of its bbox {box}"
        )
    if area < THINNEST * min(max(width, height), width * height):
        raise Contradiction(
            "an area of nearly nothing",
            f"has area {area}, next to nothing of its bbox {box}: leave area out to take the box's",
        )
    corners = (width - x) * (height - y) if width > x and height > y else math.nan
    if not masked and _close(area, corners) and not _close(area, width * height):
        raise Contradiction(
            "a box of corners",
            f"has bbox {box} and area {area}, which is right for corners: {CORNERS}",
        )


def _close(one: Number, other: Number) -> bool:
    """Return whether two numbers are equal but for rounding."""
    return math.isclose(one, other, rel_tol=1e-6)
