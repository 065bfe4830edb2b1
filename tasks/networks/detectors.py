"""Detectors: torchvision's Faster R-CNN and FCOS, on ResNet-50 with a feature pyramid or on a small backbone."""

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
WIDTH = 64  # output channels of the small backbone


def forward(network: Any, images: Tensor) -> None:
    """Run the costly parts of a detector on a batch: the backbone and all heads, for a measurement of its operations.

    The number of proposals depends on the images; the box head of Faster R-CNN gets the largest number there may be, of
    zeros.
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
    """A small backbone: two convolutions to a quarter of the resolution, then three more.

    Attributes:
        out_channels: number of output channels, by the name that torchvision's detectors look for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.out_channels = WIDTH
        widths = (3, 24, 48, WIDTH, WIDTH, WIDTH)
        strides = (2, 2, 1, 1, 1)
        self.body = nn.Sequential(*map(_block, widths, widths[1:], strides))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return one feature map, B x WIDTH x H/4 x W/4, by the name that torchvision's detectors look for."""
        return OrderedDict({"0": self.body(images)})


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Build a 3 x 3 convolution with batch normalization and ReLU, for these numbers of channels."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def fasterrcnn_small(shape: Shape) -> FasterRCNN:
    """Build a small Faster R-CNN: anchors of 10 to 32 pixels, few proposals, and hidden layers of width 128."""
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
    """Build a small FCOS: one level of features, and one convolution in each tower of the head."""
    return FCOS(
        Small(),
        shape.classes,
        anchor_generator=AnchorGenerator(((4,),), ((1.0,),)),
        head=FCOSHead(WIDTH, 1, shape.classes, num_convs=1),
        size_divisible=4,
        **_limits(shape),
    )


def fasterrcnn_resnet50_fpn(shape: Shape, *, pretrained: str | None = None) -> FasterRCNN:
    """Build torchvision's network of this name.

    Args:
        shape: size of the images and number of classes, see ``Shape``.
        pretrained: None, "released" (torchvision downloads its weights for COCO) or a file of weights.

    Raises:
        BadRequest: the weights do not fit or cannot be read.
        BenchError: the released weights could not be downloaded.
    """
    model = FasterRCNN(_resnet50(shape.released), shape.classes, **_limits(shape))
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0  # the released weights were trained with this value
    if pretrained:
        _load(model, "fasterrcnn_resnet50_fpn", pretrained)
    return model


def fcos_resnet50_fpn(shape: Shape, *, pretrained: str | None = None) -> FCOS:
    """Build torchvision's network of this name.

    Args:
        shape: size of the images and number of classes, see ``Shape``.
        pretrained: None, "released" (torchvision downloads its weights for COCO) or a file of weights.

    Raises:
        BadRequest: the weights do not fit or cannot be read.
        BenchError: the released weights could not be downloaded.
    """
    levels = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)}
    model = FCOS(_resnet50(shape.released, **levels), shape.classes, **_limits(shape))
    if pretrained:
        _load(model, "fcos_resnet50_fpn", pretrained)
    return model


def _limits(shape: Shape) -> dict[str, int]:
    """Return the limits that images are resized to: the shorter side, and the longer in the ratio of 1333 to 800."""
    return {"min_size": shape.size, "max_size": round(shape.size * 1333 / 800)}


def _resnet50(released: bool, **levels: Any) -> nn.Module:
    """Build ResNet-50 with a feature pyramid.

    Args:
        released: whether to freeze the statistics of normalization layers and the first two stages, as torchvision
            did for the released weights.
        levels: arguments of ``resnet_fpn_backbone`` that choose the levels of the pyramid.
    """
    backbone: nn.Module = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d if released else nn.BatchNorm2d,
        trainable_layers=3 if released else 5,
        **levels,
    )
    return backbone


def _load(model: nn.Module, arch: str, source: str) -> None:
    """Load trained weights into a network; tensors of the last layer are skipped if their shapes differ.

    Args:
        model: the network.
        arch: name of the network.
        source: "released" (torchvision downloads its weights for COCO) or a file of weights.

    Raises:
        BadRequest: the weights do not fit or cannot be read.
        BenchError: the released weights could not be downloaded.
    """
    weights = _released(arch) if source == "released" else read_weights(Path(source))
    current = model.state_dict()
    last = set(select(model, "head"))
    skipped = {name for name in last & weights.keys() if weights[name].shape != current[name].shape}
    try:
        result = model.load_state_dict(
            {name: tensor for name, tensor in weights.items() if name not in skipped}, strict=False
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise BadRequest(f"{source} does not hold weights of '{arch}': {reason}") from None
    missing = [name for name in result.missing_keys if name not in last]
    if missing:
        raise BadRequest(f"{source} does not hold weights of '{arch}': '{missing[0]}' is missing")


def _released(arch: str) -> dict[str, Tensor]:
    """Return torchvision's weights for COCO, from its cache or downloaded.

    Raises:
        BenchError: the weights could not be downloaded.
    """
    try:
        weights: dict[str, Tensor] = RELEASED[arch].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BenchError(
            f"the released weights of '{arch}' could not be downloaded ({reason}): give a local file, "
            "--pretrained FILE"
        ) from error
    return weights
