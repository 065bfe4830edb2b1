"""Detections of many candidates of one detector in a split.

If candidates differ in the last layers alone (``--layers head``), the tensors before these (resized images, features of
the backbone, proposals and pooled features; or the towers of FCOS) are computed once an image and kept, and the last
layers run for many candidates at once. Otherwise candidates run one after another through torchvision's code, on shared
features if the backbone is not generated.

A batch holds images of one size alone, because padding would let images of different sizes influence each other.

Where outputs of a detector's heads are not finite, it detects nothing (``tasks.fast.watching``); such images are
counted.
"""

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torchvision.models.detection.transform import resize_boxes

from bench.contract.zoo import Layout
from bench.system.progress import track
from tasks.data.coco import CocoSplit
from tasks.fast.average_precision import Detections
from tasks.fast.backbones import Given, in_place_of_backbone
from tasks.fast.budget import DetectorBudget, of_detector
from tasks.fast.last_layers import ScoredBoxes, Values, join, last_layer, suppress
from tasks.fast.watching import Watch, watch
from tasks.networks.layers import select


@dataclasses.dataclass(frozen=True)
class SharedTensors:
    """The tensors of one or a few images that do not depend on the candidate: images or features.

    Attributes:
        rows: positions of the images in the split.
        tensors: the tensors by name.
        size: height and width after resizing; (0, 0) for images that are not resized.
        broken: whether an output of a head that the candidates share is not finite.
    """

    rows: Sequence[int]
    tensors: dict[str, Tensor]
    size: tuple[int, int] = (0, 0)
    broken: bool = False

    @property
    def bytes(self) -> int:
        """Return the memory that the tensors take, in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


@dataclasses.dataclass(frozen=True)
class CheckedDetections(Detections):
    """The detections of N models, and their numbers of images with invalid outputs.

    Attributes:
        not_finite: number of images in which an output of the model's heads is not finite.
    """

    not_finite: Int64[Tensor, " N"]


@dataclasses.dataclass(frozen=True)
class ImageDetections:
    """The detections of several candidates in one image.

    Attributes:
        image: position of the image in the split.
        boxes: the detections, in pixels of the original image.
        broken: numbers of the candidates with an output that is not finite.
    """

    image: int
    boxes: ScoredBoxes
    broken: Int64[Tensor, " b"]


class Finder(ABC):
    """The runner of candidates of one base on one split.

    Args:
        model: the base, in eval mode, on the device.
        layout: parameters that the candidates' vectors hold.
        split: the images.
        budget: limits of memory and of work at once; None is the default of the device.
    """

    def __init__(
        self, model: Any, layout: Layout, split: CocoSplit, budget: DetectorBudget | None = None
    ) -> None:
        self.model, self.layout, self.split = model, layout, split
        self.device = next(model.parameters()).device
        self.budget = budget or of_detector(self.device)
        self.watch: Watch = watch(model)
        self._kept: list[SharedTensors] = []

    @abstractmethod
    def share(self, rows: Sequence[int], images: list[Tensor]) -> list[SharedTensors]:
        """Compute the tensors that candidates share, for a batch of images of one size.

        Args:
            rows: positions of the images in the split.
            images: the images, 3 x H x W, in [0, 1].
        """

    @abstractmethod
    def find(
        self, shared: list[SharedTensors], vectors: Float[Tensor, "N D"]
    ) -> Iterator[ImageDetections]:
        """Yield the detections of N candidates in the images of ``shared``, in any order."""

    @torch.inference_mode()
    def __call__(self, vectors: Float[Tensor, "N D"]) -> CheckedDetections:
        """Return the detections of N candidates in all images, computed in float32 without tensor-core rounding."""
        parts: list[ImageDetections] = []
        with self._running():
            for shared in self._blocks():
                parts += self.find(shared, vectors.to(self.device))
        boxes = join([part.boxes for part in parts])
        images = torch.cat([torch.full((len(part.boxes.model),), part.image) for part in parts])
        broken = torch.cat([part.broken for part in parts]).bincount(minlength=len(vectors))
        fields = (boxes.model, images, boxes.label, boxes.boxes, boxes.scores, broken)
        return CheckedDetections(*(field.cpu() for field in fields))

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Run the model in full float32 within the block, and watch its heads for outputs that are not finite."""
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), self.watch:
            yield

    def _batches(self) -> Iterator[list[int]]:
        """Yield the positions of the images of a batch; all are of one size."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for row, size in enumerate(self.split.sizes):
            by_size.setdefault(size, []).append(row)
        for size, rows in by_size.items():
            most = self.budget.at_once(self._resized(*size))
            yield from (rows[low : low + most] for low in range(0, len(rows), most))

    def _resized(self, height: int, width: int) -> int:
        """Return the number of an image's pixels after the model has resized it."""
        shorter, longer = sorted((height, width))
        limits: Any = self.model.transform
        scale = min(limits.min_size[-1] / shorter, limits.max_size / longer)
        return int(height * width * scale**2)

    def _shared(self) -> Iterator[list[SharedTensors]]:
        """Yield the shared tensors of each batch."""
        for rows in self._batches():
            images = [self.split.image(row).to(self.device).float() / 255 for row in rows]
            yield self.share(rows, images)

    @torch.inference_mode()
    def keep(self) -> None:
        """Compute and keep the shared tensors of all images, unless they would exceed the budget."""
        kept: list[SharedTensors] = []
        total = 0
        with self._running():
            for batch in track(self._shared(), "shared features"):
                kept += batch
                total += sum(shared.bytes for shared in batch)
                if total > self.budget.keep:
                    return
        self._kept = kept

    def _blocks(self) -> Iterator[list[SharedTensors]]:
        """Yield the shared tensors: all at once if they are kept, else batch by batch."""
        if self._kept:
            yield self._kept
        else:
            yield from track(self._shared(), "batches")


class BatchedFinder(Finder):
    """A finder for candidates that differ in the last layers alone, which run for many candidates at once."""

    def __init__(
        self, model: Any, layout: Layout, split: CocoSplit, budget: DetectorBudget | None = None
    ) -> None:
        super().__init__(model, layout, split, budget)
        self.last = last_layer(model)

    def share(self, rows: Sequence[int], images: list[Tensor]) -> list[SharedTensors]:
        """Compute the inputs of the last layers for each image."""
        resized, _ = self.model.transform(images)
        features = self.model.backbone(resized.tensors)
        parts = self.last.shared(resized, features)
        broken = self.watch.take(len(rows)).tolist()
        fields = zip(rows, parts, resized.image_sizes, broken, strict=True)
        return [SharedTensors([row], *rest) for row, *rest in fields]

    def find(
        self, shared: list[SharedTensors], vectors: Float[Tensor, "N D"]
    ) -> Iterator[ImageDetections]:
        """Yield the detections of all candidates, image by image."""
        values = self._values(vectors)
        for item in track(shared, f"score {len(vectors)} models"):
            widest = 4 * self.last.widest(item.tensors)
            chunk = max(1, self.budget.work // max(1, widest))
            parts, broken = [], []
            for low in range(0, len(vectors), chunk):
                part = {name: tensor[low : low + chunk] for name, tensor in values.items()}
                boxes, invalid = self.last.detect(item.tensors, part, item.size)
                boxes = suppress(boxes, self.last.threshold, self.last.most, self.budget.boxes)
                parts.append(dataclasses.replace(boxes, model=boxes.model + low))
                broken.append(invalid | item.broken)
            boxes = join(parts)
            resized = resize_boxes(boxes.boxes, item.size, self.split.sizes[item.rows[0]])
            boxes = dataclasses.replace(boxes, boxes=resized)
            yield ImageDetections(item.rows[0], boxes, torch.cat(broken).nonzero().flatten())

    def _values(self, vectors: Float[Tensor, "N D"]) -> Values:
        """Return the last layers' parameters of every candidate; those that are not generated are the base's."""
        fixed = {name: self.model.get_parameter(name) for name in select(self.model, "head")}
        whole = {name: tensor.expand(len(vectors), *tensor.shape) for name, tensor in fixed.items()}
        return whole | self.layout.unflatten(vectors)


class SequentialFinder(Finder):
    """A finder for candidates that differ before the last layers, which run one after another."""

    def share(self, rows: Sequence[int], images: list[Tensor]) -> list[SharedTensors]:
        """Return the images, with the features of the backbone if no parameter of it is generated."""
        tensors = {f"image.{row}": image for row, image in zip(rows, images, strict=True)}
        if not any(name.startswith("backbone.") for name in self.layout.names):
            resized, _ = self.model.transform(images)
            features = self.model.backbone(resized.tensors)
            tensors |= {f"feature.{name}": tensor for name, tensor in features.items()}
        return [SharedTensors(rows, tensors)]

    def find(
        self, shared: list[SharedTensors], vectors: Float[Tensor, "N D"]
    ) -> Iterator[ImageDetections]:
        """Yield the detections of one candidate after another, image by image."""
        for number, vector in enumerate(track(vectors, f"score {len(vectors)} models")):
            for name, tensor in self.layout.unflatten(vector).items():
                self.model.get_parameter(name).copy_(tensor)
            for item in shared:
                outputs, broken = self._run(item), self.watch.take(len(item.rows)).tolist()
                for row, output, count in zip(item.rows, outputs, map(int, broken), strict=True):
                    model = torch.full_like(output["labels"], number)
                    boxes = ScoredBoxes(model, output["labels"], output["boxes"], output["scores"])
                    numbers = torch.full((count,), number, device=self.device)
                    yield ImageDetections(row, boxes, numbers)

    def _run(self, item: SharedTensors) -> list[dict[str, Tensor]]:
        """Run torchvision's model on a batch and return its detections; shared features replace its backbone."""
        images = [item.tensors[f"image.{row}"] for row in item.rows]
        given = [name for name in item.tensors if name.startswith("feature.")]
        features = OrderedDict(
            (name.removeprefix("feature."), item.tensors[name]) for name in given
        )
        backbone = Given(features) if features else self.model.backbone
        with in_place_of_backbone(self.model, backbone):
            outputs: list[dict[str, Tensor]] = self.model(images)
        return outputs


def finder(
    model: nn.Module, layout: Layout, split: CocoSplit, budget: DetectorBudget | None = None
) -> Finder:
    """Return the finder that fits the layout, with its shared tensors computed; arguments as of ``Finder``."""
    only_last = set(layout.names) <= set(select(model, "head"))
    finder_type = BatchedFinder if only_last else SequentialFinder
    chosen = finder_type(model, layout, split, budget)
    chosen.keep()
    return chosen
