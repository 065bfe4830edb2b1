"""What is not finite is wrong and is counted, in segmentation: against exact arithmetic, pixel by pixel."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.contract.evaluation import check_evaluation
from bench.system.randomness import generator
from tasks.data.coco import IGNORED
from tasks.data.images import Images
from tasks.fast import upsampling
from tasks.fast.confusion import mean_iou, pixel_accuracy
from tasks.fast.dense import DenseScorer, parts_of_overlaps, random_pixels
from tasks.fast.upsampling import Coarse, Pixels
from tests.broken import BAD, INF, NAN, make, right_by_hand, spoilt, work_folder


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
            bad = pixels.invalid(coarse, slice(0, images), factor)[model]
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
    scorer.source = Images(blank, MASKS, column, column, 16, "cpu")
    scorer.pixels, scorer.classes = random_pixels(MASKS, 50, "val"), 2
    scorer.counts = torch.tensor([[1.0, 1.0, 1.0], [4.0, 4.0, 4.0]], dtype=torch.float64)
    scorer.parts = parts_of_overlaps(2)
    parts, everyone = [slice(0, 2), slice(2, 3)], slice(0, len(logits))
    scorer.candidates = lambda _: ((everyone, rows, logits[:, rows]) for rows in parts)
    scored = scorer(torch.zeros(len(logits), 1))
    assert torch.equal(scored.replicates, mean_iou(scored.matrices)[:, None].expand(-1, 2))
    for row, (of, iou, accuracy, broken) in enumerate(SEGMENTERS.values()):
        assert mean_iou(scored.matrices)[row].item() == pytest.approx(iou)
        assert pixel_accuracy(scored.matrices)[row].item() == pytest.approx(accuracy)
        assert scored.not_finite[row] == broken
        assert scored.loss[row].isinf() == (broken > 0)
        assert not scored.loss[row].isnan()
        units = of[scorer.pixels.image, :, scorer.pixels.row, scorer.pixels.column]
        pairs = zip(units.tolist(), scorer.pixels.label.tolist(), strict=True)
        assert scored.wrong[row].tolist() == [not right_by_hand(*pair) for pair in pairs]


@pytest.mark.parametrize("layers", ["head", "classifier.*", "all"])
def test_segmenters_with_such_weights_find_nothing_and_spoil_no_other(layers):
    task = make("fake-masks", layers=layers)
    zoo = task.collect(2, rng=generator(0), work=work_folder())
    vectors = torch.stack([zoo.vectors[0], *(zoo.vectors[0] * bad for bad in BAD), zoo.vectors[1]])
    found, healthy = (task.scorer(zoo, "val")(some) for some in (vectors, zoo.vectors))
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
