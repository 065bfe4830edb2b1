"""Fully convolutional networks (arXiv 1411.4038) for segmentation, as they are before their logits are upsampled."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation import FCN, FCN_ResNet50_Weights, fcn_resnet50

from bench.errors import BadRequest, BenchError, unknown
from bench.importing import read_weights

STRIDES = {"fcn_small": 4, "fcn_resnet50": 8}  # pixels a side that one logit stands for
NAMES = tuple(STRIDES)


class Coarse(FCN):
    """torchvision's FCN without its last step: the logits as they are before upsampling, as a plain tensor."""

    def forward(self, images: Any) -> Any:  # tensors, or torch.fx's stand-ins for them
        """B x 3 x H x W images to B x classes x H/stride x W/stride logits."""
        return self.classifier(self.backbone(images)["out"])


def build(arch: str, classes: int, *, pretrained: str | None = None) -> nn.Module:
    """The network in eval mode, its tensors named as torchvision's.

    Args:
        arch: one of ``NAMES``.
        classes: with the background.
        pretrained: None, "released" (torchvision downloads its weights) or a file of weights.

    Raises:
        BadRequest: unknown architecture, or weights that do not fit or cannot be read.
        BenchError: the released weights could not be downloaded.
    """
    if arch not in NAMES:
        raise unknown("architecture", arch, NAMES)
    if arch == "fcn_small" and pretrained == "released":
        raise BadRequest(f"'{arch}' has no released weights: leave --pretrained out or name a file")
    model = _small(classes) if arch == "fcn_small" else _resnet50(classes)
    if pretrained:
        weights = _released() if pretrained == "released" else read_weights(Path(pretrained))
        _fill(model, weights, arch, pretrained)
    return model.eval()


def _resnet50(classes: int) -> nn.Module:
    """torchvision's, whose auxiliary classifier is only there to train with: left out."""
    whole = fcn_resnet50(weights=None, weights_backbone=None, num_classes=classes, aux_loss=False)
    return Coarse(whole.backbone, whole.classifier)


def _small(classes: int) -> nn.Module:
    """Six convolutions, the last two dilated, and a linear classifier of every fourth pixel; 0.12 M parameters."""
    blocks = OrderedDict(
        block1=_block(3, 16, stride=2),
        block2=_block(16, 32),
        block3=_block(32, 48, stride=2),
        block4=_block(48, 64),
        block5=_block(64, 64, dilation=2),
    )
    backbone = IntermediateLayerGetter(nn.Sequential(blocks), {"block5": "out"})
    head = nn.Sequential(*_block(64, 64, dilation=3), nn.Conv2d(64, classes, 1))
    return Coarse(backbone, head)


def _block(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(
        inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _released() -> dict[str, Tensor]:
    """torchvision's weights for COCO with the categories of PASCAL VOC."""
    try:
        weights: dict[str, Tensor] = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.get_state_dict(
            check_hash=True
        )
        return weights
    except (OSError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BenchError(
            f"the released weights of 'fcn_resnet50' could not be had ({reason}): give a local file, "
            "--pretrained FILE"
        ) from error


def _fill(model: nn.Module, weights: dict[str, Tensor], arch: str, source: str) -> None:
    """Load weights; those of the auxiliary classifier are left out."""
    own = {name: t for name, t in weights.items() if not name.startswith("aux_classifier.")}
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise BadRequest(f"{source} does not hold weights of '{arch}': {reason}") from error
