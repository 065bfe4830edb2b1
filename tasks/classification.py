"""Image classification: train checkpoints of any architecture on any data set, and score candidates."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from bench.contract import Compared, Evaluation, Metric, Scorer
from bench.contract.zoo import Layout, Zoo
from bench.system.randomness import generator
from tasks.data import datasets
from tasks.data.images import Images
from tasks.fast import stacking
from tasks.fast.frozen import Frozen
from tasks.fast.scoring import ClassifierScorer, judge
from tasks.networks.models import NAMES, Shape, build
from tasks.training.steps import Batches, Loss, supervise
from tasks.training.trained import Trained


@dataclasses.dataclass(eq=False)
class Classification(Trained):
    """Train classifiers, generate a subset of their weights, score by accuracy.

    An image is wrong where its class does not have the largest logit, or a logit of any class is not finite.

    Attributes:
        dataset: one of ``tasks.data.datasets.NAMES``.
        arch: one of ``tasks.networks.models.NAMES``.
        image_size: side of the model's input; None takes the data's own, or 224 with pretrained weights.
    """

    kind: ClassVar[str] = "classification"
    metric: ClassVar[Metric] = Metric("accuracy", scale=100, mean_over_units=True)
    compared: ClassVar[Compared] = Compared(
        "validation image, wrong where its class is not predicted"
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"epochs": 100, "train_size": None}}
    data_sets: ClassVar[Sequence[str]] = datasets.NAMES
    architectures: ClassVar[Sequence[str]] = NAMES
    shipped: ClassVar[Sequence[str]] = ("digits",)
    augmentations: ClassVar[Sequence[str]] = ("none", "crop-flip")

    image_size: int | None = None

    @functools.cached_property
    def data(self) -> datasets.ImageData:
        """The data set, loaded on first use."""
        return datasets.load(
            self.dataset, Path(self.context.data_dir) if self.context.data_dir else None
        )

    @property
    def dataset_hash(self) -> str:
        """SHA-256 of the images and labels."""
        return self.data.hash

    def available(self, split: str) -> int:
        """How many images the split has."""
        return len((self.data.train if split == "train" else self.data.val).labels)

    @functools.cached_property
    def shape(self) -> Shape:
        """Channels, input side and classes of the model."""
        channels, side = self.data.train.images.shape[1], self.data.train.images.shape[3]
        size = self.image_size or (224 if self.pretrained else side)
        return Shape(channels, size, len(self.data.classes), released=bool(self.pretrained))

    def build(self, pretrained: str | None = None) -> nn.Module:
        """The architecture for the data's images."""
        return build(self.arch, self.shape, pretrained=pretrained)

    def whole_loss(self, model: nn.Module, rng: torch.Generator) -> Loss:
        """Cross-entropy of the network."""
        return supervise(model, Batches(self._train, self.recipe, rng))

    def part_loss(self, model: nn.Module, layout: Layout, rng: torch.Generator) -> Loss:
        """Cross-entropy; what does not depend on the layout's parameters runs without gradients."""
        frozen = self._frozen(model, layout, self.recipe.precision)
        return frozen.loss(Batches(self._train, self.recipe, rng))

    @functools.lru_cache(maxsize=1)  # noqa: B019 - a task lives as long as its run
    def _frozen(self, model: nn.Module, layout: Layout, precision: str) -> Frozen:
        """One for all runs from the same base: they see the same images."""
        return Frozen(model, layout, self._train, self.recipe, precision)

    def scorer(self, zoo: Zoo, split: str) -> Scorer:
        """Return what gives the accuracy in [0, 1], the wrong images and the mean cross-entropy of candidates."""
        classifiers = ClassifierScorer(self.base_model(zoo), zoo.layout, self._scored(split))

        def score(vectors: Float[Tensor, "N D"]) -> Evaluation:
            scored = classifiers(vectors)
            accuracy = 1 - scored.wrong.double().mean(dim=1)
            loss = {"loss": scored.loss}
            return Evaluation(accuracy, scored.wrong, loss, not_finite=scored.not_finite)

        return score

    def together(self, layout: Layout, whole: bool) -> int:
        """How many independent runs to train at once."""
        if not whole and self.device == "cpu":
            return 1
        return stacking.size(layout, self._train, self.recipe)

    def train_whole(
        self, starts: Sequence[nn.Module], layout: Layout, keys: Sequence[torch.Generator]
    ) -> Float[Tensor, "S D"]:
        """Several networks as one stack; one alone by plain steps."""
        if len(starts) == 1:
            return super().train_whole(starts, layout, keys)
        return stacking.train_whole(starts, layout, self._train, self.recipe, keys)

    def train_part(
        self,
        base: nn.Module,
        layout: Layout,
        vectors: Float[Tensor, "S D"],
        keys: Sequence[torch.Generator],
        *,
        steps: int | None = None,
        lr: float | None = None,
    ) -> Float[Tensor, "S D"]:
        """On a GPU as many versions as fit as one stack; by plain steps on a CPU."""
        if self.device == "cpu":
            return super().train_part(base, layout, vectors, keys, steps=steps, lr=lr)
        frozen = self._frozen(base, layout, "float32")
        train = functools.partial(
            stacking.train_part, frozen, layout, recipe=self.recipe, steps=steps, lr=lr
        )
        together = stacking.size(layout, self._train, self.recipe)
        slices = [slice(low, low + together) for low in range(0, len(vectors), together)]
        return torch.cat([train(vectors[some], keys=keys[some]) for some in slices])

    @property
    def inputs(self) -> Callable[[UInt8[Tensor, "n C H W"]], Tensor]:
        """What makes images of 8 bits, on the device, a network's inputs."""
        first = datasets.Split(self.data.train.images[:1], self.data.train.labels[:1])
        return Images.of(self.data, first, self.shape.size, self.device).inputs

    @functools.cached_property
    def _train(self) -> Images:
        """The whole training split, for training."""
        return Images.of(self.data, self.data.train, self.shape.size, self.device)

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a task lives as long as its run
    def _scored(self, split: str) -> Images:
        """The fixed random subset of a split that is scored."""
        whole = self.data.train if split == "train" else self.data.val
        order = torch.randperm(len(whole.labels), generator=generator(0, "scored", split))
        rows = order[: self.size(split)].sort().values
        chosen = datasets.Split(whole.images[rows], whole.labels[rows])
        return Images.of(self.data, chosen, self.shape.size, self.device)

    @torch.inference_mode()
    def score(self, model: nn.Module) -> float:
        """Validation accuracy of one network."""
        images, missed = self._scored("val"), 0
        for start in range(0, len(images), 500):
            rows = slice(start, start + 500)
            inputs = images.inputs(images.pixels[rows])
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            wrong, _ = judge(model(inputs), images.labels[rows])
            missed += int(wrong.sum())
        return (len(images) - missed) / len(images)
