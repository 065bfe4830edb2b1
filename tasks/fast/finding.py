"""What many candidates of one detector find in a split.

Where candidates differ in the last layer alone (``--layers head``), everything before it (resizing, backbone,
proposals, pooled features; or FCOS' towers) is computed once an image and kept, and the last layer runs for many of
them at once. Otherwise they run one after another through torchvision's own code, on shared features where the backbone
is not generated.

Images go together only with others of their size: different ones would see each other through the padding.

At places where a detector's heads are not finite, nothing is found (``tasks.fast.watching``), and the image is counted.
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
from tasks.fast.last_layers import Hits, Values, join, last_layer, suppress
from tasks.fast.watching import Watch, watch
from tasks.networks.layers import select


@dataclasses.dataclass(frozen=True)
class Shared:
    """What candidates share of one image, or of a few: images or features.

    Attributes:
        rows: positions of the images in the split.
        tensors: by name.
        size: height and width after resizing, where that is done.
        broken: whether a head that candidates share put out something that is not finite.
    """

    rows: Sequence[int]
    tensors: dict[str, Tensor]
    size: tuple[int, int] = (0, 0)
    broken: bool = False

    @property
    def bytes(self) -> int:
        """Memory that they take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


@dataclasses.dataclass(frozen=True)
class Found(Detections):
    """What N models found.

    Attributes:
        not_finite: in how many images the heads of each model put out something that is not finite.
    """

    not_finite: Int64[Tensor, " N"]


@dataclasses.dataclass(frozen=True)
class InImage:
    """What some candidates found in one image.

    Attributes:
        image: its position in the split.
        hits: boxes in its own pixels.
        broken: the numbers of those whose heads put out something that is not finite.
    """

    image: int
    hits: Hits
    broken: Int64[Tensor, " b"]


class Finder(ABC):
    """Runs candidates of one base on one split.

    Args:
        model: the base, in eval mode, on the device.
        layout: which parameters the candidates' vectors hold.
        split: the images.
        budget: how much is kept and runs at once; None takes the device's usual one.
    """

    def __init__(
        self, model: Any, layout: Layout, split: CocoSplit, budget: DetectorBudget | None = None
    ) -> None:
        self.model, self.layout, self.split = model, layout, split
        self.device = next(model.parameters()).device
        self.budget = budget or of_detector(self.device)
        self.watch: Watch = watch(model)
        self._kept: list[Shared] = []

    @abstractmethod
    def share(self, rows: Sequence[int], images: list[Tensor]) -> list[Shared]:
        """Compute what candidates share of images of one size."""

    @abstractmethod
    def find(self, shared: list[Shared], vectors: Float[Tensor, "N D"]) -> Iterator[InImage]:
        """Return the detections of each candidate."""

    @torch.inference_mode()
    def __call__(self, vectors: Float[Tensor, "N D"]) -> Found:
        """Return the detections of N candidates; in float32, without tensor-core rounding."""
        found: list[InImage] = []
        with self._running():
            for shared in self._blocks():
                found += self.find(shared, vectors.to(self.device))
        hits = join([one.hits for one in found])
        images = torch.cat([torch.full((len(one.hits.model),), one.image) for one in found])
        broken = torch.cat([one.broken for one in found]).bincount(minlength=len(vectors))
        fields = (hits.model, images, hits.label, hits.boxes, hits.scores, broken)
        return Found(*(field.cpu() for field in fields))

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Run the model in full float32 within the block, and watch the outputs of its heads."""
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), self.watch:
            yield

    def _batches(self) -> Iterator[list[int]]:
        """Return the positions of images of one size, a few at a time."""
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

    def _shared(self) -> Iterator[list[Shared]]:
        for rows in self._batches():
            images = [self.split.image(row).to(self.device).float() / 255 for row in rows]
            yield self.share(rows, images)

    @torch.inference_mode()
    def keep(self) -> None:
        """Compute what candidates share of all images, unless that would not fit in the budget."""
        kept: list[Shared] = []
        total = 0
        with self._running():
            for some in track(self._shared(), "shared features"):
                kept += some
                total += sum(shared.bytes for shared in some)
                if total > self.budget.keep:
                    return
        self._kept = kept

    def _blocks(self) -> Iterator[list[Shared]]:
        """Yield all batches at once where their shared tensors are kept, else batch by batch."""
        if self._kept:
            yield self._kept
        else:
            yield from track(self._shared(), "batches")


class Together(Finder):
    """Candidates that differ in the last layer alone."""

    def __init__(
        self, model: Any, layout: Layout, split: CocoSplit, budget: DetectorBudget | None = None
    ) -> None:
        super().__init__(model, layout, split, budget)
        self.last = last_layer(model)

    def share(self, rows: Sequence[int], images: list[Tensor]) -> list[Shared]:
        """Compute everything before the last layer."""
        resized, _ = self.model.transform(images)
        features = self.model.backbone(resized.tensors)
        parts = self.last.shared(resized, features)
        broken = self.watch.take(len(rows)).tolist()
        fields = zip(rows, parts, resized.image_sizes, broken, strict=True)
        return [Shared([row], *rest) for row, *rest in fields]

    def find(self, shared: list[Shared], vectors: Float[Tensor, "N D"]) -> Iterator[InImage]:
        """Return the detections of many candidates at once, image by image."""
        values = self._values(vectors)
        for item in track(shared, f"score {len(vectors)} models"):
            widest = 4 * self.last.widest(item.tensors)
            chunk = max(1, self.budget.work // max(1, widest))
            parts, broken = [], []
            for low in range(0, len(vectors), chunk):
                some = {name: tensor[low : low + chunk] for name, tensor in values.items()}
                hits, bad = self.last.hits(item.tensors, some, item.size)
                hits = suppress(hits, self.last.threshold, self.last.most, self.budget.boxes)
                parts.append(dataclasses.replace(hits, model=hits.model + low))
                broken.append(bad | item.broken)
            hits = join(parts)
            boxes = resize_boxes(hits.boxes, item.size, self.split.sizes[item.rows[0]])
            hits = dataclasses.replace(hits, boxes=boxes)
            yield InImage(item.rows[0], hits, torch.cat(broken).nonzero().flatten())

    def _values(self, vectors: Float[Tensor, "N D"]) -> Values:
        """Return the last layer's parameters of every candidate; those that are not generated are the base's."""
        fixed = {name: self.model.get_parameter(name) for name in select(self.model, "head")}
        whole = {name: tensor.expand(len(vectors), *tensor.shape) for name, tensor in fixed.items()}
        return whole | self.layout.unflatten(vectors)


class Alone(Finder):
    """Candidates that differ elsewhere: one after another."""

    def share(self, rows: Sequence[int], images: list[Tensor]) -> list[Shared]:
        """Return the images, and the backbone's features where it is not generated."""
        tensors = {f"image.{row}": image for row, image in zip(rows, images, strict=True)}
        if not any(name.startswith("backbone.") for name in self.layout.names):
            resized, _ = self.model.transform(images)
            features = self.model.backbone(resized.tensors)
            tensors |= {f"feature.{name}": tensor for name, tensor in features.items()}
        return [Shared(rows, tensors)]

    def find(self, shared: list[Shared], vectors: Float[Tensor, "N D"]) -> Iterator[InImage]:
        """Return the detections of candidate after candidate, batch by batch."""
        for number, vector in enumerate(track(vectors, f"score {len(vectors)} models")):
            for name, tensor in self.layout.unflatten(vector).items():
                self.model.get_parameter(name).copy_(tensor)
            for item in shared:
                found, broken = self._run(item), self.watch.take(len(item.rows)).tolist()
                for row, one, bad in zip(item.rows, found, broken, strict=True):
                    model = torch.full_like(one["labels"], number)
                    hits = Hits(model, one["labels"], one["boxes"], one["scores"])
                    yield InImage(row, hits, torch.full((int(bad),), number, device=self.device))

    def _run(self, item: Shared) -> list[dict[str, Tensor]]:
        """Run torchvision's model, with its backbone replaced where features are there already."""
        images = [item.tensors[f"image.{row}"] for row in item.rows]
        given = [name for name in item.tensors if name.startswith("feature.")]
        features = OrderedDict(
            (name.removeprefix("feature."), item.tensors[name]) for name in given
        )
        backbone = Given(features) if features else self.model.backbone
        with in_place_of_backbone(self.model, backbone):
            found: list[dict[str, Tensor]] = self.model(images)
        return found


def finder(
    model: nn.Module, layout: Layout, split: CocoSplit, budget: DetectorBudget | None = None
) -> Finder:
    """Return what runs these candidates, with all that they share computed."""
    last = set(select(model, "head"))
    made = (Together if last.issuperset(layout.names) else Alone)(model, layout, split, budget)
    made.keep()
    return made
