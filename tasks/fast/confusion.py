"""Confusion matrices of segmentation, and the scores computed from them, for many models at once: pure functions.

Row g, column p of a confusion matrix counts the pixels of class g that a model predicts as class p; class 0 is the
background. The last column, after those of the C classes, counts the pixels of class g for which the model predicts no
class, because its logits are not finite: they are false negatives of their class, but false positives of none.

Mean IoU is that of PASCAL VOC (Everingham et al. 2010): the IoU of a class is its correctly predicted pixels over the
union of its pixels and those predicted as it, counted over the whole split and not image by image; the mean is over all
classes, background included. A class that is neither in the split nor predicted by a model has no IoU and is left out
of that model's mean; a class that is predicted but not in the split has an IoU of 0.
"""

import math

import torch
from jaxtyping import Float, Int64, Integer, Shaped
from torch import Tensor


def confusion(
    predicted: Integer[Tensor, "n P"], labels: Integer[Tensor, " P"], classes: int
) -> Int64[Tensor, "n C C+1"]:
    """Count the confusion matrices of n models on the same P pixels; pixels whose label is no class are left out.

    Args:
        predicted: class that each model predicts for each pixel; ``classes`` for none.
        labels: class of each pixel; ``classes`` and higher numbers are no class.
        classes: number of classes C.

    >>> confusion(torch.tensor([[0, 1, 2, 1]]), torch.tensor([0, 0, 0, 255]), classes=2)
    tensor([[[1, 1, 1],
             [0, 0, 0]]])
    """
    labels = labels.long().clamp(max=classes)
    models = torch.arange(len(predicted), device=labels.device)[:, None]
    cells = flat_index(models, labels, predicted, classes)
    return count(cells.flatten(), len(predicted), classes)


def flat_index(
    model: Int64[Tensor, "..."],
    label: Int64[Tensor, "..."],
    predicted: Integer[Tensor, "..."],
    classes: int,
) -> Int64[Tensor, "..."]:
    """Return the position of each (model, label, prediction) in flattened matrices of C+1 rows and columns.

    Label and prediction may be ``classes``, which stands for none.
    """
    return (model * (classes + 1) + label) * (classes + 1) + predicted


def count(cells: Int64[Tensor, " P"], models: int, classes: int) -> Int64[Tensor, "n C C+1"]:
    """Count confusion matrices from the P positions of ``flat_index``; labels that are no class are dropped."""
    sizes = (models, classes + 1, classes + 1)
    return torch.bincount(cells, minlength=math.prod(sizes)).view(sizes)[:, :classes]


def mean_iou(matrices: Shaped[Tensor, "n C p"]) -> Float[Tensor, " n"]:
    """Return the mean IoU of each model, in [0, 1] and float64; see the module's docstring.

    Args:
        matrices: confusion matrices, with or without the column of pixels for which no class is predicted.
    """
    return mean_of_classes(*overlaps(matrices))


def overlaps(
    matrices: Shaped[Tensor, "*n C p"],
) -> tuple[Float[Tensor, "*n C"], Float[Tensor, "*n C"]]:
    """Return each class's correctly predicted pixels, and the union of its pixels and those predicted as it; float64.

    Both are sums over pixels: those of several images together are the sums of each image's.

    Args:
        matrices: confusion matrices, with or without the column of pixels for which no class is predicted.
    """
    correct = matrices.diagonal(dim1=-2, dim2=-1).double()
    predicted = matrices.sum(-2)[..., : matrices.shape[-2]]
    return correct, (predicted + matrices.sum(-1)).double() - correct


def mean_of_classes(
    correct: Float[Tensor, "*n C"], union: Float[Tensor, "*n C"]
) -> Float[Tensor, "*n"]:
    """Return the mean IoU over the classes that occur, from the result of ``overlaps``."""
    iou = correct / union.clamp(min=1)
    return iou.sum(-1) / (union > 0).sum(-1).clamp(min=1)


def pixel_accuracy(matrices: Shaped[Tensor, "n C p"]) -> Float[Tensor, " n"]:
    """Return the share of pixels that each model predicts correctly, in [0, 1] and float64.

    Args:
        matrices: confusion matrices, with or without the column of pixels for which no class is predicted.
    """
    correct = matrices.diagonal(dim1=1, dim2=2).double().sum(1)
    return correct / matrices.double().sum((1, 2)).clamp(min=1)
