"""Batches of training examples by number: what a step sees depends on the seed and the step's number alone."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from bench.system.randomness import derive
from tasks.data.source import Source
from tasks.training.recipe import Recipe


class Order:
    """The examples that each step trains on: a shuffled split every epoch, by the seed and the step's number alone.

    Args:
        count: examples in the split.
        batch_size: examples a step, at most.
        rng: the source of the order.

    Attributes:
        per_epoch: steps an epoch; what is left over at the end of an epoch is not seen in it.
    """

    def __init__(self, count: int, batch_size: int, rng: torch.Generator) -> None:
        self.count, self.size, self.rng = count, min(batch_size, count), rng
        self.per_epoch = count // self.size
        self._latest: tuple[int, Int64[Tensor, " M"]] | None = None

    def epoch(self, number: int) -> Int64[Tensor, " M"]:
        """Return the order of the whole split in one epoch; that of the latest is kept."""
        if self._latest is None or self._latest[0] != number:
            draw = derive(self.rng, "order", number)
            self._latest = number, torch.randperm(self.count, generator=draw)
        return self._latest[1]

    def rows(self, step: int) -> Int64[Tensor, " B"]:
        """Return the numbers of the examples of one step."""
        number, position = divmod(step, self.per_epoch)
        return self.epoch(number)[position * self.size : (position + 1) * self.size]


class Batches:
    """Training batches by number: order and augmentation of a step depend on the seed and the step's number alone.

    Args:
        source: the training split.
        recipe: says how large batches are, and how examples vary.
        rng: the source of order and augmentation.
    """

    def __init__(self, source: Source, recipe: Recipe, rng: torch.Generator) -> None:
        self.source, self.recipe, self.rng = source, recipe, rng
        self.order = Order(len(source), recipe.batch_size, rng)

    def __call__(self, step: int) -> tuple[Shaped[Tensor, "B *input"], Shaped[Tensor, "B *label"]]:
        """Return a network's inputs and the labels of one step, on the device."""
        examples, labels = self.drawn(step)
        return self.source.inputs(examples), labels

    def drawn(self, step: int) -> tuple[Shaped[Tensor, "B *any"], Shaped[Tensor, "B *label"]]:
        """Return the augmented examples of one step, where the source keeps them, and their labels on the device."""
        rows, source = self.order.rows(step), self.source
        examples = source.examples.index_select(0, rows.to(source.examples.device))
        labels = source.labels[rows.to(source.labels.device)]
        if self.recipe.augment != "none":
            draw = derive(self.rng, "augment", step)
            examples, labels = source.augmented(examples, labels, self.recipe.augment, draw)
        return examples, labels.to(source.device)


def drawn(
    runs: Sequence[Batches], step: int
) -> tuple[Shaped[Tensor, "SB *any"], Shaped[Tensor, "SB *label"]]:
    """Return the examples and labels that several runs draw for a step, run after run."""
    examples, labels = zip(*(batches.drawn(step) for batches in runs), strict=True)
    return torch.cat(examples), torch.cat(labels)
