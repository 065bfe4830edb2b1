"""The last layers of torchvision's detectors, for many candidates at once: from shared features to boxes.

The last layer is one product (or convolution) for all candidates, and thresholds, boxes and non-maximum suppression run
over all of them. What each candidate finds is what torchvision's own model finds with its values, watched by
``tasks.fast.watching``: nothing at a place where anything that the last layer gives is not finite.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN
from torchvision.ops import boxes as box_ops
from torchvision.ops import nms

from tasks.fast.finite import not_finite

Values = dict[str, Tensor]  # of n candidates: by parameter name, n in front


@dataclasses.dataclass(frozen=True)
class Hits:
    """Boxes that n candidates propose in one image: above the score threshold, not suppressed yet."""

    model: Int64[Tensor, " K"]
    label: Int64[Tensor, " K"]
    boxes: Float[Tensor, "K 4"]
    scores: Float[Tensor, " K"]

    def __getitem__(self, rows: Tensor) -> "Hits":
        return Hits(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


def join(parts: Sequence[Hits]) -> Hits:
    """Join the boxes of several parts, one after the other."""
    fields = [field.name for field in dataclasses.fields(Hits)]
    return Hits(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))


class LastLayer(ABC):
    """The last layer of a detector, for many candidates at once.

    Args:
        model: the base, in eval mode.
        threshold: overlap above which a box is suppressed by a better one of its class.
        most: boxes of an image that a candidate may keep.
    """

    def __init__(self, model: Any, threshold: float, most: int) -> None:
        self.model, self.threshold, self.most = model, threshold, most

    @abstractmethod
    def shared(self, images: Any, features: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return what the last layer starts from, for each image of a batch (torchvision's ImageList)."""

    @abstractmethod
    def widest(self, shared: dict[str, Tensor]) -> int:
        """Values of a candidate's largest tensor."""

    @abstractmethod
    def hits(
        self, shared: dict[str, Tensor], values: Values, size: tuple[int, int]
    ) -> tuple[Hits, Bool[Tensor, " n"]]:
        """Return each candidate's detections in one image of this size, and whose outputs are not all finite."""


class BoxPredictor(LastLayer):
    """Faster R-CNN's: two products with the hidden features of each proposal."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.roi_heads.nms_thresh, model.roi_heads.detections_per_img)
        self.heads = model.roi_heads

    def shared(self, images: Any, features: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return hidden features and corners of each image's proposals."""
        proposals, _ = self.model.rpn(images, features)
        pooled = self.heads.box_roi_pool(features, proposals, images.image_sizes)
        hidden = self.heads.box_head(pooled).split([len(boxes) for boxes in proposals])
        return [
            {"hidden": own, "proposals": boxes}
            for own, boxes in zip(hidden, proposals, strict=True)
        ]

    def widest(self, shared: dict[str, Tensor]) -> int:
        """Boxes of all classes."""
        return int(len(shared["hidden"]) * self.heads.box_predictor.bbox_pred.out_features)

    def hits(
        self, shared: dict[str, Tensor], values: Values, size: tuple[int, int]
    ) -> tuple[Hits, Bool[Tensor, " n"]]:
        """Detect as ``RoIHeads.postprocess_detections``; boxes are decoded only where the score is high enough."""
        name = "roi_heads.box_predictor"
        logits = _products(shared["hidden"], values, f"{name}.cls_score")
        offsets = _products(shared["hidden"], values, f"{name}.bbox_pred")
        bad = not_finite(logits) | not_finite(offsets)
        scores, offsets = logits.softmax(-1)[..., 1:], offsets.unflatten(-1, (-1, 4))
        model, row, label = _above(scores, self.heads.score_thresh, bad)
        boxes = self.heads.box_coder.decode_single(
            offsets[model, row, label + 1], shared["proposals"][row]
        )
        boxes = box_ops.clip_boxes_to_image(boxes, size)
        found = Hits(model, label + 1, boxes, scores[model, row, label])
        return found[box_ops.remove_small_boxes(boxes, min_size=1e-2)], bad.any(1)


class Convolutions(LastLayer):
    """FCOS': three convolutions of the two towers' features, at every level."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.nms_thresh, model.detections_per_img)

    def shared(self, images: Any, features: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return each level's features for classes, features for boxes, and anchors."""
        levels = list(features.values())
        sizes = [level.shape[-2] * level.shape[-1] for level in levels]
        head, anchors = self.model.head, self.model.anchor_generator(images, levels)
        whole = {f"classes.{i}": head.classification_head.conv(f) for i, f in enumerate(levels)}
        whole |= {f"corners.{i}": head.regression_head.conv(f) for i, f in enumerate(levels)}
        return [
            {name: tensor[row] for name, tensor in whole.items()}
            | {f"anchors.{i}": part for i, part in enumerate(own.split(sizes))}
            for row, own in enumerate(anchors)
        ]

    def widest(self, shared: dict[str, Tensor]) -> int:
        """Scores of all classes at every place of the first level."""
        outputs = self.model.head.classification_head.num_classes
        return int(shared["classes.0"].shape[-2:].numel() * outputs)

    def hits(
        self, shared: dict[str, Tensor], values: Values, size: tuple[int, int]
    ) -> tuple[Hits, Bool[Tensor, " n"]]:
        """Detect as ``FCOS.postprocess_detections``, level by level."""
        levels = [name.partition(".")[2] for name in shared if name.startswith("anchors.")]
        found, bad = zip(*(self._level(shared, level, values) for level in levels), strict=True)
        hits = join(found)
        hits = dataclasses.replace(hits, boxes=box_ops.clip_boxes_to_image(hits.boxes, size))
        return hits, torch.stack(bad).any(0)

    def _level(
        self, shared: dict[str, Tensor], level: str, values: Values
    ) -> tuple[Hits, Bool[Tensor, " n"]]:
        """Return one level's detections; of each candidate no more than torchvision takes of a level."""
        corners, anchors = shared[f"corners.{level}"], shared[f"anchors.{level}"]
        logits = _convolve(
            shared[f"classes.{level}"], values, "head.classification_head.cls_logits"
        )
        center = _convolve(corners, values, "head.regression_head.bbox_ctrness")
        offsets = _convolve(corners, values, "head.regression_head.bbox_reg")
        bad = not_finite(logits) | not_finite(center) | not_finite(offsets)
        scores = (logits.sigmoid() * center.sigmoid()).sqrt()
        model, place, label = _above(scores, self.model.score_thresh, bad)
        kept = _best(model, scores[model, place, label], self.model.topk_candidates)
        model, place, label = model[kept], place[kept], label[kept]
        boxes = self.model.box_coder.decode(offsets[model, place].relu(), anchors[place])
        return Hits(model, label, boxes, scores[model, place, label]), bad.any(1)


def _products(inputs: Float[Tensor, "P F"], values: Values, name: str) -> Float[Tensor, "n P C"]:
    """Apply n linear layers to the same inputs, as one product."""
    weight, bias = values[f"{name}.weight"], values[f"{name}.bias"]
    joined = F.linear(inputs, weight.flatten(0, 1), bias.flatten())
    products: Tensor = joined.unflatten(1, bias.shape)
    return products.transpose(0, 1)


def _convolve(inputs: Float[Tensor, "F H W"], values: Values, name: str) -> Float[Tensor, "n P C"]:
    """Apply n convolutions to the same inputs, as one with n times the outputs; rows are places.

    One with a weight that is not finite gives NaN everywhere. What such a weight makes of the zeros around the inputs
    depends otherwise on how a convolution is computed.
    """
    weight, bias = values[f"{name}.weight"], values[f"{name}.bias"]
    joined = F.conv2d(inputs[None], weight.flatten(0, 1), bias.flatten(), padding=1)
    maps: Tensor = joined[0].flatten(1).unflatten(0, bias.shape)
    bad = not_finite(weight.flatten(1))
    if bool(bad.any()):
        maps = maps.masked_fill(bad[:, None, None], torch.nan)
    return maps.transpose(1, 2)


def _above(
    scores: Float[Tensor, "n P C"], threshold: float, bad: Bool[Tensor, "n P"]
) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " K"], Int64[Tensor, " K"]]:
    """Return candidate, place and class of the scores above a threshold, at places that are not bad."""
    above = scores > threshold
    if bool(bad.any()):
        above &= ~bad[:, :, None]
    model, place, label = torch.where(above)
    return model, place, label


def _best(
    group: Int64[Tensor, " K"], scores: Float[Tensor, " K"], most: int
) -> Int64[Tensor, " k"]:
    """Return the rows of the highest scores of each group, no more than so many, in falling order within a group."""
    order = scores.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    sizes = group.bincount()
    start = sizes.cumsum(0) - sizes
    place = torch.arange(len(order), device=order.device) - start[group[order]]
    return order[place < most]


def suppress(hits: Hits, threshold: float, most: int, together: int) -> Hits:
    """Suppress non-maxima within each candidate and class, then keep each candidate's best, by candidate.

    A box or score that is not finite is dropped: boxes are moved apart by the largest coordinate of any candidate.

    Args:
        hits: of all candidates in one image.
        threshold: overlap above which a box is suppressed by a better one of its class.
        most: boxes that a candidate may keep.
        together: boxes that are compared with each other at once.
    """
    bad = not_finite(hits.boxes) | not_finite(hits.scores[:, None])
    hits = hits[~bad] if bool(bad.any()) else hits
    if not len(hits.model):
        return hits
    hits = hits[hits.model.argsort(stable=True)]
    sizes = hits.model.bincount()
    turn = sizes.cumsum(0).sub_(1).div_(together, rounding_mode="floor")
    pieces = turn[hits.model].bincount()
    rows = torch.arange(len(hits.model), device=hits.model.device).split(pieces.tolist())
    return join([_suppress(hits[some], threshold, most) for some in rows])


def _suppress(hits: Hits, threshold: float, most: int) -> Hits:
    """Suppress as ``torchvision.ops.batched_nms``, in float64 where groups are moved apart, so that many groups fit."""
    if not len(hits.model):
        return hits
    group = hits.model * (hits.label.max() + 1) + hits.label
    apart = (group - group.min()) * (hits.boxes.max().double() + 1)
    kept = nms(hits.boxes.double() + apart[:, None], hits.scores.double(), threshold)
    return hits[kept[_best(hits.model[kept], hits.scores[kept], most)]]


def last_layer(model: nn.Module) -> LastLayer:
    """Return the last layer of this detector."""
    return BoxPredictor(model) if isinstance(model, FasterRCNN) else Convolutions(model)
