"""Networks and data that the benchmarks of scoring and collecting share: random, of the real sizes."""

import torch
from torch import Tensor, nn

from bench.contract.zoo import Layout
from bench.system.randomness import generator, scoped
from tasks.data.images import Images
from tasks.networks.layers import select
from tests.networks import Shape, build
from tests.standins import stir_statistics

CLEAR = 1e-4  # top two logits this far apart: rounding cannot exchange them


def network(arch: str, layers: str, classes: int = 10, channels: int = 3, side: int = 32):
    """A network in eval mode whose normalizations do something, and the layout of its generated part."""
    with scoped(generator(0, "network")):
        model = build(arch, Shape(channels, side, classes)).eval()
        stir_statistics(model)
    layout = Layout.of({name: model.get_parameter(name) for name in select(model, layers)})
    return model, layout


def around(model: nn.Module, layout: Layout, count: int) -> Tensor:
    """Candidates: the network's own values and a little noise."""
    own = layout.flatten({name: model.get_parameter(name) for name in layout.names}).detach()
    noise = torch.randn(count, layout.dim, generator=generator(0, "candidates"))
    return own + 0.05 * own.std() * noise


def images(count: int, classes: int = 10, channels: int = 3, side: int = 32) -> Images:
    """Random pixels and labels."""
    rng = generator(0, "images", count)
    pixels = torch.randint(256, (count, channels, side, side), generator=rng, dtype=torch.uint8)
    labels = torch.randint(classes, (count,), generator=rng)
    column = torch.full((channels, 1, 1), 0.5)
    return Images(pixels, labels, column, column / 2, side, "cpu")


def check_wrong(wrong: Tensor, logits: Tensor, labels: Tensor) -> None:
    """Predictions are those of the logits, except where the two top logits lie within rounding."""
    top = logits.topk(2, dim=-1).values
    clear = top[..., 0] - top[..., 1] > CLEAR
    assert clear.float().mean() > 0.9
    assert torch.equal(wrong[clear], (logits.argmax(-1) != labels)[clear])
