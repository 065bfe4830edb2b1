"""Hooks that keep a detector from detecting anything where outputs of its heads are not finite (NaN or infinite).

torchvision would hide such outputs: the sigmoid of inf is 1, relu and exp turn -inf into 0, and boxes are clipped to
the image. A place is an anchor of the region proposal network, a proposal of Faster R-CNN, or a position in a map of
FCOS. If any output of the heads for a place is not finite (a logit of any class, an offset, the centerness), nothing is
detected there.
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
    """A context in which a detector detects nothing at places with outputs that are not finite; others do not change.

    It records in which images there were any, until ``take`` asks for them.

    Args:
        model: the detector, in eval mode.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._broken: list[Bool[Tensor, " B"]] = []  # of every run of a head: its broken images

    @abstractmethod
    def _hooks(self) -> list[RemovableHandle]:
        """Register hooks that exclude places with outputs that are not finite, and record their images."""

    def __enter__(self) -> Self:
        self._broken.clear()
        self._handles = self._hooks()
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def take(self, images: int) -> Bool[Tensor, " B"]:
        """Return whether each of B images had an output that is not finite, in the runs since the last call.

        Args:
            images: number of images B in these runs.
        """
        none = torch.zeros(images, dtype=torch.bool, device=next(self.model.parameters()).device)
        broken, self._broken = self._broken, []
        return torch.stack([none, *broken]).any(0)


class ProposalWatch(Watch):
    """The watch of Faster R-CNN: of the head of the region proposal network, and of the box predictor."""

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
        """Give invalid anchors the lowest score and no size, so that they become no proposals."""
        logits, offsets = [], []
        for level, level_offsets in zip(*output, strict=True):
            four = level_offsets.unflatten(1, (-1, 4))
            invalid = not_finite(level[..., None]) | not_finite(four.movedim(2, -1))
            self._broken.append(invalid.flatten(1).any(1))
            logits.append(level.masked_fill(invalid, -torch.inf))
            offsets.append(four.masked_fill(invalid[:, :, None], -torch.inf).flatten(1, 2))
        return logits, offsets

    def _count(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Record the number of proposals of each image."""
        self._lengths = [len(boxes) for boxes in inputs[1]]

    def _proposals(
        self, _: nn.Module, __: Any, output: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Set the logits of invalid proposals to NaN: their scores are then above no threshold."""
        logits, offsets = output
        invalid = not_finite(logits) | not_finite(offsets)
        self._broken.append(torch.stack([part.any() for part in invalid.split(self._lengths)]))
        return logits.masked_fill(invalid[:, None], torch.nan), offsets


class PlaceWatch(Watch):
    """The watch of FCOS: of its three last layers."""

    def _hooks(self) -> list[RemovableHandle]:
        head = self.model.head
        classes, boxes = head.classification_head, head.regression_head
        self._maps: dict[nn.Module, list[Bool[Tensor, "B P"]]] = {
            layer: [] for layer in (classes.cls_logits, boxes.bbox_reg, boxes.bbox_ctrness)
        }
        hooks = [layer.register_forward_hook(self._level) for layer in self._maps]
        return [*hooks, head.register_forward_hook(self._places)]

    def _level(self, layer: nn.Module, _: Any, output: Float[Tensor, "B C H W"]) -> None:
        """Record the positions at which a layer's map of one level is not finite.

        A weight that is not finite makes all positions invalid, as in ``tasks.fast.last_layers``.
        """
        weights = not_finite(layer.get_parameter("weight").flatten()[None])
        self._maps[layer].append(not_finite(output.movedim(1, -1)).flatten(1) | weights)

    def _places(self, _: nn.Module, __: Any, output: dict[str, Tensor]) -> dict[str, Tensor]:
        """Set the logits of invalid places to NaN: their scores are then above no threshold."""
        invalid = torch.stack([torch.cat(levels, 1) for levels in self._maps.values()]).any(0)
        for levels in self._maps.values():
            levels.clear()
        self._broken.append(invalid.any(1))
        logits = output["cls_logits"].masked_fill(invalid[..., None], torch.nan)
        return {**output, "cls_logits": logits}


def watch(model: Any) -> Watch:
    """Return the watch of a detector, a FasterRCNN or FCOS of torchvision."""
    return ProposalWatch(model) if isinstance(model, FasterRCNN) else PlaceWatch(model)
