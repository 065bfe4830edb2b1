"""What the frozen part of a network makes of training images: once an image where images come back as they were."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contract.zoo import Layout
from tasks.data.images import Images, fits
from tasks.fast.dependence import split
from tasks.training.steps import Batches, Criterion, Loss, Recipe, drawn

KEEP_BYTES = 1024**3  # tensors of a split are kept up to this size, and else computed at every step


class Frozen:
    """A network whose generated part alone is trained; what comes before that needs no gradients.

    Args:
        model: in eval mode, on the device; frozen but for the layout's parameters.
        layout: the generated part.
        images: the training split.
        recipe: says whether images vary from epoch to epoch.
        precision: "float32", or "bfloat16" for autocast.
    """

    def __init__(
        self, model: nn.Module, layout: Layout, images: Images, recipe: Recipe, precision: str
    ) -> None:
        self.images = images
        self.autocast = torch.autocast(
            torch.device(images.device).type, torch.bfloat16, enabled=precision == "bfloat16"
        )
        self.parts = split(model, layout.names, images.inputs(images.pixels[:2]))
        operations = {node.op for node in self.parts.shared.graph.nodes}
        self.keeps = recipe.augment == "none" and not operations <= {"placeholder", "output"}
        self._known = torch.zeros(len(images), dtype=torch.bool)
        self._kept: tuple[Tensor, ...] = ()
        if self.keeps:
            first = self._compute(images.pixels[:2])
            size = len(images) * sum(t[0].numel() * t.element_size() for t in first)
            self.keeps = size <= KEEP_BYTES and fits(size, images.device)
            if self.keeps:
                self._kept = tuple(self._room(tensor) for tensor in first)

    def _room(self, like: Tensor) -> Tensor:
        """Memory for a tensor of all images, which lies as this one does; none is taken before it is used."""
        order = torch.channels_last if _last(like) else torch.contiguous_format
        shape = (len(self.images), *like.shape[1:])
        return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=order)

    def shared(self, sources: Sequence[Batches], step: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """What the generated part starts from in the batches of a step, one behind the other; and their labels."""
        if not self.keeps:
            pixels, labels = drawn(sources, step)
            return self._compute(pixels), labels
        rows = torch.cat([source.rows(step) for source in sources])
        return self._recalled(rows), self.images.labels[rows.to(self.images.labels.device)]

    def loss(self, data: Batches, criterion: Criterion = F.cross_entropy) -> Loss:
        """What the network loses on the batch of each step, by its float32 logits and the labels."""

        def loss(step: int) -> Tensor:
            shared, labels = self.shared([data], step)
            with self.autocast:
                logits = self.parts.own(*shared)
            return criterion(logits.float(), labels)

        return loss

    @torch.no_grad()
    def _compute(self, pixels: UInt8[Tensor, "B C H W"]) -> tuple[Shaped[Tensor, "B *any"], ...]:
        inputs = self.images.inputs(pixels).contiguous(memory_format=torch.channels_last)
        with self.autocast:
            return self.parts.features(inputs)

    def _recalled(self, rows: Int64[Tensor, " B"]) -> tuple[Shaped[Tensor, "B *any"], ...]:
        """The tensors of these images; all of them are computed where any is not known yet.

        The last digit of a product can depend on how many images it is for, and this way that is the size of a batch.
        """
        if not self._known[rows].all():
            made = self._compute(self.images.pixels[rows.to(self.images.pixels.device)])
            for kept, tensor in zip(self._kept, made, strict=True):
                kept[rows.to(kept.device)] = tensor
            self._known[rows] = True
            return made
        return tuple(_rows(kept, rows.to(kept.device)) for kept in self._kept)


def _last(tensor: Tensor) -> bool:
    """Whether a map lies in memory with its channels behind; how it lies decides the last digit of what follows."""
    behind = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return behind and not tensor.is_contiguous()


def _rows(tensor: Tensor, rows: Int64[Tensor, " B"]) -> Tensor:
    """Those of some images, as they lie."""
    return tensor.movedim(1, 3)[rows].movedim(3, 1) if _last(tensor) else tensor[rows]
