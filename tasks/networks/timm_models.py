"""Classifiers of timm, with a stem for the size of the images."""

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from bench.contract.declarations import Shape
from bench.errors import BadRequest, BenchError
from bench.system.weights import read_weights

SMALL = 64  # images up to this many pixels a side get a stem that does not shrink them


def build(shape: Shape, model: str, *, pretrained: str | None = None) -> nn.Module:
    """Build the network for images of a shape.

    Args:
        shape: input and output sizes.
        model: timm's name of the architecture.
        pretrained: None, "released" (timm downloads its weights) or a file of weights for timm's architecture.

    Raises:
        BadRequest: weights that do not fit or cannot be read.
        BenchError: the released weights could not be downloaded.
    """
    network: nn.Module
    if pretrained:
        network = _pretrained(model, shape, pretrained)
    else:
        network = timm.create_model(model, num_classes=shape.classes, **_stem(model, shape))
    if model.startswith("resnet") and not shape.released and shape.size <= SMALL:
        network.conv1 = nn.Conv2d(shape.channels, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    return network


def _stem(model: str, shape: Shape) -> dict[str, Any]:
    """Return the constructor arguments that keep enough resolution of small images."""
    if model.startswith("vit") and shape.released:
        return {"in_chans": shape.channels, "img_size": shape.size}
    if model.startswith("vit"):
        divisors = [p for p in range(1, 17) if shape.size % p == 0 and shape.size // p >= 7]
        patch = 16 if shape.size >= 128 else max(divisors, default=1)
        return {"in_chans": shape.channels, "img_size": shape.size, "patch_size": patch}
    if model.startswith("convnext") and not shape.released:
        patch = 4 if shape.size > SMALL else 2 if shape.size > 16 else 1
        return {"in_chans": shape.channels, "patch_size": patch}
    return {"in_chans": shape.channels}


def _pretrained(model: str, shape: Shape, source: str) -> nn.Module:
    """Load a release or a local file by timm, which adapts channels and the classifier."""
    settings: dict[str, Any] = {"num_classes": shape.classes, **_stem(model, shape)}
    if source != "released":
        weights = read_weights(Path(source))
        _check_names(model, settings, weights, source)
        settings["pretrained_cfg_overlay"] = {"state_dict": weights}
    try:
        network: nn.Module = timm.create_model(model, pretrained=True, **settings)
        return network
    except (RuntimeError, KeyError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if source == "released":
            raise BenchError(
                f"the released weights of '{model}' could not be downloaded ({first}): give a local file, "
                "--pretrained FILE"
            ) from error
        raise BadRequest(f"{source} does not hold weights of '{model}' ({first})") from error


def _check_names(
    model: str, settings: dict[str, Any], weights: dict[str, Tensor], source: str
) -> None:
    """Refuse weights that lack any tensor but the classifier's: timm would leave those random without a word."""
    with torch.device("meta"):
        network: Any = timm.create_model(model, **settings)
    classifier = network.get_classifier()
    replaced = {
        f"{n}.{p}" for n, m in network.named_modules() if m is classifier for p in m.state_dict()
    }
    missing = [
        name
        for name in network.state_dict()
        if name not in weights and name not in replaced and not name.endswith("num_batches_tracked")
    ]
    if missing:
        raise BadRequest(f"{source} does not hold weights of '{model}': '{missing[0]}' is missing")
