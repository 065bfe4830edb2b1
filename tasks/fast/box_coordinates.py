"""Detectors as points: how surely each of many models detects each category at annotated boxes.

A model has one coordinate for each box and each category: the root of the highest score of its detections of the
category whose IoU with the box is at least 0.5, or 0 where there is none. The category need not be the box's own. As
with class probabilities (``tasks.fast.hellinger``), the Euclidean distance of two models is the root mean square over
the boxes of the distance of their roots over the root of 2. Scores of several categories need not add up to 1, so the
distance is a Hellinger distance in form, and can exceed 1.

The coordinates follow from detections alone, whatever the detector is and whichever of its layers are generated.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tasks.fast.average_precision import Array, Detections, Truth, iou, paired, sides
from tasks.fast.hellinger import evenly_spaced

PAIRS = 2**16  # pairs of a detection and a box at once, at most: they should stay in the cache


class BoxCoordinates:
    """The coordinates of models at the boxes of a split that are no crowds.

    Args:
        truth: the boxes. Some evenly spaced ones are taken, see ``tasks.fast.hellinger.evenly_spaced``.
        at_once: pairs of a detection and a box at once, at most (but those of one detection always are).

    Attributes:
        categories: ids of the categories, sorted.
        enough: least IoU of a box and a detection of it.
        boxes: left, top, width and height of each box taken, image by image, [boxes, 4].
        first, count: of each image the position of the first of these boxes, and their number, [images].
        rows: detections that are looked at at once.
    """

    def __init__(self, truth: Truth, at_once: int = PAIRS) -> None:
        self.categories, self.enough = truth.categories, truth.thresholds[0]
        single = np.flatnonzero(~truth.crowd)
        units = single[np.argsort(truth.unit[single])]
        chosen = units[evenly_spaced(truth.units, len(self.categories)).numpy()]
        self.boxes: Array = truth.boxes[chosen]
        cells = len(self.categories)
        self.count: Array = np.bincount(
            truth.cell[chosen] // cells, minlength=len(truth.count) // cells
        )
        self.first: Array = np.cumsum(self.count) - self.count
        self.rows = max(1, at_once // int(self.count.max(initial=1)))

    def __call__(self, detections: Detections, models: int) -> Float[Tensor, "N P"]:
        """Return the coordinates of all models.

        Args:
            detections: detections of all models.
            models: number of models, including those without detections.
        """
        values = len(self.boxes) * len(self.categories)
        highest = torch.zeros(models * values)
        for low in range(0, len(detections.model), self.rows):
            some = detections[low : low + self.rows].that_count(self.categories)
            place, scores = self._overlapping(some)
            highest.scatter_reduce_(0, place, scores, "amax")
        return highest.sqrt_().div_(math.sqrt(2 * len(self.boxes))).view(models, values)

    def _overlapping(
        self, found: Detections
    ) -> tuple[Int64[Tensor, " pairs"], Float[Tensor, " pairs"]]:
        """Return the coordinate of every pair of a detection and a box that it overlaps enough, and its score."""
        image = found.image.numpy()
        row, box = paired(self.first[image], self.count[image])
        overlap = iou(sides(found.boxes).double().numpy()[row], self.boxes[box], np.False_)
        enough = overlap >= self.enough
        row, box = torch.from_numpy(row[enough]), torch.from_numpy(box[enough])
        category = np.searchsorted(self.categories, found.category.numpy())
        place = (found.model[row] * len(self.boxes) + box) * len(self.categories)
        return place + torch.from_numpy(category)[row], found.scores[row].float()
