"""What is not finite is wrong, in every task, and is counted: degenerate models, and slow references."""

import dataclasses
import itertools
import math
import os
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from bench import pipeline, plugins, report, stages
from bench.compare import population, select
from bench.errors import BenchError
from bench.evaluation import check_evaluation
from bench.figures import embed
from bench.metrics import frechet as fd
from bench.metrics.similarity import nearest_l2_ratio, toward_mean
from bench.randomness import generator
from bench.record import Record
from bench.request import Request
from bench.stages import Evaluated, load_evaluated, save_evaluated
from bench.verify import differences
from bench.zoo import Layout, Zoo
from tasks import coco, finding, last_layers, upsampling
from tasks.average_precision import Detections, Truth
from tasks.base import Evaluation
from tasks.coco import IGNORED
from tasks.confusion import mean_iou, pixel_accuracy
from tasks.dense import DenseScorer, random_pixels
from tasks.features import FeatureNetwork
from tasks.finite import not_finite
from tasks.image_scoring import NEEDED, ImageScorer, Reference
from tasks.images import Images
from tasks.last_layers import Hits, suppress
from tasks.layers import select as matching
from tasks.sampling import Denoiser, Sampler
from tasks.scoring import Scorer
from tasks.upsampling import Coarse, Pixels
from tests.standins import QUICK, small_data, wild_detector, write_coco
from tests.tiny import Tiny

NAN, INF = math.nan, math.inf
BAD = (NAN, INF, -INF)
counter = itertools.count()


def work_folder() -> Path:
    return Path(os.environ["BENCH_HOME"]) / "work" / str(next(counter))


@pytest.fixture
def _small(monkeypatch):
    small_data(monkeypatch)


def make(name, **changes):
    kind = plugins.load_task(name, "quick", {}).kind
    return plugins.load_task(name, "quick", {**QUICK[kind], **changes})


def spoilt(tensor: torch.Tensor, share: float, rng: torch.Generator) -> torch.Tensor:
    """The same with NaN, inf and -inf at random places."""
    which = torch.randint(len(BAD), tensor.shape, generator=rng)
    return torch.tensor(BAD)[which].where(torch.rand(tensor.shape, generator=rng) < share, tensor)


# --- what is not finite ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", BAD)
def test_one_value_is_enough(value):
    rows = torch.zeros(2, 3, 5)
    assert not not_finite(rows).any()
    rows[1, 2, 4] = value
    assert not_finite(rows).nonzero().tolist() == [[1, 2]]


def test_finite_values_whose_sum_overflows_are_finite():
    rows = torch.full((2, 3, 4), 3e38)
    assert rows.sum().isinf()
    assert not not_finite(rows).any()
    rows[0, 1, 0], rows[0, 1, 1] = INF, -INF
    assert not_finite(rows).nonzero().tolist() == [[0, 1]]


# --- classification -------------------------------------------------------------------------------

LABELS = torch.tensor([0, 0, 1, 2, 2, 2, 1, 0])  # three of class 0, two of 1, three of 2
RIGHT = torch.eye(3)[LABELS]
CLASSIFIERS = {  # logits, which images are right, of how many logits are not finite
    "constant": (torch.full((8, 3), 0.25), [1, 1, 0, 0, 0, 0, 0, 1], 0),
    "all right": (RIGHT, [1] * 8, 0),
    "all right and huge": ((2 * RIGHT - 1) * 3e38, [1] * 8, 0),
    "all NaN": (torch.full((8, 3), NAN), [0] * 8, 8),
    "one NaN image": (RIGHT.index_fill(0, torch.tensor([4]), NAN), [1, 1, 1, 1, 0, 1, 1, 1], 1),
    "one NaN logit": (
        torch.where(torch.arange(24).view(8, 3) == 5, NAN, RIGHT),  # image 1, class 2
        [1, 0, 1, 1, 1, 1, 1, 1],
        1,
    ),
    "inf at the right class": (RIGHT.masked_fill(RIGHT == 1, INF), [0] * 8, 8),
    "-inf at all others": (RIGHT.masked_fill(RIGHT == 0, -INF), [0] * 8, 8),
    "-inf everywhere": (torch.full((8, 3), -INF), [0] * 8, 8),
}


def scorer_of(logits: torch.Tensor, labels: torch.Tensor) -> Scorer:
    """A scorer whose candidates give these logits, two images at a time."""
    scorer = Scorer.__new__(Scorer)
    blank = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    column = torch.ones(1, 1, 1)
    scorer.images = Images(blank, labels, column, column, 2, "cpu")
    parts = [slice(low, min(low + 2, len(labels))) for low in range(0, len(labels), 2)]
    everyone = slice(0, len(logits))
    scorer.candidates = lambda _: ((everyone, rows, logits[:, rows]) for rows in parts)
    return scorer


def test_degenerate_classifiers():
    logits = torch.stack([logits for logits, *_ in CLASSIFIERS.values()])
    scored = scorer_of(logits, LABELS)(torch.zeros(len(logits), 1))
    for row, (right, broken) in enumerate(rest for _, *rest in CLASSIFIERS.values()):
        assert scored.wrong[row].tolist() == [not one for one in right]
        assert scored.not_finite[row] == broken
        assert scored.loss[row].isinf() == (broken > 0)
    assert scored.not_finite.dtype == torch.int64
    assert scored.loss[0].item() == pytest.approx(math.log(3))


def right_by_hand(logits: list[float], label: int) -> bool:
    finite = all(math.isfinite(value) for value in logits)
    return finite and logits.index(max(logits)) == label


@settings(max_examples=60, deadline=None)
@given(
    share=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    classes=st.integers(1, 5),
    seed=st.integers(0, 10_000),
)
def test_classifiers_are_judged_as_by_hand(share, classes, seed):
    rng = torch.Generator().manual_seed(seed)
    logits = spoilt(torch.randint(4, (3, 7, classes), generator=rng).float(), share, rng)  # ties
    labels = torch.randint(classes, (7,), generator=rng)
    scored = scorer_of(logits, labels)(torch.zeros(3, 1))
    for row, wrong, broken in zip(logits, scored.wrong, scored.not_finite, strict=True):
        pairs = zip(row.tolist(), labels.tolist(), strict=True)
        assert wrong.tolist() == [not right_by_hand(*pair) for pair in pairs]
        assert broken == sum(not all(map(math.isfinite, values)) for values in row.tolist())
    assert not scored.loss.isnan().any()
    assert torch.equal(scored.loss.isinf(), scored.not_finite > 0)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("layers", ["linear", "all", "last-norms:2"])
def test_classifiers_with_such_weights_get_nothing_right_and_spoil_no_other(layers):
    task = make("digits", layers=layers)
    zoo = task.collect(2, rng=generator(0), work=work_folder())
    vectors = torch.stack([zoo.vectors[0], *(zoo.vectors[0] * bad for bad in BAD), zoo.vectors[1]])
    for split in ("train", "val"):
        found = task.evaluate(zoo, vectors, split)
        healthy = task.evaluate(zoo, zoo.vectors, split)
        assert torch.equal(found.scores[[0, 4]], healthy.scores)
        assert torch.equal(found.wrong[[0, 4]], healthy.wrong)
        assert found.wrong[1:4].all()
        assert found.scores[1:4].tolist() == [0, 0, 0]
        count = task.size(split)
        assert found.not_finite.tolist() == [0, count, count, count, 0]
        assert found.extra["loss"].isinf().tolist() == [False, True, True, True, False]
        check_evaluation(found, 5, "Classification")


class Given(nn.Module):
    """Gives what it was given, batch after batch."""

    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs, self.seen = outputs, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return self.outputs[self.seen - len(images) : self.seen]


@pytest.mark.usefixtures("_small")
def test_the_score_of_one_classifier_obeys_the_same_rule():
    task = make("digits")
    labels = task._scored("val").labels
    logits = torch.eye(4)[labels]
    assert task.score(Given(logits)) == 1
    logits[3], logits[5, labels[5]], logits[6, (labels[6] + 1) % 4] = NAN, INF, -INF
    assert task.score(Given(logits)) == (len(labels) - 3) / len(labels)
    assert task.score(Given(torch.full_like(logits, NAN))) == 0


# --- segmentation ---------------------------------------------------------------------------------


def shares(position: int, factor: int, size: int) -> dict[int, Fraction]:
    """The coarse positions that a fine one is interpolated from, and their weights above 0, exactly."""
    place = max(Fraction(2 * position + 1, 2 * factor) - Fraction(1, 2), Fraction(0))
    before = int(place)
    found: dict[int, Fraction] = {}
    for at, share in ((before, 1 - (place - before)), (before + 1, place - before)):
        if share:
            at = min(at, size - 1)
            found[at] = found.get(at, Fraction(0)) + share
    return found


def given_classes(coarse: torch.Tensor, factor: int) -> list[list[int]]:
    """The class that every pixel gets from coarse logits of one image (C, h, w); C for none."""
    classes, tall, wide = coarse.shape
    rows = [shares(y, factor, tall) for y in range(tall * factor)]
    columns = [shares(x, factor, wide) for x in range(wide * factor)]
    values = coarse.permute(1, 2, 0).tolist()
    given = []
    for row in rows:
        given.append([])
        for column in columns:
            near = [(values[y][x], a * b) for y, a in row.items() for x, b in column.items()]
            if not all(math.isfinite(value) for logits, _ in near for value in logits):
                given[-1].append(classes)
                continue
            sums = [sum(Fraction(logits[c]) * w for logits, w in near) for c in range(classes)]
            given[-1].append(sums.index(max(sums)))
    return given


def scores_by_hand(given: list[int], labels: list[int], classes: int) -> tuple[float, float]:
    """Mean IoU and pixel accuracy."""
    pairs = [pair for pair in zip(given, labels, strict=True) if pair[1] < classes]
    ious = []
    for kind in range(classes):
        found = sum(a == b == kind for a, b in pairs)
        either = sum(kind in pair for pair in pairs)
        ious += [found / either] if either else []
    right = sum(a == b for a, b in pairs)
    return sum(ious) / max(1, len(ious)), right / max(1, len(pairs))


@settings(max_examples=60, deadline=None)
@given(
    share=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    factor=st.integers(1, 5),
    tall=st.integers(1, 4),
    wide=st.integers(1, 4),
    agree=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_pixels_near_what_is_not_finite_get_no_class(share, factor, tall, wide, agree, seed):
    """The fast path against exact arithmetic, pixel by pixel; weights and logits are such that sums have no ties."""
    rng = torch.Generator().manual_seed(seed)
    classes, models, images = 3, 2, 2
    logits = torch.randn(models, images, classes, tall, wide, generator=rng)
    logits[..., 0, :, :] += 9 * agree
    logits = spoilt(logits, share, rng)
    size = (images, tall * factor, wide * factor)
    labels = torch.randint(classes + 1, size, generator=rng, dtype=torch.uint8)
    labels[labels == classes] = IGNORED
    counted = upsampling.confusion(logits, labels)
    coarse = Coarse.of(logits)
    y, x = (grid.flatten() for grid in torch.meshgrid(*map(torch.arange, size[1:]), indexing="ij"))
    for model in range(models):
        given = [given_classes(image, factor) for image in logits[model]]
        flat = [kind for image in given for row in image for kind in row]
        expected = torch.zeros(classes, classes + 1, dtype=torch.int64)
        for label, kind in zip(labels.flatten().tolist(), flat, strict=True):
            if label < classes:
                expected[label, kind] += 1
        assert torch.equal(counted[model], expected)
        iou, accuracy = scores_by_hand(flat, labels.flatten().tolist(), classes)
        assert mean_iou(counted)[model].item() == pytest.approx(iou, abs=1e-12)
        assert pixel_accuracy(counted)[model].item() == pytest.approx(accuracy, abs=1e-12)
        for image in range(images):
            pixels = Pixels(torch.full_like(y, image), y, x, y)
            bad = pixels.bad(coarse, slice(0, images), factor)[model]
            assert bad.tolist() == [kind == classes for row in given[image] for kind in row]
    anywhere = ~logits.isfinite().flatten(2).all(2)
    assert torch.equal(coarse.broken, anywhere)


def test_a_weight_of_0_is_no_share():
    """Without upsampling, a NaN spoils its own pixel; nor do border pixels know of what is further in."""
    logits = torch.zeros(1, 1, 2, 3, 3)
    logits[0, 0, 1] = 1
    logits[0, 0, 0, 1, 1] = NAN
    labels = torch.ones(1, 3, 3, dtype=torch.uint8)
    assert upsampling.confusion(logits, labels)[0].tolist() == [[0, 0, 0], [0, 8, 1]]
    fine = torch.ones(1, 24, 24, dtype=torch.uint8)
    near = 16 * 16  # pixels less than one coarse pixel away
    assert upsampling.confusion(logits, fine)[0].tolist() == [[0, 0, 0], [0, 576 - near, near]]


def test_a_pixel_without_a_class_is_missed_and_given_to_none():
    matrix = torch.tensor([[[6, 0, 2], [0, 4, 0]]])  # of class 0, two pixels are given to none
    assert mean_iou(matrix).item() == (6 / 8 + 4 / 4) / 2
    assert pixel_accuracy(matrix).item() == 10 / 12
    assert mean_iou(torch.tensor([[[0, 0, 8], [0, 0, 4]]])).item() == 0


MASKS = torch.tensor([[[0, 0], [1, 1]], [[1, 1], [1, 1]], [[0, 0], [0, IGNORED]]])
MASKS = MASKS.to(torch.uint8).repeat_interleave(8, 1).repeat_interleave(8, 2)
# One coarse logit for each pixel: what a pixel gets is what is given there. 5 x 64 of class 0 and 6 of class 1.
PERFECT = torch.stack([MASKS == 0, MASKS != 0], 1).float()
BOTH = (PERFECT == 1).any(1, keepdim=True).expand_as(PERFECT)
SEGMENTERS = {  # logits, mean IoU, pixel accuracy, images that are not finite
    "constant": (torch.zeros_like(PERFECT), (5 / 11 + 0) / 2, 5 / 11, 0),
    "all right": (PERFECT, 1.0, 1.0, 0),
    "all NaN": (torch.full_like(PERFECT, NAN), 0.0, 0.0, 3),
    # The second image has 4 of 6 parts of class 1.
    "one NaN image": (
        PERFECT.index_fill(0, torch.tensor([1]), NAN),
        (1 + 2 / 6) / 2,
        7 / 11,
        1,
    ),
    "inf at the right class": (PERFECT.masked_fill(PERFECT == 1, INF), 0.0, 0.0, 3),
    "-inf at all others": (PERFECT.masked_fill(PERFECT == 0, -INF), 0.0, 0.0, 3),
    "NaN where no label is": (
        PERFECT.masked_fill((MASKS == IGNORED)[:, None].expand_as(PERFECT), NAN),
        1.0,
        1.0,
        1,
    ),
}


def test_degenerate_segmenters():
    logits = torch.stack([logits for logits, *_ in SEGMENTERS.values()])
    scorer = DenseScorer.__new__(DenseScorer)
    blank, column = torch.zeros(3, 3, 16, 16, dtype=torch.uint8), torch.ones(3, 1, 1)
    scorer.images = Images(blank, MASKS, column, column, 16, "cpu")
    scorer.pixels, scorer.classes = random_pixels(MASKS, 50, "val"), 2
    parts, everyone = [slice(0, 2), slice(2, 3)], slice(0, len(logits))
    scorer.candidates = lambda _: ((everyone, rows, logits[:, rows]) for rows in parts)
    scored = scorer(torch.zeros(len(logits), 1))
    for row, (of, iou, accuracy, broken) in enumerate(SEGMENTERS.values()):
        assert mean_iou(scored.matrices)[row].item() == pytest.approx(iou)
        assert pixel_accuracy(scored.matrices)[row].item() == pytest.approx(accuracy)
        assert scored.not_finite[row] == broken
        assert scored.loss[row].isinf() == (broken > 0)
        assert not scored.loss[row].isnan()
        units = of[scorer.pixels.image, :, scorer.pixels.row, scorer.pixels.column]
        pairs = zip(units.tolist(), scorer.pixels.label.tolist(), strict=True)
        assert scored.wrong[row].tolist() == [not right_by_hand(*pair) for pair in pairs]


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("layers", ["head", "classifier.*", "all"])
def test_segmenters_with_such_weights_find_nothing_and_spoil_no_other(layers):
    task = make("shapes-seg", layers=layers)
    zoo = task.collect(2, rng=generator(0), work=work_folder())
    vectors = torch.stack([zoo.vectors[0], *(zoo.vectors[0] * bad for bad in BAD), zoo.vectors[1]])
    found, healthy = (task.evaluate(zoo, some, "val") for some in (vectors, zoo.vectors))
    assert torch.equal(found.scores[[0, 4]], healthy.scores)
    assert torch.equal(found.wrong[[0, 4]], healthy.wrong)
    assert found.wrong[1:4].all()
    assert found.scores[1:4].tolist() == found.extra["pixel accuracy"][1:4].tolist() == [0, 0, 0]
    count = task.size("val")
    assert found.not_finite.tolist() == [0, count, count, count, 0]
    assert found.extra["loss"].isinf().tolist() == [False, True, True, True, False]
    check_evaluation(found, 5, "Segmentation")
    model = task.base_model(zoo)
    model.get_parameter("classifier.3.bias").data.fill_(NAN)
    assert task.score(model) == 0


# --- detection ------------------------------------------------------------------------------------


def pictures(tmp_path) -> coco.CocoSplit:
    return coco.load("coco", write_coco(tmp_path)).val


def candidates(arch: str, layers: str, count: int) -> tuple[Layout, torch.Tensor]:
    model = wild_detector(arch)
    layout = Layout.of({name: model.get_parameter(name) for name in matching(model, layers)})
    own = layout.flatten({name: model.get_parameter(name).detach() for name in layout.names})
    noise = torch.randn(count, layout.dim, generator=generator(1))
    return layout, own + 0.1 * own.std() * noise


def alone(arch: str, layout: Layout, vector: torch.Tensor) -> nn.Module:
    """A fresh detector with a candidate's values."""
    model = wild_detector(arch)
    with torch.no_grad():
        for name, tensor in layout.unflatten(vector).items():
            model.get_parameter(name).copy_(tensor)
    return model


@torch.inference_mode()
def plainly(model, image: torch.Tensor) -> tuple[dict[str, torch.Tensor], bool]:
    """What a detector finds in one image if bad anchors, proposals and places are cut out; and whether there were any.

    The layers are torchvision's, called one by one, and what comes after them is torchvision's own.
    """
    resized, _ = model.transform([image])
    features = model.backbone(resized.tensors)
    run = _faster_rcnn if hasattr(model, "roi_heads") else _fcos
    found, broken = run(model, resized, features)
    return model.transform.postprocess([found], resized.image_sizes, [image.shape[1:]])[0], broken


def _faster_rcnn(model, resized, features):
    (logits,), (offsets,) = model.rpn.head(list(features.values()))  # of one level
    (anchors,) = model.rpn.anchor_generator(resized, list(features.values()))
    logits = logits.permute(0, 2, 3, 1).reshape(-1)
    offsets = offsets.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).reshape(-1, 4)
    good = logits.isfinite() & offsets.isfinite().all(1)
    boxes = model.rpn.box_coder.decode(offsets[good], [anchors[good]])
    kept = [int(good.sum())]
    shape = resized.image_sizes
    (proposals,), _ = model.rpn.filter_proposals(
        boxes.view(1, -1, 4), logits[None, good], shape, kept
    )
    heads = model.roi_heads
    hidden = heads.box_head(heads.box_roi_pool(features, [proposals], shape))
    logits, offsets = heads.box_predictor(hidden)
    fine = logits.isfinite().all(1) & offsets.isfinite().all(1)
    boxes, scores, labels = heads.postprocess_detections(
        logits[fine], offsets[fine], [proposals[fine]], shape
    )
    broken = not (good.all() and fine.all())
    return {"boxes": boxes[0], "scores": scores[0], "labels": labels[0]}, broken


def _fcos(model, resized, features):
    (level,) = features.values()
    (anchors,) = model.anchor_generator(resized, [level])
    head = model.head
    corners, classes = head.regression_head.conv(level), head.classification_head.conv(level)

    def convolved(layer, inputs):  # with zeros around the image that are really there
        return F.conv2d(F.pad(inputs, (1, 1, 1, 1)), layer.weight, layer.bias)

    maps = [
        convolved(head.classification_head.cls_logits, classes),
        convolved(head.regression_head.bbox_reg, corners),
        convolved(head.regression_head.bbox_ctrness, corners),
    ]
    logits, offsets, center = (one[0].flatten(1).T for one in maps)
    good = torch.cat([logits, offsets, center], 1).isfinite().all(1)
    outputs = {
        "cls_logits": [logits[None, good]],
        "bbox_regression": [offsets[None, good].relu()],
        "bbox_ctrness": [center[None, good]],
    }
    (found,) = model.postprocess_detections(outputs, [[anchors[good]]], resized.image_sizes)
    return found, not good.all()


def broken_candidates(layout: Layout, vectors: torch.Tensor) -> torch.Tensor:
    """Candidates of which all but the first are broken in some way.

    The second is all NaN; then three have one value that is not finite. The others have one weight that is so large
    that outputs overflow at some places and not at others.
    """
    vectors = vectors.clone()
    vectors[1] = NAN
    for row, value in enumerate(BAD, start=2):
        vectors[row, 7 * row] = value
    weights = [part for name, part in layout.slices().items() if name.endswith("weight")]
    for row in range(5, len(vectors)):
        where = weights[row % len(weights)]
        vectors[row, where.start + 31 * row % (where.stop - where.start)] = (2e38, -2e38)[row % 2]
    return vectors


DETECTORS = [
    ("fasterrcnn_small", "head", finding.Together),
    ("fasterrcnn_small", "head", finding.Alone),
    ("fasterrcnn_small", "roi_heads.box_predictor.bbox_pred.*", finding.Together),
    ("fasterrcnn_small", "rpn.head.cls_logits.*,rpn.head.bbox_pred.*", finding.Alone),
    ("fasterrcnn_small", "roi_heads.box_head.fc7.*", finding.Alone),
    ("fcos_small", "head", finding.Together),
    ("fcos_small", "head", finding.Alone),
    ("fcos_small", "head.regression_head.bbox_ctrness.*", finding.Together),
    ("fcos_small", "head.*.conv.*", finding.Alone),
]


@pytest.mark.parametrize(("arch", "layers", "kind"), DETECTORS)
def test_nothing_is_found_where_heads_are_not_finite(arch, layers, kind, tmp_path):
    """The whole way in one call, several candidates at once, against cutting out bad places by hand one by one."""
    split = pictures(tmp_path)
    layout, vectors = candidates(arch, layers, 17)
    vectors = broken_candidates(layout, vectors)
    found = kind(wild_detector(arch), layout, split)(vectors)
    counts = [0] * len(vectors)
    for number, vector in enumerate(vectors):
        model = alone(arch, layout, vector)
        for image in range(len(split)):
            one, broken = plainly(model, split.image(image).float() / 255)
            rows = (found.model == number) & (found.image == image)
            assert found.category[rows].tolist() == one["labels"].tolist()
            assert torch.allclose(found.scores[rows], one["scores"], atol=1e-5)
            assert torch.allclose(found.boxes[rows], one["boxes"], atol=1e-3)
            counts[number] += bool(broken)
    assert found.not_finite.tolist() == counts
    assert counts[:2] == [0, len(split)]
    assert sum(counts[2:]) > 0
    per_model = found.model.bincount(minlength=len(vectors))
    assert per_model[0] > 10
    assert per_model[1] == 0
    assert found.boxes.isfinite().all()
    assert found.scores.isfinite().all()


@pytest.mark.parametrize("arch", ["fasterrcnn_small", "fcos_small"])
def test_both_ways_to_run_candidates_agree_on_what_is_not_finite(arch, tmp_path):
    split = pictures(tmp_path)
    layout, vectors = candidates(arch, "head", 17)
    vectors = broken_candidates(layout, vectors)
    together, one_by_one = (
        kind(wild_detector(arch), layout, split)(vectors)
        for kind in (finding.Together, finding.Alone)
    )
    for found in (together, one_by_one):
        assert len(found.model) > 100
    assert torch.equal(together.not_finite, one_by_one.not_finite)
    for name in ("model", "image", "category"):  # in another order
        ours, theirs = (getattr(one, name).bincount() for one in (together, one_by_one))
        assert torch.equal(ours, theirs)
    assert together.scores.double().sum().item() == pytest.approx(
        one_by_one.scores.double().sum().item()
    )
    assert together.boxes.double().sum().item() == pytest.approx(
        one_by_one.boxes.double().sum().item()
    )


@pytest.mark.parametrize("arch", ["fasterrcnn_small", "fcos_small"])
def test_a_base_that_is_not_finite_counts_for_all_its_candidates(arch, tmp_path):
    """What candidates share is watched too: both ways to run them find nothing, everywhere."""
    split = pictures(tmp_path)
    layout, vectors = candidates(arch, "head", 2)
    for kind in (finding.Together, finding.Alone):
        model = wild_detector(arch)
        next(model.backbone.parameters()).data.fill_(NAN)
        found = kind(model, layout, split)(vectors)
        assert len(found.model) == 0
        assert found.not_finite.tolist() == [len(split)] * 2


def test_region_proposals_that_are_not_finite_count_where_they_are_shared(tmp_path):
    """One kind of anchor has a score of inf: it is no proposal, the others are, and every image is counted."""
    split = pictures(tmp_path)
    layout, vectors = candidates("fasterrcnn_small", "head", 2)
    found = []
    for kind in (finding.Together, finding.Alone):
        model = wild_detector("fasterrcnn_small")
        model.rpn.head.cls_logits.bias.data[1] = INF
        found.append(kind(model, layout, split)(vectors))
        assert found[-1].not_finite.tolist() == [len(split)] * 2
    assert len(found[0].model) == len(found[1].model) > 20


def test_a_watched_detector_is_itself_again_afterwards(tmp_path):
    split = pictures(tmp_path)
    for arch in ("fasterrcnn_small", "fcos_small"):
        layout, vectors = candidates(arch, "all", 1)
        model = wild_detector(arch)
        finding.finder(model, layout, split)(vectors)
        assert not [one for one in model.modules() if one._forward_hooks or one._forward_pre_hooks]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("corner", range(4))
def test_a_box_that_is_not_finite_does_not_touch_other_candidates(value, corner):
    """Suppression moves boxes apart by the largest coordinate of all candidates."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30], [0, 0, 9, 9]])
    scores, label = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([1, 1, 1, 2])
    one = Hits(torch.zeros(4, dtype=torch.int64), label, boxes, scores)
    expected = suppress(one, 0.5, 100)
    assert expected.scores.tolist() == scores[[0, 2, 3]].tolist()
    broken = boxes.clone()
    broken[0, corner] = value
    other = Hits(torch.ones(4, dtype=torch.int64), label, broken, scores)
    found = suppress(last_layers.join([one, other]), 0.5, 100)
    assert torch.equal(found[found.model == 0].boxes, expected.boxes)
    assert found[found.model == 1].scores.tolist() == scores[1:].tolist()  # nothing suppresses them
    unsure = Hits(
        other.model, label, boxes, scores.clone().index_fill_(0, torch.tensor([0]), value)
    )
    found = suppress(last_layers.join([one, unsure]), 0.5, 100)
    assert torch.equal(found[found.model == 0].boxes, expected.boxes)
    assert found[found.model == 1].scores.tolist() == scores[1:].tolist()


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("arch", "layers"),
    [
        ("fasterrcnn_small", "head"),
        ("fcos_small", "head"),
        ("fasterrcnn_small", "last-norms:1"),
        ("fcos_small", "all"),
    ],
)
def test_detectors_of_nan_miss_everything(arch, layers):
    task = make("shapes", arch=arch, layers=layers)
    zoo = task.collect(1, rng=generator(0), work=work_folder())
    vectors = torch.cat([zoo.vectors, torch.full_like(zoo.vectors, NAN)])
    found = task.evaluate(zoo, vectors, "val")
    healthy = task.evaluate(zoo, zoo.vectors, "val")
    assert found.scores.tolist() == [healthy.scores.item(), 0]
    assert found.wrong[1].all()
    assert torch.equal(found.wrong[:1], healthy.wrong)
    assert found.not_finite.tolist() == [0, task.size("val")]
    assert all(values[1] == 0 for values in found.extra.values())
    check_evaluation(found, 2, "Detection")
    model = task.base_model(zoo)
    for parameter in model.backbone.parameters():
        parameter.data.fill_(NAN)
    assert task.score(model) == 0


@pytest.mark.filterwarnings("error")
def test_detections_that_are_not_finite_do_not_count(tmp_path):
    split = pictures(tmp_path)
    truth = Truth(split)
    own = [(image, one) for image in range(len(split)) for one in split.annotations(image)]
    boxes = torch.tensor([one["bbox"] for _, one in own])
    boxes[:, 2:] += boxes[:, :2]
    image = torch.tensor([image for image, _ in own])
    category = torch.tensor([one["category_id"] for _, one in own])

    def found(models):
        fields = [[], [], [], [], []]
        for number, (own_boxes, scores) in enumerate(models):
            rows = (torch.full_like(image, number), image, category, own_boxes, scores)
            for field, row in zip(fields, rows, strict=True):
                field.append(row)
        return Detections(*map(torch.cat, fields))

    sure = torch.full((len(own),), 0.9)
    models = [(boxes, sure), (boxes + 500, sure)]  # of the second, none matches
    for value in BAD:
        for corner in range(4):
            broken = boxes.clone()
            broken[0, corner] = value  # the first box is missed
            models.append((broken, sure))
        models.append((boxes, torch.cat([torch.tensor([value]), sure[1:]])))
        models.append((torch.full_like(boxes, value), sure))
    wide = torch.tensor([[-3e38, -3e38, 3e38, 3e38]]).expand(len(own), -1)  # its sides overflow
    models.append((wide, sure))
    precision = truth.score(found(models), len(models))
    without = Detections(*(column[1:] for column in vars(found(models[:1])).values()))
    expected = truth.score(without, 1)
    for row, (some, scores) in enumerate(models[2:], start=2):
        finite = int((some.isfinite().all(1) & scores.isfinite()).sum())
        if finite == len(own) - 1:
            assert torch.equal(precision.missed[row], expected.missed[0])
            assert precision.values["mAP"][row] == expected.values["mAP"][0]
        else:
            assert precision.missed[row].all()
            assert precision.values["mAP"][row] == 0
    assert precision.values["mAP"][:2].tolist() == pytest.approx([1, 0])
    assert expected.missed.sum() == 1


# --- image generation -----------------------------------------------------------------------------


class Denoising(Denoiser):
    """Stands for a network: finds noise that is a tenth of the images, but for what it is told to, at one step."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value = step, value

    def __call__(self, images: torch.Tensor, step: int) -> torch.Tensor:
        found = (images / 10).nan_to_num(0, 0, 0)  # a network that is finite again afterwards
        if step == self.step:
            found[1, 0, 2, 3] = self.value
        return found

    def spread(self, rows: torch.Tensor) -> torch.Tensor:
        return rows


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("value", BAD)
def test_an_image_that_was_not_finite_on_its_way_is_none(name, step, value):
    start = torch.randn(3, 1, 4, 4, generator=generator(0))
    images = Sampler(name, 4)(Denoising(step, value), start)
    plain = Sampler(name, 4)(Denoising(-1, value), start)
    assert images[1].isnan().all()
    assert torch.equal(images[[0, 2]], plain[[0, 2]])
    assert plain.isfinite().all()


def image_scorer(real: torch.Tensor, count: int) -> ImageScorer:
    """A scorer without a network that draws, in features that are the pixels of real images of 2 x 2."""
    scorer = ImageScorer.__new__(ImageScorer)
    scorer.network = FeatureNetwork(nn.Identity(), lambda images: images.float(), "pixels")
    scorer.reference = Reference.of(real, scorer.network, "cpu")
    scorer.noise = torch.zeros(count, *real.shape[1:])
    return scorer


def distance(x: torch.Tensor, real: torch.Tensor) -> float:
    """Fréchet distance by its definition, in numpy."""
    x, real = x.double().numpy(), real.double().numpy()
    apart = ((x.mean(0) - real.mean(0)) ** 2).sum()
    ours, theirs = (np.atleast_2d(np.cov(one, rowvar=False)) for one in (x, real))
    values = np.linalg.eigvals(ours @ theirs).real.clip(min=0)
    return float(apart + np.trace(ours) + np.trace(theirs) - 2 * np.sqrt(values).sum())


REAL = torch.randint(40, 160, (50, 1, 2, 2), generator=generator(3), dtype=torch.uint8)


def test_the_stand_in_is_the_farthest_of_hopeless_images():
    """Real images are rather dark: it is white. Where they are half dark and half light, it is their negative."""
    assert image_scorer(REAL, 9).stand_in.flatten().tolist() == [255] * 4
    halves = REAL.clone()
    halves[..., 0, 0] = halves[..., 1, 1] = 250
    halves[..., 0, 1] = halves[..., 1, 0] = 5
    assert image_scorer(halves, 9).stand_in.flatten().tolist() == [0, 255, 255, 0]


def test_the_distance_of_images_of_which_some_are_not_finite():
    scorer = image_scorer(REAL, 20)
    features = scorer.network(torch.randint(255, (20, 1, 2, 2), generator=generator(4)).byte())
    real = scorer.network(REAL)
    worst = ((255 - real.double().mean(0)) ** 2).sum() + np.trace(
        np.cov(real.numpy(), rowvar=False)
    )
    for broken in (0, 1, 7, 20 - NEEDED, 20 - NEEDED + 1, 20):
        bad = torch.arange(20) < broken
        found = scorer.numbers(features, bad, further=True)
        share = broken / 20 if broken <= 20 - NEEDED else 1.0
        own = distance(features[~bad], real) if share < 1 else 0.0
        expected = (1 - share) * own + share * worst.item()
        assert found["distance"].item() == pytest.approx(expected, rel=1e-6)
        assert all(value.isfinite().all() for value in found.values())
        assert found["precision"].item() <= 1 - share
        assert found["recall"].item() <= 1 - share
        assert torch.equal(
            found["distance"], scorer.numbers(features, bad, further=False)["distance"]
        )


@settings(max_examples=100, deadline=None)
@given(
    images=st.integers(NEEDED + 1, 30),
    spread=st.sampled_from([0, 1, 20, 120]),
    broken=st.integers(1, 30),
    seed=st.integers(0, 10_000),
)
def test_no_distance_is_better_for_images_that_are_not_finite(images, spread, broken, seed):
    """Whatever images a model draws, of which none is farther than the stand-in: alike, noise, or any between."""
    scorer = image_scorer(REAL, images)
    rng = torch.Generator().manual_seed(seed)
    middle = torch.randint(255, (1, 2, 2), generator=rng)
    drawn = middle + spread * torch.randn(images, 1, 2, 2, generator=rng)
    drawn = drawn.clamp(0, 255).to(torch.uint8)
    features = scorer.network(drawn)
    mean = scorer.reference.gaussian.mean
    farthest = (scorer.network(scorer.stand_in[None]) - mean).norm()
    assert (features - mean).norm(dim=1).max() <= farthest
    bad = torch.arange(images) < broken
    before = scorer.numbers(features, torch.zeros_like(bad), further=False)["distance"].item()
    after = scorer.numbers(features, bad, further=False)["distance"].item()
    assert after >= before * (1 - 1e-9) - 1e-9


@pytest.mark.usefixtures("_small")
def test_models_of_images_with_such_weights_are_the_worst_and_spoil_no_other(monkeypatch):
    monkeypatch.setattr("tasks.features.EPOCHS", 1)
    task = make("digits-ddpm")
    zoo = task.collect(2, rng=generator(0), work=work_folder())
    noise = torch.randn(zoo.vectors[0].shape, generator=generator(5))
    rows = [
        zoo.vectors[0],
        *(zoo.vectors[0] * bad for bad in BAD),
        1e30 * zoo.vectors[0],
        100 * noise,
    ]
    vectors = torch.stack([*rows, zoo.vectors[1]])
    for split in ("train", "val"):
        found, healthy = (task.evaluate(zoo, some, split) for some in (vectors, zoo.vectors))
        assert torch.equal(found.scores[[0, 6]], healthy.scores)
        assert torch.equal(found.features[[0, 6]], healthy.features)
        assert found.not_finite.tolist() == [0, 20, 20, 20, 20, 0, 0]
        assert len(set(found.scores[1:5].tolist())) == 1
        assert (found.scores[1] > found.scores[[0, 5, 6]]).all()
        check_evaluation(found, 7, "ImageGeneration")
    network = task.network(zoo)
    stand_in = task.draw(zoo, vectors[1:2], "val", 1)[0, 0]
    real = network(task.data.val.images).double().numpy()
    away = ((network(stand_in[None])[0].double().numpy() - real.mean(0)) ** 2).sum()
    expected = away + np.trace(np.cov(real, rowvar=False))
    assert found.scores[1].item() == pytest.approx(expected, rel=1e-6)
    assert found.extra["precision"][1] == found.extra["recall"][1] == 0
    model = task.base_model(zoo)
    model.conv_out.bias.data.fill_(INF)
    assert task.score(model) == pytest.approx(expected, rel=1e-6)


@pytest.mark.usefixtures("_small")
def test_one_image_of_many_that_is_not_finite_counts_alone(monkeypatch):
    """A network that gives inf for one image at one step: the others are scored as they are."""
    monkeypatch.setattr("tasks.features.EPOCHS", 1)
    task = make("digits-ddpm")
    zoo = task.collect(1, rng=generator(0), work=work_folder())
    whole = task.evaluate(zoo, zoo.vectors, "val")
    scorer = task._candidates(zoo, "val")
    drawn = task.draw(zoo, zoo.vectors, "val", 20)[0]
    denoise = type(scorer.denoiser).__call__

    def once(self, images, step):
        found = denoise(self, images, step).clone()
        if step == 1:
            found[7, 0, 0, 0] = INF
        return found

    monkeypatch.setattr(type(scorer.denoiser), "__call__", once)
    again = task.draw(zoo, zoo.vectors, "val", 20)[0]
    assert torch.equal(again[7], scorer.stand_in)
    others = torch.arange(20) != 7
    assert torch.equal(again[others], drawn[others])
    found = task.evaluate(zoo, zoo.vectors, "val")
    assert found.not_finite.tolist() == [1]
    alone = fd.frechet(
        fd.Gaussian.of(task.network(zoo)(drawn[others])[None]), scorer.reference.gaussian
    )
    expected = (19 * alone + scorer.hopeless["distance"]) / 20
    assert torch.allclose(found.scores, expected)
    assert found.scores > whole.scores


# --- selection ------------------------------------------------------------------------------------


def test_of_models_that_are_all_broken_the_first_is_selected():
    zeros, losses = torch.zeros(1000).double(), torch.full((1000,), INF).double()
    assert select(zeros, losses) == 0
    losses[[700, 800]] = 2.0
    assert select(zeros, losses) == 700
    losses[900] = 1.0
    assert select(zeros, losses) == 900
    zeros[950] = 1e-9
    assert select(zeros, losses) == 950
    found = population(
        torch.zeros(4).double(), torch.zeros(4).double(), torch.full((4,), INF).double(), higher_is_better=True,
        rng=generator(0), not_finite=torch.tensor([3, 1, 0, 7]),
    )  # fmt: skip
    assert (found.best, found.selected, found.worst, found.not_finite) == (0, 0, 0, 3)


# --- an evaluation that is none -------------------------------------------------------------------

UNITS = torch.tensor([[True, False], [False, False], [True, True]])
SOUND = Evaluation(
    torch.tensor([0.1, 0.2, 0.3]).double(), UNITS, {"loss": torch.tensor([1.0, INF, 2.0])},
    not_finite=torch.tensor([0, 2, 0]),
)  # fmt: skip
WITHOUT = Evaluation(SOUND.scores, None, {"recall": SOUND.scores}, UNITS.double())


def test_sound_evaluations_pass():
    check_evaluation(SOUND, 3, "Mine")
    check_evaluation(WITHOUT, 3, "Mine")


FEATURES = UNITS.double()
UNSOUND = [
    ({"scores": torch.tensor([0.1, NAN, INF]).double()}, "scores with NaN or inf for 2 of 3 models"),
    ({"scores": torch.tensor([0.1, 0.2]).double()}, r"scores as torch.float64 of shape \(2,\), .*\(3\)"),
    ({"scores": torch.tensor([1, 2, 3])}, "scores as torch.int64"),
    ({"scores": [0.1, 0.2, 0.3]}, "scores as list, expected torch.float64"),
    ({"scores": torch.zeros(3, 1).double()}, r"scores as torch.float64 of shape \(3, 1\)"),
    ({"wrong": UNITS.double()}, "wrong as torch.float64"),
    ({"wrong": UNITS[:2]}, r"wrong as torch.bool of shape \(2, 2\), expected torch.bool of shape \(3, any\)"),
    ({"wrong": UNITS[:, 0]}, r"wrong as torch.bool of shape \(3,\)"),
    ({"wrong": None, "features": FEATURES.where(UNITS, NAN)}, "features with NaN or inf for 2 of 3"),
    ({"wrong": None, "features": FEATURES - 0.5}, "features below 0 for 2 of 3 models"),
    ({"wrong": None, "features": FEATURES[0]}, "features as torch.float64 of shape"),
    ({"not_finite": torch.tensor([0, -1, 0])}, "not_finite below 0 for 1 of 3"),
    ({"not_finite": torch.tensor([0.0, 1.0, 0.0])}, "not_finite as torch.float32"),
    ({"not_finite": torch.tensor([0, 1])}, "not_finite as torch.int64 of shape"),
    ({"extra": {"loss": torch.tensor([1.0, NAN, 2.0])}}, "a loss of NaN or -inf for 1 of 3"),
    ({"extra": {"loss": torch.tensor([1.0, -INF, 2.0])}}, "a loss of NaN or -inf for 1 of 3"),
    ({"extra": {"recall": torch.tensor([1.0, INF, 2.0])}}, "'recall' with NaN or inf for 1 of 3"),
    ({"extra": {"recall": torch.tensor(1.0)}}, "'recall' as torch.float32 of shape"),
    ({"extra": [1.0, 2.0]}, "extra as list, expected a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), UNSOUND)
def test_unsound_evaluations_are_refused(changes, message):
    found = SimpleNamespace(**{**vars(SOUND), **changes})  # a task of its own may check nothing
    with pytest.raises(BenchError, match=rf"^Mine\.evaluate returned {message}"):
        check_evaluation(found, 3, "Mine")


def test_what_is_no_evaluation_at_all_is_refused():
    with pytest.raises(
        BenchError, match=r"returned dict without 'scores', expected tasks\.base\.Ev"
    ):
        check_evaluation({"scores": 1}, 3, "Mine")
    broken = SimpleNamespace(**{**vars(SOUND), "features": FEATURES})
    with pytest.raises(BenchError, match="returned both or neither of wrong units and features"):
        check_evaluation(broken, 3, "Mine")


@dataclasses.dataclass(eq=False)
class Nameless(Tiny):
    """A foreign task whose training scores are NaN once a model is not a checkpoint."""

    def evaluate(self, zoo: Zoo, vectors: torch.Tensor, split: str) -> Evaluation:
        found = super().evaluate(zoo, vectors, split)
        own = {row.numpy().tobytes() for row in zoo.vectors}
        strange = torch.tensor([row.numpy().tobytes() not in own for row in vectors])
        bad = strange & (split == "train")
        return dataclasses.replace(found, scores=found.scores.masked_fill(bad, NAN))


def test_a_foreign_task_that_returns_nan_is_an_error_that_names_it(tmp_path):
    request = Request(
        task="tests.test_not_finite:Nameless", generator="gaussian", k=5, samples=4, results=tmp_path / "results",
    )  # fmt: skip
    with pytest.raises(
        BenchError, match=r"^Nameless\.evaluate returned scores with NaN or inf for 4 of 4"
    ) as caught:
        pipeline.run(request)
    assert caught.value.exit_code == 1
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.usefixtures("_small")
def test_a_run_says_how_many_models_were_not_finite(tmp_path):
    request = Request(
        task="digits", generator="noise", k=4, samples=6, results=tmp_path / "results", device="cpu", settings={
            "task.epochs": 1, "task.batch_size": 20, "task.layers": "all", "task.track": "seeds", "amplitude": 1e38,
        },
    )  # fmt: skip
    record, path = pipeline.run(request)
    assert Record.read(path) == record  # its distances in weights are finite too
    scores = record.scores
    assert scores.generated.values == [0.0] * 6
    assert scores.generated.not_finite == 6
    assert scores.original.not_finite == scores.copy_.not_finite == 0
    assert scores.original.mean > 0
    assert record.novelty.verdict == "broken"
    text = "\n".join(report.sentences(record))
    assert "which count as wrong: 6 of 6 noise" in text


def test_a_record_from_before_the_count_agrees_and_a_wrong_count_does_not(tmp_path):
    request = Request(
        task="tests.tiny:Tiny", generator="gaussian", k=5, samples=4, results=tmp_path / "results"
    )
    record, _ = pipeline.run(request)

    def counted(claimed: int | None) -> Record:
        own = record.scores.generated.model_copy(update={"not_finite": claimed})
        return record.model_copy(
            update={"scores": record.scores.model_copy(update={"generated": own})}
        )

    def problems(claimed: int | None, computed: int | None) -> list[str]:
        found = differences(counted(claimed), counted(computed))
        return [check.field for check in found if check.problem]

    assert problems(None, 2) == problems(2, 2) == []
    assert problems(1, 2) == problems(2, None) == ["scores.generated.not_finite"]


def test_what_was_scored_by_earlier_rules_is_scored_again(tmp_path, monkeypatch):
    path, values = tmp_path / "file", torch.zeros(2).double()
    one = Evaluated(
        values, values + 1, values + 2, UNITS[:2], 1.0, 1.0, not_finite=torch.tensor([0, 2])
    )
    save_evaluated(one, path)
    assert load_evaluated(path).not_finite.tolist() == [0, 2]
    monkeypatch.setattr(stages, "RULES", stages.RULES + 1)
    with pytest.raises(BenchError, match="was scored by other rules"):
        load_evaluated(path)


# --- finite, and huge -----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e20, 1e38])
def test_distances_of_huge_vectors(scale):
    """Their squares overflow; those of other models stay as they are, to the last bit."""
    rng = generator(0)
    originals, generated = torch.randn(5, 30, generator=rng), torch.randn(4, 30, generator=rng)
    huge = generated.clone()
    huge[1:] = scale * generated[1:] / generated.abs().max()
    exact = torch.cdist(huge.double(), originals.double()).min(1).values
    usual = torch.cdist(originals.double(), originals.double()).fill_diagonal_(INF).min(1).values
    ratio = exact.quantile(0.5) / usual.quantile(0.5)
    assert nearest_l2_ratio(huge, originals) == pytest.approx(ratio.item(), rel=1e-5)
    assert nearest_l2_ratio(huge[:1], originals) == nearest_l2_ratio(generated[:1], originals)
    mean = (huge.double() - originals.double().mean(0)).norm(dim=1)
    expected = (exact / (exact + mean)).quantile(0.5).item()
    assert toward_mean(huge, originals) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("exponent", [-100, 64, 127])
def test_a_map_of_huge_or_tiny_vectors(exponent):
    """It shows shapes, not sizes: the same map, to the last bit."""
    points = torch.randn(8, 30, generator=generator(0)).clamp(-1, 1)
    maps = [embed({"points": one})["points"] for one in (points, points * 2.0**exponent)]
    assert np.array_equal(*maps)
    assert np.isfinite(maps[0]).all()
