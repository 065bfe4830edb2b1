"""Scores of segmentation from confusion matrices, for many models at once: pure functions.

Row g, column p of a confusion matrix counts the pixels of class g that a model gives to class p; class 0 is the
background. A column after those of the C classes counts the pixels of class g that are given to none, because the
model's logits are not finite there: they are missed, and no class gets them.

Mean IoU is that of PASCAL VOC: a class's pixels that are found, over those that are its own or are given to it, counted
over the whole split and not image by image; the mean is over all classes, background included. A class that is neither
in the split nor predicted by a model has no IoU and is left out of that model's mean; one that is predicted alone has
an IoU of 0.
"""

import math

import torch
from jaxtyping import Float, Int64, Integer, Shaped
from torch import Tensor


def confusion(
    predicted: Integer[Tensor, "n P"], labels: Integer[Tensor, " P"], classes: int
) -> Int64[Tensor, "n C C+1"]:
    """Count confusion matrices of n models on the same pixels; pixels whose label is no class are left out.

    Args:
        predicted: the class that each model gives each pixel, or ``classes`` for none.
        labels: the class of each pixel; anything from ``classes`` on is no class.
        classes: C.

    >>> confusion(torch.tensor([[0, 1, 2, 1]]), torch.tensor([0, 0, 0, 255]), classes=2)
    tensor([[[1, 1, 1],
             [0, 0, 0]]])
    """
    labels = labels.long().clamp(max=classes)
    models = torch.arange(len(predicted), device=labels.device)[:, None]
    cells = numbered(models, labels, predicted, classes)
    return count(cells.flatten(), len(predicted), classes)


def numbered(
    model: Int64[Tensor, "..."],
    label: Int64[Tensor, "..."],
    given: Integer[Tensor, "..."],
    classes: int,
) -> Int64[Tensor, "..."]:
    """Return one number for each (model, label, prediction); label and prediction ``classes`` stand for none."""
    return (model * (classes + 1) + label) * (classes + 1) + given


def count(cells: Int64[Tensor, " P"], models: int, classes: int) -> Int64[Tensor, "n C C+1"]:
    """Count how often each of the numbers of ``numbered`` occurs; labels that are no class are dropped."""
    sizes = (models, classes + 1, classes + 1)
    return torch.bincount(cells, minlength=math.prod(sizes)).view(sizes)[:, :classes]


def mean_iou(matrices: Shaped[Tensor, "n C given"]) -> Float[Tensor, " n"]:
    """Mean IoU in [0, 1] of each model, float64; see above for classes that do not occur.

    Args:
        matrices: with or without the column of pixels that are given to no class.
    """
    found = matrices.diagonal(dim1=1, dim2=2).double()
    given = matrices.sum(1)[:, : matrices.shape[1]]
    either = (given + matrices.sum(2)).double() - found
    occurs = either > 0
    iou = found / either.clamp(min=1)
    return iou.sum(1) / occurs.sum(1).clamp(min=1)


def pixel_accuracy(matrices: Shaped[Tensor, "n C given"]) -> Float[Tensor, " n"]:
    """Share of the pixels that get their own class, of each model, float64; the column for none may be there."""
    right = matrices.diagonal(dim1=1, dim2=2).double().sum(1)
    return right / matrices.double().sum((1, 2)).clamp(min=1)
