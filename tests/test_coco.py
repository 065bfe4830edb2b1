"""Reading data sets in COCO's format: what is read, and what each kind of mistake gives."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as masks
from pycocotools.coco import COCO

from bench.errors import BadRequest
from tasks.data import coco, decoding
from tests import standins
from tests.standins import coco_content, write_coco

COCO128 = Path(__file__).parents[2] / "shared" / "data" / "coco128"
real_data = pytest.mark.skipif(not COCO128.is_dir(), reason="needs the folder ../shared/data")


def changed(index: int, **fields) -> dict:
    """The stand-in's annotations with some fields of one annotation replaced; None removes a field."""
    content = coco_content()
    content["annotations"][index] |= fields
    for name in [name for name, value in fields.items() if value is None]:
        del content["annotations"][index][name]
    return content


def load(root: Path, **contents) -> coco.CocoData:
    return standins.load("coco", write_coco(root, **contents))


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("zips", [False, True])
@pytest.mark.parametrize("sub", ["", "coco"])
def test_folders_and_zips_in_the_data_folder_or_below(tmp_path, zips, sub):
    write_coco(tmp_path / "data" / sub, zips=zips)
    data = standins.load("coco", tmp_path / "data")
    assert data.classes == ("cat", "dog")
    assert data.category_ids == (1, 3)
    assert data.train.ids == data.val.ids == (10, 20, 30)
    assert data.train.sizes == ((30, 40),) * 3
    assert [len(data.train.annotations(i)) for i in range(3)] == [0, 1, 2]
    assert data.train.image(1).shape == (3, 30, 40)
    assert not torch.equal(data.train.image(1), data.val.image(1))


def test_pixels_are_those_of_the_file(tmp_path):
    data = load(tmp_path)
    opened = np.asarray(Image.open(tmp_path / "train2017" / "train-2.png"))
    assert np.array_equal(data.train.image(1).permute(1, 2, 0).numpy(), opened)


def test_grey_images_become_colour(tmp_path):
    write_coco(tmp_path)
    Image.new("L", (40, 30), 77).save(tmp_path / "val2017" / "val-1.png")
    assert standins.load("coco", tmp_path).val.image(0).unique().tolist() == [77]


def test_the_same_files_have_the_same_hash_wherever_they_lie(tmp_path):
    folders = load(tmp_path / "folders")
    assert load(tmp_path / "zips", zips=True).hash == folders.hash
    assert load(tmp_path / "again").hash == folders.hash
    assert len(folders.hash) == 64


def test_the_hash_follows_pixels_and_annotations(tmp_path):
    hashes = {load(tmp_path / "one").hash}
    hashes.add(load(tmp_path / "two", train=changed(0, bbox=[0, 0, 9, 9])).hash)
    Image.new("RGB", (40, 30)).save(tmp_path / "one" / "val2017" / "val-3.png")
    hashes.add(standins.load("coco", tmp_path / "one").hash)
    assert len(hashes) == 3


def test_what_was_checked_is_read_again_without_the_images(tmp_path, monkeypatch):
    first = load(tmp_path)
    monkeypatch.setattr(coco, "_use", None)  # calling it would fail
    again = standins.load("coco", tmp_path)
    assert again.hash == first.hash
    assert again.train.annotations(2) == first.train.annotations(2)


def test_a_damaged_cache_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    first = load(tmp_path / "data")
    (cached,) = (tmp_path / "home" / "coco").glob("*.json")
    cached.write_text("{", encoding="utf-8")
    assert standins.load("coco", tmp_path / "data").hash == first.hash


def test_a_limit_takes_the_same_images_in_every_run_and_the_first_of_them_where_it_is_lower(
    tmp_path,
):
    content = coco_content(count=12)
    write_coco(tmp_path, train=content)
    chosen = {n: standins.load("coco", tmp_path, limit=n).train.ids for n in (3, 5, 12, 99)}
    assert set(chosen[3]) < set(chosen[5]) < set(chosen[12])
    assert chosen[12] == chosen[99] == tuple(range(10, 130, 10))
    assert len(chosen[5]) == 5
    assert chosen[5] == tuple(sorted(chosen[5])) != chosen[12][:5]
    data = standins.load("coco", tmp_path, limit=5)
    assert set(data.train.api.imgToAnns) <= set(chosen[5])
    assert data.hash != standins.load("coco", tmp_path).hash


def test_pycocotools_sees_what_is_in_the_files(tmp_path, capsys):
    data = load(tmp_path)
    assert capsys.readouterr().out == ""
    plain = COCO(tmp_path / "annotations" / "instances_val2017.json")
    assert data.val.api.anns == plain.anns
    assert list(data.val.api.imgs.values()) == list(plain.imgs.values())
    assert data.val.api.getCatIds() == [1, 3]


def test_a_subset_keeps_the_images_and_what_is_in_them(tmp_path):
    split = load(tmp_path).train
    part = split.subset([2, 1])
    assert part.ids == (20, 30)
    assert torch.equal(part.image(1), split.image(2))
    assert part.annotations(1) == split.annotations(2)


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [[3, 3, 0, 5], [3, 3, 5, 0]])
def test_a_box_without_area_is_left_out_and_said(tmp_path, capsys, box):
    data = load(tmp_path, train=changed(0, bbox=box))
    assert [len(data.train.annotations(i)) for i in range(3)] == [0, 0, 2]
    assert "left out 1 annotations whose box has no area" in capsys.readouterr().err


def test_a_polygon_of_two_points_is_left_out_and_said(tmp_path, capsys):
    triangle = [0, 0, 8, 0, 0, 8]
    data = load(tmp_path, train=changed(0, segmentation=[[1, 1, 5, 5], triangle]))
    assert data.train.annotations(1)[0]["segmentation"] == [triangle]
    assert "left out 1 polygons of fewer than three points" in capsys.readouterr().err
    only = load(tmp_path / "only", train=changed(0, segmentation=[[1, 1, 5, 5]]))
    assert only.train.annotations(1)[0]["bbox"] == [0, 2, 10, 8]
    assert not coco.semantic_mask(only.train, 1, [1]).any()


def test_a_missing_crowd_flag_is_none_and_a_missing_area_the_boxs(tmp_path):
    data = load(tmp_path, train=changed(0, iscrowd=None, area=None))
    (found,) = data.train.annotations(1)
    assert found["iscrowd"] == 0
    assert found["area"] == 80


def test_what_is_fine_gives_no_note(tmp_path, capsys):
    load(tmp_path)
    assert capsys.readouterr().err == ""


# --- mistakes -------------------------------------------------------------------------------------

BROKEN = {
    "unknown category": (changed(0, category_id=2), "annotation 200 of .* unknown category 2"),
    "unknown image": (changed(0, image_id=7), "annotation 200 of .* image 7, which is not listed"),
    "negative box": (changed(0, bbox=[1, 1, -2, 3]), r"has bbox \[1, 1, -2, 3\], expected x, y"),
    "three numbers": (changed(0, bbox=[1, 1, 2]), r"has bbox \[1, 1, 2\], expected x, y"),
    "not a number": (changed(0, bbox=[1, 1, 2, float("nan")]), "expected a list of finite numbers"),
    "no box": (changed(0, bbox=None), "has bbox None, expected a list"),
    "odd polygon": (changed(0, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "odd number of coordinates"),
    "mask of another size": (
        changed(0, segmentation={"size": [3, 3], "counts": [9]}),
        "neither polygons nor of the image's size",
    ),
    "too few pixels": (
        changed(0, segmentation={"size": [30, 40], "counts": [9]}),
        "counts are not those of the image's size",
    ),
    "no annotations": (coco_content(annotations=[]), "list 'annotations' of .* is empty"),
    "no list": (coco_content(images={}), "has no list 'images' of objects"),
    "same id twice": (changed(0, id=300), "two entries with the id 300 for an annotation"),
    "no id": (changed(0, id=None), "an entry for an annotation in .* has id None"),
    "no width": (
        coco_content(images=[{"id": 10, "file_name": "a.png", "height": 3}]),
        "image 10 of .* has width None, expected a whole number",
    ),
    "no file name": (
        coco_content(images=[{"id": 10, "file_name": "", "width": 4, "height": 3}]),
        "image 10 of .* has no file_name",
    ),
    "category 0": (
        coco_content(categories=[{"id": 0, "name": "cat"}, {"id": 1}, {"id": 3}]),
        "category id 0, expected at least 1",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_mistake_in_the_annotations_is_one_clear_line(tmp_path, name):
    content, message = BROKEN[name]
    with pytest.raises(BadRequest, match=message) as caught:
        load(tmp_path, train=content)
    assert "\n" not in str(caught.value)
    assert "instances_train2017.json" in str(caught.value)


def test_a_missing_image_is_named(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "val2017" / "val-2.png").unlink()
    with pytest.raises(BadRequest, match=r"val-2\.png of .*instances_val2017\.json is not there"):
        standins.load("coco", tmp_path)


def test_an_image_missing_in_a_zip_is_named(tmp_path):
    write_coco(tmp_path / "a", zips=True)
    content = coco_content("val")
    content["images"][0]["file_name"] = "other.png"
    path = tmp_path / "a" / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BadRequest, match=r"other\.png of .* is not there"):
        standins.load("coco", tmp_path / "a")


def test_a_damaged_image_is_named(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "train2017" / "train-1.png").write_bytes(b"nonsense")
    data = standins.load("coco", tmp_path)
    with pytest.raises(BadRequest, match=r"train-1\.png is not a readable image"):
        data.train.image(0)


def test_an_image_of_another_size_is_refused(tmp_path):
    write_coco(tmp_path)
    Image.new("RGB", (41, 30)).save(tmp_path / "train2017" / "train-1.png")
    with pytest.raises(BadRequest, match="is 41 x 30 pixels, its annotations are for 40 x 30"):
        standins.load("coco", tmp_path).train.image(0)


def test_different_categories_in_the_splits_are_refused(tmp_path):
    other = coco_content("val", categories=[{"id": 1, "name": "cat"}, {"id": 3, "name": "fox"}])
    with pytest.raises(BadRequest, match="have different categories"):
        load(tmp_path, val=other)


def test_a_limit_that_leaves_no_box_is_refused(tmp_path):
    content = coco_content(count=12)
    content["annotations"] = content["annotations"][:1]
    write_coco(tmp_path, train=content)
    ids = standins.load("coco", tmp_path).train.ids
    assert content["annotations"][0]["image_id"] in ids
    with pytest.raises(
        BadRequest, match=r"no usable annotations of the 1 chosen images.*raise --limit"
    ):
        standins.load("coco", tmp_path, limit=1)


def test_a_limit_below_one_is_refused(tmp_path):
    with pytest.raises(BadRequest, match="limit is 0, expected at least 1"):
        standins.load("coco", write_coco(tmp_path), limit=0)


def test_an_unknown_name_is_refused():
    with pytest.raises(BadRequest, match="unknown data set 'coko': did you mean 'coco'"):
        standins.load("coko")


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(
        BadRequest, match=r"no COCO data in .*--data-dir; expected annotations/inst"
    ):
        standins.load("coco", tmp_path)
    write_coco(tmp_path)
    shutil.rmtree(tmp_path / "val2017")
    with pytest.raises(BadRequest, match=r"val2017 nor .*val2017\.zip is there"):
        standins.load("coco", tmp_path)
    (tmp_path / "val2017.zip").write_bytes(b"nonsense")
    with pytest.raises(BadRequest, match=r"val2017\.zip is not a readable zip file"):
        standins.load("coco", tmp_path)
    (tmp_path / "val2017.zip").unlink()
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").unlink()
    with pytest.raises(BadRequest, match=r"no file .*instances_train2017\.json"):
        standins.load("coco", tmp_path)


def test_damaged_json_is_named(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "annotations" / "instances_val2017.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadRequest, match=r"instances_val2017\.json is not a readable JSON file"):
        standins.load("coco", tmp_path)


# --- semantic masks -------------------------------------------------------------------------------


def masked(tmp_path, *annotations: dict, categories=(1, 3)) -> torch.Tensor:
    """The semantic mask of one image with these annotations."""
    whole = [
        {"id": n, "image_id": 10, "iscrowd": 0, "bbox": [0, 0, 40, 30], **one}
        for n, one in enumerate(annotations)
    ]
    content = coco_content("val", annotations=whole)
    return coco.semantic_mask(load(tmp_path, val=content).val, 0, categories)


def square(left: int, side: int = 10) -> list[list[int]]:
    return [[left, 0, left + side, 0, left + side, side, left, side]]


def test_pixels_have_the_number_of_their_category(tmp_path):
    mask = masked(
        tmp_path,
        {"category_id": 3, "segmentation": square(0)},
        {"category_id": 1, "segmentation": square(20)},
    )
    expected = torch.zeros(30, 40, dtype=torch.uint8)
    expected[:10, :10], expected[:10, 20:30] = 2, 1
    assert torch.equal(mask, expected)


def test_categories_that_were_not_chosen_are_background(tmp_path):
    one = {"category_id": 1, "segmentation": square(0)}
    assert not masked(tmp_path / "a", one, categories=(3,)).any()
    assert masked(tmp_path / "b", one, categories=(3, 1)).unique().tolist() == [0, 2]


def test_pixels_that_two_categories_claim_are_ignored_and_those_of_one_are_not(tmp_path):
    mask = masked(
        tmp_path,
        {"category_id": 1, "segmentation": square(0)},
        {"category_id": 1, "segmentation": square(5)},
        {"category_id": 3, "segmentation": square(10)},
    )
    assert mask[0, :20].tolist() == [1] * 10 + [coco.IGNORED] * 5 + [2] * 5


def test_crowds_are_ignored_where_no_object_of_its_own_is(tmp_path):
    crowd = np.zeros((30, 40), np.uint8, order="F")
    crowd[:4, :20] = 1
    counts = masks.encode(crowd)["counts"].decode()
    for encoded in (counts, [0, *([4, 26] * 20)[:-1], 26 + 600]):
        mask = masked(
            tmp_path / str(len(encoded)),
            {
                "category_id": 1,
                "iscrowd": 1,
                "segmentation": {"size": [30, 40], "counts": encoded},
            },
            {"category_id": 3, "segmentation": square(0)},
        )
        assert mask[0, :22].tolist() == [2] * 10 + [coco.IGNORED] * 10 + [0] * 2
        assert (mask == coco.IGNORED).sum() == 40


def test_an_object_without_a_mask_is_for_detection_alone(tmp_path):
    with pytest.raises(BadRequest, match="annotation 0 of image 10 has no segmentation"):
        masked(tmp_path, {"category_id": 1})


# --- the real thing -------------------------------------------------------------------------------


@real_data
def test_real_coco_images():
    data = standins.load("coco", COCO128)
    assert (len(data.train), len(data.val)) == (48, 48)
    assert (len(data.classes), data.category_ids[-1]) == (80, 90)
    assert data.classes[0] == "person"
    for split in (data.train, data.val):
        assert split.image(0).shape[1:] == split.sizes[0]
    mask = coco.semantic_mask(data.val, 0, data.category_ids)
    ours = [one for one in data.val.annotations(0) if not one["iscrowd"]]
    theirs = sum(data.val.api.annToMask(one) for one in ours)
    assert np.array_equal((mask > 0).numpy(), theirs > 0)


# --- how image files become pixels, and which files the cache is of -------------------------------


def replaced(root: Path, image: Image.Image, name: str = "train-1.png", **options) -> coco.CocoData:
    """The stand-in with another first training image, of whatever format."""
    if not (root / "annotations").is_dir():
        write_coco(root)
    image.save(root / "train2017" / name, options.pop("format", "PNG"), **options)
    return standins.load("coco", root)


def turned(orientation: int, size: tuple[int, int]) -> dict:
    """Options of a JPEG file with this orientation, and its image: red at the left, blue at the right."""
    exif = Image.Exif()
    exif[0x112] = orientation
    image = Image.new("RGB", size, (250, 0, 0))
    image.paste((0, 0, 250), (size[0] // 2, 0, *size))
    return {"image": image, "format": "JPEG", "quality": 100, "exif": exif}


def colours(image: torch.Tensor) -> str:
    """R or B at the left, the right, the top and the bottom of the middle."""
    middle, centre = image.shape[1] // 2, image.shape[2] // 2
    ends = (
        image[:, middle, 2],
        image[:, middle, -3],
        image[:, 2, centre - 3],
        image[:, -3, centre - 3],
    )
    return "".join("R" if end[0] > end[2] else "B" for end in ends)


def notes(capsys) -> list[str]:
    return [line.removeprefix("note: ") for line in capsys.readouterr().err.splitlines()]


UNSETTLED = "1 image has an EXIF orientation that the annotated size does not settle: stored pixels were taken"


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_annotations_are_about_stored_pixels_where_their_size_fits(tmp_path, capsys, orientation):
    for _ in range(2):  # decoded, and from the cache
        image = replaced(tmp_path, **turned(orientation, (40, 30))).train.image(0)
        assert colours(image) == "RBRR"  # as it is stored
        assert notes(capsys) == ([UNSETTLED] if orientation in (2, 3, 4) else [])


@pytest.mark.parametrize(("orientation", "above"), [(5, "R"), (6, "R"), (7, "B"), (8, "B")])
def test_the_orientation_is_followed_where_that_alone_fits(tmp_path, capsys, orientation, above):
    image = replaced(tmp_path, **turned(orientation, (30, 40))).train.image(0)
    assert image.shape == (3, 30, 40)
    assert colours(image)[2:] == ("RB" if above == "R" else "BR")  # what was left and right
    assert notes(capsys) == []


@pytest.mark.parametrize("orientation", [1, 3])
def test_a_size_that_fits_neither_way_is_refused(tmp_path, orientation):
    data = replaced(tmp_path, **turned(orientation, (30, 40)))
    with pytest.raises(BadRequest, match="is 30 x 40 pixels, its annotations are for 40 x 30"):
        data.train.image(0)


def test_images_of_unusual_kinds_are_converted_and_counted(tmp_path, capsys):
    write_coco(tmp_path)
    folder = tmp_path / "train2017"
    Image.fromarray(np.full((30, 40), 32768, np.uint16)).save(folder / "train-1.png")
    Image.new("RGBA", (40, 30), (0, 0, 0, 0)).save(folder / "train-2.png")
    frames = [Image.new("L", (40, 30), value) for value in (9, 200)]
    frames[0].save(folder / "train-3.png", "GIF", save_all=True, append_images=frames[1:])
    for _ in range(2):  # read, and from the cache
        data = standins.load("coco", tmp_path)
        assert [data.train.image(i).unique().tolist() for i in range(3)] == [[128], [255], [9]]
        assert notes(capsys) == [
            "1 image has more than 8 bits a channel, which were rounded to 8",
            "1 image has transparent parts, which were laid on white",
            "1 image has several frames, of which the first was taken",
        ]


def test_how_unusual_images_are_converted_is_part_of_the_hash(tmp_path, monkeypatch):
    first = replaced(tmp_path, Image.new("RGBA", (40, 30), (0, 0, 0, 0)))
    monkeypatch.setitem(decoding._REMARKS, "transparent", "holes, which were laid on black")
    shutil.move(tmp_path / "train2017", tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", tmp_path / "train2017")
    assert standins.load("coco", tmp_path).hash != first.hash


def test_a_float_image_is_refused_by_name(tmp_path):
    data = replaced(tmp_path, Image.new("F", (40, 30)), format="TIFF")
    with pytest.raises(BadRequest, match=r"train-1\.png cannot be used: its pixels are floating"):
        data.train.image(0)


def test_a_bomb_is_refused_by_name(tmp_path):
    data = replaced(tmp_path, Image.new("1", (9500, 9500)))
    with pytest.raises(BadRequest, match=r"train-1\.png cannot be used: it is 9500 x 9500 pixels"):
        data.train.image(0)


def equal_times(root: Path) -> Path:
    """The stand-in with images of one colour, files of equal sizes and equal times."""
    for path in (*root.glob("*2017/*.png"), *root.glob("annotations/*.json")):
        if path.suffix == ".png":
            value = 10 if root.name == "one" else 200
            Image.new("RGB", (40, 30), (value, value, value)).save(path, "BMP")
        os.utime(path, ns=(10**18, 10**18))
    return root


def test_folders_of_equal_names_sizes_and_times_are_told_apart(tmp_path):
    hashes = set()
    for name, value in (("one", 10), ("two", 200)):
        data = standins.load("coco", equal_times(write_coco(tmp_path / name)))
        assert data.val.image(0).unique().tolist() == [value]
        hashes.add(data.hash)
    assert len(hashes) == 2


def test_a_folder_that_another_took_the_place_of_is_seen(tmp_path):
    for name in ("one", "two"):
        equal_times(write_coco(tmp_path / name))
    first = standins.load("coco", tmp_path / "one").hash
    (tmp_path / "one").rename(tmp_path / "old")
    (tmp_path / "two").rename(tmp_path / "one")
    assert standins.load("coco", tmp_path / "one").hash != first


@pytest.mark.parametrize("kind", ["image", "annotations", "zip"])
def test_an_edit_in_place_with_restored_times_is_seen(tmp_path, kind):
    write_coco(tmp_path, zips=kind == "zip")
    first = standins.load("coco", tmp_path).hash
    path = (
        tmp_path
        / {
            "image": "val2017/val-2.png",
            "annotations": "annotations/instances_val2017.json",
            "zip": "val2017.zip",
        }[kind]
    )
    before, content = path.stat(), path.read_bytes()
    if kind == "annotations":
        content = content.replace(b"5.0", b"6.0")
    elif kind == "image":
        content = content[:-1] + b"\x83"  # of the last checksum, which nobody looks at
    else:
        edited = write_coco(tmp_path / "edited", zips=True, val=changed_names())
        content = (edited / "val2017.zip").read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino, before.st_size, before.st_mtime_ns
    )  # fmt: skip
    assert standins.load("coco", tmp_path).hash != first


def changed_names() -> dict:
    """The stand-in's annotations of val with the images in another order: the same sizes of files in another zip."""
    content = coco_content("val")
    content["images"].reverse()
    return content


def test_an_image_that_changes_after_the_data_set_was_read_is_refused(tmp_path):
    data = load(tmp_path)
    data.train.image(0)
    Image.new("RGB", (40, 30)).save(tmp_path / "train2017" / "train-1.png")
    with pytest.raises(BadRequest, match=r"train-1\.png cannot be used: it has changed since"):
        data.train.image(0)
    data.train.image(1)


@pytest.mark.parametrize("what", ["hash", "exchanged"])
def test_a_changed_cache_is_made_again(tmp_path, what):
    first = load(tmp_path / "one")
    (cached,) = (tmp_path / "home" / "coco").glob("*.json")
    if what == "hash":
        cached.write_text(cached.read_text().replace(first.hash, "0" * 64))
    else:
        load(tmp_path / "two", train=changed(0, bbox=[0, 0, 9, 9]))
        (other,) = {*(tmp_path / "home" / "coco").glob("*.json")} - {cached}
        shutil.copy(other, cached)
    again = standins.load("coco", tmp_path / "one")
    assert again.hash == first.hash
    assert again.train.annotations(1) == first.train.annotations(1)


def test_what_is_left_out_is_said_in_every_run(tmp_path, capsys):
    """Not only in the one that reads the annotations: the next finds them in the store."""
    content = coco_content()
    content["annotations"][0]["bbox"][2] = 0
    root = write_coco(tmp_path / "data", train=content)
    said = []
    for _ in range(2):
        standins.load("coco", root)
        said.append([line for line in capsys.readouterr().err.splitlines() if "left out" in line])
    assert said[0] == said[1]
    assert len(said[0]) == 1
    assert "left out 1 annotations whose box has no area" in said[0][0]
