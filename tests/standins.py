"""Small stand-ins that tests share."""

import dataclasses
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bench import cli
from bench.contract import registry
from bench.system.randomness import generator, scoped
from tasks.data.coco import CocoData
from tasks.data.images import Images
from tasks.data.labelled import ImageData
from tasks.data.masks import MaskedData
from tasks.networks.layers import select
from tests.networks import Shape, build

# Settings that make a task of each kind small, by kind, on a fake data set.
QUICK: dict[str, dict[str, Any]] = {
    "classification": {
        "dataset": "fake", "arch": "convnet3", "epochs": 1, "batch_size": 20, "train_size": 30,
        "precision": "float32",
    },
    "detection": {
        "dataset": "fake-boxes", "arch": "fasterrcnn_small", "pretrained": None, "epochs": 1, "batch_size": 4,
        "train_size": 5, "image_size": 80,
    },
    "image generation": {
        "dataset": "fake", "arch": "ddpm8", "layers": "up_blocks.1.*norm*", "epochs": 1, "passes": 1, "batch_size": 20,
        "precision": "float32", "feature_network": "convnet3", "fid_images": 20, "steps": 2,
    },
    "segmentation": {
        "dataset": "fake-masks", "arch": "fcn_small", "pretrained": None, "epochs": 1, "batch_size": 4, "train_size": 5,
        "image_size": 40, "layers": "last-norms:2",
    },
}  # fmt: skip


def load(name: str, data_dir: Path | None = None, **options: Any) -> Any:
    """Load a data set of any form."""
    kinds = {"labels": ImageData, "boxes": CocoData, "masks": MaskedData}
    declared = registry.data_sets().find("data set", name)
    return declared.load(kinds[declared.form], data_dir, **options)


def image_data(name: str = "fake", train: int = 60, val: int = 40, classes: int = 4) -> ImageData:
    """A fake data set with other sizes than it declares."""
    declared = registry.data_set(name, "labels")
    return dataclasses.replace(declared, train=train, val=val, classes=classes).load(
        ImageData, None
    )


def untrained_inception(path: Path) -> None:
    """Write a file of random weights of torch-fidelity's InceptionV3."""
    from torch_fidelity import (
        feature_extractor_inceptionv3 as module,
    )  # here, because it takes a second

    class Untrained(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: object, **__: object) -> None:
            """Keep what it was initialised with."""

    with pytest.MonkeyPatch.context() as patch, scoped(generator(0, "inception")):
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        torch.save(Untrained("inception", ["2048"]).state_dict(), path)


def images(name: str = "fake-colour", count: int = 48) -> Images:
    """The training split of a fake data set on the CPU."""
    data = image_data(name, train=count)
    return Images.of(data, data.train, data.train.images.shape[-1], "cpu")


def stir_statistics(model: nn.Module) -> None:
    """Give normalizations running statistics that do something."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            buffer.normal_(std=0.2)


def call(*arguments: object) -> int:
    """Run the command line in this process; the exit code."""
    old, sys.argv = sys.argv, ["bench", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = old
    return 0


def coco_content(split: str = "train", count: int = 3, **changes: object) -> dict:
    """COCO's annotations of a few images of 40 x 30: in image n, n - 1 boxes; ``changes`` replaces whole lists."""
    named = [
        {"id": 10 * n, "file_name": f"{split}-{n}.png", "width": 40, "height": 30}
        for n in range(1, count + 1)
    ]
    boxes = [
        {
            "id": 100 * n + m,
            "image_id": 10 * n,
            "category_id": (1, 3)[m % 2],
            "iscrowd": 0,
            "area": 80.0,
            "bbox": [float(left), 2.0, 10.0, 8.0],
            "segmentation": [[left, 2, left + 10, 2, left + 10, 10, left, 10]],
        }
        for n in range(1, count + 1)
        for m in range(n - 1)
        for left in (5 * (m % 7),)
    ]
    categories = [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}]
    return {"images": named, "annotations": boxes, "categories": categories, **changes}


def write_coco(root: Path, *, zips: bool = False, **contents: dict) -> Path:
    """A folder in COCO's layout with random images; ``train`` and ``val`` replace the annotations of a split."""
    (root / "annotations").mkdir(parents=True)
    for seed, split in enumerate(("train", "val")):
        content = contents.get(split) or coco_content(split)
        text = json.dumps(content)
        (root / "annotations" / f"instances_{split}2017.json").write_text(text, encoding="utf-8")
        rng = np.random.default_rng(seed)
        files = {}
        for image in content["images"]:
            pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            files[f"{split}2017/{image['file_name'] or 'nameless'}"] = file.getvalue()
        if zips:
            with zipfile.ZipFile(root / f"{split}2017.zip", "w") as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
        else:
            (root / f"{split}2017").mkdir()
            for name, data in files.items():
                (root / name).write_bytes(data)
    return root


def wild_detector(arch: str, *, side: int = 40, background: float = 0.0) -> nn.Module:
    """A detector that finds a lot, most of it wrong: random, but no two of its scores are nearly equal."""
    with scoped(generator(0, arch)), torch.no_grad():
        model = build(arch, Shape(3, side, 6))
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0  # statistics of these images
        model.backbone.train()(torch.randn(8, 3, side, side))
        for name in select(model, "head"):
            nn.init.normal_(model.get_parameter(name), std=0.1 if arch.startswith("fcos") else 0.3)
        if arch.startswith("fcos"):
            model.get_parameter("head.classification_head.cls_logits.bias").sub_(2.5)
            model.get_parameter("head.regression_head.bbox_reg.bias").add_(3)  # no empty boxes
        else:
            model.get_parameter("roi_heads.box_predictor.cls_score.bias")[0] += background
            for layer in ("fc6", "fc7"):
                model.get_parameter(f"roi_heads.box_head.{layer}.weight").mul_(3)
    return model.eval()
