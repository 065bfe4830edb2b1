"""Semantic segmentation: fully convolutional networks trained on masks, and candidates scored by mean IoU."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.contract import Compared, Evaluation, Metric, Scorer
from bench.contract.declarations import Shape
from bench.contract.plain import Plain
from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest
from tasks.data.coco import IGNORED
from tasks.data.images import Images
from tasks.data.masks import AUGMENTATIONS, MEAN, STD, MaskedData, MaskedSplit
from tasks.data.source import channels_last
from tasks.fast import upsampling
from tasks.fast.confusion import mean_iou, pixel_accuracy
from tasks.fast.dense import DenseScorer, pixel_cross_entropy, random_pixels
from tasks.fast.frozen import Frozen
from tasks.fast.resampling import counts
from tasks.training.batches import Batches
from tasks.training.collected import Collected
from tasks.training.problem import PartLoss, Problem
from tasks.training.settings import Sampled
from tasks.training.steps import supervise


@dataclasses.dataclass(eq=False)
class Segmentation(Collected, Sampled):
    """Train segmentation networks, generate a subset of their weights, score by mean IoU.

    A pixel gets no class, and is missed, where a coarse logit that it is interpolated from is not finite; images with
    any such logit are counted.

    Attributes:
        augment: "none", "flip" (left and right) or "symmetries" (the eight of a square).
        image_size: side of the squares that images become (see ``tasks.data.masks``); the suite's architectures take
            multiples of 8.
        limit: at most so many images of each split are used; None means all.
        pixels: how many pixels of every scored image are units, and what the loss is taken from.
    """

    kind: ClassVar[str] = "segmentation"
    metric: ClassVar[Metric] = Metric("mean IoU", scale=100, resampled="bootstrap")
    compared: ClassVar[Compared] = Compared(
        "pixel of a fixed random subset, equally many of each validation image, wrong where its class is not predicted",
        independent=False,  # pixels of one image belong together
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"train_size": 5000}}
    data_form: ClassVar[str] = "masks"
    network_form: ClassVar[str] = "masks"
    augmentations: ClassVar[Sequence[str]] = ("none", *AUGMENTATIONS)
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
        multiple = self.architecture.multiple
        if self.image_size % multiple:
            raise BadRequest(f"image_size is {self.image_size}, expected a multiple of {multiple}")

    @functools.cached_property
    def data(self) -> MaskedData:
        """The data set, loaded on first use."""
        return self.load(MaskedData, size=self.image_size, limit=self.limit)

    def build(self, pretrained: str | None = None) -> nn.Module:
        """Build the architecture for the data's classes; it gives logits before upsampling."""
        shape = Shape(3, self.image_size, len(self.data.classes), released=bool(pretrained))
        return self.architecture.build(shape, pretrained)

    @functools.cached_property
    def problem(self) -> Problem:
        """Cross-entropy of the classes of all pixels of the training images."""
        return Problem(
            name=f"{self.arch} on {self.dataset}",
            build=self.build,
            whole_loss=lambda model, rng: supervise(model, self._batches(rng), pixel_cross_entropy),
            part_loss=self._part_loss,
            score=self.score,
            recipe=self.recipe,
            per_epoch=self.per_epoch,
            device=self.device,
        )

    def _batches(self, rng: torch.Generator) -> Batches:
        return Batches(self._train, self.recipe, rng)

    def _part_loss(self, model: nn.Module, layout: Layout) -> PartLoss:
        """Return the cross-entropy in which features of the frozen part are computed once an image."""
        frozen = Frozen(model, layout, self._train, self.recipe, self.recipe.precision)
        return lambda rng: frozen.loss(self._batches(rng), pixel_cross_entropy)

    def scorer(self, zoo: Zoo, split: str) -> Scorer:
        """Return the scorer of mean IoU and pixel accuracy in [0, 1], wrong units, and their mean cross-entropy."""
        images = self._val if split == "val" else self._scored(split)
        pixels = random_pixels(images.labels, self.pixels, split)
        classes = len(self.data.classes)
        drawn = None
        if split == "val":
            drawn = counts((images.labels != IGNORED).flatten(1).any(1).cpu())
        dense = DenseScorer(self.base_model(zoo), zoo.layout, images, pixels, classes, drawn)

        def score(vectors: Float[Tensor, "N D"]) -> Evaluation:
            scored = dense(vectors)
            extra = {"loss": scored.loss, "pixel accuracy": pixel_accuracy(scored.matrices)}
            return Evaluation(
                mean_iou(scored.matrices),
                scored.wrong,
                extra,
                not_finite=scored.not_finite,
                outputs=scored.outputs,
                replicates=scored.replicates,
            )

        return score

    def plain(self, zoo: Zoo) -> Plain:
        """Return the network, and torchmetrics' mean IoU (Jaccard index) and pixel accuracy of it."""
        from tasks.plain import jaccard  # loads torchmetrics, which nothing else needs

        images = self._val
        measure = jaccard(
            images.examples, images.labels, mean=MEAN, std=STD,
            classes=len(self.data.classes), device=self.device,
        )  # fmt: skip
        return Plain(self.build().to(self.device), zoo.base, measure, absolute=1e-3)

    @torch.inference_mode()
    def score(self, model: nn.Module) -> float:
        """Return the validation mean IoU of one network."""
        images, matrix = self._val, torch.zeros(())
        for start in range(0, len(images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            coarse = model(channels_last(images.inputs(images.examples[rows])))
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

    def _scored(self, split: str) -> Images:
        """Return the subset of a split that is scored."""
        whole = self._split(split)
        if self.size(split) == len(whole):
            return whole.on(self.device)
        rows = self.rows(split).sort().values
        return MaskedSplit(whole.images[rows], whole.masks[rows]).on(self.device)

    @functools.cached_property
    def _val(self) -> Images:
        """The scored validation images, for the network of one base after another."""
        return self._scored("val")
