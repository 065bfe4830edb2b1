"""The scenes that the suite draws: the same everywhere, and annotated exactly."""

import collections

import numpy as np
import pytest
import torch
from pycocotools import mask as masks

from bench.contract import registry
from bench.system import store
from bench.system.randomness import generator
from tasks.data import coco, scenes

HASH = "708366cb91f8700c1d3186ce8175ce3c13b72d2f2435cdae82cf0615d48d92d4"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The first 150 scenes; drawn once for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(tmp_path_factory.mktemp("scenes")))
        return coco.read("shapes", scenes.folder(100, 50), None)


def both(data):
    for split in (data.train, data.val):
        for i in range(len(split)):
            yield split, i


def test_they_are_the_same_on_every_machine(data):
    assert data.hash == HASH


def test_sizes_and_classes(data):
    assert data.classes == scenes.CLASSES
    assert data.category_ids == (1, 2, 3, 4, 5)
    assert (len(data.train), len(data.val)) == (100, 50)
    declared = registry.data_set("shapes", "boxes")
    assert (declared.train, declared.val) == (600, 300)
    assert (declared.size, declared.classes) == (scenes.SIDE, len(scenes.CLASSES))
    assert set(data.train.sizes + data.val.sizes) == {(80, 80)}
    assert data.train.image(0).dtype == torch.uint8


def test_scenes_differ_from_each_other_and_between_the_splits(data):
    images = [split.image(i).numpy().tobytes() for split, i in both(data)]
    assert len(set(images)) == 150


def test_every_class_is_there_whole_partly_hidden_and_as_a_crowd(data):
    kinds = collections.Counter(
        (one["category_id"], one["iscrowd"], isinstance(one["segmentation"], list))
        for split, i in both(data)
        for one in split.annotations(i)
    )
    for category in data.category_ids:
        assert kinds[category, 0, True] > 40  # a polygon: seen whole
        assert kinds[category, 0, False] > 10  # run lengths: partly hidden
    assert sum(kinds[category, 1, False] for category in data.category_ids) > 5
    assert sum(not split.annotations(i) for split, i in both(data)) > 5


def test_sizes_vary(data):
    areas = [one["area"] for split, i in both(data) for one in split.annotations(i)]
    low, high = np.percentile(areas, [5, 95])
    assert high > 15 * low
    assert 0.05 < np.mean([area > 32**2 for area in areas]) < 0.5  # COCO's medium


def test_boxes_and_areas_are_those_of_the_masks(data):
    for i in range(100):
        for one in data.train.annotations(i):
            mask = coco.object_mask(one, (80, 80))
            assert mask.sum() == one["area"]
            packed = masks.encode(np.asfortranarray(mask.astype(np.uint8)))
            assert masks.toBbox(packed).tolist() == one["bbox"]


def test_masks_are_disjoint_and_their_pixels_are_of_one_colour(data):
    """What is annotated is what was painted: three quarters of one colour, the rest background, and noise."""
    spread, around = [], []
    for i in range(100):
        pixels = data.train.image(i).permute(1, 2, 0).numpy().astype(float)
        found = [one for one in data.train.annotations(i) if not one["iscrowd"]]
        inside = [coco.object_mask(one, (80, 80)) for one in found]
        assert sum(inside, np.zeros((80, 80), int)).max() <= 1
        spread += [pixels[mask].std(0).mean() for mask in inside]
        around.append(pixels.std((0, 1)).mean())
    noise = np.arange(-15, 16).std()
    assert np.median(spread) < 1.3 * noise
    assert np.median(around) > 2 * noise


def test_a_scene_depends_on_its_generator_alone():
    first, again = (scenes.Scene(generator(3, "scene")) for _ in range(2))
    assert np.array_equal(first.pixels, again.pixels)
    assert first.annotations() == again.annotations()
    assert not np.array_equal(first.pixels, scenes.Scene(generator(4, "scene")).pixels)


def test_textures_are_interpolated_between_their_grid():
    grid = generator(0)
    corner = torch.randint(-50, 51, (5, 5, 3), generator=grid).numpy()
    smooth = scenes._smooth(corner)
    assert smooth.dtype == np.int64
    step = scenes.SIDE // 4
    assert np.array_equal(smooth[::step, ::step], corner[:4, :4])
    weight = 7 / step
    between = (1 - weight) * corner[0, 0] + weight * corner[1, 0]
    assert np.array_equal(smooth[7, 0], np.floor(between + 1e-9))


def test_they_are_drawn_once_and_again_where_a_file_is_missing(monkeypatch):
    root = scenes.folder(4, 3)
    assert root.is_relative_to(store.home())
    files = {path: path.read_bytes() for path in root.rglob("*2017.*") if path.suffix != ".lock"}
    assert len(files) == 4
    drawn = []
    monkeypatch.setattr(
        scenes, "_bytes", lambda pixels, make=scenes._bytes: drawn.append(1) or make(pixels)
    )
    scenes.folder(4, 3)
    assert not drawn
    (root / "val2017.zip").unlink()
    scenes.folder(4, 3)
    assert len(drawn) == 7
    assert (root / "val2017.zip").exists()
    assert coco.read("shapes", root, 4).train.image(0).shape == (3, 80, 80)
