"""COCO's mAP on many resamples of the images at once, from detections that were matched once.

An image that is drawn c times counts as c copies of it do: each of its boxes is wanted c times, and each of its
detections is found c times. Copies have equal scores and follow each other, so that precision and recall after the last
copy are those of one detection with weight c, and the precision at any recall reached by an earlier copy is no higher.
(Of two detections with equal scores in one image, all copies of one come first, and then all copies of the other.)
Arithmetic and rules are those of ``tasks.fast.average_precision``; only the size range "all" is computed.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

Array = Any  # of numpy; docstrings and comments say the shapes


class Resamples:
    """B resamples of the images of a split, for one category after another.

    Args:
        counts: how often each image is drawn.
        wanted: number of boxes that count, [images, categories].
        recalls: recalls at which precision is averaged, rising from 0.

    Attributes:
        count: how often each image is drawn, [images, B].
        there: whether a resample has a box of each category, [categories, B].
    """

    def __init__(self, counts: Float[Tensor, "B M"], wanted: Array, recalls: Array) -> None:
        self.count = np.ascontiguousarray(counts.numpy().T, dtype=np.int32)
        self.recalls = recalls
        self._wanted = (wanted.T @ self.count).astype(int)
        self.there = self._wanted > 0
        self._reached = [self._table(row) for row in self._wanted]

    def _table(self, wanted: Array) -> Array:
        """Return how many of the recalls h hits reach in each resample, [largest number of boxes + 1, B].

        No hit reaches none: the precision at recall 0 is that of the first hit.
        """
        hits = np.arange(wanted.max() + 1)[:, None]
        reached = np.searchsorted(self.recalls, hits / np.maximum(wanted, 1), side="right")
        reached[0] = 0
        return reached.astype(np.int16)

    def precision(self, category: int, image: Array, right: Array, counted: Array) -> Array:
        """Return the average precision of one model and category, [B].

        Args:
            category: number of the category.
            image: image of each of n detections, in falling order of their scores, [n].
            right: whether it is a true positive, [n, thresholds].
            counted: whether it is a true or false positive, [n, thresholds].
        """
        weight = self.count[image]
        hits = np.flatnonzero(right.any(axis=1))  # at any threshold
        number, weight_of_hits = weight[:0], weight[hits]
        total = np.zeros(weight.shape[1])
        for threshold in range(right.shape[1]):
            if threshold == 0 or (counted[:, threshold] != counted[:, threshold - 1]).any():
                number = self._number(weight, counted[:, threshold], hits)
            hit = np.flatnonzero(right[hits, threshold])
            total += self._average(category, weight_of_hits[hit], number[hit])
        return total / right.shape[1]

    def _number(self, weight: Array, counted: Array, hits: Array) -> Array:
        """Return the number of detections that count up to each of h hits, itself included, [h, B]."""
        if not len(hits):
            return weight[:0]
        if not counted.all():
            weight = weight * counted[:, None]
        last = hits[-1] + 1
        parts = np.add.reduceat(weight[:last], [0, *hits[:-1] + 1], axis=0, dtype=np.int32)
        return np.cumsum(parts, axis=0, dtype=np.int32)

    def _average(self, category: int, weight: Array, number: Array) -> Array:
        """Return the mean over recalls of the best precision at that recall or a higher one, [B].

        Args:
            category: number of the category.
            weight: how often each of the h true positives is drawn, [h, B].
            number: detections up to it that count, itself included, [h, B].
        """
        hits = np.cumsum(weight, axis=0, dtype=np.int32)
        precision = hits / (number + np.spacing(1))
        best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        reached = np.take_along_axis(self._reached[category], hits, axis=0)
        points = np.diff(reached, axis=0, prepend=np.int16(0))
        return (best * points).sum(axis=0) / len(self.recalls)

    def mean(self, precision: Array) -> Array:
        """Return the mean over the categories that a resample has, [models, B], of [models, categories, B]."""
        return (precision * self.there).sum(axis=1) / self.there.sum(axis=0)
