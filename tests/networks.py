"""The suite's architectures by name alone, for tests of what is done with networks."""

from torch import nn

from bench.contract import registry
from bench.contract.declarations import Shape

__all__ = ["Shape", "build"]


def build(name: str, shape: Shape, *, pretrained: str | None = None) -> nn.Module:
    """Build a network in eval mode."""
    return registry.architectures().find("architecture", name).build(shape, pretrained)
