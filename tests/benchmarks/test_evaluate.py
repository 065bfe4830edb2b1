"""Scoring many candidates at once against one after another."""

import copy

import numpy as np
import pytest
import torch
from pycocotools.cocoeval import COCOeval
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from bench.contract.zoo import Layout
from bench.system.randomness import generator
from tasks.data import coco, scenes
from tasks.fast import finding
from tasks.fast.average_precision import Detections, Truth
from tasks.fast.scoring import ClassifierScorer
from tasks.networks.layers import select
from tests.benchmarks.networks import around, check_wrong, images, network
from tests.standins import wild_detector

BATCH = 250  # of the plain loops
TOGETHER = 16  # scenes, of detectors


def test_evaluate_resnet18_last_norms(versus, short):
    """Against loading each candidate and running the whole network, on the same tensors."""
    count, size, sample = (10, 250, 1) if short else (100, 2000, 2)
    data = images(size, classes=100)
    parts = data.inputs(data.examples).split(BATCH)
    _compare(versus, short, "resnet18", "last-norms:2", 100, data, lambda: parts, count, sample)


def test_evaluate_against_dataloader(versus, short):
    """Against a torchvision data set with transforms behind a DataLoader for each whole network."""
    count, size, sample = (5, 1000, 1) if short else (50, 10_000, 1)
    data = images(size)
    files = _cifar10(data)

    def batches():
        return (inputs for inputs, _ in DataLoader(files, batch_size=BATCH))

    _compare(versus, short, "convnet3", "all", 10, data, batches, count, sample)


@pytest.fixture
def drawn(short):
    """Scenes of the suite: the validation split alone in its usual size."""
    return coco.read("shapes", scenes.folder(8, 40 if short else 300), None).val


def test_evaluate_detection_heads(versus, short, drawn):
    """Box predictors against loading each into torchvision's Faster R-CNN and running it on the same images."""
    count, size, sample = (20, len(drawn), 2) if short else (100, len(drawn), 2)
    model, alone = (wild_detector("fasterrcnn_small", side=80, background=6) for _ in range(2))
    names = select(model, "head")
    layout = Layout.of({name: model.get_parameter(name) for name in names})
    vectors = around(model, layout, count)
    pictures = [drawn.image(i).float() / 255 for i in range(size)]

    @torch.inference_mode()
    def plain():
        found = []
        for vector in vectors[:sample]:
            alone.load_state_dict(layout.unflatten(vector), strict=False)
            for low in range(0, size, TOGETHER):
                found += alone(pictures[low : low + TOGETHER])
        return found

    def agree(found, expected):
        assert len(found.model) > 10 * count * size
        for number, one in enumerate(expected):
            rows = (found.model == number // size) & (found.image == number % size)
            assert torch.equal(found.category[rows], one["labels"])
            assert torch.allclose(found.boxes[rows], one["boxes"], atol=1e-3)
            assert torch.allclose(found.scores[rows], one["scores"], atol=1e-5)

    versus(
        lambda: finding.finder(model, layout, drawn)(vectors),
        plain,
        agree,
        scale=count / sample,
        rounds=5 if short else 3,
    )


def test_average_precision(versus, short, drawn):
    """mAP of many models' detections, against pycocotools' for each."""
    count, sample = (10, 2) if short else (50, 1)
    found, results = _detections(drawn, count)

    def plain():
        values = []
        for rows in results[:sample]:
            with coco.quiet():
                run = COCOeval(drawn.api, drawn.api.loadRes(copy.deepcopy(rows)), "bbox")
                run.evaluate()
                run.accumulate()
                run.summarize()
            values.append(run.stats[0])
        return values

    def agree(ours, values):
        assert all(value > 0.1 for value in values)
        assert np.allclose(ours.values["mAP"][:sample], values, rtol=0, atol=1e-10)

    versus(
        lambda: Truth(drawn).score(found, count),
        plain,
        agree,
        scale=count / sample,
        rounds=5 if short else 3,
    )


def _detections(split, count):
    """Every box twice, moved a little, with some of another category: as tensors, and as pycocotools wants them."""
    rng = generator(0, "detections")
    rows = [
        (model, image, *one["bbox"], one["category_id"])
        for model in range(count)
        for image in range(len(split))
        for one in split.annotations(image)
        for _ in range(2)
    ]
    table = torch.tensor(rows, dtype=torch.float64)
    boxes = table[:, 2:6] + 2 * torch.randn(len(table), 4, generator=rng, dtype=torch.float64)
    boxes[:, 2:].clamp_(min=1)
    boxes[:, 2:] += boxes[:, :2]
    other = torch.rand(len(table), generator=rng) < 0.3
    category = table[:, 6].long().where(~other, torch.randint(1, 6, (len(table),), generator=rng))
    scores = torch.rand(len(table), generator=rng, dtype=torch.float64)
    found = Detections(table[:, 0].long(), table[:, 1].long(), category, boxes, scores)
    results = [[] for _ in range(count)]
    for (model, image, *_), (x, y, right, low), kind, score in zip(
        rows, boxes.tolist(), category.tolist(), scores.tolist(), strict=True
    ):
        box = [x, y, right - x, low - y]
        results[model].append(
            {"image_id": split.ids[image], "category_id": kind, "bbox": box, "score": score}
        )
    return found, results


def _compare(versus, short, arch, layers, classes, data, batches, count, sample):
    """All candidates at once against the first few, each loaded and run on batches that are made anew for it."""
    model, layout = network(arch, layers, classes)
    alone, _ = network(arch, layers, classes)
    vectors = around(model, layout, count)

    @torch.inference_mode()
    def plain():
        rows = []
        for vector in vectors[:sample]:
            alone.load_state_dict(layout.unflatten(vector), strict=False)
            rows.append(torch.cat([alone(inputs) for inputs in batches()]))
        return torch.stack(rows)

    def agree(scored, logits):
        check_wrong(scored.wrong[:sample], logits, data.labels)

    versus(
        lambda: ClassifierScorer(model, layout, data)(vectors),
        plain,
        agree,
        scale=count / sample,
        rounds=5 if short else 2,
    )


def _cifar10(data):
    """torchvision's CIFAR-10 with these images instead of a download."""
    files = datasets.CIFAR10.__new__(datasets.CIFAR10)
    files.data = data.examples.permute(0, 2, 3, 1).contiguous().numpy()
    files.targets = data.labels.tolist()
    mean, std = data.mean.flatten().tolist(), data.std.flatten().tolist()
    files.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    files.target_transform = None
    return files
