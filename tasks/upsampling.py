"""What coarse logits say about every pixel, computing only the pixels that are in doubt.

A fully convolutional network gives logits at a fraction of the resolution; bilinear upsampling (as
``torch.nn.functional.interpolate`` does it, corners not aligned) and the largest logit then give each pixel its class.
Between four neighbouring coarse logits every upsampled one is a mean of the four, with weights that add up to 1. Where
the same class has the largest logit at all four, it has the largest everywhere between them. Such cells, nine of ten in
a trained network, are counted as they are; only the others are upsampled.
"""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from tasks.coco import IGNORED
from tasks.confusion import count

PIECE_BYTES = {"cpu": 2 * 1024**2, "cuda": 256 * 1024**2}  # of upsampled logits at a time


def confusion(
    logits: Float[Tensor, "n B C h w"], labels: UInt8[Tensor, "B H W"]
) -> Int64[Tensor, "n C C"]:
    """Confusion matrices of n models, the same as upsampling to H x W would give.

    Args:
        logits: of the same images for every model; H / h and W / w are the same whole number.
        labels: the class of every pixel, or ``IGNORED``.
    """
    classes = logits.shape[2]
    cells = _cells(labels, labels.shape[-1] // logits.shape[-1], classes)
    padded = F.pad(logits.flatten(0, 1), (1, 1, 1, 1), mode="replicate")
    top = padded.max(1).indices  # four times as fast as argmax on a CPU
    first = top[:, :-1, :-1]
    sure = (first == top[:, :-1, 1:]) & (first == top[:, 1:, :-1]) & (first == top[:, 1:, 1:])
    decided = first.where(sure, classes).reshape(len(logits), -1)
    return _counted(decided, cells, classes) + _upsampled(padded, ~sure, cells, len(logits))


def _cells(labels: UInt8[Tensor, "B H W"], factor: int, classes: int) -> Int64[Tensor, "cells F"]:
    """The labels of the factor x factor pixels between four coarse logits, cell by cell; ``classes`` where none is.

    The cells at the border have corners outside of the image, where the logits inside are repeated.
    """
    before = (factor + 1) // 2
    after = factor - before
    padded = F.pad(labels, (before, after, before, after), value=IGNORED).clamp(max=classes)
    return padded.unfold(1, factor, factor).unfold(2, factor, factor).reshape(-1, factor**2).long()


def _weights(factor: int) -> Float[Tensor, "4 F"]:
    """How much each corner of a cell has in each of its pixels."""
    way = (2 * torch.arange(factor) + 1 - factor % 2) / (2 * factor)
    ends = torch.stack([1 - way, way])
    return torch.einsum("ay,bx->abyx", ends, ends).reshape(4, factor**2)


def _counted(
    decided: Int64[Tensor, "n cells"], cells: Int64[Tensor, "cells F"], classes: int
) -> Int64[Tensor, "n C C"]:
    """Confusion matrices over the cells whose pixels all get one class; ``classes`` marks the other cells."""
    number = torch.arange(len(cells), device=cells.device)[:, None] * (classes + 1)
    labels = torch.bincount((number + cells).flatten(), minlength=len(cells) * (classes + 1))
    labels = labels.view(-1, classes + 1)[:, :classes]
    empty = labels.new_zeros(classes + 1, classes)
    return torch.stack([empty.index_add(0, row, labels)[:classes].T for row in decided])


def _upsampled(
    padded: Float[Tensor, "N C h w"],
    doubtful: Bool[Tensor, "N y x"],
    cells: Int64[Tensor, "cells F"],
    models: int,
) -> Int64[Tensor, "n C C"]:
    """Confusion matrices over the doubtful cells."""
    classes, pixels = padded.shape[1], cells.shape[1]
    weights = _weights(round(pixels**0.5)).to(padded)
    images, rows, columns = doubtful.nonzero(as_tuple=True)
    labels = cells.view(-1, *doubtful.shape[1:], pixels)
    logits = padded.permute(0, 2, 3, 1)
    matrices = torch.zeros(models, classes, classes, dtype=torch.int64, device=padded.device)
    piece = max(1, PIECE_BYTES[padded.device.type] // (4 * classes * pixels))
    for image, y, x in zip(
        images.split(piece), rows.split(piece), columns.split(piece), strict=True
    ):
        around = [logits[image, y + down, x + right] for down in (0, 1) for right in (0, 1)]
        predicted = (torch.stack(around, -1) @ weights).max(1).indices
        model = image.div(len(labels), rounding_mode="floor")[:, None] * (classes + 1)
        label = labels[image % len(labels), y, x]
        matrices += count(((model + label) * classes + predicted).flatten(), models, classes)
    return matrices


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Some pixels of a split, in the order of their images.

    Attributes:
        image, row, column: where each lies.
        label: its class.
    """

    image: Int64[Tensor, " U"]
    row: Int64[Tensor, " U"]
    column: Int64[Tensor, " U"]
    label: Int64[Tensor, " U"]

    def __len__(self) -> int:
        return len(self.label)

    def to(self, device: str) -> "Pixels":
        """The same on a device."""
        return Pixels(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))

    def of(self, images: slice) -> slice:
        """Which of these pixels lie in these consecutive images."""
        ends = torch.tensor([images.start, images.stop], device=self.image.device)
        low, high = torch.searchsorted(self.image, ends).tolist()
        return slice(low, high)

    def logits(
        self, coarse: Float[Tensor, "n B C h w"], images: slice, factor: int
    ) -> Float[Tensor, "n u C"]:
        """The upsampled logits of those that lie in these images."""
        some = self.of(images)
        tall, wide = coarse.shape[-2:]
        image = self.image[some] - images.start
        rows, columns = (
            _around(position[some], factor, size)
            for position, size in ((self.row, tall), (self.column, wide))
        )
        logits = coarse.permute(1, 3, 4, 0, 2)
        total = torch.zeros(())
        for y, high in rows:
            for x, far in columns:
                total = total + (high * far)[:, None, None] * logits[image, y, x]
        return total.transpose(0, 1)


def _around(
    position: Int64[Tensor, " u"], factor: int, size: int
) -> list[tuple[Int64[Tensor, " u"], Float[Tensor, " u"]]]:
    """The coarse positions before and after a fine one, and the share of each."""
    place = ((position + 0.5) / factor - 0.5).clamp(min=0)
    before = place.long()
    way = place - before
    return [(before, 1 - way), ((before + 1).clamp(max=size - 1), way)]
