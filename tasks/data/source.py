"""Labelled examples of one split on a device: what batches, frozen features and the scoring engine take."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Source(Protocol):
    """Labelled examples of one split, turned into a network's inputs batch by batch: images, texts, coordinates.

    Attributes:
        examples: the examples as they are kept, first dimension M; on the device, or on the CPU where they do not fit.
        labels: one label an example, or one for every part of it, first dimension M.
        device: where batches are wanted, as torch calls it.
    """

    @property
    def examples(self) -> Tensor:
        """The examples as they are kept, M in all."""
        ...

    @property
    def labels(self) -> Tensor:
        """The labels of the examples."""
        ...

    @property
    def device(self) -> str:
        """Where batches are wanted."""
        ...

    def __len__(self) -> int:
        """Return the number M of examples."""
        ...

    def inputs(self, examples: Tensor) -> Tensor:
        """Return a network's inputs for some of the examples, on the device."""
        ...

    def augmented(
        self, examples: Tensor, labels: Tensor, name: str, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return a batch of examples and their labels, varied at random as the augmentation of this name says."""
        ...


def channels_last(tensor: Tensor) -> Tensor:
    """Return a map with its channels last in memory, which convolutions want; any other tensor as it is."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
