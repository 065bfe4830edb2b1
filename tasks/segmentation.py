"""Semantic segmentation: fully convolutional networks trained on masks, and candidates scored by mean IoU."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.contract import Compared, Evaluation, Metric, Scorer
from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest
from bench.system.randomness import generator
from tasks.data import masks
from tasks.data.images import Images
from tasks.data.masks import MaskedSplit
from tasks.fast import upsampling
from tasks.fast.confusion import mean_iou, pixel_accuracy
from tasks.fast.dense import (
    AUGMENTATIONS,
    DenseScorer,
    MaskedBatches,
    pixel_cross_entropy,
    random_pixels,
)
from tasks.fast.frozen import Frozen
from tasks.networks import fcn
from tasks.training.steps import Loss, supervise
from tasks.training.trained import Trained


@dataclasses.dataclass(eq=False)
class Segmentation(Trained):
    """Train segmentation networks, generate a subset of their weights, score by mean IoU.

    A pixel gets no class, and is missed, where a coarse logit that it is interpolated from is not finite; images with
    any such logit are counted.

    Attributes:
        dataset: one of ``tasks.data.masks.NAMES``.
        arch: one of ``tasks.networks.fcn.NAMES``.
        augment: "none", "flip" (left and right) or "symmetries" (the eight of a square).
        image_size: side of the squares that images become (see ``tasks.data.masks``); a multiple of 8.
        limit: at most so many images of each split are used; None means all.
        pixels: how many pixels of every scored image are units, and what the loss is taken from.
    """

    kind: ClassVar[str] = "segmentation"
    metric: ClassVar[Metric] = Metric("mean IoU", scale=100)
    compared: ClassVar[Compared] = Compared(
        "pixel of a fixed random subset, equally many of each validation image, wrong where its class is not predicted",
        independent=False,  # pixels of one image belong together
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"train_size": 5000}}
    data_sets: ClassVar[Sequence[str]] = masks.NAMES
    architectures: ClassVar[Sequence[str]] = fcn.NAMES
    augmentations: ClassVar[Sequence[str]] = ("none", *AUGMENTATIONS)
    shipped: ClassVar[Sequence[str]] = ("shapes-seg",)
    rescoring: ClassVar[tuple[str, ...]] = ("val_size", "pixels")
    scoring: ClassVar[tuple[str, ...]] = ("train_size", *rescoring)

    dataset: str = "shapes-seg"
    arch: str = "fcn_small"
    batch_size: int = 8
    image_size: int = 80
    limit: int | None = None
    pixels: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % fcn.STRIDE:
            raise BadRequest(
                f"image_size is {self.image_size}, expected a multiple of {fcn.STRIDE}"
            )

    @functools.cached_property
    def data(self) -> masks.MaskedData:
        """The data set, loaded on first use."""
        folder = Path(self.context.data_dir) if self.context.data_dir else None
        return masks.load(self.dataset, self.image_size, folder, self.limit)

    @property
    def dataset_hash(self) -> str:
        """SHA-256 of the images and annotations."""
        return self.data.hash

    def available(self, split: str) -> int:
        """How many images the split has."""
        return len(self._split(split))

    def build(self, pretrained: str | None = None) -> nn.Module:
        """The architecture for the data's classes; it gives logits before upsampling."""
        return fcn.build(self.arch, len(self.data.classes), pretrained=pretrained)

    def whole_loss(self, model: nn.Module, rng: torch.Generator) -> Loss:
        """Cross-entropy over all pixels."""
        data = MaskedBatches(self._train, self.recipe, rng)
        return supervise(model, data, pixel_cross_entropy)

    def part_loss(self, model: nn.Module, layout: Layout, rng: torch.Generator) -> Loss:
        """The same; what does not depend on the layout's parameters runs without gradients."""
        data = MaskedBatches(self._train, self.recipe, rng)
        return self._frozen(model, layout).loss(data, pixel_cross_entropy)

    @functools.lru_cache(maxsize=1)  # noqa: B019 - a task lives as long as its run
    def _frozen(self, model: nn.Module, layout: Layout) -> Frozen:
        """One for all runs from the same base: they see the same images."""
        return Frozen(model, layout, self._train, self.recipe, self.recipe.precision)

    def scorer(self, zoo: Zoo, split: str) -> Scorer:
        """Return what gives mean IoU and pixel accuracy in [0, 1], wrong units, and their mean cross-entropy."""
        images = self._scored(split)
        pixels = random_pixels(images.labels, self.pixels, split)
        classes = len(self.data.classes)
        dense = DenseScorer(self.base_model(zoo), zoo.layout, images, pixels, classes)

        def score(vectors: Float[Tensor, "N D"]) -> Evaluation:
            scored = dense(vectors)
            extra = {"loss": scored.loss, "pixel accuracy": pixel_accuracy(scored.matrices)}
            return Evaluation(
                mean_iou(scored.matrices), scored.wrong, extra, not_finite=scored.not_finite
            )

        return score

    @torch.inference_mode()
    def score(self, model: nn.Module) -> float:
        """Validation mean IoU of one network."""
        images, matrix = self._scored("val"), torch.zeros(())
        for start in range(0, len(images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            inputs = images.inputs(images.pixels[rows])
            coarse = model(inputs.contiguous(memory_format=torch.channels_last))
            matrix = (
                matrix
                + upsampling.confusion(coarse[None], images.labels[rows].to(self.device)).cpu()
            )
        return float(mean_iou(matrix))

    def _split(self, split: str) -> MaskedSplit:
        return self.data.train if split == "train" else self.data.val

    @functools.cached_property
    def _train(self) -> Images:
        """The whole training split, for training."""
        return self.data.train.on(self.device)

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a task lives as long as its run
    def _scored(self, split: str) -> Images:
        """The fixed random subset of a split that is scored."""
        whole = self._split(split)
        if self.size(split) == len(whole):
            return whole.on(self.device)
        order = torch.randperm(len(whole), generator=generator(0, "scored", split))
        rows = order[: self.size(split)].sort().values
        return MaskedSplit(whole.images[rows], whole.masks[rows]).on(self.device)
