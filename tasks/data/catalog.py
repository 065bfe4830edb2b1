"""The suite's data sets. Imports nothing heavy: ``bench list`` reads it."""

from collections.abc import Mapping
from typing import Any

from bench.contract.declarations import DataSet

_PHOTOS = {"augment": "crop-flip"}
_BY_TRAIN = {"train": ({"train": True},), "val": ({"train": False},)}  # torchvision's arguments


def _files(name: str, about: str, *, sizes: tuple[int, int, int, int], **facts: Any) -> DataSet:
    """Declare photos in files: ``sizes`` are classes, the images' side, training and validation images."""
    classes, size, train, val = sizes
    usual: Mapping[str, Any] = {"channels": 3, "settings": _PHOTOS}
    return DataSet(
        name=name,
        target="tasks.data.datasets:load",
        about=about,
        form="labels",
        classes=classes,
        size=size,
        train=train,
        val=val,
        **{**usual, **facts},
    )


_LABELLED = (
    DataSet(
        name="digits",
        target="tasks.data.digits:load",
        about="handwritten digits of scikit-learn, 8 x 8 grey, 10 classes; embedded, no download",
        form="labels",
        classes=10,
        channels=1,
        size=8,
        train=1_000,
        val=797,
        embedded=True,
        settings={"arch": "convnet3", "epochs": 2, "batch_size": 25},
    ),
    _files(
        "mnist",
        "MNIST, 28 x 28 grey, 10 classes",
        sizes=(10, 28, 60_000, 10_000),
        channels=1,
        options={"title": "MNIST", "builder": "MNIST", "folder": "MNIST/raw", **_BY_TRAIN},
        settings={"epochs": 3},
    ),
    _files(
        "cifar10",
        "CIFAR-10, 32 x 32 colour, 10 classes",
        sizes=(10, 32, 50_000, 10_000),
        options={
            "title": "CIFAR-10",
            "builder": "CIFAR10",
            "folder": "cifar-10-batches-py",
            **_BY_TRAIN,
        },
    ),
    _files(
        "cifar100",
        "CIFAR-100, 32 x 32 colour, 100 classes",
        sizes=(100, 32, 50_000, 10_000),
        options={
            "title": "CIFAR-100",
            "builder": "CIFAR100",
            "folder": "cifar-100-python",
            **_BY_TRAIN,
        },
    ),
    _files(
        "stl10",
        "STL-10, 96 x 96 colour, 10 classes",
        sizes=(10, 96, 5_000, 8_000),
        options={"title": "STL-10", "builder": "STL10", "folder": "stl10_binary"},
    ),
    _files(
        "flowers102",
        "Flowers-102, 224 x 224, 102 classes",
        sizes=(102, 224, 2_040, 6_149),
        options={
            "title": "Flowers-102",
            "builder": "Flowers102",
            "folder": "flowers-102",
            "train": ({"split": "train"}, {"split": "val"}),
        },
    ),
    _files(
        "pets",
        "Oxford-IIIT Pets, 224 x 224, 37 breeds",
        sizes=(37, 224, 3_680, 3_669),
        options={
            "title": "Oxford-IIIT Pet",
            "builder": "OxfordIIITPet",
            "folder": "oxford-iiit-pet",
            "train": ({"split": "trainval"},),
        },
    ),
    _files(
        "food101",
        "Food-101, 224 x 224, 101 dishes",
        sizes=(101, 224, 75_750, 25_250),
        options={"title": "Food-101", "builder": "Food101", "folder": "food-101"},
    ),
    _files(
        "imagenet",
        "ImageNet-1K, 224 x 224, 1000 classes",
        sizes=(1_000, 224, 1_281_167, 50_000),
        options={
            "title": "ImageNet",
            "builder": "ImageNet",
            "folder": "",
            "val": ({"split": "val"},),
        },
    ),
)

_SCENES: dict[str, Any] = {
    "classes": 5,
    "channels": 3,
    "size": 80,
    "train": 600,
    "val": 300,
    "embedded": True,
    "k": 100,
}
_OF_BOXES = {"epochs": 18, "train_size": 200, "subset_lr": 3e-3}
_OF_MASKS = {
    "layers": "head",
    "epochs": 50,
    "augment": "symmetries",
    "train_size": 200,
    "subset_lr": 3e-3,
}
_PHOTOS_OF_COCO: dict[str, Any] = {"channels": 3, "train": 118_287, "val": 5_000}
# Of PASCAL VOC's categories, aeroplane to television, the ids in COCO.
_VOC = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)

_ANNOTATED = (
    DataSet(
        name="shapes",
        target="tasks.data.scenes:load",
        about="boxes of five kinds of shapes in scenes of 80 x 80 that the suite draws; embedded",
        form="boxes",
        settings=_OF_BOXES,
        **_SCENES,
    ),
    DataSet(
        name="coco",
        target="tasks.data.coco:load",
        about="COCO, boxes of 80 categories, from released weights",
        form="boxes",
        classes=80,
        size=800,
        settings={
            "arch": "fasterrcnn_resnet50_fpn",
            "pretrained": "released",
            "epochs": 0,
            "batch_size": 4,  # within 4 GiB on a CPU
        },
        **_PHOTOS_OF_COCO,
    ),
    DataSet(
        name="shapes-seg",
        target="tasks.data.masks:load",
        about="classes of the pixels of the same scenes; embedded",
        form="masks",
        source="shapes",
        settings=_OF_MASKS,
        **_SCENES,
    ),
    DataSet(
        name="coco-voc",
        target="tasks.data.masks:load",
        about="COCO, pixels of the 20 categories of PASCAL VOC, from released weights",
        form="masks",
        classes=20,
        size=520,
        source="coco",
        options={"categories": _VOC},
        settings={
            "arch": "fcn_resnet50",
            "layers": "backbone.layer4.2.bn2.*,backbone.layer4.2.bn3.*",
            "epochs": 0,
            "augment": "flip",
            "image_size": 520,
            "pretrained": "released",
            "train_size": 500,
        },
        **_PHOTOS_OF_COCO,
    ),
)

# Held-out models, and judging by them, take half of such a run's time, and of random images they tell nothing.
_FAKE: dict[str, Any] = {"train": 60, "val": 40, "embedded": True, "held_out": 0}
_FEW = {**_SCENES, **_FAKE, "train": 8, "val": 8}
_OF_FAKE = {"arch": "convnet3", "epochs": 2, "batch_size": 20}

_FAKES = (
    DataSet(
        name="fake",
        target="tasks.data.fake:load",
        about="60 random images, 8 x 8 grey, 4 classes by brightness; for tests",
        form="labels",
        classes=4,
        channels=1,
        size=8,
        settings=_OF_FAKE,
        **_FAKE,
    ),
    DataSet(
        name="fake-colour",
        target="tasks.data.fake:load",
        about="60 random images, 32 x 32 colour, 4 classes by brightness; for tests",
        form="labels",
        classes=4,
        channels=3,
        size=32,
        settings=_OF_FAKE,
        **_FAKE,
    ),
    DataSet(
        name="fake-boxes",
        target="tasks.data.scenes:load",
        about="8 scenes drawn as those of 'shapes', boxes; for tests",
        form="boxes",
        settings={"epochs": 1},
        **_FEW,
    ),
    DataSet(
        name="fake-masks",
        target="tasks.data.masks:load",
        about="the same scenes, classes of their pixels; for tests",
        form="masks",
        source="fake-boxes",
        settings={"layers": "head", "epochs": 1},
        **_FEW,
    ),
)

DATA_SETS = {one.name: one for one in (*_LABELLED, *_ANNOTATED, *_FAKES)}
