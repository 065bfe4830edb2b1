"""Training detectors: batches of images with boxes, and torchvision's own losses on them."""

import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.system.randomness import derive, scoped
from tasks.data.coco import CocoSplit
from tasks.training.batches import Order
from tasks.training.recipe import Recipe
from tasks.training.steps import Loss

KEEP_BYTES = 512 * 1024**2  # pixels of a split up to this size stay in memory
Target = dict[str, Tensor]  # torchvision's: "boxes" and "labels"


class Examples:
    """The images of a split with what a detector learns from them: boxes within the image, none of crowds.

    They are the boxes that scores are of, as far as they lie inside (``tasks.data.annotations`` says how far that is).
    """

    def __init__(self, split: CocoSplit) -> None:
        self.split = split
        pixels = sum(3 * height * width for height, width in split.sizes)
        self._image = functools.cache(split.image) if pixels <= KEEP_BYTES else split.image
        self._targets: dict[int, Target] = {}
        self._readers = ThreadPoolExecutor(os.cpu_count())

    def __len__(self) -> int:
        return len(self.split)

    def images(self, rows: Sequence[int]) -> Iterator[UInt8[Tensor, "3 H W"]]:
        """Return the pixels of these images, decoded by a thread per core."""
        return self._readers.map(self._image, rows)

    def target(self, row: int) -> Target:
        """Return corners and categories of the boxes of one image, cut at its edges; all have an area inside it."""
        if row not in self._targets:
            self._targets[row] = self._read_target(row)
        return self._targets[row]

    def _read_target(self, row: int) -> Target:
        single = [box for box in self.split.annotations(row) if not box["iscrowd"]]
        boxes = torch.tensor([box["bbox"] for box in single], dtype=torch.float32).reshape(-1, 4)
        height, width = self.split.sizes[row]
        corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1).clamp_(min=0)
        corners = corners.minimum(torch.tensor([width, height, width, height]))
        labels = torch.tensor([box["category_id"] for box in single], dtype=torch.int64)
        return {"boxes": corners, "labels": labels}


class BoxBatches:
    """Training batches by number: order and mirroring of step i depend on the seed and i alone."""

    def __init__(self, data: Examples, recipe: Recipe, rng: torch.Generator, device: str) -> None:
        self.data, self.recipe, self.rng, self.device = data, recipe, rng, device
        self.order = Order(len(data), recipe.batch_size, rng)

    def __call__(self, step: int) -> tuple[list[Float[Tensor, "3 H W"]], list[Target]]:
        """Return the images of one step, in [0, 1], and their targets, on the device."""
        rows = self.order.rows(step).tolist()
        mirrored = torch.rand(len(rows), generator=derive(self.rng, "augment", step)) < 0.5
        images, targets = [], []
        for row, pixels, mirror in zip(rows, self.data.images(rows), mirrored, strict=True):
            image, target = pixels.to(self.device).float() / 255, self.data.target(row)
            if mirror and self.recipe.augment == "flip":
                image, target = flip(image, target)
            images.append(image)
            targets.append({name: tensor.to(self.device) for name, tensor in target.items()})
        return images, targets


def flip(image: Float[Tensor, "3 H W"], target: Target) -> tuple[Float[Tensor, "3 H W"], Target]:
    """Mirror an image and its boxes from left to right."""
    left, top, right, bottom = target["boxes"].unbind(1)
    width = image.shape[2]
    boxes = torch.stack([width - right, top, width - left, bottom], dim=1)
    return image.flip(2), {**target, "boxes": boxes}


def detect(model: nn.Module, data: BoxBatches) -> Loss:
    """Return the sum of torchvision's losses on the batch of each step, in the recipe's precision.

    What they draw at random (which proposals count) depends on the seed and the step alone.
    """
    kind = torch.device(data.device).type
    mixed = data.recipe.precision == "bfloat16"

    def loss(step: int) -> Tensor:
        images, targets = data(step)
        with (
            scoped(derive(data.rng, "sample", step)),
            torch.autocast(kind, torch.bfloat16, enabled=mixed),
        ):
            losses = model(images, targets)
        return torch.stack([part.float() for part in losses.values()]).sum()

    return loss


def with_losses(model: nn.Module) -> nn.Module:
    """Switch a detector so that it returns losses while normalization statistics stand still; return it.

    torchvision's detectors give losses in train mode alone; of their layers, only batch normalization differs in it.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return model
