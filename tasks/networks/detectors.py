"""Detectors: torchvision's Faster R-CNN and FCOS, over ResNet-50 with a feature pyramid or over a small network."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    FCOS,
    FasterRCNN,
    FasterRCNN_ResNet50_FPN_Weights,
    FCOS_ResNet50_FPN_Weights,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from bench.contract.declarations import Shape
from bench.errors import BadRequest, BenchError
from bench.system.weights import read_weights
from tasks.networks.layers import select

RELEASED: dict[str, Any] = {
    "fasterrcnn_resnet50_fpn": FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    "fcos_resnet50_fpn": FCOS_ResNet50_FPN_Weights.COCO_V1,
}
WIDTH = 64  # channels of the small network


def forward(network: Any, images: Tensor) -> None:
    """Run what costs of a detector: the backbone, the heads that see every place, and those that see proposals.

    Proposals are as many as there may be, and empty: which are kept depends on the images.
    """
    features = list(network.backbone(images).values())
    if isinstance(network, FCOS):
        network.head(features)
        return
    network.rpn.head(features)
    heads, pool = network.roi_heads, network.roi_heads.box_roi_pool.output_size
    count = network.rpn.post_nms_top_n()
    proposals = torch.zeros(count, features[0].shape[1], *pool, device=images.device)
    heads.box_predictor(heads.box_head(proposals))


class Small(nn.Module):
    """A small backbone: to a quarter of the resolution, and three more convolutions there.

    Attributes:
        out_channels: as torchvision's detectors want it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.out_channels = WIDTH
        widths = (3, 24, 48, WIDTH, WIDTH, WIDTH)
        strides = (2, 2, 1, 1, 1)
        self.body = nn.Sequential(*map(_block, widths, widths[1:], strides))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return one feature map, by the name that torchvision's detectors look for."""
        return OrderedDict({"0": self.body(images)})


def _block(channels: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def fasterrcnn_small(shape: Shape) -> FasterRCNN:
    """Build a network with anchors of 10 to 32 pixels, few proposals, and hidden layers of 128."""
    pool, hidden = 5, 128
    return FasterRCNN(
        Small(),
        rpn_anchor_generator=AnchorGenerator(((10, 18, 32),), ((1.0,),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=pool, sampling_ratio=1),
        box_head=TwoMLPHead(WIDTH * pool**2, hidden),
        box_predictor=FastRCNNPredictor(hidden, shape.classes),
        rpn_pre_nms_top_n_train=200,
        rpn_post_nms_top_n_train=100,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_test=50,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=32,
        size_divisible=4,
        **_limits(shape),
    )


def fcos_small(shape: Shape) -> FCOS:
    """Build a network with one level, and one convolution in each tower."""
    return FCOS(
        Small(),
        shape.classes,
        anchor_generator=AnchorGenerator(((4,),), ((1.0,),)),
        head=FCOSHead(WIDTH, 1, shape.classes, num_convs=1),
        size_divisible=4,
        **_limits(shape),
    )


def fasterrcnn_resnet50_fpn(shape: Shape, *, pretrained: str | None = None) -> FasterRCNN:
    """Build torchvision's network; for ``pretrained`` see ``_load``.

    Raises:
        BadRequest: weights that do not fit or cannot be read.
        BenchError: the released weights could not be downloaded.
    """
    model = FasterRCNN(_resnet50(shape.released), shape.classes, **_limits(shape))
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0  # the released weights were trained so
    if pretrained:
        _load(model, "fasterrcnn_resnet50_fpn", pretrained)
    return model


def fcos_resnet50_fpn(shape: Shape, *, pretrained: str | None = None) -> FCOS:
    """Build torchvision's network; for ``pretrained`` see ``_load``.

    Raises:
        BadRequest: weights that do not fit or cannot be read.
        BenchError: the released weights could not be downloaded.
    """
    levels = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)}
    model = FCOS(_resnet50(shape.released, **levels), shape.classes, **_limits(shape))
    if pretrained:
        _load(model, "fcos_resnet50_fpn", pretrained)
    return model


def _limits(shape: Shape) -> dict[str, int]:
    """Return the sides that images are resized to: the shorter one, and at most 5/3 of it, as 800 and 1333."""
    return {"min_size": shape.size, "max_size": round(shape.size * 1333 / 800)}


def _resnet50(released: bool, **levels: Any) -> nn.Module:
    """Build the backbone; as released, its statistics and first layers stand still, as in torchvision."""
    backbone: nn.Module = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d if released else nn.BatchNorm2d,
        trainable_layers=3 if released else 5,
        **levels,
    )
    return backbone


def _load(model: nn.Module, arch: str, source: str) -> None:
    """Put weights in place, but for a last layer of other classes.

    Args:
        model: the network.
        arch: its name.
        source: "released" (torchvision downloads its weights of COCO) or a file of weights.
    """
    weights = _released(arch) if source == "released" else read_weights(Path(source))
    there = model.state_dict()
    last = set(select(model, "head"))
    other = {n for n in last & weights.keys() if weights[n].shape != there[n].shape}
    try:
        found = model.load_state_dict(
            {name: tensor for name, tensor in weights.items() if name not in other}, strict=False
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise BadRequest(f"{source} does not hold weights of '{arch}': {reason}") from None
    missing = [name for name in found.missing_keys if name not in last]
    if missing:
        raise BadRequest(f"{source} does not hold weights of '{arch}': '{missing[0]}' is missing")


def _released(arch: str) -> dict[str, Tensor]:
    """Return torchvision's weights of COCO, from its cache or downloaded.

    Raises:
        BenchError: they could not be downloaded.
    """
    try:
        weights: dict[str, Tensor] = RELEASED[arch].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BenchError(
            f"the released weights of '{arch}' could not be had ({reason}): give a local file, "
            "--pretrained FILE"
        ) from error
    return weights
