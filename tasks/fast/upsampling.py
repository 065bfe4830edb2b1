"""Predictions of every pixel from coarse logits, with upsampling of uncertain pixels alone.

A fully convolutional network returns logits at a fraction of the resolution. The class of a pixel is that of the
largest logit after bilinear upsampling (as by ``torch.nn.functional.interpolate`` without aligned corners). A cell is
the pixels between four neighbouring coarse positions; each of their logits is a mean of those four, with weights that
add up to 1. If one class has the largest logit at all four positions, it is the class of the whole cell. Nine of ten
cells of a trained network are decided in this way; only the others are upsampled.

If a coarse logit of any class is not finite (NaN or infinite), every pixel in which it has a weight above 0 gets no
class, as in exact arithmetic. Plain floating-point upsampling would differ: 0 times NaN is NaN, and an implementation
is free to read further logits with weight 0.
"""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from tasks.data.coco import IGNORED
from tasks.fast.confusion import count, flat_index
from tasks.fast.finite import not_finite

PIECE_BYTES = {"cpu": 2 * 1024**2, "cuda": 256 * 1024**2}  # of upsampled logits in memory


@dataclasses.dataclass(frozen=True)
class Coarse:
    """The coarse logits of n models on the same B images.

    Attributes:
        logits: the logits, with 0 at every position where the logit of any class is not finite.
        invalid: whether the logit of any class is not finite, at each position; None if all logits are finite.
    """

    logits: Float[Tensor, "n B C h w"]
    invalid: Bool[Tensor, "n B h w"] | None

    @classmethod
    def of(cls, logits: Float[Tensor, "n B C h w"]) -> "Coarse":
        """Build the object from the logits that networks returned."""
        invalid = not_finite(logits.movedim(2, -1))
        if not bool(invalid.any()):
            return cls(logits, None)
        return cls(logits.masked_fill(invalid[:, :, None], 0), invalid)

    @property
    def broken(self) -> Bool[Tensor, "n B"]:
        """Return whether a model's logits are not finite at any position of an image, labelled or not."""
        if self.invalid is None:
            return self.logits.new_zeros(self.logits.shape[:2], dtype=torch.bool)
        return self.invalid.flatten(2).any(2)

    def confusion(
        self, labels: UInt8[Tensor, "B H W"], piece: int | None = None
    ) -> Int64[Tensor, "n B C C+1"]:
        """Count each model's confusion matrix of each image at the resolution of the labels.

        See ``tasks.fast.confusion``.

        Args:
            labels: class of every pixel, or ``IGNORED``; H / h and W / w are the same whole number.
            piece: bytes of upsampled logits in memory; None is the default of the device.
        """
        models, images, classes, _, wide = self.logits.shape
        cells = _cells(labels, labels.shape[-1] // wide, classes)
        padded = _padded(self.logits)
        top = padded.max(1).indices  # four times as fast as argmax on a CPU
        invalid = None if self.invalid is None else _padded(self.invalid[:, :, None].to(padded))
        if invalid is not None:
            top = top.masked_fill(invalid[:, 0] > 0, classes)
        first = top[:, :-1, :-1]
        sure = (first == top[:, :-1, 1:]) & (first == top[:, 1:, :-1]) & (first == top[:, 1:, 1:])
        decided = first.where(sure, classes + 1).reshape(models, -1)
        matrices = _counted(decided, cells, images, classes).flatten(0, 1)
        matrices += _upsampled(padded, invalid, ~sure, cells, piece)
        return matrices.view(models, images, *matrices.shape[1:])


def confusion(
    logits: Float[Tensor, "n B C h w"], labels: UInt8[Tensor, "B H W"], piece: int | None = None
) -> Int64[Tensor, "n C C+1"]:
    """Count the confusion matrices of n models on all the images together; see ``Coarse.confusion``."""
    return Coarse.of(logits).confusion(labels, piece).sum(1)


def _padded(maps: Float[Tensor, "n B C h w"]) -> Float[Tensor, "nB C y x"]:
    """Join the images of all models in one dimension, and repeat the values at the border once on each side."""
    return F.pad(maps.flatten(0, 1), (1, 1, 1, 1), mode="replicate")


def _cells(labels: UInt8[Tensor, "B H W"], factor: int, classes: int) -> Int64[Tensor, "cells F"]:
    """Return the labels of the factor x factor pixels of each cell; ``classes`` for ignored pixels.

    Cells at the border reach out of the image; the pixels outside are ignored.
    """
    before = (factor + 1) // 2
    after = factor - before
    padded = F.pad(labels, (before, after, before, after), value=IGNORED).clamp(max=classes)
    return padded.unfold(1, factor, factor).unfold(2, factor, factor).reshape(-1, factor**2).long()


def _weights(factor: int) -> Float[Tensor, "4 F"]:
    """Return the weight of each of a cell's four corners in each of its pixels."""
    way = (2 * torch.arange(factor) + 1 - factor % 2) / (2 * factor)
    ends = torch.stack([1 - way, way])
    return torch.einsum("ay,bx->abyx", ends, ends).reshape(4, factor**2)


def _counted(
    decided: Int64[Tensor, "n cells"], cells: Int64[Tensor, "cells F"], images: int, classes: int
) -> Int64[Tensor, "n B C C+1"]:
    """Count confusion matrices of each of B images over the decided cells.

    Args:
        decided: class of all pixels of a cell; ``classes`` if all get none, ``classes + 1`` if undecided.
        cells: labels of the pixels, image by image.
        images: B.
        classes: C.
    """
    number = torch.arange(len(cells), device=cells.device)[:, None] * (classes + 1)
    labels = torch.bincount((number + cells).flatten(), minlength=len(cells) * (classes + 1))
    labels = labels.view(-1, classes + 1)[:, :classes]
    image = torch.arange(images, device=cells.device).repeat_interleave(len(cells) // images)
    place, empty = image * (classes + 2), labels.new_zeros(images * (classes + 2), classes)
    counted = torch.stack([empty.index_add(0, place + row, labels) for row in decided])
    by_image = counted.view(len(decided), images, classes + 2, classes)
    return by_image[:, :, : classes + 1].mT.contiguous()


def _upsampled(
    padded: Float[Tensor, "N C h w"],
    invalid: Float[Tensor, "N 1 h w"] | None,
    undecided: Bool[Tensor, "N y x"],
    cells: Int64[Tensor, "cells F"],
    piece: int | None,
) -> Int64[Tensor, "N C C+1"]:
    """Count confusion matrices of each image of each model over the undecided cells, whose logits are upsampled.

    Args:
        padded: logits of the N = n x B images of all models, see ``_padded``.
        invalid: 1 at positions where a logit is not finite, else 0; None if all are finite.
        undecided: whether each cell is undecided.
        cells: labels of the pixels of the cells of B images.
        piece: bytes of upsampled logits in memory; None is the default of the device.
    """
    classes, pixels = padded.shape[1], cells.shape[1]
    weights = _weights(round(pixels**0.5)).to(padded)
    images, rows, columns = undecided.nonzero(as_tuple=True)
    labels = cells.view(-1, *undecided.shape[1:], pixels)
    sizes = (len(padded), classes, classes + 1)
    matrices = torch.zeros(sizes, dtype=torch.int64, device=padded.device)
    if not len(images):
        return matrices
    at_once = max(1, (piece or PIECE_BYTES[padded.device.type]) // (4 * classes * pixels))
    for image, y, x in zip(
        images.split(at_once), rows.split(at_once), columns.split(at_once), strict=True
    ):
        predicted = (_corners(padded, image, y, x) @ weights).max(1).indices
        if invalid is not None:
            share = (_corners(invalid, image, y, x) @ weights)[:, 0]
            predicted = predicted.masked_fill(share > 0, classes)
        label = labels[image % len(labels), y, x]
        first, last = int(image[0]), int(image[-1])  # they rise, and a piece has few of all images
        place = flat_index((image - first)[:, None], label, predicted, classes)
        matrices[first : last + 1] += count(place.flatten(), last - first + 1, classes)
    return matrices


def _corners(
    padded: Float[Tensor, "N C h w"],
    image: Int64[Tensor, " k"],
    y: Int64[Tensor, " k"],
    x: Int64[Tensor, " k"],
) -> Float[Tensor, "k C 4"]:
    """Return the values at the four corners of k cells, given by image, row ``y`` and column ``x``."""
    values = padded.permute(0, 2, 3, 1)
    around = [values[image, y + down, x + right] for down in (0, 1) for right in (0, 1)]
    return torch.stack(around, -1)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """U chosen pixels of a split, in the order of their images.

    Attributes:
        image, row, column: position of each pixel.
        label: class of each pixel.
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
        """Return the positions of the pixels that lie in consecutive images."""
        ends = torch.tensor([images.start, images.stop], device=self.image.device)
        low, high = torch.searchsorted(self.image, ends).tolist()
        return slice(low, high)

    def logits(
        self, coarse: Float[Tensor, "n B C h w"], images: slice, factor: int
    ) -> Float[Tensor, "n u C"]:
        """Return the upsampled logits of the u pixels that lie in consecutive images.

        Args:
            coarse: coarse logits of n models on these images, all finite.
            images: positions of the images in the split.
            factor: resolution of the pixels over that of the logits.
        """
        chosen = self.of(images)
        tall, wide = coarse.shape[-2:]
        image = self.image[chosen] - images.start
        rows, columns = (
            _neighbours(position[chosen], factor, size)
            for position, size in ((self.row, tall), (self.column, wide))
        )
        logits = coarse.permute(1, 3, 4, 0, 2)
        total = torch.zeros(())
        for y, weight_y in rows:
            for x, weight_x in columns:
                total = total + (weight_y * weight_x)[:, None, None] * logits[image, y, x]
        return total.transpose(0, 1)

    def invalid(self, coarse: Coarse, images: slice, factor: int) -> Bool[Tensor, "n u"]:
        """Return whether a pixel gets no class because of logits that are not finite; arguments as of ``logits``."""
        if coarse.invalid is None:
            chosen = self.of(images)
            shape = (len(coarse.logits), chosen.stop - chosen.start)
            return coarse.logits.new_zeros(shape, dtype=torch.bool)
        share = self.logits(coarse.invalid[:, :, None].to(coarse.logits), images, factor)
        return share[..., 0] > 0


def _neighbours(
    position: Int64[Tensor, " u"], factor: int, size: int
) -> list[tuple[Int64[Tensor, " u"], Float[Tensor, " u"]]]:
    """Return the coarse positions before and after u fine ones along an axis, each with its weight.

    Args:
        position: fine positions, in pixels.
        factor: fine resolution over coarse resolution.
        size: number of coarse positions.
    """
    place = ((position + 0.5) / factor - 0.5).clamp(min=0)
    before = place.long()
    way = place - before
    return [(before, 1 - way), ((before + 1).clamp(max=size - 1), way)]
