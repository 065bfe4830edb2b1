"""What a detector's heads put out that is not finite, taken out before torchvision makes detections of it.

torchvision would launder it: the sigmoid of inf is 1, relu and exp make 0 of -inf, and boxes are clipped to the image.
A place is an anchor of the region proposals, a proposal of Faster R-CNN, or a place in a map of FCOS. If anything that
the heads give for a place is not finite (a logit of any class, an offset, the centerness), nothing is found there.
"""

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchvision.models.detection import FasterRCNN

from tasks.fast.finite import not_finite


class Watch(ABC):
    """While it is entered, a detector finds nothing where its heads are not finite; what is finite stays as it is.

    Args:
        model: the detector, in eval mode.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._seen: list[Bool[Tensor, " B"]] = []  # which images, once for every head that ran

    @abstractmethod
    def _hooks(self) -> list[RemovableHandle]:
        """Return hooks that note which images have values that are not finite, and take these out."""

    def __enter__(self) -> Self:
        self._seen.clear()
        self._handles = self._hooks()
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def take(self, images: int) -> Bool[Tensor, " B"]:
        """Return which of so many images had values that are not finite since this was asked last."""
        none = torch.zeros(images, dtype=torch.bool, device=next(self.model.parameters()).device)
        seen, self._seen = self._seen, []
        return torch.stack([none, *seen]).any(0)


class ProposalWatch(Watch):
    """Of Faster R-CNN: the head of the region proposals, and the box predictor."""

    def _hooks(self) -> list[RemovableHandle]:
        heads = self.model.roi_heads
        return [
            self.model.rpn.head.register_forward_hook(self._anchors),
            heads.register_forward_pre_hook(self._count),
            heads.box_predictor.register_forward_hook(self._proposals),
        ]

    def _anchors(
        self, _: nn.Module, __: Any, output: tuple[list[Tensor], list[Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Rank bad anchors last and give them no size, so that they are no proposals."""
        logits, offsets = [], []
        for level, own in zip(*output, strict=True):
            four = own.unflatten(1, (-1, 4))
            bad = not_finite(level[..., None]) | not_finite(four.movedim(2, -1))
            self._seen.append(bad.flatten(1).any(1))
            logits.append(level.masked_fill(bad, -torch.inf))
            offsets.append(four.masked_fill(bad[:, :, None], -torch.inf).flatten(1, 2))
        return logits, offsets

    def _count(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Count the proposals of each image."""
        self._lengths = [len(boxes) for boxes in inputs[1]]

    def _proposals(
        self, _: nn.Module, __: Any, output: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Make the scores of bad proposals NaN, which is above no threshold."""
        logits, offsets = output
        bad = not_finite(logits) | not_finite(offsets)
        self._seen.append(torch.stack([own.any() for own in bad.split(self._lengths)]))
        return logits.masked_fill(bad[:, None], torch.nan), offsets


class PlaceWatch(Watch):
    """Of FCOS: the last three layers."""

    def _hooks(self) -> list[RemovableHandle]:
        head = self.model.head
        classes, boxes = head.classification_head, head.regression_head
        self._maps: dict[nn.Module, list[Bool[Tensor, "B P"]]] = {
            layer: [] for layer in (classes.cls_logits, boxes.bbox_reg, boxes.bbox_ctrness)
        }
        hooks = [layer.register_forward_hook(self._level) for layer in self._maps]
        return [*hooks, head.register_forward_hook(self._places)]

    def _level(self, layer: nn.Module, _: Any, output: Float[Tensor, "B C H W"]) -> None:
        """Note where one layer's map of one level is not finite, before anything is done with it.

        That is everywhere if one of its weights is not: see ``tasks.fast.last_layers``.
        """
        weights = not_finite(layer.get_parameter("weight").flatten()[None])
        self._maps[layer].append(not_finite(output.movedim(1, -1)).flatten(1) | weights)

    def _places(self, _: nn.Module, __: Any, output: dict[str, Tensor]) -> dict[str, Tensor]:
        """Make the scores of bad places NaN, which is above no threshold."""
        bad = torch.stack([torch.cat(levels, 1) for levels in self._maps.values()]).any(0)
        for levels in self._maps.values():
            levels.clear()
        self._seen.append(bad.any(1))
        logits = output["cls_logits"].masked_fill(bad[..., None], torch.nan)
        return {**output, "cls_logits": logits}


def watch(model: Any) -> Watch:
    """Return the watcher for this detector."""
    return ProposalWatch(model) if isinstance(model, FasterRCNN) else PlaceWatch(model)
