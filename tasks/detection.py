"""Object detection: fine-tune or train detectors, generate their box predictor, and score candidates by COCO's mAP."""

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
from tasks.data.coco import CocoData, CocoSplit
from tasks.fast.average_precision import Truth
from tasks.fast.backbones import InPieces
from tasks.fast.box_coordinates import BoxCoordinates
from tasks.fast.finding import finder
from tasks.fast.resampling import counts
from tasks.training.boxes import BoxBatches, Examples, detect, with_losses
from tasks.training.collected import Collected
from tasks.training.problem import PartLoss, Problem
from tasks.training.settings import Sampled


@dataclasses.dataclass(eq=False)
class Detection(Collected, Sampled):
    """Train detectors, generate a subset of their weights, score by mAP (paper, F.1 and Table 10).

    A box is wrong where no detection of its category is matched with it at IoU 0.5, in pycocotools' greedy order. What
    counts as a detection is torchvision's own rule: scores above the architecture's threshold (0.05 for Faster R-CNN,
    0.2 for FCOS), and the 100 best of an image. Boxes of crowds are no units. Equal training mAPs are not told apart by
    a loss: the first model is selected. Nothing is found where a detector's heads are not finite
    (``tasks.fast.watching``).

    Attributes:
        epochs: 0 takes pretrained weights as they are for the base.
        augment: "none" or "flip" (mirrored from left to right, every other time).
        limit: how many images of each split are used at all, chosen at random; None means all.
        image_size: the images' shorter side after resizing; None takes the data set's.
    """

    kind: ClassVar[str] = "detection"
    metric: ClassVar[Metric] = Metric("mAP", scale=100, resampled="bootstrap")
    compared: ClassVar[Compared] = Compared(
        "validation box, wrong where no detection of its category matches it at IoU 0.5",
        independent=False,  # boxes of one image see each other
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"train_size": None}}
    data_form: ClassVar[str] = "boxes"
    network_form: ClassVar[str] = "boxes"
    augmentations: ClassVar[Sequence[str]] = ("none", "flip")

    dataset: str = "shapes"
    arch: str = "fasterrcnn_small"
    layers: str = "head"
    batch_size: int = 8
    augment: str = "flip"
    train_size: int | None = 1000
    limit: int | None = None
    image_size: int | None = None

    @functools.cached_property
    def data(self) -> CocoData:
        """The data set, read on first use."""
        return self.load(CocoData, limit=self.limit)

    def _split(self, split: str) -> CocoSplit:
        return self.data.train if split == "train" else self.data.val

    @functools.cached_property
    def shape(self) -> Shape:
        """Input size of the detector, and its outputs: 0 is the background, a category's is its id."""
        side, outputs = self.image_size or self.data_set.size, max(self.data.category_ids) + 1
        return Shape(3, side, outputs, released=bool(self.pretrained))

    def build(self, pretrained: str | None = None) -> nn.Module:
        """Build the detector for the data's categories."""
        return self.architecture.build(self.shape, pretrained)

    @functools.cached_property
    def problem(self) -> Problem:
        """The sum of torchvision's losses on the training images."""
        return Problem(
            name=f"{self.arch} on {self.dataset}",
            build=self.build,
            whole_loss=lambda model, rng: detect(model, self._batches(rng)),
            part_loss=self._part_loss,
            score=self.score,
            recipe=self.recipe,
            per_epoch=self.per_epoch,
            device=self.device,
        )

    def _batches(self, rng: torch.Generator) -> BoxBatches:
        return BoxBatches(self._train, self.recipe, rng, self.device)

    def _part_loss(self, model: nn.Module, layout: Layout) -> PartLoss:
        """Return the same loss; only the way from the layout's parameters to the loss has gradients."""
        frozen = not any(name.startswith("backbone.") for name in layout.names)
        losses = InPieces(with_losses(model)) if frozen else with_losses(model)
        return lambda rng: detect(losses, self._batches(rng))

    def scorer(self, zoo: Zoo, split: str) -> Scorer:
        """Return the scorer of mAP in [0, 1] and missed boxes; beside them AP50, AP75 and mAP by size.

        On validation the models get coordinates, see ``tasks.fast.box_coordinates``.
        """
        if split == "val":
            scored, truth = self._val
        else:
            scored = self._scored(split)
            truth = self._truth(scored, split)
        find = finder(self.base_model(zoo), zoo.layout, scored)
        coordinates = BoxCoordinates(truth) if split == "val" else None
        resamples = None
        if split == "val":
            resamples = truth.resamples(counts(truth.wanted_in_images.any(1)))

        def score(vectors: Float[Tensor, "N D"]) -> Evaluation:
            detections = find(vectors)
            precision = truth.score(detections, len(vectors), resamples=resamples)
            values = dict(precision.values)
            return Evaluation(
                values.pop(self.metric.name),
                precision.missed,
                values,
                not_finite=detections.not_finite,
                outputs=None if coordinates is None else coordinates(detections, len(vectors)),
                replicates=precision.replicates,
            )

        return score

    def plain(self, zoo: Zoo) -> Plain:
        """Return torchvision's detector, and pycocotools' average precision of it."""
        from tasks.plain import average_precision  # loads torchmetrics, which nothing else needs

        measure = average_precision(self._val[0], device=self.device)
        return Plain(self.build().to(self.device), zoo.base, measure, absolute=2e-3)

    def score(self, model: nn.Module) -> float:
        """Return the validation mAP of one detector."""
        scored, truth = self._val
        detections = finder(model, Layout((), ()), scored)(torch.empty(1, 0))
        return float(truth.score(detections, 1).values[self.metric.name])

    @functools.cached_property
    def _train(self) -> Examples:
        return Examples(self.data.train)

    def _scored(self, split: str) -> CocoSplit:
        """Return the subset of a split that is scored."""
        return self._split(split).subset(self.rows(split).tolist())

    def _truth(self, scored: CocoSplit, split: str) -> Truth:
        truth = Truth(scored)
        if not truth.units:
            raise BadRequest(
                f"none of the {self.size(split)} scored images of {split} has a box: "
                f"raise --set task.{split}_size"
            )
        return truth

    @functools.cached_property
    def _val(self) -> tuple[CocoSplit, Truth]:
        """The scored validation images and their boxes, for the network of one base after another."""
        scored = self._scored("val")
        return scored, self._truth(scored, "val")
