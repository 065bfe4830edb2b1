"""Detectors: torchvision's Faster R-CNN and FCOS, over ResNet-50 with a feature pyramid or over a small network."""

import dataclasses
from collections import OrderedDict
from pathlib import Path
from typing import Any

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

from bench.errors import BadRequest, BenchError, unknown
from bench.system.weights import read_weights
from tasks.networks.layers import select

RELEASED: dict[str, Any] = {
    "fasterrcnn_resnet50_fpn": FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    "fcos_resnet50_fpn": FCOS_ResNet50_FPN_Weights.COCO_V1,
}
NAMES = ("fasterrcnn_small", "fcos_small", *RELEASED)
WIDTH = 64  # channels of the small network


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a detector takes and gives.

    Attributes:
        outputs: classes with the background as 0; a category's class is its id, as in released weights.
        side: the images' shorter side, to which they are resized; the longer one is at most 5/3 of it, as in
            torchvision (800 and 1333).
        released: whether normalization stands still with the released statistics and the first layers are frozen, as
            torchvision trains on from released weights.
    """

    outputs: int
    side: int
    released: bool = False


def build(arch: str, sizes: Sizes, *, pretrained: str | None = None) -> nn.Module:
    """The detector in eval mode.

    Args:
        arch: one of ``NAMES``.
        sizes: what it takes and gives.
        pretrained: None, "released" (torchvision downloads its weights of COCO) or a file of weights. A last layer
            that is for other classes is left out.

    Raises:
        BadRequest: unknown architecture, or weights that do not fit or cannot be read.
        BenchError: the released weights could not be downloaded.
    """
    makers = {
        "fasterrcnn_small": _small_faster_rcnn,
        "fcos_small": _small_fcos,
        "fasterrcnn_resnet50_fpn": _faster_rcnn,
        "fcos_resnet50_fpn": _fcos,
    }
    if arch not in makers:
        raise unknown("architecture", arch, makers)
    if sizes.released and arch not in RELEASED:
        raise BadRequest(f"'{arch}' has no pretrained weights: leave --pretrained out")
    limits = {"min_size": sizes.side, "max_size": round(sizes.side * 1333 / 800)}
    model: nn.Module = makers[arch](sizes, limits)
    if pretrained:
        _load(model, arch, pretrained)
    return model.eval()


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
        """One feature map, by the name that torchvision's detectors look for."""
        return OrderedDict({"0": self.body(images)})


def _block(channels: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _small_faster_rcnn(sizes: Sizes, limits: dict[str, int]) -> FasterRCNN:
    """Anchors of 10 to 32 pixels, few proposals, and hidden layers of 128."""
    pool, hidden = 5, 128
    return FasterRCNN(
        Small(),
        rpn_anchor_generator=AnchorGenerator(((10, 18, 32),), ((1.0,),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=pool, sampling_ratio=1),
        box_head=TwoMLPHead(WIDTH * pool**2, hidden),
        box_predictor=FastRCNNPredictor(hidden, sizes.outputs),
        rpn_pre_nms_top_n_train=200,
        rpn_post_nms_top_n_train=100,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_test=50,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=32,
        size_divisible=4,
        **limits,
    )


def _small_fcos(sizes: Sizes, limits: dict[str, int]) -> FCOS:
    """One level, and one convolution in each tower."""
    return FCOS(
        Small(),
        sizes.outputs,
        anchor_generator=AnchorGenerator(((4,),), ((1.0,),)),
        head=FCOSHead(WIDTH, 1, sizes.outputs, num_convs=1),
        size_divisible=4,
        **limits,
    )


def _faster_rcnn(sizes: Sizes, limits: dict[str, int]) -> FasterRCNN:
    model = FasterRCNN(_resnet50(sizes.released), sizes.outputs, **limits)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0  # the released weights were trained so
    return model


def _fcos(sizes: Sizes, limits: dict[str, int]) -> FCOS:
    levels = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)}
    return FCOS(_resnet50(sizes.released, **levels), sizes.outputs, **limits)


def _resnet50(released: bool, **levels: Any) -> nn.Module:
    backbone: nn.Module = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d if released else nn.BatchNorm2d,
        trainable_layers=3 if released else 5,
        **levels,
    )
    return backbone


def _load(model: nn.Module, arch: str, source: str) -> None:
    """Put released or local weights in place, but for a last layer of other classes."""
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
    """torchvision's weights of COCO, from its cache or downloaded.

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
