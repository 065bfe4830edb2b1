"""Confusion matrices and their scores against scikit-learn; counting from coarse logits against plain upsampling."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score
from torch.nn import functional as F

from tasks.data.coco import IGNORED
from tasks.fast import upsampling
from tasks.fast.confusion import confusion, mean_iou, pixel_accuracy
from tasks.fast.upsampling import Pixels

CLEAR = 1e-5  # top two logits this far apart: rounding cannot exchange them


@settings(max_examples=60, deadline=None)
@given(
    models=st.integers(1, 3),
    classes=st.integers(2, 6),
    pixels=st.integers(1, 80),
    ignored=st.floats(0, 0.9),
    seed=st.integers(0, 10_000),
)
def test_scores_equal_those_of_scikit_learn(models, classes, pixels, ignored, seed):
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (pixels,), generator=rng)
    predicted = torch.randint(classes, (models, pixels), generator=rng)
    left_out = torch.rand(pixels, generator=rng) < ignored
    left_out[0] = False
    seen = labels.masked_fill(left_out, IGNORED)
    matrices = confusion(predicted, seen, classes)
    for matrix, row in zip(matrices, predicted, strict=True):
        truth, found = labels[~left_out].numpy(), row[~left_out].numpy()
        expected = confusion_matrix(truth, found, labels=range(classes)).tolist()
        assert matrix.tolist() == [[*row, 0] for row in expected]  # none is given to no class
        # Its "macro" is over the classes that are in the truth or predicted, as ours.
        iou = jaccard_score(truth, found, average="macro")
        assert mean_iou(matrix[None]).item() == pytest.approx(iou, abs=1e-12)
        accuracy = accuracy_score(truth, found)
        assert pixel_accuracy(matrix[None]).item() == pytest.approx(accuracy, abs=1e-12)


def test_which_classes_count():
    """Class 2 occurs nowhere: left out; class 1 is predicted but not there: an IoU of 0."""
    matrix = torch.tensor([[[6, 2, 0], [0, 0, 0], [0, 0, 0]]])
    assert mean_iou(matrix).item() == pytest.approx((6 / 8 + 0) / 2)
    assert pixel_accuracy(matrix).item() == 6 / 8


def test_nothing_counted_scores_nothing():
    assert mean_iou(torch.zeros(2, 3, 3)).tolist() == [0, 0]
    assert pixel_accuracy(torch.zeros(2, 3, 3)).tolist() == [0, 0]


def coarse(models, images, classes, tall, wide, factor, rng, smooth=True):
    """Coarse logits, labels of the fine pixels, and the logits upsampled by torch."""
    logits = torch.randn(models, images, classes, tall, wide, generator=rng)
    if smooth:  # neighbours that mostly agree, as a trained network's
        logits += 4 * torch.randn(models, images, classes, 1, 1, generator=rng)
    labels = torch.randint(
        classes + 1, (images, tall * factor, wide * factor), generator=rng, dtype=torch.uint8
    )
    labels[labels == classes] = IGNORED
    size = labels.shape[1:]
    fine = F.interpolate(logits.flatten(0, 1), size=size, mode="bilinear", align_corners=False)
    return logits, labels, fine.unflatten(0, (models, images))


@settings(max_examples=60, deadline=None)
@given(
    models=st.integers(1, 3),
    images=st.integers(1, 3),
    classes=st.integers(2, 5),
    tall=st.integers(1, 6),
    wide=st.integers(1, 6),
    factor=st.integers(1, 9),
    smooth=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_counting_from_coarse_logits_equals_upsampling(
    models, images, classes, tall, wide, factor, smooth, seed
):
    rng = torch.Generator().manual_seed(seed)
    logits, labels, fine = coarse(models, images, classes, tall, wide, factor, rng, smooth)
    top = fine.topk(2, dim=2).values
    unclear = (top[:, :, 0] - top[:, :, 1] < CLEAR).any(0)  # left out, of all models
    labels = labels.masked_fill(unclear, IGNORED)
    counted = upsampling.confusion(logits, labels)
    expected = confusion(fine.argmax(2).flatten(1), labels.flatten(), classes)
    assert torch.equal(counted, expected)


def test_cells_in_doubt_may_come_in_any_number_of_pieces():
    rng = torch.Generator().manual_seed(0)
    logits, labels, _ = coarse(2, 2, 4, 5, 5, 4, rng, smooth=False)
    whole = upsampling.confusion(logits, labels)
    assert torch.equal(upsampling.confusion(logits, labels, piece=1), whole)


@settings(max_examples=30, deadline=None)
@given(factor=st.integers(1, 9), low=st.integers(0, 2), seed=st.integers(0, 10_000))
def test_logits_of_some_pixels_equal_those_of_upsampling(factor, low, seed):
    rng = torch.Generator().manual_seed(seed)
    logits, labels, fine = coarse(2, 4, 3, 3, 5, factor, rng)
    image = torch.randint(4, (20,), generator=rng).sort().values
    row = torch.randint(labels.shape[1], (20,), generator=rng)
    column = torch.randint(labels.shape[2], (20,), generator=rng)
    pixels = Pixels(image, row, column, torch.zeros(20, dtype=torch.int64))
    images = slice(low, 4)
    found = pixels.logits(logits[:, low:], images, factor)
    chosen = pixels.of(images)
    assert chosen.stop == 20
    assert found.shape[1] == int((image >= low).sum())
    assert torch.allclose(
        found, fine[:, image, :, row, column].permute(1, 0, 2)[:, chosen], atol=1e-5
    )
