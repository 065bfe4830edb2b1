"""Architectures: the paper's two small networks, and six from timm."""

import dataclasses
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from bench.errors import BadRequest, BenchError, unknown
from bench.system.weights import read_weights

TIMM = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "convnext_tiny": "convnext_tiny",
    "convnext_base": "convnext_base",
}
SMALL = 64  # images up to this many pixels a side get a stem that does not shrink them


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a model takes and gives: channels x size x size pixels to a number of classes.

    Attributes:
        channels, size, classes: as said.
        released: whether the architecture is as released, whatever the size, so that released weights fit; otherwise
            small images get a stem that does not shrink them.
    """

    channels: int
    size: int
    classes: int
    released: bool = False


def mlp3(shape: Shape) -> nn.Module:
    """The paper's MLP-3 (Table 3): 3072-50-25-10 without a first bias on colour, 784-50-10 on grey images."""
    inputs = shape.channels * shape.size**2
    if shape.channels == 1:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, 50), nn.ReLU(), nn.Linear(50, shape.classes)
        )
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, 50, bias=False),
        nn.ReLU(),
        nn.Linear(50, 25),
        nn.ReLU(),
        nn.Linear(25, shape.classes),
    )


def convnet3(shape: Shape) -> nn.Module:
    """The paper's ConvNet-3 (Table 3): three blocks conv3x3(32)-BN-ReLU-maxpool, then one linear layer.

    Pooling comes before the ReLU: that gives the same values and gradients, and a quarter of them pass the ReLU.
    """
    layers: list[nn.Module] = []
    for channels in (shape.channels, 32, 32):
        layers += [
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.MaxPool2d(2),
            nn.ReLU(),
        ]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(32 * (shape.size // 8) ** 2, shape.classes)
    )


PAPER = {"mlp3": mlp3, "convnet3": convnet3}
NAMES = (*PAPER, *TIMM)


def build(arch: str, shape: Shape, *, pretrained: str | None = None) -> nn.Module:
    """The architecture for images of this shape, in eval mode.

    Args:
        arch: one of ``NAMES``.
        shape: input and output sizes.
        pretrained: None, "released" (timm downloads its weights) or a file of weights for timm's architecture.

    Raises:
        BadRequest: unknown architecture, or weights that do not fit or cannot be read.
        BenchError: the released weights could not be downloaded.
    """
    if arch in PAPER:
        if pretrained:
            raise BadRequest(f"'{arch}' has no pretrained weights: leave --pretrained out")
        return PAPER[arch](shape).eval()
    if arch not in TIMM:
        raise unknown("architecture", arch, NAMES)
    model: nn.Module
    if pretrained:
        model = _pretrained(arch, shape, pretrained)
    else:
        model = timm.create_model(TIMM[arch], num_classes=shape.classes, **_stem(arch, shape))
    if arch.startswith("resnet") and not shape.released and shape.size <= SMALL:
        model.conv1 = nn.Conv2d(shape.channels, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model.eval()


def _stem(arch: str, shape: Shape) -> dict[str, Any]:
    """Constructor arguments for the images; they keep enough resolution of small ones."""
    if arch.startswith("vit") and shape.released:
        return {"in_chans": shape.channels, "img_size": shape.size}
    if arch.startswith("vit"):
        divisors = [p for p in range(1, 17) if shape.size % p == 0 and shape.size // p >= 7]
        patch = 16 if shape.size >= 128 else max(divisors, default=1)
        return {"in_chans": shape.channels, "img_size": shape.size, "patch_size": patch}
    if arch.startswith("convnext") and not shape.released:
        patch = 4 if shape.size > SMALL else 2 if shape.size > 16 else 1
        return {"in_chans": shape.channels, "patch_size": patch}
    return {"in_chans": shape.channels}


def _pretrained(arch: str, shape: Shape, source: str) -> nn.Module:
    """timm's own loading, which adapts channels and the classifier, from a release or a local file."""
    settings: dict[str, Any] = {"num_classes": shape.classes, **_stem(arch, shape)}
    if source != "released":
        weights = read_weights(Path(source))
        _check_names(arch, settings, weights, source)
        settings["pretrained_cfg_overlay"] = {"state_dict": weights}
    try:
        model: nn.Module = timm.create_model(TIMM[arch], pretrained=True, **settings)
        return model
    except (RuntimeError, KeyError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if source == "released":
            raise BenchError(
                f"the released weights of '{arch}' could not be had ({first}): give a local file, "
                "--pretrained FILE"
            ) from error
        raise BadRequest(f"{source} does not hold weights of '{arch}' ({first})") from error


def _check_names(
    arch: str, settings: dict[str, Any], weights: dict[str, Tensor], source: str
) -> None:
    """Refuse weights that lack any tensor but the classifier's: timm would leave those random without a word."""
    with torch.device("meta"):
        model: Any = timm.create_model(TIMM[arch], **settings)
    classifier = model.get_classifier()
    replaced = {
        f"{n}.{p}" for n, m in model.named_modules() if m is classifier for p in m.state_dict()
    }
    missing = [
        name
        for name in model.state_dict()
        if name not in weights and name not in replaced and not name.endswith("num_batches_tracked")
    ]
    if missing:
        raise BadRequest(f"{source} does not hold weights of '{arch}': '{missing[0]}' is missing")
