"""Annotations whose parts cannot all be true: box, image, mask and area compared, by ``tasks.data.annotations``' rules.

Each function raises ``Contradiction`` where its rule is broken. One annotation says little about where the mistake is,
but a file in which many contradict themselves is in another format.
"""

import math

from tasks.data.fields import Content, Number, Numbers

REACH = 2.0  # pixels: COCO's own boxes end up to about one outside their image
SLACK = 0.1  # of a box's side, where that is more: how far its mask may reach out of it
THINNEST = 0.1  # pixels: an object thinner than this from one end of its box to the other is none
CORNERS = "is it x1, y1, x2, y2? COCO wants x, y, width, height within the image"

Extent = tuple[Number, Number, Number, Number]  # left, top, right, bottom


class Contradiction(Exception):
    """An annotation contradicts itself.

    Attributes:
        kind: how, to be read after "annotations with".
        detail: what is wrong with this one, to be read after its name.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


def box_in_image(box: Numbers, image: Content) -> None:
    """Compare a box with its image: it reaches no further out than rounding does, and its unit is the pixel."""
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
    """Compare a box with its mask: the mask lies in it, and does not begin and end at the box's four numbers.

    A box may be larger than its mask: some data sets outline what is seen of an object that is partly hidden.
    """
    left, top, width, height = box
    right, bottom = left + width, top + height
    across, down = (max(REACH, SLACK * side) for side in (width, height))
    # A box too large encloses any mask, and x1, y1, x2, y2 read as x, y, width, height are always too large.
    as_corners = max(abs(a - b) for a, b in zip(box, mask, strict=True)) <= REACH
    if as_corners and max(right - mask[2], bottom - mask[3]) > REACH:
        raise Contradiction(
            "a box of corners", f"has bbox {box}, the corners of its mask: {CORNERS}"
        )
    if max(left - mask[0], mask[2] - right) > across or max(top - mask[1], mask[3] - bottom) > down:
        found = ", ".join(f"{value:.6g}" for value in mask)
        raise Contradiction(
            "a mask outside their box",
            f"has bbox {box}, but its mask reaches from left, top to right, bottom = {found}",
        )


def area_of_box(area: Number, box: Numbers, *, masked: bool) -> None:
    """Compare an area with its box: not larger, nor next to nothing, nor that of the four numbers as corners.

    Args:
        area: of the object, or of its box.
        box: x, y, width and height.
        masked: whether a mask is there; it is compared with the box, and its area can be any.
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
    return math.isclose(one, other, rel_tol=1e-6)
