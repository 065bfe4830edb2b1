"""Scores of segmentation from confusion matrices, for many models at once: pure functions.

Row g, column p of a confusion matrix counts the pixels of class g that a model gives to class p; class 0 is the
background. Mean IoU is that of PASCAL VOC: a class's pixels that are found, over those that are its own or are given to
it, counted over the whole split and not image by image; the mean is over all classes, background included. A class that
is neither in the split nor predicted by a model has no IoU and is left out of that model's mean; one that is predicted
alone has an IoU of 0.
"""

import torch
from jaxtyping import Float, Int64, Integer, Shaped
from torch import Tensor


def confusion(
    predicted: Integer[Tensor, "n P"], labels: Integer[Tensor, " P"], classes: int
) -> Int64[Tensor, "n C C"]:
    """Confusion matrices of n models on the same pixels; those whose label is no class are left out.

    >>> confusion(torch.tensor([[0, 1, 1]]), torch.tensor([0, 0, 255]), classes=2)
    tensor([[[1, 1],
             [0, 0]]])
    """
    labels = labels.long().clamp(max=classes)
    models = torch.arange(len(predicted), device=labels.device)[:, None] * (classes + 1)
    return count(((models + labels) * classes + predicted).flatten(), len(predicted), classes)


def count(cells: Int64[Tensor, " P"], models: int, classes: int) -> Int64[Tensor, "n C C"]:
    """How often each (model, label, prediction) occurs, given as one number; labels that are no class are dropped.

    The number is ``(model * (classes + 1) + label) * classes + prediction``; label ``classes`` stands for none.
    """
    sizes = (models, classes + 1, classes)
    counted = torch.bincount(cells, minlength=models * (classes + 1) * classes)
    return counted.view(sizes)[:, :classes]


def mean_iou(matrices: Shaped[Tensor, "n C C"]) -> Float[Tensor, " n"]:
    """Mean IoU in [0, 1] of each model, float64; see above for classes that do not occur."""
    found = matrices.diagonal(dim1=1, dim2=2).double()
    either = (matrices.sum(1) + matrices.sum(2)).double() - found
    occurs = either > 0
    iou = found / either.clamp(min=1)
    return iou.sum(1) / occurs.sum(1).clamp(min=1)


def pixel_accuracy(matrices: Shaped[Tensor, "n C C"]) -> Float[Tensor, " n"]:
    """Share of the pixels that get their own class, of each model, float64."""
    right = matrices.diagonal(dim1=1, dim2=2).double().sum(1)
    return right / matrices.double().sum((1, 2)).clamp(min=1)
