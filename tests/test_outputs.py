"""Coordinates of models as functions, each kind of task against a plain loop over models, units and detections."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.nn import functional as F
from torchvision.ops import box_iou

from bench.contract.evaluation import check_evaluation
from bench.contract.zoo import Layout
from bench.system.randomness import generator
from bench.testing import BrokenPromise, check_task
from tasks.fast import hellinger
from tasks.fast.average_precision import Detections, Truth
from tasks.fast.box_coordinates import BoxCoordinates
from tasks.fast.budget import of_candidates
from tasks.fast.dense import DenseScorer, random_pixels
from tasks.fast.finding import finder
from tasks.fast.scoring import ClassifierScorer
from tasks.fast.upsampling import Pixels
from tests import wrong
from tests.broken import BAD, INF, NAN, make, spoilt, work_folder
from tests.standins import images
from tests.test_average_precision import random_case
from tests.test_not_finite import scorer_of
from tests.test_scoring import candidates, one_at_a_time
from tests.test_segmentation import network, pictures, plainly

DETECTORS = (
    {"arch": "fasterrcnn_small", "layers": "head"},
    {"arch": "fcos_small", "layers": "last-norms:1"},
)


def distances(rows: torch.Tensor) -> np.ndarray:
    """The Euclidean distance of every two rows."""
    return np.linalg.norm(rows.numpy()[:, None] - rows.numpy()[None], axis=2)


def hellinger_distances(logits: torch.Tensor) -> np.ndarray:
    """The Hellinger distance of every two models, root mean square over units, from logits (model, unit, class)."""
    found = np.zeros((len(logits), len(logits)))
    for a, one in enumerate(softmax(logits.double().numpy(), axis=2)):
        for b, other in enumerate(softmax(logits.double().numpy(), axis=2)):
            overlap = np.sqrt(one * other).sum(axis=1)  # Bhattacharyya's coefficient
            found[a, b] = math.sqrt(np.clip(1 - overlap, 0, None).mean())
    return found


@functools.cache
def zoo_of(name: str, **settings: str):
    """A task and a zoo of its checkpoints, trained for a moment; no test changes them."""
    task = make(name, **settings)
    return task, task.collect(2, rng=generator(0), work=work_folder())


# --- classification -------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["mlp3", "convnet3"])
def test_distances_of_classifiers_are_hellinger_distances(arch):
    model, layout, vectors = candidates(arch, "all", 4)
    data = images(count=20)
    few = dataclasses.replace(of_candidates(torch.device("cpu")), images=8)  # the last are fewer
    outputs = ClassifierScorer(model, layout, data, few)(vectors).outputs
    logits = one_at_a_time(model, layout, vectors, data)
    assert outputs.shape == (4, logits[0].numel())
    expected = hellinger_distances(logits)
    assert expected[0, 1:].min() > 0.01
    np.testing.assert_allclose(distances(outputs), expected, atol=1e-6)


@pytest.mark.parametrize(("values", "images"), [(1, 1), (9, 3), (28, 9), (10**6, 20)])
def test_evenly_spaced_units_are_taken_where_there_are_many(values, images, monkeypatch):
    monkeypatch.setattr(hellinger, "VALUES", values)
    logits = torch.randn(2, 20, 3, generator=generator(0))
    outputs = scorer_of(logits, torch.zeros(20, dtype=torch.int64))(torch.zeros(2, 1)).outputs
    chosen = np.linspace(0, 19, images).round().astype(int)
    assert outputs.shape == (2, 3 * images)
    np.testing.assert_allclose(
        distances(outputs), hellinger_distances(logits[:, chosen]), atol=1e-6
    )


def test_models_that_agree_on_no_class_are_1_apart():
    labels = torch.tensor([0, 1, 2, 0])
    logits = 3e38 * torch.stack([F.one_hot(labels, 4), F.one_hot(labels + 1, 4)])
    outputs = scorer_of(logits, labels)(torch.zeros(2, 1)).outputs
    assert distances(outputs)[0, 1] == pytest.approx(1)


def test_permuted_hidden_units_are_the_same_function():
    model, layout, vectors = candidates("mlp3", "all", 2)
    parts = layout.unflatten(vectors[0])
    order = torch.randperm(50, generator=generator(0))
    permuted = {
        name: part[order] if len(part) == 50 else part[:, order] if 50 in part.shape[1:] else part
        for name, part in parts.items()
    }
    vector = layout.flatten(permuted)
    assert (vector != vectors[0]).float().mean() > 0.5
    outputs = ClassifierScorer(model, layout, images())(torch.stack([*vectors, vector])).outputs
    found = distances(outputs)
    assert found[0, 2] < 1e-6
    assert found[0, 1] > 0.01


@pytest.mark.parametrize("value", BAD)
def test_an_image_with_such_a_logit_is_at_0(value):
    logits = torch.randn(3, 5, 4, generator=generator(0))
    labels = torch.zeros(5, dtype=torch.int64)
    healthy = scorer_of(logits, labels)(torch.zeros(3, 1)).outputs
    logits[1, 2, 3] = value
    outputs = scorer_of(logits, labels)(torch.zeros(3, 1)).outputs
    assert (outputs.view(3, 5, 4)[1, 2] == 0).all()
    expected = healthy.view(3, 5, 4).clone()
    expected[1, 2] = 0
    assert torch.equal(outputs.view(3, 5, 4), expected)


# --- segmentation ---------------------------------------------------------------------------------


@torch.no_grad()
def test_distances_of_segmenters_are_those_at_the_chosen_pixels(monkeypatch):
    monkeypatch.setattr(hellinger, "VALUES", 21 * 80)
    model, data = network("fcn_small"), pictures()
    layout = Layout.of({name: model.get_parameter(name) for name in ("classifier.3.weight",)})
    own = model.get_parameter("classifier.3.weight").flatten().clone()
    vectors = own + own.std() * torch.randn(3, len(own), generator=generator(1))
    fine = []
    for vector in vectors:
        model.load_state_dict(layout.unflatten(vector), strict=False)
        fine.append(plainly("fcn_small", model, data))
    pixels = random_pixels(data.labels, 30, "val")
    outputs = DenseScorer(model, layout, data, pixels, 21)(vectors).outputs
    chosen = torch.linspace(0, len(pixels) - 1, 80).round().long()
    where = (pixels.image[chosen], pixels.row[chosen], pixels.column[chosen])
    logits = torch.stack([one.movedim(1, -1)[where] for one in fine])
    assert outputs.shape == (3, 80 * 21)
    expected = hellinger_distances(logits)
    assert expected[0, 1:].min() > 0.01
    np.testing.assert_allclose(distances(outputs), expected, atol=1e-6)


def test_a_pixel_without_a_class_is_at_0():
    rng = generator(0)
    coarse = spoilt(torch.randn(3, 4, 5, 2, 3, generator=rng), 0.03, rng)
    coarse[1] = coarse[1].nan_to_num(0, 0, 0)
    data = pictures(4, 6, 5)
    data = dataclasses.replace(
        data, examples=data.examples[..., :4, :], labels=data.labels[:, :4, :]
    )
    pixels = random_pixels(data.labels, 100, "val")
    scorer = DenseScorer.__new__(DenseScorer)
    scorer.source, scorer.pixels, scorer.classes, scorer.counts = data, pixels, 5, None
    parts = (slice(0, 3), slice(3, 4))
    scorer.candidates = lambda _: ((slice(0, 3), rows, coarse[:, rows]) for rows in parts)
    scored = scorer(torch.zeros(3, 1))
    outputs = scored.outputs.view(3, len(pixels), 5)
    fine = F.interpolate(coarse.flatten(0, 1), scale_factor=2, mode="bilinear").unflatten(0, (3, 4))
    logits = fine[:, pixels.image, :, pixels.row, pixels.column].movedim(0, 1)
    seen = logits.isfinite().all(2)
    assert 0 < seen.float().mean() < 1
    expected = logits.softmax(2).sqrt() / math.sqrt(2 * len(pixels))
    assert torch.allclose(outputs[seen], expected[seen], atol=1e-6)
    lost = (outputs == 0).all(2)
    assert not lost[seen].any()
    assert lost[0].any()
    assert not lost[1].any()
    assert scored.wrong[lost].all()


def test_no_labelled_pixel_gives_no_coordinate():
    none = torch.empty(0, dtype=torch.int64)
    coordinates = hellinger.Coordinates(2, len(Pixels(none, none, none, none)), "cpu")
    coordinates.fill(slice(0, 2), slice(0, 0), torch.zeros(2, 0, 3))
    assert coordinates.values.shape == (2, 0)


# --- detection ------------------------------------------------------------------------------------


def seen_plainly(found: Detections, models: int, split, categories) -> torch.Tensor:
    """The highest score of a detection of each category that overlaps each box, by torchvision's IoU, in a loop."""
    own = [
        (image, one)
        for image in range(len(split))
        for one in split.annotations(image)
        if not one["iscrowd"]
    ]
    highest = torch.zeros(models, len(own), len(categories), dtype=torch.float64)
    for model in range(models):
        for unit, (image, one) in enumerate(own):
            left, top, wide, tall = one["bbox"]
            box = torch.tensor([[left, top, left + wide, top + tall]], dtype=torch.float64)
            for number, category in enumerate(categories):
                rows = (found.model == model) & (found.image == image)
                rows &= found.category == category
                enough = box_iou(box, found.boxes[rows].double())[0] >= 0.5
                scores = found.scores[rows][enough].double()
                highest[model, unit, number] = scores.max() if len(scores) else 0
    return (highest.sqrt() / math.sqrt(2 * len(own))).flatten(1)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("at_once", [1, 50, 2**16])
def test_coordinates_of_detectors_are_scores_at_boxes(seed, at_once):
    split, found, models = random_case(seed, images=6)
    coordinates = BoxCoordinates(Truth(split), at_once)
    outputs = coordinates(found, models + 1)
    expected = seen_plainly(found, models, split, sorted(split.api.cats))
    assert 0.05 < (expected > 0).float().mean() < 0.95
    torch.testing.assert_close(outputs[:models].double(), expected, rtol=0, atol=1e-6)
    assert (outputs[models] == 0).all()  # it detected nothing
    order = torch.randperm(len(found.model), generator=generator(seed))
    assert torch.equal(coordinates(found[order], models + 1), outputs)
    nothing = coordinates(found[:0], 2)
    assert nothing.shape == (2, outputs.shape[1])
    assert (nothing == 0).all()


def test_evenly_spaced_boxes_are_taken_where_there_are_many(monkeypatch):
    split, found, models = random_case(0, images=8)
    truth = Truth(split)
    whole = BoxCoordinates(truth)(found, models).view(models, truth.units, -1)
    monkeypatch.setattr(hellinger, "VALUES", 3 * 7 + 2)
    few = BoxCoordinates(truth)(found, models).view(models, 7, 3)
    chosen = np.linspace(0, truth.units - 1, 7).round().astype(int)
    expected = whole[:, chosen] * math.sqrt(truth.units / 7)
    assert truth.units > 14
    assert expected.any()
    torch.testing.assert_close(few, expected)


def test_detections_that_are_not_finite_or_of_no_category_do_not_count():
    split, found, models = random_case(0, images=6)
    coordinates = BoxCoordinates(Truth(split))
    expected = coordinates(found, models)
    more = []
    for value in BAD:
        boxes = found.boxes.clone()
        boxes[:, len(more) % 4] = value
        sure = torch.ones_like(found.scores)
        more.append(dataclasses.replace(found, boxes=boxes, scores=sure))
        more.append(dataclasses.replace(found, scores=torch.full_like(found.scores, value)))
    more.append(dataclasses.replace(found, category=found.category + 1, scores=sure))
    more.append(dataclasses.replace(found, category=found.category + 1000, scores=sure))
    fields = [field.name for field in dataclasses.fields(Detections)]
    joined = Detections(*(torch.cat([getattr(one, n) for one in (found, *more)]) for n in fields))
    known = torch.isin(found.category + 1, torch.tensor(sorted(split.api.cats)))
    assert not known.any()
    assert torch.equal(coordinates(joined, models), expected)


@pytest.mark.parametrize("settings", DETECTORS)
def test_detectors_are_scored_by_what_they_find_on_validation_alone(settings):
    task, zoo = zoo_of("fake-boxes", **settings)
    outputs = task.scorer(zoo, "val")(zoo.vectors).outputs
    split = task._scored("val")
    found = finder(task.base_model(zoo), zoo.layout, split)(zoo.vectors)
    expected = seen_plainly(found, 2, split, task.data.category_ids)
    assert expected.any(1).all()
    torch.testing.assert_close(outputs.double(), expected, rtol=0, atol=1e-6)
    assert task.scorer(zoo, "train")(zoo.vectors).outputs is None


# --- every kind -----------------------------------------------------------------------------------

KINDS = [
    ("fake", {"arch": "mlp3", "layers": "all"}),
    ("fake", {"arch": "convnet3", "layers": "last-norms:2"}),
    ("fake-masks", {"layers": "last-norms:2"}),
    *(("fake-boxes", settings) for settings in DETECTORS),
]


@pytest.mark.parametrize(("name", "settings"), KINDS)
def test_models_scored_together_are_where_they_are_alone(name, settings):
    task, zoo = zoo_of(name, **settings)
    scorer = task.scorer(zoo, "val")
    (first, second), broken = zoo.vectors, zoo.vectors[0].clone()
    broken[1::2] = NAN
    vectors = torch.stack([first, second, broken, first, second * INF])
    evaluation = scorer(vectors)
    check_evaluation(evaluation, 5, type(task).__name__)
    outputs = evaluation.outputs
    assert (outputs[[2, 4]] == 0).all()
    found = distances(outputs)
    assert found[0, 3] < 1e-6 < found[0, 1]
    for row, vector in enumerate(vectors):
        alone = scorer(vector[None]).outputs[0]
        torch.testing.assert_close(outputs[row], alone, rtol=0, atol=1e-6)


# --- the promise of tasks -------------------------------------------------------------------------


def test_a_task_may_give_coordinates():
    check_task(wrong.Outputs)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (wrong.Alike, "all checkpoints have equal outputs"),
        (wrong.Numbered, "the outputs of two equal models are 3 apart, those of checkpoints at most 2"),
    ],
)  # fmt: skip
def test_coordinates_that_do_not_follow_from_the_model_are_refused(cls, message):
    with pytest.raises(BrokenPromise, match=f"breaks 'outputs tell models apart': {message}"):
        check_task(cls)
