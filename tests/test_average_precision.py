"""Our average precision against plain pycocotools, on results as they write them to a file."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tasks.data.coco import CocoSplit, index, quiet
from tasks.fast import average_precision, resampling
from tasks.fast.average_precision import SIZES, Detections, Truth

NAMES = (
    "mAP",
    "AP50",
    "AP75",
    *(f"mAP {name}" for name in SIZES),
)  # in the order of pycocotools' summary
CATEGORIES = (1, 3, 90)


def split_of(boxes: list[dict], images: int) -> CocoSplit:
    """A split without pixels; a box is image, category, bbox, and crowd where it is one."""
    content = {
        "images": [
            {"id": 7 * n + 2, "file_name": "", "width": 300, "height": 300} for n in range(images)
        ],
        "annotations": [
            {
                "id": n + 1,
                "image_id": 7 * box["image"] + 2,
                "category_id": box["category"],
                "bbox": box["bbox"],
                "area": box["bbox"][2] * box["bbox"][3] * box.get("filled", 0.8),
                "iscrowd": int(box.get("crowd", False)),
            }
            for n, box in enumerate(boxes)
        ],
        "categories": [{"id": n, "name": str(n)} for n in CATEGORIES],
    }
    return CocoSplit(index(content), lambda name: b"")


def detections(found: list[tuple[int, int, int, list[float], float]]) -> Detections:
    """From (model, image, category, [x, y, width, height], score)."""
    boxes = torch.tensor([row[3] for row in found], dtype=torch.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    columns = [torch.tensor([row[i] for row in found], dtype=torch.int64) for i in range(3)]
    scores = torch.tensor([row[4] for row in found], dtype=torch.float64)
    return Detections(*columns, boxes, scores)


def plain(
    split: CocoSplit, found: Detections, model: int, tmp_path
) -> tuple[list[float], list[bool]]:
    """pycocotools' summary, and which boxes it leaves unmatched, from a file of results."""
    rows = found.model == model
    corners = found.boxes[rows]
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
    columns = (found.image[rows], found.category[rows], found.scores[rows])
    results = [
        {"image_id": split.ids[i], "category_id": c, "bbox": b, "score": s}
        for i, c, s, b in zip(*(column.tolist() for column in columns), boxes, strict=True)
    ]
    truth = split.api.dataset
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results), encoding="utf-8")
    with quiet():
        api = COCO()
        api.dataset = copy.deepcopy(truth)
        api.createIndex()
        theirs = api.loadRes(str(file)) if results else index({**truth, "annotations": []})
        run = COCOeval(api, theirs, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    matched = {
        number
        for one in run.evalImgs
        if one is not None and one["aRng"] == run.params.areaRng[0]
        for number, match in zip(one["gtIds"], one["gtMatches"][0], strict=True)
        if match
    }
    units = [
        one["id"] for i in range(len(split)) for one in split.annotations(i) if not one["iscrowd"]
    ]
    numbers = [float("nan") if value < 0 else value for value in run.stats[:6]]
    return numbers, [number not in matched for number in units]


def check(
    split: CocoSplit, found: Detections, models: int, tmp_path
) -> average_precision.AveragePrecision:
    ours = Truth(split).score(found, models)
    assert ours.missed.shape == (models, Truth(split).units)
    for model in range(models):
        numbers, missed = plain(split, found, model, tmp_path)
        none = torch.full((models,), torch.nan)
        values = [float(ours.values.get(name, none)[model]) for name in NAMES]
        np.testing.assert_allclose(values, numbers, rtol=0, atol=1e-10)
        assert ours.missed[model].tolist() == missed
    return ours


def around(rng, box: list[float], spread: float) -> list[float]:
    moved = np.array(box) + rng.normal(0, spread, 4)
    return [*moved[:2].tolist(), *np.maximum(moved[2:], 1).tolist()]


def random_case(seed: int, images: int = 12, models: int = 3):
    """Boxes of every size and crowds; detections near them and anywhere, with scores that tie."""
    rng = np.random.default_rng(seed)
    boxes = []
    for image in range(images - 3):  # the last ones have no box
        for _ in range(rng.integers(1, 7)):
            side = float(rng.choice([12, 40, 130]))
            corner = rng.uniform(0, 150, 2).round(1).tolist()
            boxes.append(
                {
                    "image": image,
                    "category": int(rng.choice(CATEGORIES[: 2 + seed % 2])),
                    "bbox": [*corner, side, side * rng.uniform(0.7, 1)],
                    "crowd": rng.random() < 0.15,
                    "filled": rng.uniform(0.5, 1),
                }
            )
    found = []
    for model in range(models):
        for box in boxes:
            for _ in range(rng.integers(0, 4)):
                near = around(rng, box["bbox"], 0.08 * box["bbox"][2] * (model + 0.3))
                category = box["category"] if rng.random() < 0.8 else int(rng.choice(CATEGORIES))
                if rng.random() < 0.9 or box["image"] != 2:  # few are found in one image
                    found.append((model, box["image"], category, near, round(rng.random(), 1)))
        for image in range(images - 1):  # nothing in the last one
            anywhere = [*rng.uniform(0, 200, 2), *rng.uniform(5, 90, 2)]
            found.append(
                (model, image, int(rng.choice(CATEGORIES)), anywhere, round(rng.random(), 1))
            )
    return split_of(boxes, images), detections(found), models


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_pycocotools(seed, tmp_path):
    split, found, models = random_case(seed)
    precision = check(split, found, models, tmp_path)
    assert 0.02 < precision.values["mAP"].max() < 0.98
    assert precision.missed.any()


def repeated(split: CocoSplit, found: Detections, counts: list[int]):
    """The split with every image as often as it is drawn, each with an id of its own, and the detections in it."""
    drawn = [image for image, times in enumerate(counts) for _ in range(times)]
    boxes = [
        {
            "image": place,
            "category": one["category_id"],
            "bbox": one["bbox"],
            "crowd": one["iscrowd"],
            "filled": one["area"] / (one["bbox"][2] * one["bbox"][3]),
        }
        for place, image in enumerate(drawn)
        for one in split.annotations(image)
    ]
    rows = [(found.image == image).nonzero().flatten() for image in drawn]
    places = torch.cat([torch.full_like(own, place) for place, own in enumerate(rows)])
    return split_of(boxes, len(drawn)), dataclasses.replace(found[torch.cat(rows)], image=places)


@pytest.mark.parametrize("seed", range(6))
def test_replicates_equal_the_score_of_images_that_are_there_several_times(seed, tmp_path):
    split, found, models = random_case(seed)
    # Scores tie in different images alone: of equal ones in one image, copies of both would rank in turn.
    place = torch.stack(
        [(found.image[:row] == found.image[row]).sum() for row in range(len(found.image))]
    )
    found = dataclasses.replace(found, scores=found.scores + 1e-3 * place)
    truth = Truth(split)
    drawn = resampling.counts(truth.wanted_in_images.any(1), 8)
    scored = truth.score(found, models, resamples=truth.resamples(drawn))
    assert scored.replicates.shape == (models, 8)
    for number, counts in enumerate(drawn.int().tolist()):
        again, their = repeated(split, found, counts)
        expected = Truth(again).score(their, models).values["mAP"]
        assert torch.allclose(scored.replicates[:, number], expected, rtol=0, atol=1e-12)
    numbers, _ = plain(again, their, 0, tmp_path)
    assert scored.replicates[0, -1].item() == pytest.approx(numbers[0], abs=1e-10)
    assert scored.replicates.std(1).min() > 0
    assert (scored.replicates.mean(1) - scored.values["mAP"]).abs().max() < 0.1
    blocks = truth.score(found, models, 1, truth.resamples(drawn))
    assert torch.equal(blocks.replicates, scored.replicates)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from([1, 3]),
            st.sampled_from([10.0, 14.0, 100.0]),
            st.integers(1, 5),
        ),
        max_size=12,
        unique_by=lambda row: (row[0], row[1], row[3]),
    ),
    st.lists(st.integers(0, 3), min_size=3, max_size=3).filter(lambda counts: counts[0] > 0),
)
def test_replicates_where_scores_tie(found, counts):
    """Equal scores in several images, resamples without a category, and models that find nothing."""
    truth = [
        {"image": 0, "category": 1, "bbox": [10.0, 10.0, 40.0, 40.0]},
        {"image": 1, "category": 3, "bbox": [14.0, 10.0, 40.0, 40.0]},
        {"image": 1, "category": 3, "bbox": [100.0, 10.0, 40.0, 40.0], "crowd": True},
    ]
    made = detections([(0, i, c, [x, 10.0, 40.0, 40.0], score / 5) for i, c, x, score in found])
    split = split_of(truth, 3)
    weights = torch.tensor([counts], dtype=torch.float64)
    resamples = Truth(split).resamples(weights)
    scored = Truth(split).score(made, 2, resamples=resamples).replicates
    again, their = repeated(split, made, counts)
    expected = Truth(again).score(their, 2).values["mAP"]
    assert torch.allclose(scored[:, 0], expected, rtol=0, atol=1e-12)


coordinate = st.integers(0, 12)
boxes_of = st.tuples(coordinate, coordinate, st.integers(1, 12), st.integers(1, 12))
truths = st.lists(
    st.fixed_dictionaries(
        {
            "image": st.integers(0, 2),
            "category": st.sampled_from(CATEGORIES),
            "bbox": boxes_of.map(lambda box: [4.0 * value for value in box]),
            "crowd": st.booleans(),
        }
    ),
    min_size=1,
    max_size=8,
)
finds = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 2),
        st.sampled_from(CATEGORIES),
        boxes_of.map(lambda box: [4.0 * value for value in box]),
        st.sampled_from([0.1, 0.5, 0.9]),
    ),
    max_size=15,
)


@settings(max_examples=60, deadline=None)
@given(truths, finds)
def test_equal_to_pycocotools_where_overlaps_and_scores_tie(tmp_path_factory, boxes, found):
    """On a grid of whole numbers, boxes often overlap equally."""
    check(split_of(boxes, 3), detections(found), 2, tmp_path_factory.mktemp("results"))


def test_more_detections_than_count(tmp_path):
    """Of one category in one image the 100 best count."""
    box = {"image": 0, "category": 1, "bbox": [10.0, 10.0, 50.0, 50.0]}
    found = [(0, 0, 1, [100.0 + n, 100.0, 20.0, 20.0], 0.9 - n / 1000) for n in range(100)]
    found += [(0, 0, 1, box["bbox"], 0.5), (1, 0, 1, box["bbox"], 0.5)]
    precision = check(split_of([box], 2), detections(found), 2, tmp_path)
    assert precision.values["mAP"].tolist() == [0.0, pytest.approx(1.0)]
    assert precision.missed.tolist() == [[True], [False]]


def test_nothing_found(tmp_path):
    split, _, _ = random_case(0)
    precision = check(split, detections([]), 2, tmp_path)
    assert precision.values["mAP"].tolist() == [0.0, 0.0]
    assert precision.missed.all()


def test_a_perfect_model(tmp_path):
    split, _, _ = random_case(1)
    found = [
        (0, i, one["category_id"], one["bbox"], 0.7)
        for i in range(len(split))
        for one in split.annotations(i)
    ]
    precision = check(split, detections(found), 1, tmp_path)
    assert not precision.missed.any()
    assert precision.values["mAP"].item() > 0.99


def test_a_size_without_boxes_has_no_value(tmp_path):
    box = {"image": 0, "category": 1, "bbox": [10.0, 10.0, 20.0, 20.0]}
    precision = check(split_of([box], 1), detections([(0, 0, 1, box["bbox"], 0.5)]), 1, tmp_path)
    assert precision.values["mAP small"].item() == pytest.approx(1.0)
    assert "mAP large" not in precision.values


def test_only_crowds_have_no_value():
    box = {"image": 0, "category": 1, "bbox": [10.0, 10.0, 20.0, 20.0], "crowd": True}
    truth = Truth(split_of([box], 1))
    assert truth.units == 0
    assert truth.score(detections([]), 2).values == {}


def test_unknown_categories_do_not_count(tmp_path):
    split, found, models = random_case(2)
    more = detections([(0, 0, 12, [10.0, 10.0, 50.0, 50.0], 0.99)])
    both = Detections(*(torch.cat([vars(more)[n], vars(found)[n]]) for n in vars(found)))
    alone = Truth(split).score(found, models)
    together = check(split, both, models, tmp_path)
    assert all(torch.equal(alone.values[n], together.values[n]) for n in ("mAP", "AP50"))


def test_models_do_not_depend_on_each_other_nor_on_memory():
    split, found, models = random_case(3, models=4)
    whole = Truth(split).score(found, models)
    alone = Truth(split).score(found, models, block=1)
    assert torch.equal(whole.missed, alone.missed)
    assert all(torch.equal(whole.values[n], alone.values[n]) for n in whole.values)
