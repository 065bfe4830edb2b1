"""The contract of an independent check: a task's plain network, scored on raw data by public implementations."""

import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from bench.contract.zoo import Zoo


@dataclasses.dataclass(frozen=True)
class Plain:
    """The network of one model, and its validation metrics by code that shares nothing with the task's scorer.

    Attributes:
        network: a plain torch module in eval mode, on the task's device.
        base: the part of its state dict that all models of the zoo share.
        measure: returns the validation metrics of the network as it is, by the names that the scorer gives them, the
            headline metric among them; None where the network puts out something that is not finite, for which the
            other implementations have no rule.
        absolute, relative: by how much a score may differ from the scorer's, because of rounding; the larger counts.
    """

    network: nn.Module
    base: dict[str, Tensor]
    measure: Callable[[nn.Module], dict[str, float] | None]
    absolute: float = 0.0
    relative: float = 0.0


@runtime_checkable
class Comparable(Protocol):
    """A task whose models public implementations can score too; ``bench verify --reference`` needs it."""

    def plain(self, zoo: Zoo) -> Plain:
        """Return the plain network of a zoo's models, and the function that measures its metrics."""
        ...
