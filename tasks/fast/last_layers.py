"""The last layers of torchvision's detectors for many candidates at once: from shared features to detections.

A layer is one matrix product (or convolution) for all candidates; thresholds, decoding of boxes and non-maximum
suppression also run over all of them. Each candidate's detections equal those of torchvision's model with its
parameters, watched by ``tasks.fast.watching``: nothing is detected at a place where an output of the last layers is not
finite. A place is a proposal of Faster R-CNN, or a position in a map of FCOS.
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

Values = dict[str, Tensor]  # parameters of n candidates by name; the first dimension is n


@dataclasses.dataclass(frozen=True)
class ScoredBoxes:
    """The boxes above the score threshold that several candidates detect in one image.

    Attributes:
        model: number of the candidate.
        label: class, as a label of the detector.
        boxes: left, top, right and bottom in pixels.
        scores: confidence.
    """

    model: Int64[Tensor, " K"]
    label: Int64[Tensor, " K"]
    boxes: Float[Tensor, "K 4"]
    scores: Float[Tensor, " K"]

    def __getitem__(self, rows: Tensor) -> "ScoredBoxes":
        return ScoredBoxes(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


def join(parts: Sequence[ScoredBoxes]) -> ScoredBoxes:
    """Concatenate the boxes of several parts."""
    fields = [field.name for field in dataclasses.fields(ScoredBoxes)]
    return ScoredBoxes(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))


class LastLayer(ABC):
    """The last layers of a detector, run for many candidates at once.

    Args:
        model: the base, in eval mode.
        threshold: IoU above which non-maximum suppression drops the box of the lower score.
        most: largest number of boxes that a candidate may keep in an image.
    """

    def __init__(self, model: Any, threshold: float, most: int) -> None:
        self.model, self.threshold, self.most = model, threshold, most

    @abstractmethod
    def shared(self, images: Any, features: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return the inputs of the last layers for each image.

        Args:
            images: batch of resized images, torchvision's ImageList.
            features: features of the backbone by level.
        """

    @abstractmethod
    def widest(self, shared: dict[str, Tensor]) -> int:
        """Return the number of values of the largest tensor of one candidate in one image."""

    @abstractmethod
    def detect(
        self, shared: dict[str, Tensor], values: Values, size: tuple[int, int]
    ) -> tuple[ScoredBoxes, Bool[Tensor, " n"]]:
        """Return the detections of n candidates in one image, before non-maximum suppression.

        Args:
            shared: inputs of the last layers.
            values: parameters of the last layers.
            size: height and width of the resized image.

        Returns:
            The boxes, in pixels of the resized image; and whether an output of each candidate is not finite.
        """


class BoxPredictor(LastLayer):
    """The last layers of Faster R-CNN: two linear layers on the hidden features of each proposal."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.roi_heads.nms_thresh, model.roi_heads.detections_per_img)
        self.heads = model.roi_heads

    def shared(self, images: Any, features: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return the hidden features, P x F, and the corners, P x 4, of each image's P proposals."""
        proposals, _ = self.model.rpn(images, features)
        pooled = self.heads.box_roi_pool(features, proposals, images.image_sizes)
        hidden = self.heads.box_head(pooled).split([len(boxes) for boxes in proposals])
        return [
            {"hidden": part, "proposals": boxes}
            for part, boxes in zip(hidden, proposals, strict=True)
        ]

    def widest(self, shared: dict[str, Tensor]) -> int:
        """Return the number of box offsets: of all proposals, for all classes."""
        return int(len(shared["hidden"]) * self.heads.box_predictor.bbox_pred.out_features)

    def detect(
        self, shared: dict[str, Tensor], values: Values, size: tuple[int, int]
    ) -> tuple[ScoredBoxes, Bool[Tensor, " n"]]:
        """Detect as ``RoIHeads.postprocess_detections`` does, but decode only the boxes above the score threshold."""
        name = "roi_heads.box_predictor"
        logits = _products(shared["hidden"], values, f"{name}.cls_score")
        offsets = _products(shared["hidden"], values, f"{name}.bbox_pred")
        invalid = not_finite(logits) | not_finite(offsets)
        scores, offsets = logits.softmax(-1)[..., 1:], offsets.unflatten(-1, (-1, 4))
        model, row, label = _above(scores, self.heads.score_thresh, invalid)
        boxes = self.heads.box_coder.decode_single(
            offsets[model, row, label + 1], shared["proposals"][row]
        )
        boxes = box_ops.clip_boxes_to_image(boxes, size)
        detected = ScoredBoxes(model, label + 1, boxes, scores[model, row, label])
        return detected[box_ops.remove_small_boxes(boxes, min_size=1e-2)], invalid.any(1)


class Convolutions(LastLayer):
    """The last layers of FCOS: three convolutions on the features of the two towers, at every level."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.nms_thresh, model.detections_per_img)

    def shared(self, images: Any, features: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return the features of the tower for classes, of the tower for boxes, and the anchors, at every level."""
        levels = list(features.values())
        sizes = [level.shape[-2] * level.shape[-1] for level in levels]
        head, anchors = self.model.head, self.model.anchor_generator(images, levels)
        whole = {f"classes.{i}": head.classification_head.conv(f) for i, f in enumerate(levels)}
        whole |= {f"corners.{i}": head.regression_head.conv(f) for i, f in enumerate(levels)}
        return [
            {name: tensor[row] for name, tensor in whole.items()}
            | {f"anchors.{i}": part for i, part in enumerate(image_anchors.split(sizes))}
            for row, image_anchors in enumerate(anchors)
        ]

    def widest(self, shared: dict[str, Tensor]) -> int:
        """Return the number of class scores at all positions of the first level, which is the largest."""
        outputs = self.model.head.classification_head.num_classes
        return int(shared["classes.0"].shape[-2:].numel() * outputs)

    def detect(
        self, shared: dict[str, Tensor], values: Values, size: tuple[int, int]
    ) -> tuple[ScoredBoxes, Bool[Tensor, " n"]]:
        """Detect as ``FCOS.postprocess_detections`` does, level by level."""
        levels = [name.partition(".")[2] for name in shared if name.startswith("anchors.")]
        parts, invalid = zip(*(self._level(shared, level, values) for level in levels), strict=True)
        detected = join(parts)
        clipped = box_ops.clip_boxes_to_image(detected.boxes, size)
        return dataclasses.replace(detected, boxes=clipped), torch.stack(invalid).any(0)

    def _level(
        self, shared: dict[str, Tensor], level: str, values: Values
    ) -> tuple[ScoredBoxes, Bool[Tensor, " n"]]:
        """Return the detections of one level, of each candidate the best ``topk_candidates`` as in torchvision."""
        corners, anchors = shared[f"corners.{level}"], shared[f"anchors.{level}"]
        logits = _convolve(
            shared[f"classes.{level}"], values, "head.classification_head.cls_logits"
        )
        center = _convolve(corners, values, "head.regression_head.bbox_ctrness")
        offsets = _convolve(corners, values, "head.regression_head.bbox_reg")
        invalid = not_finite(logits) | not_finite(center) | not_finite(offsets)
        scores = (logits.sigmoid() * center.sigmoid()).sqrt()
        model, place, label = _above(scores, self.model.score_thresh, invalid)
        kept = _best(model, scores[model, place, label], self.model.topk_candidates)
        model, place, label = model[kept], place[kept], label[kept]
        boxes = self.model.box_coder.decode(offsets[model, place].relu(), anchors[place])
        return ScoredBoxes(model, label, boxes, scores[model, place, label]), invalid.any(1)


def _products(inputs: Float[Tensor, "P F"], values: Values, name: str) -> Float[Tensor, "n P C"]:
    """Apply the n candidates' linear layers of a name to the same P inputs, as one matrix product."""
    weight, bias = values[f"{name}.weight"], values[f"{name}.bias"]
    joined = F.linear(inputs, weight.flatten(0, 1), bias.flatten())
    products: Tensor = joined.unflatten(1, bias.shape)
    return products.transpose(0, 1)


def _convolve(inputs: Float[Tensor, "F H W"], values: Values, name: str) -> Float[Tensor, "n P C"]:
    """Apply the n candidates' convolutions of a name to the same inputs, as one; P are the positions of the map.

    The output of a convolution with a weight that is not finite is NaN everywhere: the product of such a weight with
    the zeros of the padding would otherwise depend on the algorithm of the convolution.
    """
    weight, bias = values[f"{name}.weight"], values[f"{name}.bias"]
    joined = F.conv2d(inputs[None], weight.flatten(0, 1), bias.flatten(), padding=1)
    maps: Tensor = joined[0].flatten(1).unflatten(0, bias.shape)
    invalid = not_finite(weight.flatten(1))
    if bool(invalid.any()):
        maps = maps.masked_fill(invalid[:, None, None], torch.nan)
    return maps.transpose(1, 2)


def _above(
    scores: Float[Tensor, "n P C"], threshold: float, invalid: Bool[Tensor, "n P"]
) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " K"], Int64[Tensor, " K"]]:
    """Return candidate, place and class of the K scores above a threshold, except at invalid places."""
    above = scores > threshold
    if bool(invalid.any()):
        above &= ~invalid[:, :, None]
    model, place, label = torch.where(above)
    return model, place, label


def _best(
    group: Int64[Tensor, " K"], scores: Float[Tensor, " K"], most: int
) -> Int64[Tensor, " k"]:
    """Return the rows of the ``most`` highest scores of each group, by group and falling score."""
    order = scores.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    sizes = group.bincount()
    start = sizes.cumsum(0) - sizes
    place = torch.arange(len(order), device=order.device) - start[group[order]]
    return order[place < most]


def suppress(scored: ScoredBoxes, threshold: float, most: int, together: int) -> ScoredBoxes:
    """Apply non-maximum suppression within each candidate and class, and keep the best boxes of each candidate.

    A box whose corners or score are not finite is dropped first: groups are separated by an offset of the largest
    coordinate of all candidates, which has to be finite.

    Args:
        scored: boxes of all candidates in one image.
        threshold: IoU above which the box of the lower score is dropped.
        most: largest number of boxes that a candidate may keep.
        together: number of boxes, about, that are compared with each other at once; those of one candidate always are.
    """
    invalid = not_finite(scored.boxes) | not_finite(scored.scores[:, None])
    scored = scored[~invalid] if bool(invalid.any()) else scored
    if not len(scored.model):
        return scored
    scored = scored[scored.model.argsort(stable=True)]
    sizes = scored.model.bincount()
    turn = sizes.cumsum(0).sub_(1).div_(together, rounding_mode="floor")
    pieces = turn[scored.model].bincount()
    rows = torch.arange(len(scored.model), device=scored.model.device).split(pieces.tolist())
    return join([_suppress(scored[piece], threshold, most) for piece in rows])


def _suppress(scored: ScoredBoxes, threshold: float, most: int) -> ScoredBoxes:
    """Suppress as ``torchvision.ops.batched_nms`` does, but with offsets in float64, precise enough for many groups."""
    if not len(scored.model):
        return scored
    group = scored.model * (scored.label.max() + 1) + scored.label
    apart = (group - group.min()) * (scored.boxes.max().double() + 1)
    kept = nms(scored.boxes.double() + apart[:, None], scored.scores.double(), threshold)
    return scored[kept[_best(scored.model[kept], scored.scores[kept], most)]]


def last_layer(model: nn.Module) -> LastLayer:
    """Return the last layers of a detector, a FasterRCNN or FCOS of torchvision."""
    return BoxPredictor(model) if isinstance(model, FasterRCNN) else Convolutions(model)
