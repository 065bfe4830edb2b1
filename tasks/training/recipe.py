"""Recipes of training: optimizer, learning rate, epochs, batches, precision."""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe of training.

    Attributes:
        optimizer: "sgd" (momentum 0.9, Nesterov) or "adamw".
        epochs: passes over the training split.
        batch_size: examples a step.
        lr: peak learning rate; linear warm-up over a tenth of the steps, then cosine to zero.
        weight_decay: of the optimizer.
        augment: how training images vary, as the task names it; "none" leaves them as they are.
        precision: "float32", or "bfloat16" for autocast.
    """

    optimizer: str = "sgd"
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4
    augment: str = "none"
    precision: str = "float32"

    def make_optimizer(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return the optimizer over these tensors; ``rate`` gives its learning rate step by step."""
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parameters, weight_decay=self.weight_decay, fused=True)
        return torch.optim.SGD(
            parameters, momentum=0.9, nesterov=True, weight_decay=self.weight_decay, fused=True
        )

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate at a step: warm-up, then cosine."""
        warm = max(1, steps // 10)
        if step < warm:
            return self.lr * (step + 1) / warm
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
