"""Features that the frozen part of a network gives, computed once an example where examples do not vary."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contract.zoo import Layout
from tasks.data.images import fits
from tasks.data.source import Source, channels_last
from tasks.fast.dependence import split
from tasks.training.batches import Batches, drawn
from tasks.training.recipe import Recipe
from tasks.training.steps import Criterion, Loss

KEEP_BYTES = 1024**3  # of the frozen part, for all images of a split


class Frozen:
    """A network whose generated part alone is trained; what comes before that needs no gradients.

    Args:
        model: in eval mode, on the device; frozen but for the layout's parameters.
        layout: the generated part.
        source: the training split.
        recipe: says whether examples vary from epoch to epoch.
        precision: "float32", or "bfloat16" for autocast.
        keep: bytes of tensors that are kept; where all examples would take more, they are computed at every step.
    """

    def __init__(
        self,
        model: nn.Module,
        layout: Layout,
        source: Source,
        recipe: Recipe,
        precision: str,
        keep: int = KEEP_BYTES,
    ) -> None:
        self.source = source
        self.autocast = torch.autocast(
            torch.device(source.device).type, torch.bfloat16, enabled=precision == "bfloat16"
        )
        self.parts = split(model, layout.names, source.inputs(source.examples[:2]))
        operations = {node.op for node in self.parts.shared.graph.nodes}
        self.keeps = recipe.augment == "none" and not operations <= {"placeholder", "output"}
        self._known = torch.zeros(len(source), dtype=torch.bool)
        self._kept: tuple[Tensor, ...] = ()
        if self.keeps:
            first = self._compute(source.examples[:2])
            size = len(source) * sum(t[0].numel() * t.element_size() for t in first)
            self.keeps = size <= keep and fits(size, source.device)
            if self.keeps:
                self._kept = tuple(self._room(tensor) for tensor in first)

    def _room(self, like: Tensor) -> Tensor:
        """Return memory for a tensor of all examples, laid out as this one; none is taken before it is used."""
        order = torch.channels_last if _last(like) else torch.contiguous_format
        shape = (len(self.source), *like.shape[1:])
        return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=order)

    def shared(self, runs: Sequence[Batches], step: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the features of several runs' batches of one step, run after run; and their labels."""
        if not self.keeps:
            examples, labels = drawn(runs, step)
            return self._compute(examples), labels
        rows = torch.cat([batches.order.rows(step) for batches in runs])
        labels = self.source.labels[rows.to(self.source.labels.device)]
        return self._recalled(rows), labels.to(self.source.device)

    def loss(self, data: Batches, criterion: Criterion = F.cross_entropy) -> Loss:
        """Return the loss on the batch of each step, by a criterion of float32 logits and labels."""

        def loss(step: int) -> Tensor:
            shared, labels = self.shared([data], step)
            with self.autocast:
                logits = self.parts.generated(*shared)
            return criterion(logits.float(), labels)

        return loss

    @torch.no_grad()
    def _compute(self, examples: Shaped[Tensor, "B ..."]) -> tuple[Shaped[Tensor, "B ..."], ...]:
        inputs = channels_last(self.source.inputs(examples))
        with self.autocast:
            return self.parts.features(inputs)

    def _recalled(self, rows: Int64[Tensor, " B"]) -> tuple[Shaped[Tensor, "B ..."], ...]:
        """Return the features of these examples; all of them are computed where those of one are not known yet.

        The last digit of a product can depend on how many examples it is for, and this way that is the size of a batch.
        """
        if not self._known[rows].all():
            made = self._compute(self.source.examples[rows.to(self.source.examples.device)])
            for kept, tensor in zip(self._kept, made, strict=True):
                kept[rows.to(kept.device)] = tensor
            self._known[rows] = True
            return made
        return tuple(_rows(kept, rows.to(kept.device)) for kept in self._kept)


def _last(tensor: Tensor) -> bool:
    """Return whether a map has its channels last in memory, which decides the last digit of what follows."""
    behind = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return behind and not tensor.is_contiguous()


def _rows(tensor: Tensor, rows: Int64[Tensor, " B"]) -> Tensor:
    """Return the rows of a tensor in the memory layout that the tensor has."""
    return tensor.movedim(1, 3)[rows].movedim(3, 1) if _last(tensor) else tensor[rows]
