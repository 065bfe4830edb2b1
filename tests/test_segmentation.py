"""Segmentation: data, networks, training batches, and candidates scored together against torchvision's plain model."""

import copy
import dataclasses
import functools
import itertools
import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.segmentation import fcn_resnet50
from torchvision.transforms.v2 import InterpolationMode, functional

from bench import plugins
from bench.contract import Context, registry
from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest, BenchError
from bench.system.randomness import generator
from tasks.data import coco, masks
from tasks.data.coco import IGNORED
from tasks.data.images import Images
from tasks.data.masks import MaskedImages
from tasks.fast.confusion import confusion, mean_iou, pixel_accuracy
from tasks.fast.dense import DenseScorer, random_pixels
from tasks.networks.layers import select
from tasks.training.batches import Batches
from tasks.training.recipe import Recipe
from tests.networks import Shape, build
from tests.standins import coco_content, load, stir_statistics, write_coco

COCO128 = Path(__file__).parents[2] / "shared" / "data" / "coco128"
CLEAR = 1e-4  # top two logits this far apart: rounding cannot exchange them
counter = itertools.count()


def work_folder() -> Path:
    return Path(os.environ["BENCH_HOME"]) / "work" / str(next(counter))


def pictures(count: int = 5, side: int = 32, classes: int = 21) -> MaskedImages:
    """Random images and masks, some pixels without a label."""
    rng = generator(0, "pictures")
    pixels = torch.randint(256, (count, 3, side, side), generator=rng, dtype=torch.uint8)
    labels = torch.randint(classes + 3, (count, side, side), generator=rng, dtype=torch.uint8)
    labels[labels >= classes] = IGNORED
    column = torch.full((3, 1, 1), 0.5)
    return MaskedImages(pixels, labels, column, column / 2, side, "cpu")


def shape(classes: int) -> Shape:
    return Shape(3, 32, classes)


@functools.cache
def built(arch: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build(arch, shape(21))
    stir_statistics(model)
    return model


def network(arch: str) -> torch.nn.Module:
    """A network whose normalizations do something."""
    return copy.deepcopy(built(arch))


def plainly(arch: str, model, images: Images) -> torch.Tensor:
    """Logits of every pixel; of torchvision's own whole model where there is one."""
    inputs = images.inputs(images.examples)
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
    model = network(arch)
    images = pictures(count=2 if arch == "fcn_resnet50" else 5)
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


@pytest.mark.parametrize("layers", ["last-norms:2", "classifier.*", "all"])
@torch.no_grad()
def test_replicates_equal_the_scores_of_images_that_are_there_several_times(layers):
    model, images = network("fcn_small"), pictures()
    layout = Layout.of({name: model.get_parameter(name) for name in select(model, layers)})
    own = layout.flatten({name: model.get_parameter(name) for name in layout.names})
    vectors = own + 0.3 * own.std() * torch.randn(3, layout.dim, generator=generator(1))
    vectors[1] = torch.nan
    counts = torch.tensor([[1, 1, 1, 1, 1], [0, 3, 0, 2, 0], [5, 0, 0, 0, 0]]).double()

    def scored(some, counts):
        pixels = random_pixels(some.labels, 10, "val")
        return DenseScorer(model, layout, some, pixels, 21, counts)(vectors)

    found = scored(images, counts)
    plain = scored(images, None)
    assert plain.replicates is None
    assert torch.equal(plain.matrices, found.matrices)
    assert torch.equal(found.replicates[:, 0], mean_iou(found.matrices))
    for column, times in zip(found.replicates.T, counts.long(), strict=True):
        rows = torch.arange(5).repeat_interleave(times)
        again = dataclasses.replace(
            images, examples=images.examples[rows], labels=images.labels[rows]
        )
        assert torch.equal(column, mean_iou(scored(again, None).matrices))


# --- networks -------------------------------------------------------------------------------------


def test_a_file_as_torchvision_releases_it_is_read_and_the_auxiliary_classifier_left_out(tmp_path):
    whole = fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True).state_dict()
    torch.save(whole, tmp_path / "weights.pth")
    own = build("fcn_resnet50", shape(21), pretrained=str(tmp_path / "weights.pth")).state_dict()
    assert all(torch.equal(own[name], whole[name]) for name in own)
    assert {name.partition(".")[0] for name in set(whole) - set(own)} == {"aux_classifier"}


def test_weights_of_a_safetensors_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    state = network("fcn_small").state_dict()
    save_file(state, path)
    model = build("fcn_small", shape(21), pretrained=str(path))
    assert not model.training
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(build("fcn_small", shape(3)).state_dict(), path)
    with pytest.raises(BadRequest, match="does not hold weights of 'fcn_small'"):
        build("fcn_small", shape(4), pretrained=str(path))
    with pytest.raises(BadRequest, match="'fcn_small' has no released weights"):
        build("fcn_small", shape(3), pretrained="released")


def test_released_weights_are_torchvisions_or_a_clear_error(monkeypatch):
    asked = []

    def fail(url, **_):
        asked.append(url)
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(
        BenchError, match=r"could not be downloaded .*no network.*--pretrained FILE"
    ):
        build("fcn_resnet50", shape(21), pretrained="released")
    assert asked == ["https://download.pytorch.org/models/fcn_resnet50_coco-1167a1af.pth"]


@pytest.mark.parametrize(
    ("arch", "pattern", "names"),
    [
        ("fcn_small", "head", ("classifier.3.weight", "classifier.3.bias")),
        ("fcn_resnet50", "head", ("classifier.4.weight", "classifier.4.bias")),
        ("fcn_small", "last-norms:1", ("classifier.1.weight", "classifier.1.bias")),
    ],
)
def test_patterns(arch, pattern, names):
    assert select(network(arch), pattern) == names


# --- data -----------------------------------------------------------------------------------------


def test_images_are_resized_by_their_longer_side_and_padded(tmp_path):
    split = load("coco", write_coco(tmp_path)).train
    data = load("coco-voc", tmp_path, size=20)
    assert data.train.images.shape == (3, 3, 20, 20)
    image = functional.resize(split.image(2), [15, 20], antialias=True)
    assert torch.equal(data.train.images[2, :, :15], image)
    categories = registry.data_set("coco-voc", "masks").options["categories"]
    mask = coco.semantic_mask(split, 2, categories)[None]
    mask = functional.resize(mask, [15, 20], InterpolationMode.NEAREST_EXACT)[0]
    assert torch.equal(data.train.masks[2, :15], mask)
    assert (data.train.masks[:, 15:] == IGNORED).all()
    padding = (
        data.train.images[:, :, 15:].float().div(255).sub(torch.tensor(masks.MEAN).view(3, 1, 1))
    )
    assert padding.abs().max() < 0.5 / 255 + 1e-6


def test_classes_of_pascal_voc_are_numbered_as_in_the_released_networks(tmp_path):
    from torchvision.models.segmentation import FCN_ResNet50_Weights

    names = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    data = load("coco-voc", write_coco(tmp_path), size=20)
    assert len(data.classes) == len(names) == 21
    # COCO's category 1, a person, and 3, a car (of other names in the stand-in).
    assert (data.classes[names.index("person")], data.classes[names.index("car")]) == ("cat", "dog")
    assert set(data.train.masks.unique().tolist()) == {
        0, IGNORED, names.index("person"), names.index("car")
    }  # fmt: skip


def test_objects_of_other_categories_are_background(tmp_path):
    contents = {split: coco_content(split) for split in ("train", "val")}
    for content in contents.values():
        content["categories"] = [{"id": 13, "name": "stop sign"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = 13
    data = load("coco-voc", write_coco(tmp_path, **contents), size=40)
    assert data.train.masks.unique().tolist() == [0, IGNORED]


def test_decoded_squares_are_kept_and_made_again_when_they_are_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    first = load("coco-voc", write_coco(tmp_path / "data"), size=20)
    files = sorted((tmp_path / "home" / "decoded").glob("*.npy"))
    assert len(files) == 2
    files[0].write_bytes(b"damaged")
    again = load("coco-voc", tmp_path / "data", size=20, in_memory=0)  # and read as a memory map
    for split in ("train", "val"):
        ours, theirs = getattr(first, split), getattr(again, split)
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.masks, theirs.masks)


def test_real_images_from_coco(tmp_path):
    if not COCO128.is_dir():
        pytest.skip("needs the folder ../shared/data")
    settings = {
        "arch": "fcn_small", "image_size": 64, "limit": 12, "epochs": 1, "pretrained": None,
        "layers": "head", "train_size": 8, "batch_size": 4,
    }  # fmt: skip
    task = plugins.load_task("coco-voc", "quick", settings)
    task = task.within(Context(data_dir=str(COCO128)))
    zoo = task.collect(3, rng=generator(0), work=work_folder())
    found = task.scorer(zoo, "val")(zoo.vectors)
    assert found.scores.tolist() == list(zoo.scores)
    assert found.wrong.shape == (3, 12 * 20)
    assert task.available("train") == 12
    assert task.size("train") == 8


# --- batches and pixels ---------------------------------------------------------------------------


@pytest.mark.parametrize(("augment", "ways"), [("none", 1), ("flip", 2), ("symmetries", 8)])
def test_images_and_masks_vary_alike(augment, ways):
    side = torch.arange(36).view(1, 6, 6).expand(7, 6, 6).to(torch.uint8)
    images = dataclasses.replace(
        pictures(7, 6), examples=side[:, None].expand(7, 3, 6, 6), labels=side
    )
    recipe = Recipe(batch_size=7, epochs=1, augment=augment)
    seen = set()
    for step in range(20):
        inputs, labels = Batches(images, recipe, generator(0))(step)
        assert torch.equal(
            inputs.mul(63.75).add(127.5).round(), labels[:, None].expand(-1, 3, -1, -1)
        )
        seen |= {tuple(mask.flatten().tolist()) for mask in labels}
    square = side[0]
    turned = [square.rot90(turns) for turns in range(4)]
    allowed = {
        "none": [square],
        "flip": [square, square.flip(1)],
        "symmetries": [*turned, *(t.flip(1) for t in turned)],
    }
    assert seen == {tuple(one.flatten().tolist()) for one in allowed[augment]}
    assert len(seen) == ways


def test_a_candidate_that_overflows_has_infinite_loss_and_alone():
    model, images = network("fcn_small"), pictures()
    layout = Layout.of({name: model.get_parameter(name) for name in select(model, "head")})
    vectors = torch.zeros(3, layout.dim)
    vectors[1] = torch.inf
    pixels = random_pixels(images.labels, 20, "val")
    scored = DenseScorer(model, layout, images, pixels, 21)(vectors)
    assert scored.loss.isfinite().tolist() == [True, False, True]
    assert torch.equal(scored.matrices[0], scored.matrices[2])


def test_units_are_labelled_pixels_the_same_in_every_run_and_for_every_number_of_images():
    labels = pictures(count=6).labels
    labels[2] = IGNORED
    labels[3, 1:] = IGNORED  # one row of labels left
    pixels = random_pixels(labels, 40, "val")
    assert torch.equal(labels[pixels.image, pixels.row, pixels.column].long(), pixels.label)
    assert (pixels.label != IGNORED).all()
    counts = pixels.image.bincount(minlength=6).tolist()
    assert counts == [40, 40, 0, int((labels[3] != IGNORED).sum()), 40, 40]
    assert len(
        set(zip(pixels.image.tolist(), pixels.row.tolist(), pixels.column.tolist(), strict=True))
    ) == len(pixels)
    first = random_pixels(labels[:2], 40, "val")
    assert torch.equal(first.row, pixels.row[:80])
    assert not torch.equal(random_pixels(labels, 40, "train").row[:80], first.row)


# --- the task -------------------------------------------------------------------------------------


def make(**settings):
    quick = {"epochs": 1, "precision": "float32", "train_size": 6, "layers": "head", **settings}
    return plugins.load_task("fake-masks", "quick", quick)


@pytest.mark.parametrize("layers", ["head", "all"])
def test_a_recorded_score_is_that_of_the_whole_network_counted_plainly(layers, tmp_path):
    zoo = make(layers=layers).collect(3, rng=generator(0), work=work_folder())
    zoo.save(tmp_path / "zoo")
    loaded, task = Zoo.load(tmp_path / "zoo"), make(layers=layers)
    model = task.base_model(loaded)
    model.load_state_dict(loaded.layout.unflatten(loaded.vectors[1]), strict=False)
    images = task.data.val.on("cpu")
    logits = plainly("fcn_small", model, images)
    matrix = confusion(logits.argmax(1).flatten()[None], images.labels.flatten(), 6)
    assert mean_iou(matrix).item() == pytest.approx(zoo.scores[1], abs=1e-4)
    accuracy = task.scorer(loaded, "val")(loaded.vectors).extra["pixel accuracy"][1]
    assert pixel_accuracy(matrix).item() == pytest.approx(accuracy.item(), abs=1e-4)
    assert task.score(model) == pytest.approx(zoo.scores[1], abs=1e-4)


def test_the_side_must_be_a_multiple_of_the_stride():
    with pytest.raises(BadRequest, match="image_size is 82, expected a multiple of 8"):
        make(image_size=82)


def test_scored_images_are_a_fixed_part_of_the_split():
    task = make(val_size=5)
    chosen = task._scored("val")
    assert len(chosen) == task.size("val") == 5
    assert torch.equal(chosen.examples, make(val_size=5)._scored("val").examples)
    assert len(make()._scored("val")) == 8
