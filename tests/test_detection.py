"""Detection: what candidates find against torchvision's own models, scores against pycocotools, and a whole run."""

import dataclasses
import json
import urllib.error
from pathlib import Path

import pytest
import torch
from pycocotools.cocoeval import COCOeval
from safetensors.torch import save_file
from torchvision.models import detection as torchvision_models

from bench import plugins
from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest, BenchError
from bench.system.randomness import generator, scoped
from tasks.data import coco
from tasks.detection import Detection
from tasks.fast import backbones, budget, finding
from tasks.fast.average_precision import Detections
from tasks.networks import detectors
from tasks.networks.detectors import RELEASED
from tasks.networks.layers import select
from tasks.training import boxes
from tests.networks import Shape, build
from tests.standins import call, coco_content, load, wild_detector, write_coco

COCO128 = Path(__file__).parents[2] / "shared" / "data" / "coco128"
SMALL = ("fasterrcnn_small", "fcos_small")


# --- one training for many tests ------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A task whose detector knows eight scenes by heart, which it is also validated on; and its zoo."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(tmp_path_factory.mktemp("home")))
        data = load("fake-boxes")
        task = Detection("fake-boxes", epochs=40, batch_size=4, augment="none", subset_lr=3e-3)
        task.data = dataclasses.replace(data, val=data.train)
        zoo = task.collect(4, rng=generator(0), work=tmp_path_factory.mktemp("work"))
        base, _ = task.collection.base(generator(0))
    return task, zoo, base


def again(task: Detection) -> Detection:
    """The same task without what it remembers."""
    fresh = dataclasses.replace(task)
    fresh.data = task.data
    return fresh


def test_it_learns(trained):
    _, zoo, _ = trained
    assert zoo.curve[0][1] < 0.05
    assert min(zoo.scores) > 0.2
    assert len(set(zoo.scores)) > 1
    assert set(zoo.layout.names) == {
        f"roi_heads.box_predictor.{layer}.{part}"
        for layer in ("cls_score", "bbox_pred")
        for part in ("weight", "bias")
    }


def test_reloading_a_row_gives_back_its_map(trained, tmp_path):
    task, zoo, _ = trained
    zoo.save(tmp_path / "zoo")
    loaded = Zoo.load(tmp_path / "zoo")
    for row in range(len(zoo)):
        result = again(task).scorer(loaded, "val")(loaded.vectors[row : row + 1])
        assert result.scores.item() == zoo.scores[row] > 0.2


def test_scores_are_pycocotools_own_on_torchvisions_own_detections(trained):
    task, zoo, _ = trained
    result = task.scorer(zoo, "val")(zoo.vectors)
    split = task.data.val
    for row in range(len(zoo)):
        model = task.base_model(zoo)
        for name, tensor in zoo.layout.unflatten(zoo.vectors[row]).items():
            model.get_parameter(name).data.copy_(tensor)
        with torch.inference_mode():
            found = model([split.image(i).float() / 255 for i in range(len(split))])
        results = [
            {"image_id": split.ids[i], "category_id": c, "score": s, "bbox": [x, y, x2 - x, y2 - y]}
            for i, one in enumerate(found)
            for c, s, (x, y, x2, y2) in zip(
                one["labels"].tolist(), one["scores"].tolist(), one["boxes"].tolist(), strict=True
            )
        ]
        with coco.quiet():
            run = COCOeval(split.api, split.api.loadRes(results), "bbox")
            run.evaluate()
            run.accumulate()
            run.summarize()
        ours = [result.scores[row], *(result.extra[n][row] for n in ("AP50", "AP75", "mAP small"))]
        assert [float(value) for value in ours] == pytest.approx(run.stats[:4].tolist(), abs=1e-6)


def test_a_unit_is_a_box_that_is_no_crowd(trained):
    task, zoo, _ = trained
    result = task.scorer(zoo, "val")(zoo.vectors)
    split = task.data.val
    own = [one for i in range(len(split)) for one in split.annotations(i) if not one["iscrowd"]]
    assert result.wrong.shape == (len(zoo), len(own))
    assert 0 < result.wrong.double().mean() < 0.5
    nothing = zoo.vectors[:1].clone()
    bias = zoo.layout.slices()["roi_heads.box_predictor.cls_score.bias"]
    nothing[0, bias] = torch.tensor([90.0, 0, 0, 0, 0, 0])  # everything is background
    blind = task.scorer(zoo, "val")(nothing)
    assert blind.wrong.all()
    assert blind.scores.item() == 0


def test_in_a_trajectory_only_the_chosen_layers_move(trained):
    _, zoo, base = trained
    state = base.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in zoo.base.items())
    assert any("running_mean" in name for name in zoo.base)
    assert set(zoo.base) | set(zoo.layout.names) == set(state)
    assert (zoo.vectors.diff(dim=0).abs().sum(1) > 0).all()


def test_finetuning_moves_every_vector_and_nothing_else(trained):
    task, zoo, _ = trained
    start = zoo.vectors[:1].expand(2, -1)
    moved = task.finetune(zoo, start, steps=2, rng=generator(1))
    assert (moved - start).abs().max() > 0
    assert not torch.equal(moved[0], moved[1])
    assert torch.equal(moved, task.finetune(zoo, start, steps=2, rng=generator(1)))


def test_training_does_not_depend_on_the_global_generator(trained):
    task, zoo, _ = trained
    moved = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        moved.append(task.finetune(zoo, zoo.vectors[:1], steps=2, rng=generator(1)))
    assert torch.equal(*moved)


# --- what candidates find -------------------------------------------------------------------------


def pictures(tmp_path) -> coco.CocoSplit:
    """Images of two sizes."""
    split = load("coco", write_coco(tmp_path)).val
    images = [split.image(i) for i in range(3)]
    images[1] = images[1][:, :24]
    object.__setattr__(split, "image", images.__getitem__)
    vars(split)["sizes"] = tuple(tuple(image.shape[1:]) for image in images)
    return split


def one_by_one(model, layout: Layout, vectors, split) -> list[tuple[int, int, dict]]:
    """What torchvision's model finds: candidate, image, detections."""
    images = [[split.image(i).float() / 255] for i in range(len(split))]
    found = []
    with torch.inference_mode():
        for number, vector in enumerate(vectors):
            for name, tensor in layout.unflatten(vector).items():
                model.get_parameter(name).copy_(tensor)
            found += [(number, i, model(image)[0]) for i, image in enumerate(images)]
    return found


def check_same(found: Detections, plain: list[tuple[int, int, dict]]) -> None:
    total = 0
    for number, image, one in plain:
        rows = (found.model == number) & (found.image == image)
        assert found.category[rows].tolist() == one["labels"].tolist()
        assert torch.allclose(found.scores[rows], one["scores"], atol=1e-5)
        assert torch.allclose(found.boxes[rows], one["boxes"], atol=1e-3)
        total += int(rows.sum())
    assert total == len(found.model) > 100


PATTERNS = [
    ("fasterrcnn_small", "head", finding.BatchedFinder),
    ("fasterrcnn_small", "roi_heads.box_predictor.cls_score.*", finding.BatchedFinder),
    ("fasterrcnn_small", "roi_heads.box_head.fc7.*", finding.SequentialFinder),
    ("fasterrcnn_small", "rpn.*", finding.SequentialFinder),
    ("fasterrcnn_small", "last-norms:1", finding.SequentialFinder),
    ("fcos_small", "head", finding.BatchedFinder),
    ("fcos_small", "head.classification_head.cls_logits.*", finding.BatchedFinder),
    ("fcos_small", "head.*.conv.*", finding.SequentialFinder),
    ("fcos_small", "all", finding.SequentialFinder),
]


@pytest.mark.parametrize(("arch", "layers", "kind"), PATTERNS)
def test_candidates_find_what_torchvisions_model_finds(arch, layers, kind, tmp_path):
    split, model = pictures(tmp_path), wild_detector(arch)
    layout = Layout.of({name: model.get_parameter(name) for name in select(model, layers)})
    own = layout.flatten({name: model.get_parameter(name).detach() for name in layout.names})
    vectors = own + 0.1 * own.std() * torch.randn(3, layout.dim, generator=generator(1))
    find = finding.finder(wild_detector(arch), layout, split)
    assert type(find) is kind
    found = find(vectors)
    check_same(found, one_by_one(model, layout, vectors, split))
    check_same(find(vectors), one_by_one(model, layout, vectors, split))  # from what was kept


@pytest.mark.parametrize("arch", SMALL)
@pytest.mark.parametrize(
    ("name", "value"),
    [("keep", 0), ("work", 1), ("images", 1), ("pixels", 100), ("boxes", 1), ("boxes", 10**9)],
)
def test_budgets_change_nothing(arch, name, value, tmp_path):
    split, model = pictures(tmp_path), wild_detector(arch)
    layout = Layout.of({name: model.get_parameter(name) for name in select(model, "head")})
    own = layout.flatten({name: model.get_parameter(name).detach() for name in layout.names})
    vectors = own + 0.1 * own.std() * torch.randn(5, layout.dim, generator=generator(1))
    plain = one_by_one(model, layout, vectors, split)
    small = dataclasses.replace(budget.of_detector(torch.device("cpu")), **{name: value})
    check_same(finding.finder(wild_detector(arch), layout, split, small)(vectors), plain)


@pytest.mark.parametrize("arch", SMALL)
def test_no_more_than_torchvision_keeps(arch, tmp_path):
    split = pictures(tmp_path)
    models = [wild_detector(arch) for _ in range(2)]
    for model in models:
        last = model.roi_heads if arch.startswith("faster") else model
        last.detections_per_img = last.topk_candidates = 7
    layout = Layout.of({name: models[0].get_parameter(name) for name in select(models[0], "head")})
    vectors = 0.3 * torch.randn(6, layout.dim, generator=generator(1))
    found = finding.finder(models[0], layout, split)(vectors)
    check_same(found, one_by_one(models[1], layout, vectors, split))
    counts = (found.model * 3 + found.image).bincount(minlength=18)
    assert counts.max() == 7
    assert (counts == 7).sum() > 9


def test_a_candidate_that_finds_nothing(tmp_path):
    split, model = pictures(tmp_path), wild_detector("fcos_small")
    layout = Layout.of({name: model.get_parameter(name) for name in select(model, "head")})
    assert len(finding.finder(model, layout, split)(torch.zeros(2, layout.dim) - 9).model) == 0


# --- what is learned ------------------------------------------------------------------------------


def test_targets_are_boxes_within_the_image_and_no_crowds(tmp_path):
    content = coco_content()
    first, *rest = content["annotations"]
    first |= {"bbox": [-0.5, 20, 15.5, 10.5], "segmentation": []}
    rest[0] |= {"iscrowd": 1}
    rest[1] |= {"bbox": [40.5, 2, 1, 8], "area": 8, "segmentation": []}
    examples = boxes.Examples(load("coco", write_coco(tmp_path, train=content)).train)
    assert [len(examples.target(i)["boxes"]) for i in range(3)] == [0, 1, 0]
    assert examples.target(1)["boxes"].tolist() == [[0, 20, 15, 30]]
    assert examples.target(1)["labels"].tolist() == [first["category_id"]]


def test_a_mirrored_image_has_mirrored_boxes():
    image = torch.zeros(3, 4, 10)
    image[:, 1:3, 2:5] = 1
    target = {"boxes": torch.tensor([[2.0, 1, 5, 3]]), "labels": torch.tensor([7])}
    mirrored, moved = boxes.flip(image, target)
    (left, top, right, bottom) = moved["boxes"][0].int().tolist()
    assert mirrored[:, top:bottom, left:right].min() == 1
    assert mirrored.sum() == image.sum() == 3 * (bottom - top) * (right - left)
    assert torch.equal(boxes.flip(mirrored, moved)[1]["boxes"], target["boxes"])


def test_batches_depend_on_seed_and_step_alone():
    task = Detection("fake-boxes", batch_size=3)
    batches = boxes.BoxBatches(task._train, task.recipe, generator(0), "cpu")
    assert batches.order.per_epoch == 2
    images, targets = batches(3)
    batches(0)
    same, _ = boxes.BoxBatches(task._train, task.recipe, generator(0), "cpu")(3)
    assert all(map(torch.equal, images, same))
    assert all(target["boxes"].shape[1] == 4 for target in targets)
    other, _ = boxes.BoxBatches(task._train, task.recipe, generator(1), "cpu")(3)
    assert not all(map(torch.equal, images, other))


@pytest.mark.parametrize("arch", SMALL)
def test_training_a_head_is_the_same_a_few_images_at_a_time(arch):
    task = Detection("fake-boxes", batch_size=3, arch=arch)

    def learned(in_pieces):
        model = wild_detector(arch)
        names = select(model, "head")
        model.requires_grad_(False)
        own = [model.get_parameter(name).requires_grad_(True) for name in names]
        sizes = []
        model.backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
        batches = boxes.BoxBatches(task._train, task.recipe, generator(0), "cpu")
        boxes.detect(in_pieces(boxes.with_losses(model)), batches)(0).backward()
        assert list(model.state_dict()) == list(wild_detector(arch).state_dict())
        return sizes, [tensor.grad for tensor in own]

    two = dataclasses.replace(budget.of_detector(torch.device("cpu")), images=2)
    at_once, plain = learned(lambda model: model)
    sizes, gradients = learned(lambda model: backbones.InPieces(model, two))
    assert (at_once, sizes) == ([3], [2, 1])
    for own, other in zip(gradients, plain, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


# --- architectures --------------------------------------------------------------------------------


def test_head_is_the_box_predictor():
    rcnn, fcos = (build(arch, Shape(3, 40, 6)) for arch in SMALL)
    assert {n.rpartition(".")[0] for n in select(rcnn, "head")} == {
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
    }
    assert {n.rpartition(".")[0] for n in select(fcos, "head")} == {
        "head.classification_head.cls_logits",
        "head.regression_head.bbox_reg",
        "head.regression_head.bbox_ctrness",
    }
    with pytest.raises(BadRequest, match="'head' match no parameter"):
        select(rcnn.backbone, "head")


@pytest.fixture(scope="module", params=list(RELEASED))
def released(request):
    """A large architecture and a stand-in for its released weights."""
    with scoped(generator(0)):
        model = build(request.param, Shape(3, 64, 91, released=True))
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(0.1)
    return request.param, model


def test_large_architectures_are_torchvisions(released):
    arch, model = released
    theirs = getattr(torchvision_models, arch)(weights=None, weights_backbone=None)
    expected = {n: t.shape for n, t in theirs.state_dict().items() if "num_batches" not in n}
    assert {n: t.shape for n, t in model.state_dict().items()} == expected
    trainable = sum(p.numel() for p in model.parameters())
    assert trainable == RELEASED[arch].meta["num_params"]
    frozen = {n.split(".")[2] for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "layer1"}
    assert theirs.transform.max_size == build(arch, Shape(3, 800, 91)).transform.max_size


class Fake:
    """torchvision's entry for released weights."""

    def __init__(self, weights):
        self.weights = weights

    def get_state_dict(self, **_):
        if isinstance(self.weights, Exception):
            raise self.weights
        return self.weights


def test_released_weights_are_put_in_place(released, monkeypatch):
    arch, source = released
    monkeypatch.setitem(detectors.RELEASED, arch, Fake(source.state_dict()))
    sizes = Shape(3, 64, 91, released=True)
    model = build(arch, sizes, pretrained="released")
    assert all(map(torch.equal, model.state_dict().values(), source.state_dict().values()))
    # Of another number of classes, the last layer stays fresh, and nothing else.
    other = build(arch, dataclasses.replace(sizes, classes=6), pretrained="released")
    kept = [n for n, t in source.state_dict().items() if torch.equal(t, other.state_dict()[n])]
    dropped = set(source.state_dict()) - set(kept)
    assert dropped <= set(select(model, "head"))
    assert any(name.endswith("weight") for name in dropped)


def test_weights_that_cannot_be_had_or_do_not_fit(released, monkeypatch, tmp_path):
    arch, _ = released
    sizes = Shape(3, 64, 91, released=True)
    unreachable = Fake(urllib.error.URLError("the network is unreachable"))
    monkeypatch.setitem(detectors.RELEASED, arch, unreachable)
    with pytest.raises(
        BenchError, match=r"could not be downloaded .*unreachable.*: give a local file"
    ):
        build(arch, sizes, pretrained="released")
    save_file({"head.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(BadRequest, match=r"does not hold weights of .*'backbone.*' is missing"):
        build(arch, sizes, pretrained=str(tmp_path / "other.safetensors"))
    save_file({"backbone.body.conv1.weight": torch.zeros(3)}, tmp_path / "shape.safetensors")
    with pytest.raises(BadRequest, match=r"does not hold weights of .*size mismatch"):
        build(arch, sizes, pretrained=str(tmp_path / "shape.safetensors"))


def test_small_architectures_have_no_pretrained_weights():
    with pytest.raises(BadRequest, match="'fcos_small' has no pretrained weights"):
        build("fcos_small", Shape(3, 80, 6, released=True), pretrained="released")
    with pytest.raises(BadRequest, match="unknown architecture 'yolo'"):
        build("yolo", Shape(3, 80, 6))


# --- the task -------------------------------------------------------------------------------------


def test_settings_that_cannot_be():
    with pytest.raises(BadRequest, match="unknown augmentation 'crop-flip'"):
        Detection(augment="crop-flip")
    with pytest.raises(BadRequest, match="epochs is 0, expected a number above 0"):
        Detection(epochs=0)
    with pytest.raises(BadRequest, match="limit is -1"):
        Detection(limit=-1)


def test_scored_images_without_boxes_are_refused(tmp_path):
    data = load("coco", write_coco(tmp_path))
    task = Detection()
    task.data = dataclasses.replace(data, val=data.val.subset([0]))
    with pytest.raises(BadRequest, match="none of the 1 scored images of val has a box"):
        task._truth(task._scored("val"), "val")


def test_settings_are_fields_with_documentation():
    text = "".join(cls.__doc__ or "" for cls in Detection.__mro__)
    for field in Detection.setting_names():
        assert field in text


def test_the_limit_is_part_of_the_identity():
    whole, part = Detection("fake-boxes"), Detection("fake-boxes", limit=6)
    assert part.available("train") == part.size("val") == 6
    assert part.identity()["limit"] == 6
    assert part.identity()["dataset_hash"] != whole.identity()["dataset_hash"]


def test_a_run_says_what_a_unit_is_and_makes_no_paired_tests(tmp_path, capsys):
    words = ["run", "--task", "fake-boxes", "--generator", "average", "--k", 2, "--samples", 2]
    words += ["--set", "task.epochs=1", "--limit", 4, "--results", tmp_path, "--json"]
    assert call(*words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["task"]["kind"] == "detection"
    assert record["task"]["metric"]["name"] == "mAP"
    assert "box" in record["task"]["compared"]["units"]
    assert record["task"]["settings"]["limit"] == 4
    assert record["request"]["task_settings"]["limit"] == 4
    assert record["judge"]["tests"] is None
    assert {"AP50", "AP75", "mAP small"} <= set(record["populations"]["generated"]["further"])
    assert record["protocol"]["val_size"] == 4


@pytest.mark.skipif(not COCO128.is_dir(), reason="needs the folder ../shared/data")
def test_real_coco_images_go_the_whole_way(tmp_path, capsys):
    """Random weights: it proves the pipeline, and its mAP is nothing to report."""
    words = [
        "run",
        "--task",
        "coco",
        "--data-dir",
        COCO128,
        "--limit",
        2,
        "--k",
        2,
        "--samples",
        2,
        "--held-out",
        0,
    ]
    words += [
        "--arch",
        "fcos_resnet50_fpn",
        "--generator",
        "noise",
        "--results",
        tmp_path,
        "--json",
    ]
    for setting in ("pretrained=None", "epochs=1", "image_size=32", "batch_size=2"):
        words += ["--set", f"task.{setting}"]
    assert call(*words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["zoo"]["d"] == (91 + 4 + 1) * (9 * 256 + 1)
    assert record["protocol"]["train_size"] == 2
    assert all(0 <= value <= 1 for value in record["populations"]["generated"]["values"])


def test_named_tasks():
    tasks = plugins.tasks()
    assert tasks["coco"].settings["pretrained"] == "released"
    assert tasks["coco"].settings["epochs"] == 0
    assert tasks["shapes"].k >= 40
