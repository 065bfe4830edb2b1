"""Annotation files with mistakes: refused by name, or left out and counted, and then a perfect detector is perfect.

The detector finds exactly what it would have learned. Its average precision is counted by the suite and by pycocotools.
"""

import itertools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from pycocotools import mask as masks
from pycocotools.cocoeval import COCOeval

from bench.errors import BadRequest
from tasks.data import annotations, coco, outlines
from tasks.data.contradictions import Contradiction, box_of_mask
from tasks.fast.average_precision import Detections, Truth
from tasks.training.boxes import Examples
from tests import standins
from tests.standins import call

WIDE, HIGH = 160, 120
IMAGES, EACH = 20, 7  # a hundred annotations and more: one that contradicts itself is less than 1%
COCO128 = Path(__file__).parents[2] / "shared" / "data" / "coco128"
Change = Callable[[dict], object]  # of one annotation


def content(kind: str = "polygons") -> dict:
    """Annotations of boxes of all sizes, the first of each image a crowd; the masks are polygons, runs, or none."""
    rng = np.random.default_rng(0)
    found = []
    for n in range(IMAGES * EACH):
        width, height = (int(side) for side in rng.integers((12, 12), (70, 60)))
        left, top = (int(rng.integers(1, side)) for side in (WIDE - width, HIGH - height))
        one = {
            "id": n + 1,
            "image_id": n // EACH + 1,
            "category_id": 1 + n % 3,
            "iscrowd": int(n % EACH == 0),
            "bbox": [left, top, width, height],
            "area": width * height,
        }
        right, bottom = left + width, top + height
        if kind == "polygons":
            one["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]
        elif kind == "runs":
            pixels = np.zeros((HIGH, WIDE), np.uint8, order="F")
            pixels[top:bottom, left:right] = 1
            counts = masks.encode(pixels)["counts"].decode()
            one["segmentation"] = {"size": [HIGH, WIDE], "counts": counts}
        found.append(one)
    return {
        "images": [
            {"id": n, "file_name": f"{n}.png", "width": WIDE, "height": HIGH}
            for n in range(1, IMAGES + 1)
        ],
        "annotations": found,
        "categories": [{"id": n, "name": f"kind {n}"} for n in (1, 2, 3)],
    }


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Both splits' images."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        for n in range(1, IMAGES + 1):
            Image.new("RGB", (WIDE, HIGH), (n, n, n)).save(root / split / f"{n}.png")
    return root


@pytest.fixture
def load(images, tmp_path):
    """Load the data with these annotations of both splits; a text is written as it is."""

    def load(changed: dict | str) -> coco.CocoData:
        shutil.copytree(images, tmp_path, dirs_exist_ok=True)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        for split in ("train", "val"):
            path = tmp_path / "annotations" / f"instances_{split}2017.json"
            text = changed if isinstance(changed, str) else json.dumps(changed)
            path.write_text(text, encoding="utf-8")
        return standins.load("coco", tmp_path)

    return load


def perfect(split: coco.CocoSplit) -> float:
    """The mAP of a detector that finds what it learned of these images, if the suite and pycocotools agree on it."""
    learned = [Examples(split).target(row) for row in range(len(split))]
    counts = torch.tensor([len(target["labels"]) for target in learned])
    corners = torch.cat([target["boxes"] for target in learned])
    labels = torch.cat([target["labels"] for target in learned])
    rows = torch.arange(len(split)).repeat_interleave(counts)
    scores = torch.full((len(rows),), 0.9)
    found = Detections(torch.zeros_like(rows), rows, labels, corners, scores)
    truth = Truth(split)
    assert truth.units == len(rows)  # every box that is scored was learned
    ours = truth.score(found, 1)
    sides = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).double()
    results = [
        {"image_id": split.ids[row], "category_id": kind, "bbox": box, "score": 0.9}
        for row, kind, box in zip(rows.tolist(), labels.tolist(), sides.tolist(), strict=True)
    ]
    with coco.quiet():
        run = COCOeval(split.api, split.api.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert float(ours.values["mAP"]) == pytest.approx(run.stats[0], abs=1e-9)
    assert float(ours.values["AP50"]) == pytest.approx(run.stats[1], abs=1e-9)
    return float(ours.values["mAP"])


def one_line(caught: pytest.ExceptionInfo) -> str:
    """The message, which is for people."""
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 800
    return message


def changed(change: Change, rows: slice | list[int], kind: str = "polygons") -> dict:
    """The annotations with a change of those at these positions."""
    faulty = content(kind)
    some = (
        faulty["annotations"][rows]
        if isinstance(rows, slice)
        else [faulty["annotations"][row] for row in rows]
    )
    for one in some:
        change(one)
    return faulty


# --- a clean file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["polygons", "runs", "no masks"])
def test_a_clean_file_is_taken_as_it_is_and_can_be_learned_perfectly(load, capsys, kind):
    clean = content(kind)
    data = load(clean)
    assert capsys.readouterr().err == ""
    assert data.val.api.dataset["annotations"] == clean["annotations"]
    assert perfect(data.val) == pytest.approx(1.0, abs=1e-9)


# --- annotations that contradict themselves -------------------------------------------------------


def corners(one: dict) -> None:
    x, y, width, height = one["bbox"]
    one["bbox"] = [x, y, x + width, y + height]


def centred(one: dict) -> None:
    x, y, width, height = one["bbox"]
    one["bbox"] = [x + width / 2, y + height / 2, width, height]


def in_fractions(one: dict) -> None:
    x, y, width, height = one["bbox"]
    one["bbox"] = [x / WIDE, y / HIGH, width / WIDE, height / HIGH]
    one["area"] = width * height / WIDE / HIGH


def moved(x: float, y: float) -> Change:
    return lambda one: one.update(bbox=[one["bbox"][0] + x, one["bbox"][1] + y, *one["bbox"][2:]])


def with_area(factor: float) -> Change:
    return lambda one: one.update(area=one["area"] * factor)


def with_polygon(*points: float) -> Change:
    return lambda one: one.update(segmentation=[list(points)])


EMPTY = {"size": [HIGH, WIDE], "counts": [HIGH * WIDE]}
FAR = [1e9, 0, 0, 1e9, 5, 5]

# What is changed, in annotations with which masks; what is said of them.
CONTRADICTIONS: dict[str, tuple[Change, str, str]] = {
    "corners, polygons": (corners, "polygons", "box"),
    "corners, runs": (corners, "runs", "box"),
    "corners, areas": (corners, "no masks", "box"),
    "centres": (centred, "polygons", "mask outside their box|box outside their image"),
    "fractions": (in_fractions, "no masks", "box within the first pixel"),
    "fractions and polygons": (in_fractions, "polygons", "box within the first pixel"),
    "box outside, right": (moved(500, 0), "no masks", "box outside their image"),
    "box outside, left": (moved(-500, 0), "no masks", "box outside their image"),
    "box outside, above": (moved(0, -500), "no masks", "box outside their image"),
    "box outside, below": (moved(0, 1e15), "no masks", "box outside their image"),
    "box elsewhere": (lambda one: one.update(bbox=[0, 0, 5, 5], area=20), "polygons", "mask"),
    "box elsewhere, runs": (lambda one: one.update(bbox=[0, 0, 5, 5], area=20), "runs", "mask"),
    "large area": (with_area(2), "polygons", "an area larger than their box"),
    "large area, runs": (with_area(2), "runs", "an area larger than their box"),
    "large area, no mask": (with_area(2), "no masks", "an area larger than their box"),
    "no area": (with_area(0), "polygons", "an area of nearly nothing"),
    "small area": (with_area(1 / WIDE / HIGH), "no masks", "an area of nearly nothing"),
    "polygon at 1e9": (with_polygon(*FAR), "polygons", "a polygon far outside their image"),
    "polygon at -1e7": (with_polygon(-1e7, 5, 9, 5, 9, 9), "polygons", "a polygon far outside"),
    "polygon beside": (with_polygon(-9, 5, -5, 5, -5, 9), "polygons", "a mask outside their image"),
    "runs of nothing": (lambda one: one.update(segmentation=EMPTY), "polygons", "without a pixel"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_slip_in_a_large_file_is_left_out_and_said(load, capsys, name):
    change, kind, says = CONTRADICTIONS[name]
    row = content()["annotations"].index(max(content()["annotations"], key=lambda one: one["area"]))
    faulty = changed(change, [row], kind)
    data = load(faulty)
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 4  # two of each file
    assert notes[2].startswith("note: left out 1 annotations with ")
    assert any(part in notes[2] for part in says.split("|"))
    assert f"instances_val2017.json: annotation {row + 1} has " in notes[3]
    left = [one for n, one in enumerate(content(kind)["annotations"]) if n != row]
    assert data.val.api.dataset["annotations"] == left
    assert perfect(data.val) == pytest.approx(1.0, abs=1e-9)
    for i in range(len(data.val)):
        if kind != "no masks":
            coco.semantic_mask(data.val, i, data.category_ids)


@pytest.mark.parametrize("rows", [slice(None), slice(0, None, 10), slice(0, 2)])
@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_file_in_which_many_contradict_themselves_is_refused(load, name, rows):
    change, kind, says = CONTRADICTIONS[name]
    if name == "corners, areas":  # where a box still covers its area well, nothing is there to see
        rows = slice(None)
    with pytest.raises(BadRequest) as caught:
        load(changed(change, rows, kind))
    message = one_line(caught)
    assert any(part in message for part in says.split("|"))
    assert "instances_train2017.json contradict themselves" in message
    assert "expected at most 1%: annotation 1 has " in message


def test_corners_are_recognised_and_the_message_says_so(load):
    with pytest.raises(BadRequest, match=r"is it x1, y1, x2, y2\? COCO wants x, y, width, height"):
        load(changed(corners, slice(None)))


def test_corners_within_the_image_are_recognised_by_their_areas(load):
    """Objects in the upper left quarter: nothing reaches out, and there is no mask to compare with."""

    def upper_left(one: dict) -> None:
        n = one["id"] % 20
        one.update(bbox=[10 + n, 8 + n, 40 + n, 30 + n], area=30 * 22)

    faulty = changed(upper_left, slice(None), "no masks")
    with pytest.raises(
        BadRequest, match=r"140 with a box of corners.* area 660, which is right for"
    ):
        load(faulty)
    for one in faulty["annotations"]:  # as a mask's, it would be possible
        x, y, width, height = one["bbox"]
        one["segmentation"] = [[x, y, x + width, y, x, y + height]]
    assert perfect(load(faulty).val) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    "box", [[-2.1, 5, 90, 80], [5, -2.1, 90, 80], [72.1, 5, 90, 80], [5, 42.1, 90, 80]]
)
def test_a_box_may_reach_two_pixels_out_and_no_more(box):
    one = {**content("no masks")["annotations"][0], "bbox": box, "area": 7000}
    only = {**content(), "annotations": [one]}
    with pytest.raises(BadRequest, match=r"reaches 2\.1 pixels out of its image of 160 x 120"):
        annotations.check(only, Path("x.json"))
    one["bbox"] = [round(value) for value in box]
    (kept,) = annotations.check(only, Path("x.json"))["annotations"]
    assert kept["bbox"] == one["bbox"]


@pytest.mark.parametrize(("side", "reach"), [(10, 2), (60, 6)])
@pytest.mark.parametrize("index", range(4))
def test_a_mask_may_reach_out_of_its_box_by_two_pixels_or_a_tenth_and_no_more(side, reach, index):
    box, mask = [40, 40, side, side], [40, 40, 40 + side, 40 + side]
    mask[index] += reach if index > 1 else -reach
    box_of_mask(box, tuple(mask))
    mask[index] += 1 if index > 1 else -1
    with pytest.raises(Contradiction, match="but its mask reaches from left, top to right, bottom"):
        box_of_mask(box, tuple(mask))


def test_the_limit_is_one_in_a_hundred(tmp_path):
    faulty = content("no masks")
    faulty["annotations"] = faulty["annotations"][:100]
    moved(500, 0)(faulty["annotations"][3])
    assert len(annotations.check(faulty, tmp_path)["annotations"]) == 99
    with pytest.raises(BadRequest, match=r"1 of 99 annotations .* annotation 4 has bbox"):
        annotations.check({**faulty, "annotations": faulty["annotations"][:-1]}, tmp_path)


# --- what is within bounds ------------------------------------------------------------------------


def at_the_edge(reach: float) -> Change:
    """Let a box end so far right of its image."""
    return lambda one: moved(WIDE + reach - one["bbox"][0] - one["bbox"][2], 0)(one)


@pytest.mark.parametrize("reach", [0.01, 0.4])
def test_boxes_that_reach_out_by_fractions_of_a_pixel_are_scored_as_they_are(load, capsys, reach):
    data = load(changed(at_the_edge(reach), slice(None), "no masks"))
    assert capsys.readouterr().err == ""
    for row in range(len(data.val)):
        for one in data.val.annotations(row):
            assert one["bbox"][0] + one["bbox"][2] == pytest.approx(WIDE + reach, abs=1e-9)
        assert (Examples(data.val).target(row)["boxes"][:, 2] <= WIDE).all()
    assert perfect(data.val) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("reach", [1, 2])
def test_small_boxes_that_reach_out_are_cut_where_a_perfect_detector_would_miss_them(
    load, capsys, reach
):
    faulty = changed(at_the_edge(reach), slice(None), "no masks")
    cut = [one for one in faulty["annotations"] if reach > 0.04 * one["bbox"][2]]
    data = load(faulty)
    assert 0 < len(cut) < len(faulty["annotations"])
    note = f"note: cut {len(cut)} boxes at the edges of their images of instances_val2017.json"
    assert note in capsys.readouterr().err.splitlines()
    for one in cut:
        left, top, width, height = one["bbox"]
        assert data.val.api.anns[one["id"]]["bbox"] == [left, top, width - reach, height]
        assert data.val.api.anns[one["id"]]["area"] == one["area"]
    assert perfect(data.val) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    "box", [[10, 10, 0.05, 9], [10, 10, 9, 0.05], [159.95, 3, 1, 9], [9, 121, 9, 1]]
)
def test_a_box_without_area_in_its_image_is_left_out_and_said(load, capsys, box):
    slip = {"bbox": box, "area": box[2] * box[3]}
    data = load(changed(lambda one: one.update(slip), [1, 2, 3], "no masks"))
    assert "left out 3 annotations whose box has no area in its image" in capsys.readouterr().err
    assert len(data.val.api.anns) == IMAGES * EACH - 3
    assert perfect(data.val) == pytest.approx(1.0, abs=1e-9)


def test_the_missing_area_of_a_box_that_is_cut_is_that_of_what_is_left():
    one = content("no masks")
    one["annotations"] = [{**one["annotations"][0], "bbox": [-2, 10, 12, 10]}]
    del one["annotations"][0]["area"]
    (kept,) = annotations.check(one, Path("x.json"))["annotations"]
    assert (kept["bbox"], kept["area"]) == ([0, 10, 10, 10], 100)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(area=(one["bbox"][2] + 1) * (one["bbox"][3] + 1)),
        lambda one: one.update(area=max(one["bbox"][2:])),
        lambda one: one.update(segmentation=[]),
        lambda one: one.update(segmentation=[[n - 2 for n in one["segmentation"][0]]]),
        lambda one: one.update(segmentation=[one["segmentation"][0][:6]]),
        lambda one: one.update(bbox=[0, 0, WIDE, HIGH]),
    ],
    ids=["area rounded up", "a line", "no polygons", "mask of 2 pixels", "half", "larger boxes"],
)
def test_what_other_programs_write_is_taken(load, capsys, change):
    data = load(changed(change, slice(None)))
    assert capsys.readouterr().err == ""
    assert len(data.val.api.anns) == IMAGES * EACH
    assert (
        perfect(data.val) > 0.999
        or len({tuple(a["bbox"]) for a in data.val.api.anns.values()}) == 1
    )


@pytest.mark.parametrize("flag", [False, 0])
def test_crowd_flags_may_be_truth_values(load, flag):
    data = load(changed(lambda one: one.update(iscrowd=flag), slice(None)))
    kept = [one["iscrowd"] for one in data.val.api.anns.values()]
    assert kept == [0] * len(kept)
    assert all(type(value) is int for value in kept)


def test_objects_at_the_edge_may_have_polygons_that_reach_out(load, capsys):
    """As the suite's own scenes do: the box is of what is seen, the polygon of the whole object."""
    whole = {"bbox": [0, 0, 20, 20], "area": 200, "segmentation": [[-20, 0, 0, -20, 20, 0, 0, 20]]}
    data = load(changed(lambda one: one.update(whole), slice(0, None, EACH)))
    assert capsys.readouterr().err == ""
    (first, *_) = data.val.annotations(0)
    mask = coco.object_mask(first, (HIGH, WIDE))
    assert 150 < mask.sum() < 250
    assert not mask[20:].any()
    assert not mask[:, 20:].any()


# --- values that cannot be ------------------------------------------------------------------------

HUGE = 10**400
WHOLE = ["1", 1.0, True, None, [1], {}, -1, 2**53 + 1, HUGE, math.nan]
NUMBER = ["9", True, None, [9], HUGE, -HUGE, 1e300, math.nan, math.inf, 2**53 + 1]
VALUES = [
    *(("images", "id", value) for value in WHOLE),
    *(("images", "width", value) for value in [*WHOLE, 0, 65536]),
    *(("images", "height", value) for value in [*WHOLE, 0, 65536]),
    *(("images", "file_name", value) for value in [1, None, [], "", " ", "a\0.png", "a\n.png"]),
    *(("images", "file_name", value) for value in ["../train2017/1.png", "/a.png", "a/../../b.png"]),
    *(("images", "file_name", value) for value in ["..\\b.png", "C:\\b.png", "\\\\a\\b.png", "\ud800.png"]),
    *(("images", "file_name", value) for value in ["1.png", "./1.png", ".//1.png"]),
    *(("annotations", "id", value) for value in [*WHOLE, 1]),
    *(("annotations", "image_id", value) for value in [*WHOLE, 21]),
    *(("annotations", "category_id", value) for value in [*WHOLE, 4]),
    *(("annotations", "iscrowd", v) for v in ["0", "1", "", 2, -1, 0.0, 1.0, None, [], [1], {}, HUGE]),
    *(("annotations", "area", value) for value in [*NUMBER, -1, -0.5]),
    *(("annotations", "bbox", [*([9] * n), value, *([9] * (3 - n))]) for value in NUMBER for n in range(4)),
    *(("annotations", "bbox", v) for v in [None, "9999", 9, {}, [], [9] * 3, [9] * 5, [[9] * 4]]),
    *(("annotations", "bbox", value) for value in [[9, 9, -1, 9], [9, 9, 9, -1], [9, 9, -0.1, 0]]),
    *(("annotations", "segmentation", v) for v in [None, "", 1, True, {}, [1] * 6, [[[1] * 6]], [{}]]),
    *(("annotations", "segmentation", [[9, 9, 20, 9, 20, value]]) for value in NUMBER),
    *(("annotations", "segmentation", value) for value in [[[9] * 7], [[9] * 6, [9]]]),
    *(("categories", "id", value) for value in [*WHOLE, 0, 65536]),
    *(("categories", "name", value) for value in [1, None, [], {}, "", " ", True, "a\nb", "kind 1", "kind 1 "]),
]  # fmt: skip
NAMES = {"images": "image", "annotations": "annotation", "categories": "category"}


@pytest.mark.parametrize(("kind", "field", "value"), VALUES)
def test_a_value_of_another_type_or_out_of_bounds_is_refused_by_name(tmp_path, kind, field, value):
    faulty = content()
    faulty[kind][1][field] = value
    path = tmp_path / "instances_val2017.json"
    path.write_text(json.dumps(faulty), encoding="utf-8")
    with pytest.raises(BadRequest) as caught:
        annotations.check(annotations.read(path), path)
    message = one_line(caught)
    assert str(path) in message
    if field == "id":
        assert NAMES[kind] in message
    else:
        assert f"{NAMES[kind]} 2 " in message or "ids 1 and 2" in message
    words = {"image_id": "is of image", "category_id": "category", "segmentation": "polygon|mask"}
    assert any(word in message for word in [field, *words.get(field, field).split("|")])


def test_an_image_of_too_many_pixels_is_refused():
    faulty = content()
    faulty["images"][1] |= {"width": 65535, "height": 65535}
    with pytest.raises(
        BadRequest, match=r"image 2 of x\.json has 65535 x 65535 pixels, expected at"
    ):
        annotations.check(faulty, Path("x.json"))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"images": ' * 100_000,
        json.dumps(content()).replace('"area": ', '"area": ' + "9" * 5000, 1),
        json.dumps(content()).encode("utf-16").decode("latin-1"),
        "null",
        "[]",
        '{"images": [[]], "annotations": [], "categories": []}',
    ],
    ids=["lists", "objects", "digits", "characters", "null", "a list", "no objects"],
)
def test_what_is_no_annotation_file_is_refused_by_name(load, text):
    with pytest.raises(BadRequest, match=r"instances_train2017\.json ") as caught:
        load(text)
    one_line(caught)


def test_a_value_that_is_nested_deep_is_refused_by_name(load):
    deep = json.dumps(content()).replace(
        '"area": ', '"area": ' + "[" * 300 + "]" * 300 + ', "a": ', 1
    )
    with pytest.raises(
        BadRequest, match=r"annotation 1 of .*_train2017\.json has area \[\["
    ) as caught:
        load(deep)
    one_line(caught)


@pytest.mark.parametrize("slip", [{"area": HUGE}, {"segmentation": [FAR]}, {"iscrowd": "0"}])
def test_on_the_command_line_it_is_one_line_and_code_2(load, tmp_path, capsys, slip):
    with pytest.raises(BadRequest):
        load(changed(lambda one: one.update(slip), [0, 1, 2]))
    code = call(
        "run", "--task", "coco-voc", "--arch", "fcn_small", "--pretrained", "none", "--generator", "copy",
        "--set", "task.epochs=1", "--data-dir", tmp_path, "--results", tmp_path / "results",
    )  # fmt: skip
    assert code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert "instances_train2017.json" in line


# --- masks ----------------------------------------------------------------------------------------

IMAGE = {"id": 1, "width": 8, "height": 6}


@pytest.mark.parametrize(
    "counts",
    [
        "", "~~~", "PPYo0", "00000", "noise", "`1P", "`Q", "é", "\uff10", "\0", " `1", "`1\n", "P" * 40, "PPPPPPP0`1",
        None, 48, True, {}, [], [47], [49], [24, 24, -1, 1], [48.0], ["48"], [True, 47], [[48]], [None, 48],
        [HUGE, 48 - HUGE], [math.nan], [math.inf],
    ],
)  # fmt: skip
def test_run_lengths_that_are_damaged_are_refused(counts):
    with pytest.raises(BadRequest, match="annotation 5 has a mask whose counts are not those"):
        outlines.outline({"size": [6, 8], "counts": counts}, IMAGE, "annotation 5")


def test_letters_outside_those_of_run_lengths_are_refused():
    """Of each, the six lowest bits are those of a letter that fits."""
    pixels = np.asfortranarray(np.arange(48).reshape(8, 6).T % 5 == 0)
    text = masks.encode(pixels.astype(np.uint8))["counts"].decode()
    outlines.outline({"size": [6, 8], "counts": text}, IMAGE, "annotation 5")
    for place, step in itertools.product(range(len(text)), (64, 128, 1 << 16)):
        wrong = text[:place] + chr(ord(text[place]) + step) + text[place + 1 :]
        with pytest.raises(BadRequest, match="counts are not those"):
            outlines.outline({"size": [6, 8], "counts": wrong}, IMAGE, "annotation 5")


@pytest.mark.parametrize("size", [None, 48, [8, 6], [6], [6, 8, 1], "68", [[6], 8], ["6", "8"], {}])
def test_run_lengths_of_another_size_are_refused(size):
    with pytest.raises(BadRequest, match="annotation 5 has a mask that is neither polygons nor of"):
        outlines.outline({"size": size, "counts": [8, 40]}, IMAGE, "annotation 5")


@given(st.text(alphabet=[chr(code) for code in range(48, 112)], max_size=12))
def test_run_lengths_of_any_letters_are_those_that_pycocotools_decodes_or_refused(text):
    try:
        checked = outlines.outline({"size": [6, 8], "counts": text}, IMAGE, "annotation 5")
    except (BadRequest, Contradiction):
        return
    pixels = masks.decode(checked.masks)
    lengths = outlines._decode_runs(text)
    assert np.array_equal(np.repeat(np.arange(len(lengths)) % 2, lengths).reshape(8, 6).T, pixels)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=30)))
def test_run_lengths_are_counted_right_and_cover_what_they_cover(mask):
    high, wide = mask.shape
    packed = masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = packed["counts"].decode()
    lengths = outlines._decode_runs(text)
    values = np.arange(len(lengths)) % 2
    assert np.array_equal(np.repeat(values, lengths).reshape(mask.T.shape).T, mask)
    image = {"width": wide, "height": high}
    for counts in (text, lengths):
        if mask.any():
            found = outlines.outline({"size": [high, wide], "counts": counts}, image, "one")
            left, top, width, height = masks.toBbox(packed).tolist()
            assert found.extent == (left, top, left + width, top + height)
            assert found.masks == {"size": [high, wide], "counts": counts}
        else:
            with pytest.raises(Contradiction, match="without a pixel"):
                outlines.outline({"size": [high, wide], "counts": counts}, image, "one")


def test_an_outline_that_would_take_the_memory_is_refused():
    zigzag = [number for n in range(2000) for number in (600 * (n % 2), n % 400)]
    with pytest.raises(BadRequest, match="annotation 5 has polygons with an outline of more than"):
        outlines.outline([zigzag], {"width": 640, "height": 480}, "annotation 5")
    fine = outlines.outline([zigzag[:2000]], {"width": 640, "height": 480}, "annotation 5")
    assert fine.extent == (0, 0, 600, 399)


def test_what_a_polygon_covers_is_what_is_inside_its_image():
    image = {"width": 40, "height": 30}
    inside = outlines.outline([[1, 2, 9.5, 2, 9.5, 8]], image, "one")
    assert inside.extent == (1, 2, 9.5, 8)
    outside = outlines.outline([[-10, 15, 15, -10, 40, 15, 15, 40]], image, "one")
    assert outside.extent == (0, 0, 40, 30)
    corner = outlines.outline([[30, 20, 60, 20, 60, 50, 30, 50]], image, "one")
    assert corner.extent == (30, 20, 40, 30)


# --- the real thing -------------------------------------------------------------------------------


@pytest.mark.skipif(not COCO128.is_dir(), reason="needs the folder ../shared/data")
@pytest.mark.parametrize("split", ["train", "val"])
def test_no_rule_applies_to_real_annotations(capsys, split):
    path = COCO128 / "annotations" / f"instances_{split}2017.json"
    raw = annotations.read(path)
    checked = annotations.check(raw, path)
    assert capsys.readouterr().err == ""
    assert [one["bbox"] for one in checked["annotations"]] == [
        one["bbox"] for one in sorted(raw["annotations"], key=lambda one: one["id"])
    ]
