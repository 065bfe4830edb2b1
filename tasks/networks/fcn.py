"""Fully convolutional networks for segmentation (Long et al. 2015, arXiv 1411.4038), without the final upsampling."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models import segmentation
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation import FCN, FCN_ResNet50_Weights

from bench.contract.declarations import Shape
from bench.errors import BadRequest, BenchError
from bench.system.weights import read_weights


class Coarse(FCN):  # type: ignore[misc]
    """torchvision's FCN without its last step: it returns logits at an eighth of the resolution, as a plain tensor."""

    def forward(self, images: Any) -> Any:  # tensors, or torch.fx's proxies for them
        """Return the logits, B x classes x H/8 x W/8, of a batch of images, B x 3 x H x W."""
        return self.classifier(self.backbone(images)["out"])


def fcn_small(shape: Shape, *, pretrained: str | None = None) -> nn.Module:
    """Build a small network of 0.2 M parameters: six convolutions, and a linear classifier of each position.

    Args:
        shape: size of the images and number of classes.
        pretrained: None or a file of weights.

    Raises:
        BadRequest: the weights do not fit or cannot be read.
    """
    blocks: OrderedDict[str, nn.Module] = OrderedDict(
        block1=_block(3, 24, stride=2),
        block2=_block(24, 48, stride=2),
        block3=_block(48, 64),
        block4=_block(64, 64, stride=2),
        block5=_block(64, 96),
    )
    backbone = IntermediateLayerGetter(nn.Sequential(blocks), {"block5": "out"})
    head = nn.Sequential(*_block(96, 96), nn.Conv2d(96, shape.classes, 1))
    model = Coarse(backbone, head)
    if pretrained == "released":
        raise BadRequest(
            "'fcn_small' has no released weights: leave --pretrained out or name a file"
        )
    if pretrained:
        _fill(model, read_weights(Path(pretrained)), "fcn_small", pretrained)
    return model


def fcn_resnet50(shape: Shape, *, pretrained: str | None = None) -> nn.Module:
    """Build torchvision's network of this name, without the auxiliary classifier that only helps in training.

    Args:
        shape: size of the images and number of classes.
        pretrained: None, "released" (torchvision downloads its weights) or a file of weights.

    Raises:
        BadRequest: the weights do not fit or cannot be read.
        BenchError: the released weights could not be downloaded.
    """
    whole = segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=shape.classes, aux_loss=False
    )
    model = Coarse(whole.backbone, whole.classifier)
    if pretrained:
        weights = _released() if pretrained == "released" else read_weights(Path(pretrained))
        _fill(model, weights, "fcn_resnet50", pretrained)
    return model


def _block(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """Build a 3 x 3 convolution with batch normalization and ReLU, for these numbers of channels."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _released() -> dict[str, Tensor]:
    """Return torchvision's weights for COCO with the categories of PASCAL VOC, from its cache or downloaded.

    Raises:
        BenchError: the weights could not be downloaded.
    """
    try:
        weights: dict[str, Tensor] = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.get_state_dict(
            check_hash=True
        )
        return weights
    except (OSError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BenchError(
            f"the released weights of 'fcn_resnet50' could not be downloaded ({reason}): give a local file, "
            "--pretrained FILE"
        ) from error


def _fill(model: nn.Module, weights: dict[str, Tensor], arch: str, source: str) -> None:
    """Load trained weights into a network, except those of the auxiliary classifier.

    Args:
        model: the network.
        weights: the tensors by name.
        arch: name of the network, for messages.
        source: origin of the weights, for messages.

    Raises:
        BadRequest: the weights do not fit.
    """
    kept = {name: t for name, t in weights.items() if not name.startswith("aux_classifier.")}
    try:
        model.load_state_dict(kept)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise BadRequest(f"{source} does not hold weights of '{arch}': {reason}") from error
