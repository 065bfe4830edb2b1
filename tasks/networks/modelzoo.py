"""The two convolutional networks of "Model Zoos" (Schürholt et al. 2022, arXiv 2209.14764), as its files name them.

Their checkpoints differ in activation, which no file of weights tells; a declaration names it.
"""

from collections import OrderedDict
from collections.abc import Mapping

from torch import nn

from bench.contract.declarations import Shape
from bench.errors import BadRequest

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"tanh": nn.Tanh, "gelu": nn.GELU}
WIDTH = 20  # of the hidden linear layer


def small(shape: Shape, activation: str) -> nn.Module:
    """Build the small network: 2,464 parameters on grey and 2,864 on colour images of 28 pixels a side.

    Args:
        shape: input and output sizes.
        activation: a name of ``ACTIVATIONS``.

    Raises:
        BadRequest: the images are too small.
    """
    function, side = ACTIVATIONS[activation], ((shape.size - 4) // 2 - 4) // 2 - 1
    layers: list[nn.Module] = []
    for inputs, outputs in ((shape.channels, 8), (8, 6)):
        layers += [nn.Conv2d(inputs, outputs, 5), nn.MaxPool2d(2), function()]
    layers += [nn.Conv2d(6, 4, 2), function()]
    return _network(layers, 4 * _checked(side, 20) ** 2, [function()], shape.classes)


def large(shape: Shape, activation: str) -> nn.Module:
    """Build the large network, without dropout: 10,853 parameters on colour images of 32 pixels a side.

    Args:
        shape: input and output sizes.
        activation: a name of ``ACTIVATIONS``.

    Raises:
        BadRequest: the images are too small.
    """
    function, side = ACTIVATIONS[activation], shape.size
    layers: list[nn.Module] = []
    for inputs, outputs in ((shape.channels, 16), (16, 32), (32, 15)):
        # The last place is that of dropout, which keeps the numbers of the layers as they are in its files.
        layers += [nn.Conv2d(inputs, outputs, 3), nn.MaxPool2d(2), function(), nn.Identity()]
        side = (side - 2) // 2
    return _network(
        layers, 15 * _checked(side, 22) ** 2, [function(), nn.Identity()], shape.classes
    )


def _network(
    layers: list[nn.Module], features: int, between: list[nn.Module], classes: int
) -> nn.Module:
    """Return the layers followed by two linear ones, as the entries of ``module_list``."""
    ending = [nn.Flatten(), nn.Linear(features, WIDTH), *between, nn.Linear(WIDTH, classes)]
    return nn.Sequential(OrderedDict(module_list=nn.Sequential(*layers, *ending)))


def _checked(side: int, least: int) -> int:
    if side < 1:
        raise BadRequest(
            f"this network of Model Zoos takes images of {least} pixels a side or more: say --set task.image_size=28"
        )
    return side
