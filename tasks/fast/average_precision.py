"""COCO's average precision of many models at once, equal to pycocotools' but without its loop over images in Python.

pycocotools loops over images, categories, size ranges and thresholds, for one model. Here all models are scored
together. A detection can only match a box of its category with an IoU of at least 0.5, so only such pairs are matched
greedily: first the best detection of each category in each image, then the second best, and so on. Precision and recall
then follow from one sorted list of detections for each model and category. Arithmetic (float64) and rules for ties,
crowds and size ranges are those of pycocotools' COCOeval.

A cell is one category in one image; cells are numbered image by image.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from pycocotools.cocoeval import Params
from torch import Tensor

from tasks.data.coco import CocoSplit
from tasks.fast.finite import not_finite
from tasks.fast.resampled_precision import Resamples

MOST = 100  # detections of one model in one cell that count, those of the highest scores
BLOCK = 2**25  # the most results of single comparisons in memory at once
SIZES = ("small", "medium", "large")
Array = Any  # of numpy; docstrings and comments say the shapes


@dataclasses.dataclass(frozen=True)
class Detections:
    """The T detections of all models in all images of a split, one row each.

    A detection whose box or score is not finite (NaN or infinite) does not count.

    Attributes:
        model: number of the model, from 0.
        image: position of the image in the split.
        category: id of the category; detections of an unknown one do not count.
        boxes: left, top, right and bottom in pixels.
        scores: confidence; of equal scores in an image the earlier row ranks first.
    """

    model: Int64[Tensor, " T"]
    image: Int64[Tensor, " T"]
    category: Int64[Tensor, " T"]
    boxes: Float[Tensor, "T 4"]
    scores: Float[Tensor, " T"]

    def __getitem__(self, rows: slice | Tensor) -> "Detections":
        names = [field.name for field in dataclasses.fields(Detections)]
        return Detections(*(getattr(self, name)[rows] for name in names))

    def that_count(self, categories: Array) -> "Detections":
        """Return the detections with one of these categories, sides that are finite and a score that is."""
        known = torch.from_numpy(np.isin(self.category.numpy(), categories))
        return self[known & ~(not_finite(sides(self.boxes)) | not_finite(self.scores[:, None]))]


@dataclasses.dataclass(frozen=True)
class AveragePrecision:
    """The average precision of N models.

    Attributes:
        values: numbers in [0, 1] by name: "mAP" (mean over the IoU thresholds 0.50, 0.55 ... 0.95, recalls and
            categories), "AP50" and "AP75" (at one threshold), and "mAP small", "mAP medium" and "mAP large" (of objects
            with areas up to 32^2, up to 96^2 and above). A size without objects has no number.
        missed: whether no detection of the model matched the box at IoU 0.5, for the M boxes that are no crowds.
        replicates: mAP on B resamples of the images; None where none were asked for.
    """

    values: dict[str, Float[Tensor, " N"]]
    missed: Bool[Tensor, "N M"]
    replicates: Float[Tensor, "N B"] | None = None


class Truth:
    """The annotated boxes of a split, in the order of their cells.

    Args:
        split: the images and annotations.

    Attributes:
        thresholds, recalls: IoU thresholds, and recalls at which precision is averaged.
        ranges: least and largest area of each size range, [ranges, 2]; ``range_names`` are their names.
        categories: ids of the categories, sorted.
        cell, boxes, crowd: of each box its cell, (left, top, width, height), and whether it is a crowd.
        ignored: whether a box does not count in a size range, [boxes, ranges].
        unit: number of each box among those that are no crowds, in the order of the annotations.
        units: number of boxes that are no crowds.
        count, first: of each cell the number of its boxes and the position of the first.
        wanted: number of boxes that count, [categories, ranges].
    """

    def __init__(self, split: CocoSplit) -> None:
        params = Params(iouType="bbox")
        self.thresholds = np.minimum(params.iouThrs, 1 - 1e-10)
        self.recalls, self.ranges = np.asarray(params.recThrs), np.asarray(params.areaRng, float)
        self.range_names: list[str] = params.areaRngLbl
        self.categories = np.array(sorted(split.api.cats))
        image, category, crowd, area, *box = _table(split).T
        cell = self.cells(image.astype(int), category.astype(int))
        order = np.argsort(cell, kind="stable")
        self.cell, self.crowd = cell[order], crowd[order] > 0
        self.boxes = np.stack(box, axis=1)[order]
        self.ignored = self._outside(area[order]) | self.crowd[:, None]
        self.unit = (np.cumsum(crowd == 0) - 1)[order]  # meaningless for a crowd
        self.units = int((crowd == 0).sum())
        self.count = np.bincount(self.cell, minlength=len(split) * len(self.categories))
        self.first = np.cumsum(self.count) - self.count
        self.wanted = np.zeros((len(self.categories), len(self.ranges)), int)
        np.add.at(self.wanted, self.cell % len(self.categories), ~self.ignored)

    def cells(self, image: Array, category: Array) -> Array:
        """Return the number of the cell of each pair of image position and category id."""
        return image * len(self.categories) + np.searchsorted(self.categories, category)

    def _outside(self, area: Array) -> Array:
        """Return whether each area lies outside of each size range, [n, ranges]."""
        return (area[:, None] < self.ranges[:, 0]) | (area[:, None] > self.ranges[:, 1])

    @property
    def wanted_in_images(self) -> Int64[Tensor, "M categories"]:
        """Return the number of boxes of any size that count, in each image and category."""
        counted = self.cell[~self.ignored[:, self._all]]
        number = np.bincount(counted, minlength=len(self.count))
        return torch.from_numpy(number.reshape(-1, len(self.categories)))

    def resamples(self, counts: Float[Tensor, "B M"]) -> Resamples:
        """Prepare resamples of the images for ``score``, from how often each image is drawn."""
        return Resamples(counts, self.wanted_in_images.numpy(), self.recalls)

    @property
    def _all(self) -> int:
        """The number of the range of all sizes."""
        return self.range_names.index("all")

    def score(
        self,
        detections: Detections,
        models: int,
        block: int = BLOCK,
        resamples: Resamples | None = None,
    ) -> AveragePrecision:
        """Return the average precision of each model.

        Args:
            detections: detections of all models.
            models: number of models, including those without detections.
            block: the most results of single comparisons in memory at once (of a detection, in a size range, at a
                threshold).
            resamples: of the images, on which mAP is computed as well.
        """
        parts = [self._score(part, resamples) for part in _blocks(detections, self, models, block)]
        names = parts[0].values
        replicates = [part.replicates for part in parts if part.replicates is not None]
        return AveragePrecision(
            {name: torch.cat([part.values[name] for part in parts]) for name in names},
            torch.cat([part.missed for part in parts]),
            torch.cat(replicates) if replicates else None,
        )

    def _score(self, block: "_Block", resamples: Resamples | None) -> AveragePrecision:
        """Return the average precision of the models of one block."""
        matched, ignored, taken = self._match(block)
        missed = np.ones((block.models, self.units), bool)
        missed[taken] = False
        precision = self._accumulate(block, matched, ignored)
        replicates = None
        if resamples is not None:
            replicates = self._replicates(block, matched, ignored, resamples)
        return AveragePrecision(self._summary(precision), torch.from_numpy(missed), replicates)

    def _match(self, block: "_Block") -> tuple[Array, Array, Array]:
        """Match detections with boxes greedily, the best detection of each cell first.

        Returns:
            Whether each detection is matched, and whether it is ignored, both [n, ranges, thresholds]; and the boxes
            without crowds that are matched at the lowest threshold and any size, as arrays of models and of units.
        """
        pairs = self._pairs(block)
        slots, slot = np.unique(pairs.model * len(self.cell) + pairs.box, return_inverse=True)
        shape = (len(self.ranges), len(self.thresholds))
        taken = np.zeros((len(slots), *shape), bool)
        matched = np.zeros((len(block.cell), *shape), bool)
        ignored = np.repeat(self._outside(block.area)[:, :, None], shape[1], axis=2)
        for rows in pairs.rounds():
            box, detections = pairs.box[rows], pairs.detection[rows]
            free = ~taken[slot[rows]] | self.crowd[box, None, None]
            free &= pairs.overlap[rows, None, None] >= self.thresholds
            # A box that counts wins over an ignored one, then the larger overlap, then the later box.
            rank = rows[:, None] + len(slot) * ~self.ignored[box]
            rank = np.where(free, rank[:, :, None], -1)
            starts = np.flatnonzero(np.diff(detections, prepend=-1))
            best = np.maximum.reduceat(rank, starts, axis=0)
            group, size, threshold = np.nonzero(best >= 0)
            pair = best[group, size, threshold] % len(slot)
            taken[slot[pair], size, threshold] = True
            detection = detections[starts][group]
            matched[detection, size, threshold] = True
            ignored[detection, size, threshold] = self.ignored[pairs.box[pair], size]
        model, box = np.divmod(slots[taken[:, self._all, 0]], len(self.cell))
        single = ~self.crowd[box]
        return matched, ignored, (model[single], self.unit[box[single]])

    def _pairs(self, block: "_Block") -> "_Pairs":
        """Return all pairs of a detection and a box of the same cell whose IoU reaches the lowest threshold."""
        detection, box = paired(self.first[block.cell], self.count[block.cell])
        overlap = iou(block.boxes[detection], self.boxes[box], self.crowd[box])
        enough = np.flatnonzero(overlap >= self.thresholds[0])
        detection, box, overlap = detection[enough], box[enough], overlap[enough]
        order = np.lexsort((box, overlap, detection))
        detection = detection[order]
        group = block.model[detection] * len(self.count) + block.cell[detection]
        return _Pairs(detection, box[order], overlap[order], block.model[detection], group)

    def _accumulate(self, block: "_Block", matched: Array, ignored: Array) -> Array:
        """Return the precision at each recall, [models, categories, ranges, thresholds, recalls]."""
        shape = (*self.wanted.shape, len(self.thresholds), len(self.recalls))
        precision = np.zeros((block.models, *shape))
        for model, number, rows in self._ranked(block):
            right = matched[rows] & ~ignored[rows]
            wrong = ~matched[rows] & ~ignored[rows]
            precision[model, number] = self._precision(right, wrong, self.wanted[number])
        return precision

    def _replicates(
        self, block: "_Block", matched: Array, ignored: Array, resamples: Resamples
    ) -> Float[Tensor, "n B"]:
        """Return the mAP of the n models of a block on resamples of the images."""
        precision = np.zeros((block.models, *resamples.there.shape))
        image, counted = block.cell // len(self.categories), ~ignored[:, self._all]
        right = matched[:, self._all] & counted
        for model, number, rows in self._ranked(block):
            precision[model, number] = resamples.precision(
                number, image[rows], right[rows], counted[rows]
            )
        return torch.from_numpy(resamples.mean(precision))

    def _ranked(self, block: "_Block") -> Iterator[tuple[int, int, Array]]:
        """Yield each model and number of a category, with its detections in falling order of their scores."""
        category = block.cell % len(self.categories)
        order = np.lexsort((block.cell, -block.scores, category, block.model))
        ends = np.flatnonzero(
            np.diff(category[order], append=-1) | np.diff(block.model[order], append=-1)
        )
        for rows in np.split(order, ends[:-1] + 1) if len(order) else ():
            yield int(block.model[rows[0]]), int(category[rows[0]]), rows

    def _precision(self, right: Array, wrong: Array, wanted: Array) -> Array:
        """Return the precision at each recall of one model and category, [ranges, thresholds, recalls].

        Args:
            right, wrong: true and false positives, [n, ranges, thresholds], in falling order of the scores.
            wanted: number of boxes to detect, [ranges].
        """
        hits, misses = np.cumsum(right, axis=0, dtype=float), np.cumsum(wrong, axis=0, dtype=float)
        precision = hits / (misses + hits + np.spacing(1))
        best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        # Recall only rises at a true positive, so the precision at each of these is enough.
        table = np.zeros((int(max(wanted.max(), 1)) + 1, *right.shape[1:]))
        place, size, threshold = np.nonzero(right)
        table[hits[place, size, threshold].astype(int), size, threshold] = best[
            place, size, threshold
        ]
        at_recalls = np.zeros((*right.shape[1:], len(self.recalls)))
        for number in np.flatnonzero(wanted):
            recall = np.arange(wanted[number] + 1) / wanted[number]
            hit = np.maximum(np.searchsorted(recall, self.recalls), 1)
            at_recalls[number] = table[hit, number].T
        return at_recalls

    def _summary(self, precision: Array) -> dict[str, Tensor]:
        """Return the means over categories, thresholds and recalls that COCO reports, by name."""
        by_range = {
            name: precision[:, self.wanted[:, i] > 0, i] for i, name in enumerate(self.range_names)
        }
        chosen = {"mAP": by_range["all"]} | {f"mAP {name}": by_range[name] for name in SIZES}
        for percent in (50, 75):
            chosen[f"AP{percent}"] = by_range["all"][:, :, self.thresholds == percent / 100]
        return {
            name: torch.from_numpy(part.reshape(len(part), -1).mean(1))
            for name, part in chosen.items()
            if part.size
        }


@dataclasses.dataclass(frozen=True)
class _Block:
    """The detections of a few models, sorted by model, cell and falling score, at most ``MOST`` in a cell.

    Attributes:
        models: number of models.
        model: number of the model within the block.
        cell, area, scores: of each detection.
        boxes: left, top, width and height.
    """

    models: int
    model: Array
    cell: Array
    boxes: Array
    area: Array
    scores: Array


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """Pairs of a detection and a box that could match, sorted by detection, then by rising overlap.

    Attributes:
        detection, box: positions in ``_Block`` and ``Truth``.
        overlap: IoU of the pair.
        model: number of the model within the block.
        group: number of the pair's model and cell.
    """

    detection: Array
    box: Array
    overlap: Array
    model: Array
    group: Array

    def rounds(self) -> Iterator[Array]:
        """Yield the positions of the pairs of the best detection of every group, then of the second best, and so on."""
        new = np.diff(self.detection, prepend=-1) != 0
        place = np.cumsum(new) - 1
        start = np.diff(self.group, prepend=-1) != 0
        turn = place - np.maximum.accumulate(np.where(start, place, 0))
        order = np.argsort(turn, kind="stable")
        yield from np.split(order, np.cumsum(np.bincount(turn))[:-1]) if len(turn) else ()


def _table(split: CocoSplit) -> Array:
    """Return a row for each annotated box: image, category, crowd, area, left, top, width and height."""
    rows = [
        (image, entry["category_id"], entry["iscrowd"], entry["area"], *entry["bbox"])
        for image in range(len(split))
        for entry in split.annotations(image)
    ]
    return np.array(rows, float).reshape(-1, 8)


def _blocks(detections: Detections, truth: Truth, models: int, block: int) -> Iterator[_Block]:
    """Yield the detections that count, sorted, a few models at a time: see ``Truth.score``."""
    found = detections.that_count(truth.categories)
    model, image, category = found.model.numpy(), found.image.numpy(), found.category.numpy()
    scores = found.scores.double().numpy()
    cell = truth.cells(image, category)
    order = np.lexsort((-scores, cell, model))
    model, cell, scores = model[order], cell[order], scores[order]
    group = model * len(truth.count) + cell
    start = np.diff(group, prepend=-1) != 0
    place = np.arange(len(group))
    kept = place - np.maximum.accumulate(np.where(start, place, 0)) < MOST
    boxes = sides(found.boxes[torch.from_numpy(order[kept])]).double().numpy()
    model, cell, scores = model[kept], cell[kept], scores[kept]
    each = len(truth.ranges) * len(truth.thresholds)
    each *= max(1, len(model) // models) + len(truth.categories) * len(truth.recalls)
    few = max(1, block // each)
    for low in range(0, models, few):
        rows = slice(*np.searchsorted(model, [low, low + few]))
        area = boxes[rows, 2] * boxes[rows, 3]
        count = min(few, models - low)
        yield _Block(count, model[rows] - low, cell[rows], boxes[rows], area, scores[rows])


def paired(first: Array, count: Array) -> tuple[Array, Array]:
    """Return all pairs of a row and one of its consecutive partners, as two arrays.

    Args:
        first, count: of each of n rows the position of its first partner, and the number of its partners, [n].

    >>> [array.tolist() for array in paired(np.array([5, 0, 7]), np.array([2, 0, 1]))]
    [[0, 0, 2], [5, 6, 7]]
    """
    row = np.repeat(np.arange(len(count)), count)
    place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    return row, first[row] + place


def sides(corners: Float[Tensor, "T 4"]) -> Float[Tensor, "T 4"]:
    """Return left, top, width and height of boxes; a side is not finite if a corner is not, or if it overflows."""
    return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)


def iou(detections: Array, boxes: Array, crowd: Array) -> Array:
    """Return the IoU of n pairs of a detection and a box; for a crowd, the share of the detection inside it.

    Args:
        detections, boxes: left, top, width and height, [n, 4].
        crowd: whether the box is a crowd, [n], or a single value for all boxes.
    """
    low = np.maximum(detections[:, :2], boxes[:, :2])
    high = np.minimum(detections[:, :2] + detections[:, 2:], boxes[:, :2] + boxes[:, 2:])
    wide, tall = (high - low).clip(min=0).T
    intersection, area = wide * tall, detections[:, 2] * detections[:, 3]
    union = np.where(crowd, area, area + boxes[:, 2] * boxes[:, 3] - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
