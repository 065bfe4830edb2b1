"""The paper's two small networks (arXiv 2402.13144, Table 3)."""

from torch import nn

from bench.contract.declarations import Shape


def mlp3(shape: Shape) -> nn.Module:
    """Build the MLP-3: 3072-50-25-10 without a first bias on colour, 784-50-10 on grey images."""
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
    """Build the ConvNet-3: three blocks conv3x3(32)-BN-ReLU-maxpool, then one linear layer.

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
