"""What coarse logits say about every pixel, computing only the pixels that are in doubt.

A fully convolutional network gives logits at a fraction of the resolution; bilinear upsampling (as
``torch.nn.functional.interpolate`` does it, corners not aligned) and the largest logit then give each pixel its class.
Between four neighbouring coarse logits every upsampled one is a mean of the four, with weights that add up to 1. Where
the same class has the largest logit at all four, it has the largest everywhere between them. Such cells, nine of ten in
a trained network, are counted as they are; only the others are upsampled.

Where a coarse logit of any class is not finite (NaN or infinite), every pixel that it has a share in, a weight above 0,
gets no class. So it is in exact arithmetic; in floating point 0 times NaN is NaN, and which logits are read with a
weight of 0 depends on the implementation.
"""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from tasks.data.coco import IGNORED
from tasks.fast.confusion import count, numbered
from tasks.fast.finite import not_finite

PIECE_BYTES = {"cpu": 2 * 1024**2, "cuda": 256 * 1024**2}  # of upsampled logits at a time


@dataclasses.dataclass(frozen=True)
class Coarse:
    """Coarse logits of n models on the same images, what is not finite set apart.

    Attributes:
        logits: 0 where they are not finite.
        bad: where the logit of any class is not finite; None where none is.
    """

    logits: Float[Tensor, "n B C h w"]
    bad: Bool[Tensor, "n B h w"] | None

    @classmethod
    def of(cls, logits: Float[Tensor, "n B C h w"]) -> "Coarse":
        """Make it from the logits that a network gave."""
        bad = not_finite(logits.movedim(2, -1))
        if not bool(bad.any()):
            return cls(logits, None)
        return cls(logits.masked_fill(bad[:, :, None], 0), bad)

    @property
    def broken(self) -> Bool[Tensor, "n B"]:
        """For which images a model's logits are not finite somewhere, whether or not a label is there."""
        if self.bad is None:
            return self.logits.new_zeros(self.logits.shape[:2], dtype=torch.bool)
        return self.bad.flatten(2).any(2)

    def confusion(
        self, labels: UInt8[Tensor, "B H W"], piece: int | None = None
    ) -> Int64[Tensor, "n C C+1"]:
        """Count confusion matrices, the same as upsampling to H x W would give.

        Args:
            labels: the class of every pixel, or ``IGNORED``; H / h and W / w are the same whole number.
            piece: bytes of upsampled logits at a time; None takes what suits the device.
        """
        models, _, classes, _, wide = self.logits.shape
        cells = _cells(labels, labels.shape[-1] // wide, classes)
        padded = _padded(self.logits)
        top = padded.max(1).indices  # four times as fast as argmax on a CPU
        bad = None if self.bad is None else _padded(self.bad[:, :, None].to(padded))
        if bad is not None:
            top = top.masked_fill(bad[:, 0] > 0, classes)
        first = top[:, :-1, :-1]
        sure = (first == top[:, :-1, 1:]) & (first == top[:, 1:, :-1]) & (first == top[:, 1:, 1:])
        decided = first.where(sure, classes + 1).reshape(models, -1)
        return _counted(decided, cells, classes) + _upsampled(
            padded, bad, ~sure, cells, models, piece
        )


def confusion(
    logits: Float[Tensor, "n B C h w"], labels: UInt8[Tensor, "B H W"], piece: int | None = None
) -> Int64[Tensor, "n C C+1"]:
    """Count confusion matrices of n models on the same images; see ``Coarse``."""
    return Coarse.of(logits).confusion(labels, piece)


def _padded(maps: Float[Tensor, "n B C h w"]) -> Float[Tensor, "nB C y x"]:
    """Return all models' images one after another, the values at the border repeated once."""
    return F.pad(maps.flatten(0, 1), (1, 1, 1, 1), mode="replicate")


def _cells(labels: UInt8[Tensor, "B H W"], factor: int, classes: int) -> Int64[Tensor, "cells F"]:
    """Return the labels of the factor x factor pixels between four coarse logits, cell by cell; else ``classes``.

    The cells at the border have corners outside of the image, where the logits inside are repeated.
    """
    before = (factor + 1) // 2
    after = factor - before
    padded = F.pad(labels, (before, after, before, after), value=IGNORED).clamp(max=classes)
    return padded.unfold(1, factor, factor).unfold(2, factor, factor).reshape(-1, factor**2).long()


def _weights(factor: int) -> Float[Tensor, "4 F"]:
    """Return the weight of each corner of a cell in each of its pixels."""
    way = (2 * torch.arange(factor) + 1 - factor % 2) / (2 * factor)
    ends = torch.stack([1 - way, way])
    return torch.einsum("ay,bx->abyx", ends, ends).reshape(4, factor**2)


def _counted(
    decided: Int64[Tensor, "n cells"], cells: Int64[Tensor, "cells F"], classes: int
) -> Int64[Tensor, "n C C+1"]:
    """Count confusion matrices over the cells whose pixels all get one class, or all none (``classes``)."""
    number = torch.arange(len(cells), device=cells.device)[:, None] * (classes + 1)
    labels = torch.bincount((number + cells).flatten(), minlength=len(cells) * (classes + 1))
    labels = labels.view(-1, classes + 1)[:, :classes]
    empty = labels.new_zeros(classes + 2, classes)
    return torch.stack([empty.index_add(0, row, labels)[: classes + 1].T for row in decided])


def _upsampled(
    padded: Float[Tensor, "N C h w"],
    bad: Float[Tensor, "N 1 h w"] | None,
    doubtful: Bool[Tensor, "N y x"],
    cells: Int64[Tensor, "cells F"],
    models: int,
    piece: int | None,
) -> Int64[Tensor, "n C C+1"]:
    """Count confusion matrices over the doubtful cells; ``bad`` is 1 where logits are not finite."""
    classes, pixels = padded.shape[1], cells.shape[1]
    weights = _weights(round(pixels**0.5)).to(padded)
    images, rows, columns = doubtful.nonzero(as_tuple=True)
    labels = cells.view(-1, *doubtful.shape[1:], pixels)
    sizes = (models, classes, classes + 1)
    matrices = torch.zeros(sizes, dtype=torch.int64, device=padded.device)
    at_once = max(1, (piece or PIECE_BYTES[padded.device.type]) // (4 * classes * pixels))
    for image, y, x in zip(
        images.split(at_once), rows.split(at_once), columns.split(at_once), strict=True
    ):
        predicted = (_corners(padded, image, y, x) @ weights).max(1).indices
        if bad is not None:
            share = (_corners(bad, image, y, x) @ weights)[:, 0]
            predicted = predicted.masked_fill(share > 0, classes)
        model = image.div(len(labels), rounding_mode="floor")[:, None]
        label = labels[image % len(labels), y, x]
        matrices += count(numbered(model, label, predicted, classes).flatten(), models, classes)
    return matrices


def _corners(
    padded: Float[Tensor, "N C h w"],
    image: Int64[Tensor, " k"],
    y: Int64[Tensor, " k"],
    x: Int64[Tensor, " k"],
) -> Float[Tensor, "k C 4"]:
    """Return the values at the four corners of some cells."""
    values = padded.permute(0, 2, 3, 1)
    around = [values[image, y + down, x + right] for down in (0, 1) for right in (0, 1)]
    return torch.stack(around, -1)


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
        """Return the pixels with their tensors on a device."""
        return Pixels(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))

    def of(self, images: slice) -> slice:
        """Return which of these pixels lie in these consecutive images."""
        ends = torch.tensor([images.start, images.stop], device=self.image.device)
        low, high = torch.searchsorted(self.image, ends).tolist()
        return slice(low, high)

    def logits(
        self, coarse: Float[Tensor, "n B C h w"], images: slice, factor: int
    ) -> Float[Tensor, "n u C"]:
        """Return the upsampled logits of the pixels that lie in these images, where all coarse logits are finite."""
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

    def bad(self, coarse: Coarse, images: slice, factor: int) -> Bool[Tensor, "n u"]:
        """Return which of the pixels in these images get no class, because of logits that are not finite."""
        if coarse.bad is None:
            some = self.of(images)
            shape = (len(coarse.logits), some.stop - some.start)
            return coarse.logits.new_zeros(shape, dtype=torch.bool)
        share = self.logits(coarse.bad[:, :, None].to(coarse.logits), images, factor)
        return share[..., 0] > 0


def _around(
    position: Int64[Tensor, " u"], factor: int, size: int
) -> list[tuple[Int64[Tensor, " u"], Float[Tensor, " u"]]]:
    """Return the coarse positions before and after a fine one, and the share of each."""
    place = ((position + 0.5) / factor - 0.5).clamp(min=0)
    before = place.long()
    way = place - before
    return [(before, 1 - way), ((before + 1).clamp(max=size - 1), way)]
