import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torchvision.datasets import imagenet

from bench.contract import registry
from bench.errors import BadRequest, BenchError
from tasks.data import datasets, sources
from tasks.data.labelled import Split, content_hash, moments
from tests.standins import load

DATA = Path(__file__).parents[2] / "shared" / "data"
REPOSITORY = Path(__file__).parents[1]
FILES = [
    one.name for one in registry.data_sets().values() if one.form == "labels" and not one.embedded
]
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder ../shared/data")


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("the network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def pixels(count, size, channels, seed=0):
    """uint8 images [count, channels, size, size]."""
    shape = (count, channels, size, size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def flat(color, size=(300, 260)):
    """An image of one colour: it survives JPEG, resizing and cropping."""
    return Image.new("RGB", size, color)


def colors(split):
    """The colour of each image's centre, as a list of tuples."""
    middle = split.images.shape[-1] // 2
    return [tuple(image[:, middle, middle].tolist()) for image in split.images]


def close(split, expected):
    return np.abs(np.array(colors(split)) - np.array(expected)).max() <= 3


def write_tree(root, count=2, size=32, splits=("train", "test"), classes=("cat", "dog")):
    """An ImageFolder of random images; returns the pixels of train in order."""
    written = []
    for offset, part in enumerate(splits):
        for label, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index, image in enumerate(pixels(count, size, 3, seed=10 * offset + label)):
                Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{index}.png")
                written.append((part, image))
    return np.stack([image for part, image in written if part == splits[0]])


def zip_tree(root, target, *parts):
    """The files of these sub-folders of ``root`` in one zip file."""
    with zipfile.ZipFile(target, "w") as archive:
        for part in parts:
            for path in sorted((root / part).rglob("*.*")):
                archive.write(path, path.relative_to(root))


# --- digits ---------------------------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn_in_its_documented_split():
    data = load("digits")
    bunch = load_digits()
    train, val = train_test_split(
        np.arange(1797), train_size=1000, stratify=bunch.target, random_state=0
    )
    assert data.train.images.shape == (1000, 1, 8, 8)
    assert data.val.images.shape == (797, 1, 8, 8)
    assert data.train.labels.tolist() == bunch.target[train].tolist()
    expected = np.rint(bunch.images[val] * 255 / 16)
    assert np.array_equal(data.val.images[:, 0].numpy(), expected)
    assert (data.train.images.min(), data.train.images.max()) == (0, 255)
    assert data.classes == tuple("0123456789")
    shares = data.train.labels.bincount() / 1000 - torch.bincount(data.val.labels) / 797
    assert shares.abs().max() < 0.002
    assert load("digits").hash == data.hash


def test_mean_and_std_are_those_of_the_training_images():
    data = load("digits")
    images = data.train.images.double() / 255
    assert data.mean == pytest.approx((images.mean().item(),), rel=1e-12)
    assert data.std == pytest.approx((images.std(correction=0).item(),), rel=1e-12)


def test_hash_follows_pixels_labels_and_class_count():
    data = load("digits")
    train, val = data.train, data.val
    other = train.images.clone()
    other[0, 0, 0, 0] ^= 1
    hashes = {
        content_hash(train, val, 10),
        content_hash(train, val, 11),
        content_hash(Split(other, train.labels), val, 10),
        content_hash(Split(train.images, train.labels.flip(0)), val, 10),
        content_hash(val, train, 10),
    }
    assert len(hashes) == 5
    assert data.hash in hashes


def test_unknown_name():
    with pytest.raises(BadRequest, match="unknown data set 'cifar-10': did you mean 'cifar10'"):
        load("cifar-10")


def test_names():
    assert FILES == [
        "mnist", "cifar10", "cifar100", "stl10", "flowers102", "pets", "food101", "imagenet",
    ]  # fmt: skip


# --- torchvision's own files ----------------------------------------------------------------------


def write_idx(path, array, *, packed):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    if packed:
        Path(f"{path}.gz").write_bytes(gzip.compress(header + array.tobytes()))
    else:
        path.write_bytes(header + array.tobytes())


def write_mnist(root, *, packed):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 6), ("t10k", 4)):
        images = pixels(count, 28, 1, seed=count)[:, 0]
        write_idx(raw / f"{prefix}-images-idx3-ubyte", images, packed=packed)
        labels = np.arange(count, dtype=np.uint8)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", labels, packed=packed)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sub", ["", "mnist"])
def test_mnist(tmp_path, packed, sub):
    root = tmp_path / "data" / sub
    write_mnist(root, packed=packed)
    before = sorted(path.name for path in root.rglob("*"))
    data = load("mnist", tmp_path / "data")
    assert np.array_equal(data.train.images.numpy(), pixels(6, 28, 1, seed=6))
    assert np.array_equal(data.val.images.numpy(), pixels(4, 28, 1, seed=4))
    assert data.train.labels.tolist() == list(range(6))
    assert len(data.classes) == 10
    assert sorted(path.name for path in root.rglob("*")) == before


def test_mnist_partly_unpacked(tmp_path):
    write_mnist(tmp_path, packed=True)
    raw = tmp_path / "MNIST" / "raw"
    path = raw / "t10k-labels-idx1-ubyte"
    path.write_bytes(gzip.decompress(Path(f"{path}.gz").read_bytes()))
    Path(f"{path}.gz").unlink()
    assert load("mnist", tmp_path).val.labels.tolist() == [0, 1, 2, 3]


def test_damaged_mnist_names_the_file(tmp_path):
    write_mnist(tmp_path, packed=True)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadRequest, match=r"train-images-idx3-ubyte\.gz is not a readable gzip"):
        load("mnist", tmp_path)


def test_truncated_mnist_names_the_folder(tmp_path):
    write_mnist(tmp_path, packed=False)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadRequest, match=r"MNIST/raw is damaged: .*invalid for input"):
        load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "key", "meta_key"),
    [("cifar10", "labels", "label_names"), ("cifar100", "fine_labels", "fine_label_names")],
)
def test_cifar(tmp_path, monkeypatch, name, key, meta_key):
    builder = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
    builder = builder[name]
    folder = tmp_path / builder.base_folder
    folder.mkdir()
    for listed in ("train_list", "test_list"):
        sums = []
        for index, (file, _) in enumerate(getattr(builder, listed)):
            images = pixels(3, 32, 3, seed=index + 50 * (listed == "test_list"))
            content = pickle.dumps({"data": images.reshape(3, -1), key: [index, 1, 2]})
            (folder / file).write_bytes(content)
            sums.append([file, hashlib.md5(content).hexdigest()])
        monkeypatch.setattr(builder, listed, sums)
    names = [f"class {index}" for index in range(10)]
    content = pickle.dumps({meta_key: names})
    (folder / builder.meta["filename"]).write_bytes(content)
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(builder, "meta", builder.meta | {"md5": md5})

    data = load(name, tmp_path)
    batches = len(builder.train_list)
    expected = np.concatenate([pixels(3, 32, 3, seed=index) for index in range(batches)])
    assert np.array_equal(data.train.images.numpy(), expected)
    assert np.array_equal(data.val.images.numpy(), pixels(3, 32, 3, seed=50))
    assert data.train.labels.tolist() == [n for index in range(batches) for n in (index, 1, 2)]
    assert data.classes == tuple(names)


def test_stl10(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda self: True)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for part, count in (("train", 4), ("test", 2)):
        images = pixels(count, 96, 3, seed=count)
        (folder / f"{part}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())
        (folder / f"{part}_y.bin").write_bytes(bytes(range(1, count + 1)))
    data = load("stl10", tmp_path)
    assert np.array_equal(data.train.images.numpy(), pixels(4, 96, 3, seed=4))
    assert np.array_equal(data.val.images.numpy(), pixels(2, 96, 3, seed=2))
    assert data.train.labels.tolist() == [0, 1, 2, 3]
    assert len(data.classes) == 10


PALETTE = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]


def test_flowers102_trains_on_train_and_val_together(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda *args: True)
    folder = tmp_path / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for index, color in enumerate(PALETTE, 1):
        flat(color).save(folder / "jpg" / f"image_{index:05d}.jpg", quality=95)
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": [[1, 2, 102, 2, 1]]})
    ids = {"trnid": [[1, 2]], "valid": [[5, 3]], "tstid": [[4, 2]]}
    scipy.io.savemat(folder / "setid.mat", ids)
    data = load("flowers102", tmp_path)
    assert data.train.images.shape == (4, 3, 224, 224)
    assert data.train.labels.tolist() == [0, 1, 0, 101]
    assert data.val.labels.tolist() == [1, 1]
    assert close(data.train, [PALETTE[index] for index in (0, 1, 4, 2)])
    assert close(data.val, [PALETTE[3], PALETTE[1]])
    assert len(data.classes) == 102


def write_pets(root):
    folder = root / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    names = ["Abyssinian_1", "Abyssinian_2", "great_pyrenees_1", "great_pyrenees_2"]
    for name, color in zip(names, PALETTE, strict=False):
        flat(color).save(folder / "images" / f"{name}.jpg", quality=95)
    lines = [f"{name} {1 + index // 2} 1 1\n" for index, name in enumerate(names)]
    (folder / "annotations" / "trainval.txt").write_text(lines[0] + lines[2])
    (folder / "annotations" / "test.txt").write_text(lines[3] + lines[1])
    return folder


def test_pets(tmp_path):
    write_pets(tmp_path)
    data = load("pets", tmp_path)
    assert data.train.labels.tolist() == [0, 1]
    assert data.val.labels.tolist() == [1, 0]
    assert data.classes == ("Abyssinian", "Great Pyrenees")
    assert close(data.train, [PALETTE[0], PALETTE[2]])
    assert close(data.val, [PALETTE[3], PALETTE[1]])


def test_missing_and_damaged_files_are_named(tmp_path):
    image = write_pets(tmp_path) / "images" / "great_pyrenees_2.jpg"
    image.write_bytes(image.read_bytes()[:400])
    with pytest.raises(BadRequest, match=r"great_pyrenees_2\.jpg is not a readable image"):
        load("pets", tmp_path)
    image.unlink()
    with pytest.raises(BadRequest, match=r"great_pyrenees_2\.jpg is not .*No such file"):
        load("pets", tmp_path)


def test_splits_of_torchvision_with_different_classes(tmp_path):
    folder = write_pets(tmp_path)
    (folder / "annotations" / "test.txt").write_text("Abyssinian_1 1 1 1\n")
    with pytest.raises(BadRequest, match="oxford-iiit-pet have different classes"):
        load("pets", tmp_path)


def test_food101(tmp_path):
    folder = tmp_path / "food-101"
    (folder / "meta").mkdir(parents=True)
    names = ["waffles/1", "waffles/2", "apple_pie/3", "apple_pie/4"]
    for name, color in zip(names, PALETTE, strict=False):
        path = folder / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        flat(color, size=(512, 384)).save(path, quality=95)
    listed = {"waffles": names[:1], "apple_pie": names[2:3]}
    (folder / "meta" / "train.json").write_text(json.dumps(listed))
    listed = {"waffles": names[1:2], "apple_pie": names[3:]}
    (folder / "meta" / "test.json").write_text(json.dumps(listed))
    data = load("food101", tmp_path)
    assert data.classes == ("apple_pie", "waffles")
    assert data.train.labels.tolist() == [1, 0]
    assert close(data.train, [PALETTE[0], PALETTE[2]])
    assert close(data.val, [PALETTE[1], PALETTE[3]])


WNIDS = {"n01440764": ("tench",), "n01443537": ("goldfish",)}


def check_imagenet(data):
    assert data.classes == tuple(WNIDS)
    assert data.train.labels.tolist() == [0, 1]
    assert data.val.labels.tolist() == [0, 1]
    assert close(data.train, PALETTE[:2])
    assert close(data.val, [PALETTE[3], PALETTE[2]])


def test_imagenet_unpacked_by_torchvision(tmp_path):
    torch.save((WNIDS, []), tmp_path / "meta.bin")
    images = iter((PALETTE[0], PALETTE[1], PALETTE[3], PALETTE[2]))
    for part in ("train", "val"):
        for wnid in WNIDS:
            (tmp_path / part / wnid).mkdir(parents=True)
            flat(next(images)).save(tmp_path / part / wnid / f"{wnid}_1.JPEG", quality=95)
    check_imagenet(load("imagenet", tmp_path))


def add_to_tar(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def jpeg(color):
    buffer = io.BytesIO()
    flat(color).save(buffer, "jpeg", quality=95)
    return buffer.getvalue()


def test_imagenet_archives(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "_verify_archive", lambda *args: None)
    root = tmp_path / "imagenet"
    root.mkdir()
    first, second = WNIDS
    torch.save((WNIDS, [second, first]), root / "meta.bin")  # as unpacked from the devkit
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as archive:
        for wnid, color in zip(WNIDS, PALETTE, strict=False):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as images:
                add_to_tar(images, f"{wnid}_1.JPEG", jpeg(color))
            add_to_tar(archive, f"{wnid}.tar", inner.getvalue())
    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as archive:
        add_to_tar(archive, "ILSVRC2012_val_00000001.JPEG", jpeg(PALETTE[2]))
        add_to_tar(archive, "ILSVRC2012_val_00000002.JPEG", jpeg(PALETTE[3]))
    check_imagenet(load("imagenet", tmp_path))


def test_imagenet_archives_without_the_devkit(tmp_path):
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(b"")
    with pytest.raises(BenchError, match=r"cannot be unpacked: .*ILSVRC2012_devkit_t12\.tar\.gz"):
        load("imagenet", tmp_path)


# --- ImageFolder ----------------------------------------------------------------------------------


@pytest.mark.parametrize("val", ["test", "val"])
def test_folders(tmp_path, val):
    expected = write_tree(tmp_path / "cifar10", splits=("train", val))
    (tmp_path / "cifar10" / "train" / "notes.txt").write_text("not an image")
    (tmp_path / "cifar10" / "train" / "cat" / ".hidden.png").write_text("not an image")
    data = load("cifar10", tmp_path)
    assert np.array_equal(data.train.images.numpy(), expected)
    assert data.train.labels.tolist() == data.val.labels.tolist() == [0, 0, 1, 1]
    assert data.classes == ("cat", "dog")
    assert data.mean == pytest.approx(tuple((expected / 255).mean((0, 2, 3))))
    assert data.std == pytest.approx(tuple((expected / 255).std((0, 2, 3))))


def test_test_is_read_where_val_is_there_too(tmp_path):
    write_tree(tmp_path, splits=("train", "test", "val"))
    both = load("cifar10", tmp_path)
    shutil.rmtree(tmp_path / "val")
    assert load("cifar10", tmp_path).hash == both.hash


def test_unlabelled_test_images_are_passed_over(tmp_path):
    write_tree(tmp_path, splits=("train", "val"))
    (tmp_path / "test").mkdir()
    shutil.copy(tmp_path / "val" / "cat" / "0.png", tmp_path / "test" / "0.png")
    assert len(load("cifar10", tmp_path).val.labels) == 4


def test_folders_and_zips_have_the_same_hash(tmp_path):
    write_tree(tmp_path / "tree")
    plain = load("cifar100", tmp_path / "tree")
    (tmp_path / "zips").mkdir()
    zip_tree(tmp_path / "tree", tmp_path / "zips" / "a.zip", "train/cat", "test/dog")
    zip_tree(tmp_path / "tree", tmp_path / "zips" / "b.zip", "train/dog", "test/cat")
    with zipfile.ZipFile(tmp_path / "zips" / "other.zip", "w") as archive:
        archive.writestr("unrelated.txt", "")
    zipped = load("cifar100", tmp_path / "zips")
    (tmp_path / "wrapped").mkdir()
    zip_tree(tmp_path, tmp_path / "wrapped" / "tree.zip", "tree")
    wrapped = load("cifar100", tmp_path / "wrapped")
    assert plain.hash == zipped.hash == wrapped.hash
    assert plain.classes == zipped.classes == wrapped.classes
    assert not list((tmp_path / "zips").glob("*/"))  # nothing was unpacked


def test_zip_entries_are_never_written(tmp_path):
    write_tree(tmp_path / "tree")
    (tmp_path / "zips").mkdir()
    zip_tree(tmp_path / "tree", tmp_path / "zips" / "a.zip", "train", "test")
    with zipfile.ZipFile(tmp_path / "zips" / "a.zip", "a") as archive:
        image = (tmp_path / "tree" / "train" / "cat" / "0.png").read_bytes()
        archive.writestr("../../train/cat/evil.png", image)
    assert len(load("cifar10", tmp_path / "zips").train.labels) == 5
    assert not list(tmp_path.rglob("evil.png"))


# --- which files are images, and what is said -----------------------------------------------------


def said(capsys):
    """The notes on standard error since the last call."""
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix("note: ") for line in lines if "classes in these files" not in line]


def zipped(root):
    """The same tree in a zip file."""
    target = root.parent / "zips"
    target.mkdir()
    shutil.make_archive(str(target / "all"), "zip", root)
    return target


LOSSLESS = {
    "png": "PNG", "PNG": "PNG", "apng": "PNG", "gif": "GIF", "Gif": "GIF", "bmp": "BMP", "dib": "DIB",
    "tif": "TIFF", "tiff": "TIFF", "pgm": "PPM", "pnm": "PPM", "jp2": "JPEG2000", "J2K": "JPEG2000",
    "tga": "TGA", "pcx": "PCX", "ico": "ICO", "webp": "WEBP",
}  # fmt: skip


@pytest.mark.parametrize("ends", ["jpg", "jpeg", "jpe", "jfif", "JFIF", "JPEG", *LOSSLESS])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_every_usual_extension_is_that_of_an_image(tmp_path, capsys, ends, packed):
    root = tmp_path / "tree"
    write_tree(root, count=1)
    grey = Image.fromarray(np.full((32, 32), 96, np.uint8))
    options = {"lossless": True} if ends == "webp" else {}
    name = LOSSLESS.get(ends, "JPEG")
    grey.save(root / "train" / "cat" / f"zz.{ends}", name, **options)
    data = load("cifar10", zipped(root) if packed else root)
    assert data.train.labels.tolist() == [0, 0, 1]
    assert (data.train.images[1].int() - 96).abs().max() <= 1
    assert said(capsys) == []


def write_strange(root):
    """A tree with files that are no images by name: 5 of classes, 3 beside them, and metadata."""
    write_tree(root)
    for name in ("train/cat/a.txt", "train/cat/b.TXT", "test/dog/c.txt", "test/cat/Thumbs.db"):
        (root / name).write_text("")
    shutil.copy(root / "train" / "cat" / "0.png", root / "train" / "dog" / "picture")  # an image
    for name in ("train/labels.csv", "train/x.csv", "test/0.png"):
        (root / name).write_text("")
    hidden = ("train/.DS_Store", "train/cat/.x.png", "train/.git/a.png", "train/dog/.t/a.png")
    for name in (*hidden, "train/__MACOSX/cat/a.png", "train/cat/__MACOSX/a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


STRANGE = [
    "left out 5 files of classes that are no images by name: 3 .txt, 1 .db, 1 without an extension",
    "left out 2 files directly in train/, where no class is known: 2 .csv",
    "left out 1 file directly in test/, where no class is known: 1 .png",
]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_what_is_left_out_is_counted_and_said_in_every_run(tmp_path, capsys, packed):
    root = tmp_path / "tree"
    write_strange(root)
    root = zipped(root) if packed else root
    first = load("cifar10", root)
    assert said(capsys) == STRANGE
    assert list(first.notes) == STRANGE
    assert first.train.labels.tolist() == [0, 0, 1, 1]
    same(load("cifar10", root), first)
    assert said(capsys) == STRANGE


def test_odd_names_are_names(tmp_path, capsys):
    write_tree(tmp_path)
    for name in ("a b.png", "new\nline.png", "#1.PNG", "ü.png", "x.tar.png", "train"):
        shutil.copy(tmp_path / "train" / "cat" / "0.png", tmp_path / "train" / "cat" / name)
    assert load("cifar10", tmp_path).train.labels.tolist() == [0] * 7 + [1] * 2
    assert "left out 1 file" in said(capsys)[0]


def test_many_kinds_of_files_are_one_short_line(tmp_path, capsys):
    write_tree(tmp_path)
    for number in range(40):
        (tmp_path / "train" / "cat" / f"a.{number:03}").write_text("")
    load("cifar10", tmp_path)
    (note,) = said(capsys)
    assert "left out 40 files" in note
    assert note.endswith("1 .000, 1 .001, 1 .002, 1 .003, 1 .004, 35 others")


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_third_split_is_left_out_and_said(tmp_path, capsys, packed):
    root = tmp_path / "tree"
    write_tree(root, splits=("train", "test", "val"))
    load("cifar10", zipped(root) if packed else root)
    assert said(capsys) == ["left out val/ with its 4 images, because test/ is there too"]


def test_unlabelled_test_images_are_counted(tmp_path, capsys):
    write_tree(tmp_path, splits=("train", "val"))
    (tmp_path / "test").mkdir()
    shutil.copy(tmp_path / "val" / "cat" / "0.png", tmp_path / "test" / "0.png")
    load("cifar10", tmp_path)
    assert said(capsys) == ["left out 1 file directly in test/, where no class is known: 1 .png"]


def test_a_class_without_images_says_what_was_left_out(tmp_path):
    write_tree(tmp_path)
    for path in (tmp_path / "train" / "cat").iterdir():
        path.rename(path.with_suffix(".heic"))
    message = refused("cifar10", tmp_path)
    assert "class 'cat' has no images in train" in message
    assert message.endswith("left out 2 files of classes that are no images by name: 2 .heic")


def test_nothing_is_said_where_nothing_is_left_out(tmp_path, capsys):
    write_tree(tmp_path)
    assert load("cifar10", tmp_path).notes == ()
    assert said(capsys) == []


# --- how images become pixels ---------------------------------------------------------------------


def odd_images(folder):
    """Six images of three kinds: two half transparent, one of 16 bits, three with several frames."""
    half = np.zeros((32, 32, 4), np.uint8)
    half[16:, :, 3] = 255
    for name in ("a", "b"):
        Image.fromarray(half).save(folder / f"{name}.png")
    Image.fromarray(np.full((32, 32), 32768, np.uint16)).save(folder / "c.png")
    frames = [Image.new("L", (32, 32), value) for value in (40, 200)]
    for name in ("d.gif", "e.webp", "f.tiff"):
        options = {"lossless": True} if name == "e.webp" else {}
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], **options)


ODD = [
    "1 image has more than 8 bits a channel, which were rounded to 8",
    "2 images have transparent parts, which were laid on white",
    "3 images have several frames, of which the first was taken",
]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_what_is_not_taken_as_it_stands_is_counted_and_said_in_every_run(tmp_path, capsys, packed):
    root = tmp_path / "tree"
    write_tree(root)
    odd_images(root / "train" / "cat")
    root = zipped(root) if packed else root
    first = load("cifar10", root)
    assert said(capsys) == ODD
    odd = first.train.images[2:8]
    assert odd[0, :, :16].unique().tolist() == [255]
    assert odd[0, :, 16:].unique().tolist() == [0]
    assert [image.unique().tolist() for image in odd[2:]] == [[128], [40], [40], [40]]
    same(load("cifar10", root), first)
    assert said(capsys) == ODD


def test_16_bits_of_grey_in_a_grey_data_set(tmp_path):
    write_tree(tmp_path, size=28)
    ramp = np.linspace(0, 65535, 28 * 28).round().astype(np.uint16).reshape(28, 28)
    Image.fromarray(ramp).save(tmp_path / "train" / "cat" / "0.png")
    image = load("mnist", tmp_path).train.images[0, 0].numpy()
    assert np.array_equal(image, np.rint(ramp / 257))


def test_photographs_are_turned_upright(tmp_path):
    write_tree(tmp_path)
    exif = Image.Exif()
    exif[0x112] = 6
    stored = Image.new("RGB", (64, 32), (250, 0, 0))
    stored.paste((0, 0, 250), (32, 0, 64, 32))  # red at the left, blue at the right
    stored.save(tmp_path / "train" / "cat" / "0.jpg", exif=exif, quality=100)
    image = load("cifar10", tmp_path).train.images[0].int()
    assert image[:, 2, 16].tolist() == pytest.approx([250, 0, 0], abs=9)  # now red is above
    assert image[:, 29, 16].tolist() == pytest.approx([0, 0, 250], abs=9)


def test_torchvisions_photographs_are_read_by_the_same_rules(tmp_path, capsys):
    folder = write_pets(tmp_path)
    exif = Image.Exif()
    exif[0x112] = 8
    stored = Image.new("RGB", (300, 300), (250, 0, 0))
    stored.paste((0, 0, 250), (150, 0, 300, 300))
    stored.save(folder / "images" / "Abyssinian_1.jpg", exif=exif, quality=100)
    clear = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    clear.save(folder / "images" / "great_pyrenees_1.jpg", "PNG")  # as some of them are
    data = load("pets", tmp_path)
    assert data.train.images[0, :, 10, 112].tolist() == pytest.approx([0, 0, 250], abs=9)
    assert data.train.images[0, :, 210, 112].tolist() == pytest.approx([250, 0, 0], abs=9)
    assert data.train.images[1].unique().tolist() == [255]
    assert data.train.labels.tolist() == [0, 1]
    assert said(capsys) == ["1 image has transparent parts, which were laid on white"]


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (2, 201)])
@pytest.mark.parametrize("name", ["mnist", "cifar10", "pets"])
def test_images_whose_sides_are_too_different_are_refused(tmp_path, size, name):
    write_tree(tmp_path)
    Image.new("RGB", size).save(tmp_path / "train" / "cat" / "x.png")
    message = refused(name, tmp_path)
    assert f"x.png cannot be used: it is {size[0]} x {size[1]} pixels" in message
    assert "at most 100 times the other" in message


def test_images_whose_sides_are_just_not_too_different_are_used(tmp_path):
    write_tree(tmp_path)
    Image.new("RGB", (2, 200)).save(tmp_path / "train" / "cat" / "x.png")
    assert len(load("cifar10", tmp_path).train.labels) == 5


def test_a_refused_image_is_named(tmp_path):
    write_tree(tmp_path)
    Image.new("F", (32, 32)).save(tmp_path / "train" / "cat" / "x.tiff")
    message = refused("cifar10", tmp_path)
    assert (
        f"{tmp_path / 'train' / 'cat' / 'x.tiff'} cannot be used: its pixels are float" in message
    )
    assert "save it with 8 bits a channel" in message


def test_a_bomb_is_refused_before_it_takes_memory(tmp_path):
    write_tree(tmp_path)
    path = tmp_path / "train" / "cat" / "x.png"
    Image.new("1", (9500, 9500)).save(path)
    assert path.stat().st_size < 100_000
    assert "x.png cannot be used: it is 9500 x 9500 pixels" in refused("cifar10", tmp_path)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_file_that_is_too_large_for_an_image_is_refused_unread(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(sources, "_BYTES", 10_000)
    root = tmp_path / "tree"
    write_tree(root)
    with (root / "train" / "cat" / "x.png").open("wb") as file:
        file.truncate(10_001)
    message = refused("cifar10", zipped(root) if packed else root)
    assert "cannot be used: it has 10,001 bytes, expected at most 10,000" in message


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mnist", (1, 28, 28)), ("stl10", (3, 96, 96)), ("pets", (3, 224, 224))],
)
def test_other_sizes_and_modes_become_the_data_sets(tmp_path, name, shape):
    write_tree(tmp_path, size=50, count=1)
    image = tmp_path / "train" / "cat" / "0.png"
    flat((90, 90, 90), size=(70, 40)).quantize().save(image)
    assert load(name, tmp_path).train.images.shape == (2, *shape)
    assert (load(name, tmp_path).train.images[0] == 90).all()


def test_large_images_are_resized_to_256_and_cropped_to_224(tmp_path):
    from torchvision import transforms

    write_tree(tmp_path, size=300, count=1)
    usual = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()]
    )
    expected = usual(Image.open(tmp_path / "train" / "cat" / "0.png"))
    assert torch.equal(load("food101", tmp_path).train.images[0], expected)


# --- what is wrong with it ------------------------------------------------------------------------


def refused(name, root):
    """The message of the refusal: one line."""
    with pytest.raises(BadRequest) as caught:
        load(name, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_corrupt_image_in_a_folder(tmp_path):
    write_tree(tmp_path)
    bad = tmp_path / "test" / "dog" / "1.png"
    bad.write_bytes(b"no image")
    assert f"{bad} is not a readable image: no image format" in refused("cifar10", tmp_path)
    assert not list((tmp_path / "home").rglob("meta.json"))


def test_corrupt_image_in_a_zip(tmp_path):
    write_tree(tmp_path / "tree")
    image = tmp_path / "tree" / "test" / "dog" / "1.png"
    image.write_bytes(image.read_bytes()[:100])
    zip_tree(tmp_path / "tree", tmp_path / "all.zip", "train", "test")
    message = refused("cifar10", tmp_path)
    assert f"'test/dog/1.png' in {tmp_path / 'all.zip'} is not a readable image" in message


def test_damaged_zip(tmp_path):
    write_tree(tmp_path / "tree")
    zip_tree(tmp_path / "tree", tmp_path / "all.zip", "train", "test")
    whole = (tmp_path / "all.zip").read_bytes()
    (tmp_path / "all.zip").write_bytes(whole[:-50])
    assert "all.zip is not a readable zip file" in refused("cifar10", tmp_path)
    (tmp_path / "all.zip").write_bytes(whole[:60] + bytes(60) + whole[120:])
    assert "'train/cat/0.png' in" in refused("cifar10", tmp_path)


def test_the_same_file_in_two_zips(tmp_path):
    write_tree(tmp_path / "tree")
    zip_tree(tmp_path / "tree", tmp_path / "a.zip", "train", "test")
    shutil.copy(tmp_path / "a.zip", tmp_path / "b.zip")
    assert "b.zip has 'train/cat/0.png', and so has" in refused("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ("train", "no images in 'train' of"),
        ("test", "no images in 'test' or 'val' of"),
        ("train/dog", "class 'dog' has no images in train of"),
        ("test/cat", "class 'cat' has no images in the test split of"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kept", [False, True], ids=["removed", "emptied"])
def test_empty_splits_and_classes(tmp_path, gone, expected, zipped, kept):
    root = tmp_path / "tree"
    write_tree(root)
    shutil.rmtree(root / gone)
    (root / gone.split("/")[0]).mkdir(exist_ok=True)
    if kept:
        (root / gone).mkdir(exist_ok=True)
    if zipped:
        root = tmp_path / "zips"
        root.mkdir()
        shutil.make_archive(str(root / "all"), "zip", tmp_path / "tree")
    message = refused("cifar10", root)
    assert expected in message
    assert str(root) in message


def test_train_without_test(tmp_path, offline):
    write_tree(tmp_path, splits=("train",))
    message = refused("cifar10", tmp_path)
    assert message == f"{tmp_path} has a folder 'train' but no folder 'test' or 'val' beside it"


def test_broken_link(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "train" / "cat" / "9.png").symlink_to(tmp_path / "nowhere")
    assert "train/cat/9.png cannot be read: No such file" in refused("cifar10", tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_no_data_and_no_network(tmp_path, offline, capfd, name):
    with pytest.raises(BenchError) as caught:
        load(name, tmp_path / "data")
    message = str(caught.value)
    title = registry.data_set(name, "labels").options["title"]
    reason = "it needs an account" if name == "imagenet" else "the network is unreachable"
    assert f"no complete {title} in {tmp_path / 'data' / name}" in message
    assert f"the download of {title} failed: {reason}" in message
    assert "train/<class>/*" in message
    assert "--data-dir" in message
    assert "\n" not in message
    assert capfd.readouterr().out == ""


def test_incomplete_files_of_torchvision(tmp_path, offline):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half")
    with pytest.raises(BenchError, match=r"no complete CIFAR-10 in .*failed: the network"):
        load("cifar10", tmp_path)


def test_default_folder_and_download(tmp_path, monkeypatch, capfd):
    class Source(torchvision.datasets.MNIST):
        def __init__(self, root, train, download=False):
            if download:
                print("Downloading")
                write_mnist(Path(root), packed=False) if train else None
            super().__init__(root, train)

        raw_folder = property(lambda self: os.path.join(self.root, "MNIST", "raw"))

    monkeypatch.setattr(torchvision.datasets, "MNIST", Source)
    assert len(load("mnist").train.labels) == 6
    assert (tmp_path / "home" / "data" / "mnist" / "MNIST" / "raw").is_dir()
    output = capfd.readouterr()
    assert output.out == ""
    assert "Downloading" in output.err


# --- the cache ------------------------------------------------------------------------------------


@pytest.fixture
def forbid(monkeypatch):
    """Make decoding and downloading fail."""

    def fail(*args, **kwargs):
        raise AssertionError("called")

    def switch():
        monkeypatch.setattr(datasets, "_decode_image", fail)
        monkeypatch.setattr(datasets, "download", fail)

    return switch


def same(first, second):
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.val.labels, second.val.labels)
    fields = ("name", "classes", "mean", "std", "hash")
    assert [getattr(first, key) for key in fields] == [getattr(second, key) for key in fields]


def test_second_load_comes_from_the_cache(tmp_path, forbid):
    write_tree(tmp_path)
    first = load("cifar10", tmp_path)
    forbid()
    same(load("cifar10", tmp_path), first)


@pytest.mark.filterwarnings("error")
def test_large_arrays_are_mapped_and_writes_stay_private(tmp_path):
    write_tree(tmp_path)
    first = load("cifar10", tmp_path)
    mapped = load("cifar10", tmp_path, in_memory=0)
    same(mapped, first)
    mapped.train.images.zero_()
    same(load("cifar10", tmp_path), first)


def test_changed_files_are_decoded_again(tmp_path):
    write_tree(tmp_path)
    first = load("cifar10", tmp_path)
    flat((1, 2, 3), size=(32, 32)).save(tmp_path / "train" / "cat" / "0.png")
    assert load("cifar10", tmp_path).hash != first.hash


def restore_times(path, before):
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def write_flat(root, value):
    """A tree of images of one colour whose files all have the same size and the same times."""
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            path = root / part / name / "0.bmp"
            Image.new("RGB", (32, 32), (value, value, value)).save(path)
            os.utime(path, ns=(10**18, 10**18))
    return root


def test_folders_of_equal_names_sizes_and_times_are_told_apart(tmp_path):
    for value in (10, 200):
        data = load("cifar10", write_flat(tmp_path / str(value), value))
        assert data.train.images.unique().tolist() == [value]


def test_a_source_is_known_by_its_folder_and_all_that_the_system_says_of_its_files(tmp_path):
    root = write_flat(tmp_path / "data", 10)
    (tmp_path / "link").symlink_to(root)
    declared = registry.data_set("cifar10", "labels")
    cifar10 = sources.Spec(declared, **declared.options)
    folder, files = sources.find(cifar10, tmp_path / "link").identity()
    assert folder == str(root.resolve())
    assert len(files) == 4
    for file in files:
        now = (root / file.name).stat()
        assert tuple(file)[1:] == (
            now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns
        )  # fmt: skip


def test_an_edit_in_place_with_restored_times_is_seen(tmp_path):
    root = write_flat(tmp_path / "data", 10)
    first = load("cifar10", root)
    path = root / "train" / "cat" / "0.bmp"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] = 11
    with path.open("r+b") as file:
        file.write(content)
    restore_times(path, before)
    assert path.stat().st_ino == before.st_ino
    second = load("cifar10", root)
    assert second.train.images.unique().tolist() == [10, 11]
    assert second.hash != first.hash


def test_a_folder_that_another_took_the_place_of_is_seen(tmp_path):
    root = write_flat(tmp_path / "data", 10)
    other = write_flat(tmp_path / "other", 200)
    assert load("cifar10", root).train.images.unique().tolist() == [10]
    root.rename(tmp_path / "old")
    other.rename(root)
    assert load("cifar10", root).train.images.unique().tolist() == [200]


def test_a_zip_file_that_was_replaced_is_seen(tmp_path):
    for value in (10, 200):
        write_flat(tmp_path / str(value), value)
        shutil.make_archive(str(tmp_path / f"zip{value}"), "zip", tmp_path / str(value))
        os.utime(tmp_path / f"zip{value}.zip", ns=(10**18, 10**18))
    (tmp_path / "data").mkdir()
    target = tmp_path / "data" / "all.zip"
    sizes = {(tmp_path / f"zip{value}.zip").stat().st_size for value in (10, 200)}
    for value in (10, 200):
        (tmp_path / f"zip{value}.zip").replace(target)
        data = load("cifar10", tmp_path / "data")
        assert data.train.images.unique().tolist() == [value]
    assert len(sizes) == 1


def test_torchvisions_files_that_were_replaced_are_seen(tmp_path):
    write_mnist(tmp_path, packed=False)
    first = load("mnist", tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    restore_times(path, before)
    second = load("mnist", tmp_path)
    assert second.hash != first.hash
    assert (second.train.images != first.train.images).sum() == 1


def test_the_same_folder_by_another_way_is_the_same(tmp_path, monkeypatch, forbid):
    root = write_flat(tmp_path / "data", 10)
    first = load("cifar10", root)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    forbid()
    same(load("cifar10", tmp_path / "link"), first)
    same(load("cifar10", Path("data")), first)


def test_what_another_version_of_pillow_decoded_is_not_taken(tmp_path, monkeypatch, forbid):
    root = write_flat(tmp_path / "data", 10)
    load("cifar10", root)
    forbid()
    monkeypatch.setattr("PIL.__version__", "0.0")
    with pytest.raises(AssertionError, match="called"):
        load("cifar10", root)


def cache_of(home, value, root, **options):
    """The cache's folder of a data set of this one colour."""
    before = set((home / "decoded").glob("cifar10-*"))
    load("cifar10", write_flat(root / str(value), value), **options)
    (made,) = {*(home / "decoded").glob("cifar10-*")} - before
    return made


@pytest.mark.parametrize("limit", [0, 2 << 30], ids=["mapped", "read"])
@pytest.mark.parametrize("exchanged", ["train-images.npy", "meta.json", "all"])
def test_arrays_of_another_data_set_are_noticed(tmp_path, limit, exchanged):
    one, two = (
        cache_of(tmp_path / "home", value, tmp_path, in_memory=limit) for value in (10, 200)
    )
    for path in two.glob("*.npy") if exchanged == "all" else ():
        shutil.copy(path, one / path.name)
    name = "meta.json" if exchanged == "all" else exchanged
    shutil.copy(two / name, one / name)
    data = load("cifar10", tmp_path / "10", in_memory=limit)
    assert data.train.images.unique().tolist() == [10]


@pytest.mark.parametrize("limit", [0, 2 << 30], ids=["mapped", "read"])
def test_one_wrong_pixel_in_the_cache_is_noticed(tmp_path, limit):
    folder = cache_of(tmp_path / "home", 10, tmp_path, in_memory=limit)
    path = folder / "train-images.npy"
    before = path.stat()
    time.sleep(0.05)  # the clock of a file system is coarse
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x63")
    restore_times(path, before)
    data = load("cifar10", tmp_path / "10", in_memory=limit)
    assert data.train.images.unique().tolist() == [10]


def test_a_changed_hash_in_the_cache_is_noticed(tmp_path):
    folder = cache_of(tmp_path / "home", 10, tmp_path)
    expected = load("cifar10", tmp_path / "10").hash
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["hash"] == expected
    (folder / "meta.json").write_text(json.dumps({**meta, "hash": "f" * 64}))
    assert load("cifar10", tmp_path / "10").hash == expected


def test_damaged_cache_is_made_again(tmp_path):
    write_tree(tmp_path)
    first = load("cifar10", tmp_path)
    for pattern in ("train-images.npy", "val-labels.npy", "meta.json"):
        (path,) = (tmp_path / "home" / "decoded").rglob(pattern)
        path.write_bytes(path.read_bytes()[:-20])
        same(load("cifar10", tmp_path), first)


def test_more_images_than_a_block_keep_their_order(tmp_path):
    expected = write_tree(tmp_path, count=7)
    data = load("cifar10", tmp_path, block=3)
    assert np.array_equal(data.train.images.numpy(), expected)
    assert data.mean == pytest.approx(tuple((expected / 255).mean((0, 2, 3))))
    assert content_hash(data.train, data.val, 2, block=3) == data.hash
    assert moments(data.train.images, block=3) == (data.mean, data.std)


def test_a_failure_in_the_middle_leaves_no_half_cache(tmp_path, monkeypatch):
    write_tree(tmp_path)
    whole = datasets._decode_image

    def interrupt(images, index, spec):
        if index == 3:
            raise KeyboardInterrupt
        return whole(images, index, spec)

    monkeypatch.setattr(datasets, "_decode_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("cifar10", tmp_path)
    left = [path.name for path in (tmp_path / "home" / "decoded").rglob("*") if path.is_file()]
    assert left == ["meta.json.lock"]
    monkeypatch.setattr(datasets, "_decode_image", whole)
    assert len(load("cifar10", tmp_path).train.labels) == 4


STALL = """
import sys, time
from pathlib import Path
from tasks.data import datasets
from tests.standins import load
whole = datasets._decode_image
def stall(images, index, spec):
    if index == 3:
        time.sleep(60)
    return whole(images, index, spec)
datasets._decode_image = stall
load("cifar10", Path(sys.argv[1]), block=1)
"""


def test_a_killed_run_is_cleaned_up_by_the_next(tmp_path):
    expected = write_tree(tmp_path)
    decoded = tmp_path / "home" / "decoded"
    process = subprocess.Popen([sys.executable, "-c", STALL, str(tmp_path)], cwd=REPOSITORY)
    until = time.monotonic() + 60
    while not list(decoded.rglob(".*.npy.*")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(decoded.rglob(".*.npy.*"))
    assert not list(decoded.rglob("meta.json"))
    assert np.array_equal(load("cifar10", tmp_path).train.images.numpy(), expected)
    assert not list(decoded.rglob(".*.npy.*"))


# --- real data ------------------------------------------------------------------------------------


@real_data
def test_real_mnist():
    data = load("mnist", DATA)
    assert data.train.images.shape == (60000, 1, 28, 28)
    assert data.val.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.mean == pytest.approx((0.1307,), abs=1e-4)
    assert data.std == pytest.approx((0.3081,), abs=1e-4)


@real_data
def test_some_real_cifar10(tmp_path):
    with (
        zipfile.ZipFile(DATA / "cifar10" / "test.zip") as source,
        zipfile.ZipFile(tmp_path / "some.zip", "w") as target,
    ):
        for name in source.namelist()[::20]:
            target.writestr(name, source.read(name))
            target.writestr(name.replace("test/", "train/", 1), source.read(name))
    data = load("cifar10", tmp_path)
    assert data.val.images.shape == (500, 3, 32, 32)
    assert data.val.labels.bincount().tolist() == [50] * 10
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert data.mean == pytest.approx((0.491, 0.482, 0.447), abs=0.02)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_that_may_unpack_to_anything_at_once_is_refused(tmp_path, method):
    write_tree(tmp_path / "tree")
    target = tmp_path / "zips" / "all.zip"
    target.parent.mkdir()
    with zipfile.ZipFile(target, "w", method) as archive:
        for file in (tmp_path / "tree").rglob("*.png"):
            archive.write(file, file.relative_to(tmp_path / "tree"))
    assert "expected 0 or 8" in refused("cifar10", target.parent)


def test_pipes_among_the_files_are_not_waited_for(tmp_path):
    write_tree(tmp_path / "tree")
    os.mkfifo(tmp_path / "tree" / "train" / "cat" / "x.png")
    assert "it is no regular file" in refused("cifar10", tmp_path / "tree")
    os.mkfifo(tmp_path / "all.zip")
    assert "is no regular file" in refused("cifar10", tmp_path)


def test_a_gzip_file_that_unpacks_to_more_than_the_data_set_has_is_refused(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(BadRequest, match="unpacks to more than 1,000 bytes"):
        sources._gunzip(path, tmp_path / "a", 1000)
