"""The suite's architectures by name alone, for tests of what is done with networks."""

import torch
from torch import nn

from bench.contract import registry
from bench.contract.declarations import Shape
from bench.judge.align import groups, permute

__all__ = ["Shape", "build", "shuffled"]


def build(name: str, shape: Shape, *, pretrained: str | None = None) -> nn.Module:
    """Build a network in eval mode."""
    return registry.architectures().find("architecture", name).build(shape, pretrained)


def shuffled(zoo, row=0, seed=1):
    """A checkpoint with the units of every group in another order."""
    tensors = zoo.layout.unflatten(zoo.vectors[row][None])
    rng = torch.Generator().manual_seed(seed)
    for places in groups(zoo).values():
        name, axis = places[0]
        order = torch.randperm(tensors[name].shape[axis + 1], generator=rng)
        tensors = permute(tensors, places, order[None])
    return zoo.layout.flatten(tensors)[0]
