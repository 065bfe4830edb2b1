"""Small stand-ins that tests share."""

import sys

import torch
from torch import nn

from bench import cli
from tasks import datasets
from tasks.images import Images

CHANNELS = {"digits": 1, "mnist": 1}
SIZES = {"digits": 8, "mnist": 28, "cifar10": 32, "cifar100": 32}


def image_data(name: str, train: int = 60, val: int = 40, classes: int = 4) -> datasets.ImageData:
    """Random images whose brightness depends on their class, so that there is something to learn."""
    rng = torch.Generator().manual_seed(0)
    shape = (CHANNELS.get(name, 3), SIZES.get(name, 32), SIZES.get(name, 32))

    def split(count: int) -> datasets.Split:
        labels = torch.arange(count) % classes
        noise = torch.randint(0, 60, (count, *shape), generator=rng)
        return datasets.Split((noise + 45 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)

    channels = shape[0]
    return datasets.ImageData(
        name=name,
        train=split(train),
        val=split(val),
        classes=tuple(f"class {i}" for i in range(classes)),
        mean=(0.4,) * channels,
        std=(0.25,) * channels,
        hash="0" * 64,
    )


def images(name: str = "cifar10", count: int = 48) -> Images:
    """The stand-in's training split on the CPU."""
    data = image_data(name, train=count)
    return Images.of(data, data.train, data.train.images.shape[-1], "cpu")


def stir_statistics(model: nn.Module) -> None:
    """Give normalizations running statistics that do something."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            buffer.normal_(std=0.2)


def call(*arguments: object) -> int:
    """Run the command line in this process; the exit code."""
    old, sys.argv = sys.argv, ["bench", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = old
    return 0
