"""Segmentation: data, networks, training batches, and candidates scored together against torchvision's plain model."""

import dataclasses
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models.segmentation import fcn_resnet50

from bench import plugins
from bench.errors import BadRequest, BenchError
from bench.randomness import generator
from bench.zoo import Layout, Zoo
from tasks import dense, fcn, masks
from tasks.coco import IGNORED
from tasks.confusion import confusion, mean_iou, pixel_accuracy
from tasks.dense import DenseScorer, random_pixels, symmetric
from tasks.images import Images
from tasks.layers import select
from tests.standins import stir_statistics

REAL = Path(__file__).parents[2] / "shared" / "data" / "coco128"
CLEAR = 1e-4  # top two logits this far apart: rounding cannot exchange them
counter = itertools.count()


def work_folder() -> Path:
    return Path(os.environ["BENCH_HOME"]) / "work" / str(next(counter))


def pictures(count: int = 5, side: int = 32, classes: int = 21) -> Images:
    """Random images and masks, some pixels without a label."""
    rng = generator(0, "pictures")
    pixels = torch.randint(256, (count, 3, side, side), generator=rng, dtype=torch.uint8)
    labels = torch.randint(classes + 3, (count, side, side), generator=rng, dtype=torch.uint8)
    labels[labels >= classes] = IGNORED
    column = torch.full((3, 1, 1), 0.5)
    return Images(pixels, labels, column, column / 2, side, "cpu")


def plainly(arch: str, model, images: Images) -> torch.Tensor:
    """Logits of every pixel; of torchvision's own whole model where there is one."""
    inputs = images.inputs(images.pixels)
    if arch == "fcn_resnet50":
        whole = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=False)
        whole.load_state_dict(model.state_dict())
        return whole.eval()(inputs)["out"]
    coarse = model(inputs)
    return torch.nn.functional.interpolate(coarse, size=inputs.shape[-2:], mode="bilinear")


@pytest.mark.parametrize(
    ("arch", "layers"),
    [
        ("fcn_small", "last-norms:2"),
        ("fcn_small", "classifier.3.*"),
        ("fcn_small", "classifier.*"),
        ("fcn_small", "all"),
        ("fcn_resnet50", "classifier.4.*"),
        ("fcn_resnet50", "backbone.layer4.2.bn2.*,backbone.layer4.2.bn3.*"),
    ],
)
@torch.no_grad()
def test_candidates_scored_together_equal_the_plain_loop(arch, layers):
    torch.manual_seed(0)
    model, images = fcn.build(arch, 21), pictures()
    stir_statistics(model)
    layout = Layout.of({name: model.get_parameter(name) for name in select(model, layers)})
    own = layout.flatten({name: model.get_parameter(name) for name in layout.names})
    vectors = own + 0.1 * own.std() * torch.randn(3, layout.dim, generator=generator(1))
    logits = []
    for vector in vectors:
        model.load_state_dict(layout.unflatten(vector), strict=False)
        logits.append(plainly(arch, model, images))
    fine = torch.stack(logits)
    top = fine.topk(2, dim=2).values
    unclear = (top[:, :, 0] - top[:, :, 1] < CLEAR).any(0)
    assert unclear.float().mean() < 0.1
    images.labels[unclear] = IGNORED
    pixels = random_pixels(images.labels, 50, "val")
    scored = DenseScorer(model, layout, images, pixels, 21)(vectors)
    expected = confusion(fine.argmax(2).flatten(1), images.labels.flatten(), 21)
    assert torch.equal(scored.matrices, expected)
    predicted = fine.argmax(2)[:, pixels.image, pixels.row, pixels.column]
    assert torch.equal(scored.wrong, predicted != pixels.label)
    for row, loss in zip(fine, scored.loss, strict=True):
        some = row[pixels.image, :, pixels.row, pixels.column]
        expected_loss = torch.nn.functional.cross_entropy(some, pixels.label)
        assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-4)
