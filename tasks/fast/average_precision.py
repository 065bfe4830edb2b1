"""COCO's average precision of many models at once: pycocotools' numbers, without its loop over images in Python.

pycocotools takes every image, category, size range and threshold in turn, for each model alone. Here all models go
together. A detection can only be matched with a box of its category that it overlaps by half, so that the greedy
matching runs over those few pairs: first the best detection of each category in each image, then the second best, and
so on. Precision and recall are then read off one sorted list for each model and category. The arithmetic is
pycocotools' own, in float64, and so are its rules for ties, crowds and size ranges.
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

MOST = 100  # detections that count, for one model, image and category
BLOCK = 2**25  # outcomes in memory at once
SIZES = ("small", "medium", "large")
Array = Any  # numpy's; shapes are said where they are made


@dataclasses.dataclass(frozen=True)
class Detections:
    """What models found: one row a detection, those of all models and images together.

    A detection whose box or score is not finite (NaN or infinite) does not count.

    Attributes:
        model: number of the model.
        image: position of the image in its split.
        category: id of the category; what is of an unknown one does not count.
        boxes: left, top, right and bottom in pixels.
        scores: how sure the model is; of equal ones in an image the first counts first.
    """

    model: Int64[Tensor, " T"]
    image: Int64[Tensor, " T"]
    category: Int64[Tensor, " T"]
    boxes: Float[Tensor, "T 4"]
    scores: Float[Tensor, " T"]


@dataclasses.dataclass(frozen=True)
class Precision:
    """How good N models are; every number is in [0, 1].

    Attributes:
        values: by name: "mAP" (mean over the IoU thresholds 0.50, 0.55 ... 0.95, recalls and categories), "AP50" and
            "AP75" at one threshold, and "mAP small", "mAP medium" and "mAP large" of objects of that size alone (areas
            up to 32^2, up to 96^2, beyond), each only where there are any.
        missed: which boxes no detection was matched with at IoU 0.5. Crowds are no boxes.
    """

    values: dict[str, Float[Tensor, " N"]]
    missed: Bool[Tensor, "N M"]


class Truth:
    """The boxes of a split in the order of their cells; a cell is one category in one image.

    Attributes:
        units: how many boxes are no crowds; they are numbered in the order of the annotations.
        wanted: how many boxes of each category count in each size range, [categories, ranges].
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
        self.unit = (np.cumsum(crowd == 0) - 1)[order]  # of a crowd: meaningless
        self.units = int((crowd == 0).sum())
        self.count = np.bincount(self.cell, minlength=len(split) * len(self.categories))
        self.first = np.cumsum(self.count) - self.count
        self.wanted = np.zeros((len(self.categories), len(self.ranges)), int)
        np.add.at(self.wanted, self.cell % len(self.categories), ~self.ignored)

    def cells(self, image: Array, category: Array) -> Array:
        """Return the number of each cell."""
        return image * len(self.categories) + np.searchsorted(self.categories, category)

    def _outside(self, area: Array) -> Array:
        """Return which areas lie outside of which size ranges, [n, ranges]."""
        return (area[:, None] < self.ranges[:, 0]) | (area[:, None] > self.ranges[:, 1])

    def score(self, found: Detections, models: int, block: int = BLOCK) -> Precision:
        """Return the average precision of the models number 0 to ``models - 1``, those that found nothing among them.

        Args:
            found: what they found.
            models: how many there are.
            block: outcomes in memory at once: of every detection, for every size range and threshold.
        """
        parts = [self._score(some) for some in _in_order(found, self, models, block)]
        names = parts[0].values
        return Precision(
            {name: torch.cat([part.values[name] for part in parts]) for name in names},
            torch.cat([part.missed for part in parts]),
        )

    def _score(self, some: "_Sorted") -> Precision:
        matched, ignored, taken = self._match(some)
        missed = np.ones((some.models, self.units), bool)
        missed[taken] = False
        precision = self._accumulate(some, matched, ignored)
        return Precision(self._summary(precision), torch.from_numpy(missed))

    def _match(self, some: "_Sorted") -> tuple[Array, Array, Array]:
        """Match greedily, the best detection of each cell first.

        Returns:
            Which detections are matched, and which are ignored, [n, ranges, thresholds]; and the boxes of no crowd that
            are matched at the lowest threshold with every size allowed, as (models, units).
        """
        pairs = self._pairs(some)
        slots, slot = np.unique(pairs.model * len(self.cell) + pairs.box, return_inverse=True)
        shape = (len(self.ranges), len(self.thresholds))
        taken = np.zeros((len(slots), *shape), bool)
        matched = np.zeros((len(some.cell), *shape), bool)
        ignored = np.repeat(self._outside(some.area)[:, :, None], shape[1], axis=2)
        for rows in pairs.rounds():
            box, detections = pairs.box[rows], pairs.detection[rows]
            free = ~taken[slot[rows]] | self.crowd[box, None, None]
            free &= pairs.overlap[rows, None, None] >= self.thresholds
            # Boxes that count come before ignored ones, then the largest overlap; of equal ones the last.
            rank = rows[:, None] + len(slot) * ~self.ignored[box]
            rank = np.where(free, rank[:, :, None], -1)
            starts = np.flatnonzero(np.diff(detections, prepend=-1))
            best = np.maximum.reduceat(rank, starts, axis=0)
            which, size, threshold = np.nonzero(best >= 0)
            pair = best[which, size, threshold] % len(slot)
            taken[slot[pair], size, threshold] = True
            winner = detections[starts][which]
            matched[winner, size, threshold] = True
            ignored[winner, size, threshold] = self.ignored[pairs.box[pair], size]
        model, box = np.divmod(slots[taken[:, self.range_names.index("all"), 0]], len(self.cell))
        own = ~self.crowd[box]
        return matched, ignored, (model[own], self.unit[box[own]])

    def _pairs(self, some: "_Sorted") -> "_Pairs":
        """Return the pairs of detections and boxes of one cell that overlap enough for the lowest threshold."""
        count = self.count[some.cell]
        detection = np.repeat(np.arange(len(count)), count)
        place = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
        box = self.first[some.cell[detection]] + place
        overlap = _iou(some.boxes[detection], self.boxes[box], self.crowd[box])
        enough = np.flatnonzero(overlap >= self.thresholds[0])
        detection, box, overlap = detection[enough], box[enough], overlap[enough]
        order = np.lexsort((box, overlap, detection))
        detection = detection[order]
        group = some.model[detection] * len(self.count) + some.cell[detection]
        return _Pairs(detection, box[order], overlap[order], some.model[detection], group)

    def _accumulate(self, some: "_Sorted", matched: Array, ignored: Array) -> Array:
        """Return the precision of each model, [models, categories, ranges, thresholds, recalls]."""
        shape = (*self.wanted.shape, len(self.thresholds), len(self.recalls))
        precision = np.zeros((some.models, *shape))
        category = some.cell % len(self.categories)
        order = np.lexsort((some.cell, -some.scores, category, some.model))
        ends = np.flatnonzero(
            np.diff(category[order], append=-1) | np.diff(some.model[order], append=-1)
        )
        for rows in np.split(order, ends[:-1] + 1) if len(order) else ():
            kind = category[rows[0]]
            right = matched[rows] & ~ignored[rows]
            wrong = ~matched[rows] & ~ignored[rows]
            precision[some.model[rows[0]], kind] = self._precision(right, wrong, self.wanted[kind])
        return precision

    def _precision(self, right: Array, wrong: Array, wanted: Array) -> Array:
        """Return the precision of detections in falling order at every recall, [ranges, thresholds, recalls]."""
        hits, misses = np.cumsum(right, axis=0, dtype=float), np.cumsum(wrong, axis=0, dtype=float)
        precision = hits / (misses + hits + np.spacing(1))
        best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        # A recall is first reached at a hit, so it is enough to know the precision at each hit.
        table = np.zeros((int(max(wanted.max(), 1)) + 1, *right.shape[1:]))
        place, size, threshold = np.nonzero(right)
        table[hits[place, size, threshold].astype(int), size, threshold] = best[
            place, size, threshold
        ]
        found = np.zeros((*right.shape[1:], len(self.recalls)))
        for number in np.flatnonzero(wanted):
            recall = np.arange(wanted[number] + 1) / wanted[number]
            hit = np.maximum(np.searchsorted(recall, self.recalls), 1)
            found[number] = table[hit, number].T
        return found

    def _summary(self, precision: Array) -> dict[str, Tensor]:
        """Return the means that COCO reports."""
        of = {
            name: precision[:, self.wanted[:, i] > 0, i] for i, name in enumerate(self.range_names)
        }
        chosen = {"mAP": of["all"]} | {f"mAP {name}": of[name] for name in SIZES}
        for percent in (50, 75):
            chosen[f"AP{percent}"] = of["all"][:, :, self.thresholds == percent / 100]
        return {
            name: torch.from_numpy(part.reshape(len(part), -1).mean(1))
            for name, part in chosen.items()
            if part.size
        }


@dataclasses.dataclass(frozen=True)
class _Sorted:
    """Detections of a few models: by model and cell, in falling order of their scores, no more than count."""

    models: int
    model: Array  # from 0 on
    cell: Array
    boxes: Array  # left, top, width, height
    area: Array
    scores: Array


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """Detections and boxes that could be matched: by detection, then by rising overlap."""

    detection: Array
    box: Array
    overlap: Array
    model: Array
    group: Array  # one model's detections in one cell

    def rounds(self) -> Iterator[Array]:
        """Yield the pairs of the best detection of every group, then those of the second best, and so on."""
        new = np.diff(self.detection, prepend=-1) != 0
        place = np.cumsum(new) - 1
        start = np.diff(self.group, prepend=-1) != 0
        turn = place - np.maximum.accumulate(np.where(start, place, 0))
        order = np.argsort(turn, kind="stable")
        yield from np.split(order, np.cumsum(np.bincount(turn))[:-1]) if len(turn) else ()


def _table(split: CocoSplit) -> Array:
    """Return image, category, crowd, area, left, top, width and height of every annotated box."""
    rows = [
        (image, one["category_id"], one["iscrowd"], one["area"], *one["bbox"])
        for image in range(len(split))
        for one in split.annotations(image)
    ]
    return np.array(rows, float).reshape(-1, 8)


def _in_order(found: Detections, truth: Truth, models: int, block: int) -> Iterator[_Sorted]:
    """Yield the detections of a few models at a time, so that their outcomes fit into memory."""
    known = torch.from_numpy(np.isin(found.category.numpy(), truth.categories))
    known &= ~(not_finite(_sides(found.boxes)) | not_finite(found.scores[:, None]))
    columns = [field.name for field in dataclasses.fields(Detections)]
    fields = {name: getattr(found, name)[known] for name in columns}
    model, image, category = (fields[name].numpy() for name in ("model", "image", "category"))
    scores = fields["scores"].double().numpy()
    cell = truth.cells(image, category)
    order = np.lexsort((-scores, cell, model))
    model, cell, scores = model[order], cell[order], scores[order]
    group = model * len(truth.count) + cell
    start = np.diff(group, prepend=-1) != 0
    place = np.arange(len(group))
    kept = place - np.maximum.accumulate(np.where(start, place, 0)) < MOST
    boxes = _sides(fields["boxes"][torch.from_numpy(order[kept])]).double().numpy()
    model, cell, scores = model[kept], cell[kept], scores[kept]
    each = len(truth.ranges) * len(truth.thresholds)
    each *= max(1, len(model) // models) + len(truth.categories) * len(truth.recalls)
    few = max(1, block // each)
    for low in range(0, models, few):
        rows = slice(*np.searchsorted(model, [low, low + few]))
        area = boxes[rows, 2] * boxes[rows, 3]
        count = min(few, models - low)
        yield _Sorted(count, model[rows] - low, cell[rows], boxes[rows], area, scores[rows])


def _sides(corners: Float[Tensor, "T 4"]) -> Float[Tensor, "T 4"]:
    """Return left, top, width and height of boxes; not finite where a corner is not, or where a side overflows."""
    return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)


def _iou(found: Array, boxes: Array, crowd: Array) -> Array:
    """Return the IoU of each detection with its box, (left, top, width, height); over the detection for a crowd."""
    low = np.maximum(found[:, :2], boxes[:, :2])
    high = np.minimum(found[:, :2] + found[:, 2:], boxes[:, :2] + boxes[:, 2:])
    wide, tall = (high - low).clip(min=0).T
    both, own = wide * tall, found[:, 2] * found[:, 3]
    either = np.where(crowd, own, own + boxes[:, 2] * boxes[:, 3] - both)
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)
