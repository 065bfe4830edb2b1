"""Networks of DeepWeightFlow's tables (ICLR 2026), under the names of its checkpoints' tensors."""

from collections import OrderedDict

from torch import Tensor, nn

from bench.contract.declarations import Shape


def mlp_32_32(shape: Shape) -> nn.Module:
    """Build the MLP 784-32-32-10, or with as many inputs and outputs as images have pixels and classes."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(shape.channels * shape.size**2, 32),
            relu1=nn.ReLU(),
            fc2=nn.Linear(32, 32),
            relu2=nn.ReLU(),
            fc3=nn.Linear(32, shape.classes),
        )
    )


def resnet20(shape: Shape, width: int) -> nn.Module:
    """Build the ResNet-20 for CIFAR (He et al. 2016, arXiv 1512.03385, section 4.2) with projections in shortcuts.

    Args:
        shape: input and output sizes.
        width: channels of the first stage; the other two have twice and four times as many.
    """
    stages = [
        _stage(inputs, outputs, stride)
        for inputs, outputs, stride in (
            (width, width, 1),
            (width, 2 * width, 2),
            (2 * width, 4 * width, 2),
        )
    ]
    return nn.Sequential(
        OrderedDict(
            conv1=_convolution(shape.channels, width, 1),
            bn1=nn.BatchNorm2d(width),
            relu=nn.ReLU(),
            layer1=stages[0],
            layer2=stages[1],
            layer3=stages[2],
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(4 * width, shape.classes),
        )
    )


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a projection where their shapes differ.

    Args:
        inputs, outputs: channels.
        stride: of the first convolution, and of the projection.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _convolution(outputs, outputs, 1), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module | None = None
        if inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Return the features of the next block."""
        made = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(features)))))
        passed = features if self.shortcut is None else self.shortcut(features)
        joined: Tensor = self.relu(made + passed)
        return joined


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        Block(inputs, outputs, stride), Block(outputs, outputs, 1), Block(outputs, outputs, 1)
    )


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
