"""What is not finite is wrong and is counted, in detection: against cutting out bad places by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.contract.evaluation import check_evaluation
from bench.contract.zoo import Layout
from bench.system.randomness import generator
from tasks.data import coco
from tasks.fast import finding, last_layers
from tasks.fast.average_precision import Detections, Truth
from tasks.fast.last_layers import ScoredBoxes, suppress
from tasks.networks.layers import select as matching
from tests.broken import BAD, INF, NAN, make, work_folder
from tests.standins import load, wild_detector, write_coco


def pictures(tmp_path) -> coco.CocoSplit:
    return load("coco", write_coco(tmp_path)).val


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
    ("fasterrcnn_small", "head", finding.BatchedFinder),
    ("fasterrcnn_small", "head", finding.SequentialFinder),
    ("fasterrcnn_small", "roi_heads.box_predictor.bbox_pred.*", finding.BatchedFinder),
    ("fasterrcnn_small", "rpn.head.cls_logits.*,rpn.head.bbox_pred.*", finding.SequentialFinder),
    ("fasterrcnn_small", "roi_heads.box_head.fc7.*", finding.SequentialFinder),
    ("fcos_small", "head", finding.BatchedFinder),
    ("fcos_small", "head", finding.SequentialFinder),
    ("fcos_small", "head.regression_head.bbox_ctrness.*", finding.BatchedFinder),
    ("fcos_small", "head.*.conv.*", finding.SequentialFinder),
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
            # By category: where two scores agree to the last digits, which comes first is the kernel's choice.
            ours, theirs = found.category[rows].sort(stable=True), one["labels"].sort(stable=True)
            assert ours.values.tolist() == theirs.values.tolist()
            scores, boxes = found.scores[rows][ours.indices], found.boxes[rows][ours.indices]
            assert torch.allclose(scores, one["scores"][theirs.indices], atol=1e-5)
            assert torch.allclose(boxes, one["boxes"][theirs.indices], atol=1e-3)
            counts[number] += bool(broken)
    assert found.not_finite.tolist() == counts
    assert counts[:2] == [0, len(split)]
    assert sum(counts[2:]) > 0
    per_model = found.model.bincount(minlength=len(vectors))
    assert per_model[0] > 10
    assert per_model[1] == 0
    assert found.boxes.isfinite().all()
    assert found.scores.isfinite().all()


@pytest.mark.parametrize(
    "most", [20, 1000]
)  # anchors that are looked at: some of the good ones; bad ones too
def test_bad_anchors_take_no_place_of_good_ones(most, tmp_path):
    split = pictures(tmp_path)
    names = ("rpn.head.cls_logits.bias", "rpn.head.bbox_pred.bias")

    def detector() -> nn.Module:
        model = wild_detector("fasterrcnn_small")
        model.rpn._pre_nms_top_n["testing"] = model.rpn._post_nms_top_n["testing"] = most
        return model

    model = detector()
    layout = Layout.of({name: model.get_parameter(name) for name in names})
    own = layout.flatten({name: model.get_parameter(name).detach() for name in names})
    vectors = own.repeat(5, 1)
    vectors[1, 0], vectors[2, 1], vectors[3, 3 + 4] = NAN, INF, -INF  # one kind of anchor of three
    vectors[4, 0], vectors[4, 3 + 4] = INF, NAN  # two of them
    found = finding.SequentialFinder(detector(), layout, split)(vectors)
    assert found.not_finite.tolist() == [0, *[len(split)] * 4]
    for number, vector in enumerate(vectors):
        model.load_state_dict(layout.unflatten(vector), strict=False)
        for image in range(len(split)):
            one, _ = plainly(model, split.image(image).float() / 255)
            rows = (found.model == number) & (found.image == image)
            assert found.category[rows].tolist() == one["labels"].tolist()
            assert torch.allclose(found.boxes[rows], one["boxes"], atol=1e-3)
            assert rows.sum() > 5


@pytest.mark.parametrize("arch", ["fasterrcnn_small", "fcos_small"])
def test_both_ways_to_run_candidates_agree_on_what_is_not_finite(arch, tmp_path):
    split = pictures(tmp_path)
    layout, vectors = candidates(arch, "head", 17)
    vectors = broken_candidates(layout, vectors)
    together, one_by_one = (
        kind(wild_detector(arch, side=80), layout, split)(vectors)
        for kind in (finding.BatchedFinder, finding.SequentialFinder)
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
    for kind in (finding.BatchedFinder, finding.SequentialFinder):
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
    for kind in (finding.BatchedFinder, finding.SequentialFinder):
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
    one = ScoredBoxes(torch.zeros(4, dtype=torch.int64), label, boxes, scores)
    expected = suppress(one, 0.5, 100, 500)
    assert expected.scores.tolist() == scores[[0, 2, 3]].tolist()
    broken = boxes.clone()
    broken[0, corner] = value
    other = ScoredBoxes(torch.ones(4, dtype=torch.int64), label, broken, scores)
    found = suppress(last_layers.join([one, other]), 0.5, 100, 500)
    assert torch.equal(found[found.model == 0].boxes, expected.boxes)
    assert found[found.model == 1].scores.tolist() == scores[1:].tolist()  # nothing suppresses them
    unsure = ScoredBoxes(
        other.model, label, boxes, scores.clone().index_fill_(0, torch.tensor([0]), value)
    )
    found = suppress(last_layers.join([one, unsure]), 0.5, 100, 500)
    assert torch.equal(found[found.model == 0].boxes, expected.boxes)
    assert found[found.model == 1].scores.tolist() == scores[1:].tolist()


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
    task = make("fake-boxes", arch=arch, layers=layers)
    zoo = task.collect(1, rng=generator(0), work=work_folder())
    vectors = torch.cat([zoo.vectors, torch.full_like(zoo.vectors, NAN)])
    found = task.scorer(zoo, "val")(vectors)
    healthy = task.scorer(zoo, "val")(zoo.vectors)
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
