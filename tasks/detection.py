"""Object detection: fine-tune or train detectors, generate their box predictor, and score candidates by COCO's mAP."""

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
from tasks.data import coco
from tasks.data.coco import CocoSplit
from tasks.fast.average_precision import Truth
from tasks.fast.backbones import InPieces
from tasks.fast.finding import finder
from tasks.networks.detectors import NAMES, Sizes, build
from tasks.training.boxes import BoxBatches, Examples, detect, losing
from tasks.training.steps import Loss
from tasks.training.trained import Trained


@dataclasses.dataclass(eq=False)
class Detection(Trained):
    """Train detectors, generate a subset of their weights, score by mAP (paper, F.1 and Table 10).

    A box is wrong where no detection of its category is matched with it at IoU 0.5, in pycocotools' greedy order. What
    counts as a detection is torchvision's own rule: scores above the architecture's threshold (0.05 for Faster R-CNN,
    0.2 for FCOS), and the 100 best of an image. Boxes of crowds are no units. Equal training mAPs are not told apart by
    a loss: the first model is selected. Nothing is found where a detector's heads are not finite
    (``tasks.fast.watching``).

    Attributes:
        dataset: one of ``tasks.data.coco.NAMES``.
        arch: one of ``tasks.networks.detectors.NAMES``.
        epochs: 0 takes pretrained weights as they are for the base.
        augment: "none" or "flip" (mirrored from left to right, every other time).
        limit: how many images of each split are used at all, chosen at random; None means all.
        image_size: the images' shorter side after resizing; None takes 800, and for ``shapes`` the images' own.
    """

    kind: ClassVar[str] = "detection"
    metric: ClassVar[Metric] = Metric("mAP", scale=100)
    compared: ClassVar[Compared] = Compared(
        "validation box, wrong where no detection of its category matches it at IoU 0.5",
        independent=False,  # boxes of one image see each other
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"train_size": None}}
    data_sets: ClassVar[Sequence[str]] = coco.NAMES
    architectures: ClassVar[Sequence[str]] = NAMES
    augmentations: ClassVar[Sequence[str]] = ("none", "flip")
    shipped: ClassVar[Sequence[str]] = ("shapes",)

    dataset: str = "shapes"
    arch: str = "fasterrcnn_small"
    layers: str = "head"
    batch_size: int = 8
    augment: str = "flip"
    train_size: int | None = 1000
    limit: int | None = None
    image_size: int | None = None

    @functools.cached_property
    def data(self) -> coco.CocoData:
        """The data set, read on first use."""
        return coco.load(
            self.dataset, Path(self.context.data_dir) if self.context.data_dir else None, self.limit
        )

    @property
    def dataset_hash(self) -> str:
        """SHA-256 of the images and annotations."""
        return self.data.hash

    def available(self, split: str) -> int:
        """How many images the split has."""
        return len(self._split(split))

    def _split(self, split: str) -> CocoSplit:
        return self.data.train if split == "train" else self.data.val

    @functools.cached_property
    def sizes(self) -> Sizes:
        """Classes and input size of the detector."""
        own = min(self.data.train.sizes[0]) if self.dataset == "shapes" else 800
        outputs = max(self.data.category_ids) + 1
        return Sizes(outputs, self.image_size or own, released=bool(self.pretrained))

    def build(self, pretrained: str | None = None) -> nn.Module:
        """The detector for the data's categories."""
        return build(self.arch, self.sizes, pretrained=pretrained)

    def whole_loss(self, model: nn.Module, rng: torch.Generator) -> Loss:
        """The sum of torchvision's losses."""
        return detect(model, BoxBatches(self._train, self.recipe, rng, self.device))

    def part_loss(self, model: nn.Module, layout: Layout, rng: torch.Generator) -> Loss:
        """The same; only what leads from the layout's parameters to the loss has gradients."""
        frozen = not any(name.startswith("backbone.") for name in layout.names)
        losses = InPieces(losing(model)) if frozen else losing(model)
        return detect(losses, BoxBatches(self._train, self.recipe, rng, self.device))

    def scorer(self, zoo: Zoo, split: str) -> Scorer:
        """Return what gives mAP in [0, 1] and the missed boxes of candidates; beside it AP50, AP75 and mAP by size."""
        find = finder(self.base_model(zoo), zoo.layout, self._scored(split))
        truth = self._truth(split)

        def score(vectors: Float[Tensor, "N D"]) -> Evaluation:
            found = find(vectors)
            precision = truth.score(found, len(vectors))
            values = dict(precision.values)
            return Evaluation(
                values.pop(self.metric.name), precision.missed, values, not_finite=found.not_finite
            )

        return score

    def score(self, model: nn.Module) -> float:
        """Validation mAP of one detector."""
        find = finder(model, Layout((), ()), self._scored("val"))
        found = find(torch.empty(1, 0))
        return float(self._truth("val").score(found, 1).values[self.metric.name])

    @functools.cached_property
    def _train(self) -> Examples:
        return Examples(self.data.train)

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a task lives as long as its run
    def _scored(self, split: str) -> CocoSplit:
        """The fixed random subset of a split that is scored."""
        whole = self._split(split)
        order = torch.randperm(len(whole), generator=generator(0, "scored", split))
        return whole.subset(order[: self.size(split)].tolist())

    @functools.lru_cache(maxsize=2)  # noqa: B019 - as above
    def _truth(self, split: str) -> Truth:
        truth = Truth(self._scored(split))
        if not truth.units:
            raise BadRequest(
                f"none of the {self.size(split)} scored images of {split} has a box: "
                f"raise --set task.{split}_size"
            )
        return truth
