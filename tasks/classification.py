"""Image classification: train checkpoints of any architecture on any data set, and score candidates."""

import dataclasses
import functools
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from bench.contract import Compared, Evaluation, Metric, Scorer
from bench.contract.declarations import Shape
from bench.contract.plain import Plain
from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest, unknown
from bench.system.randomness import generator
from tasks.data.images import Images
from tasks.data.labelled import ImageData, Split
from tasks.data.source import channels_last
from tasks.fast.frozen import Frozen
from tasks.fast.recalibration import Recalibration, normalizations
from tasks.fast.scoring import ClassifierScorer, judge
from tasks.fast.stacking import StackedRuns
from tasks.networks.layers import select
from tasks.training.batches import Batches
from tasks.training.collected import Collected
from tasks.training.problem import PartLoss, Problem
from tasks.training.settings import Sampled
from tasks.training.steps import supervise

STATISTICS = ("folded", "recalibrated")
CALIBRATING = 1000  # training images that statistics are recalibrated on


@dataclasses.dataclass(eq=False)
class Classification(Collected, Sampled):
    """Train classifiers, generate a subset of their weights, score by accuracy.

    An image is wrong where its class does not have the largest logit, or a logit of any class is not finite.

    Attributes:
        image_size: side of the model's input; None takes the data's own, or 224 with pretrained weights.
        statistics: of batch normalization: "folded" (those of training, expressed in scales and shifts), or
            "recalibrated": every model that is scored, whatever its origin, gets those of the same ``CALIBRATING``
            training images; whole networks alone.
    """

    kind: ClassVar[str] = "classification"
    metric: ClassVar[Metric] = Metric("accuracy", scale=100, mean_over_units=True)
    compared: ClassVar[Compared] = Compared(
        "validation image, wrong where its class is not predicted"
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"epochs": 100, "train_size": None}}
    data_form: ClassVar[str] = "labels"
    network_form: ClassVar[str] = "labels"
    augmentations: ClassVar[Sequence[str]] = ("none", "crop-flip")
    beside_base: ClassVar[tuple[str, ...]] = (*Collected.beside_base, "statistics", "scoring")

    image_size: int | None = None
    statistics: str = "folded"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.statistics not in STATISTICS:
            raise unknown("statistics", self.statistics, STATISTICS)

    @property
    def recalibrates(self) -> bool:
        """Whether every model gets statistics of its own."""
        return self.statistics == "recalibrated"

    def identity(self) -> dict[str, Any]:
        """Return settings and hashes; what determines a score is part of the comparability key."""
        scoring = {"scoring": {"statistics": self.statistics}} if self.recalibrates else {}
        return {**super().identity(), **scoring}

    @functools.cached_property
    def data(self) -> ImageData:
        """The data set, loaded on first use."""
        return self.load(ImageData)

    def _split(self, split: str) -> Split:
        return self.data.train if split == "train" else self.data.val

    @functools.cached_property
    def shape(self) -> Shape:
        """Channels, input side and classes of the model."""
        channels, side = self.data.train.images.shape[1], self.data.train.images.shape[3]
        size = self.image_size or (224 if self.pretrained else side)
        return Shape(channels, size, len(self.data.classes), released=bool(self.pretrained))

    def build(self, pretrained: str | None = None) -> nn.Module:
        """Build the architecture for the data's images."""
        return self.architecture.build(self.shape, pretrained)

    @functools.cached_property
    def problem(self) -> Problem:
        """Cross-entropy of the classes of the training images."""
        return Problem(
            name=f"{self.arch} on {self.dataset}",
            build=self.build,
            whole_loss=lambda model, rng: supervise(model, self._batches(rng)),
            part_loss=self._part_loss,
            score=self.score,
            recipe=self.recipe,
            per_epoch=self.per_epoch,
            device=self.device,
            folds=not self.recalibrates,
        )

    @property
    def runs(self) -> StackedRuns:
        """The trainer of independent runs: many at once where that is faster."""
        return StackedRuns(self.problem, self._train)

    def _batches(self, rng: torch.Generator) -> Batches:
        return Batches(self._train, self.recipe, rng)

    def _part_loss(self, model: nn.Module, layout: Layout) -> PartLoss:
        """Return the cross-entropy in which features of the frozen part are computed once an image."""
        frozen = Frozen(model, layout, self._train, self.recipe, self.recipe.precision)
        return lambda rng: frozen.loss(self._batches(rng))

    def scorer(self, zoo: Zoo, split: str) -> Scorer:
        """Return the scorer of accuracy in [0, 1], wrong images and mean cross-entropy."""
        images = self._val if split == "val" else self._scored(split)
        classifiers = ClassifierScorer(self.base_model(zoo), zoo.layout, images)
        recalibration = self.recalibration(zoo) if self.recalibrates else None

        def score(vectors: Float[Tensor, "N D"]) -> Evaluation:
            if recalibration:
                vectors = recalibration.fold(vectors, recalibration.statistics(vectors))
            scored = classifiers(vectors)
            accuracy = 1 - scored.wrong.double().mean(dim=1)
            loss = {"loss": scored.loss}
            return Evaluation(
                accuracy, scored.wrong, loss, not_finite=scored.not_finite, outputs=scored.outputs
            )

        return score

    def collect(self, k: int, *, rng: torch.Generator, work: Path) -> Zoo:
        """Train K checkpoints, see ``tasks.training.collection``."""
        if self.recalibrates:  # what cannot be recalibrated costs no training
            model = self.problem.blank()
            normalizations(model, select(model, self.layers))
        return super().collect(k, rng=rng, work=work)

    def finetune(
        self, zoo: Zoo, vectors: Float[Tensor, "N D"], *, steps: int, rng: torch.Generator
    ) -> Float[Tensor, "N D"]:
        """Take steps from each vector, with statistics that stand still; see ``Collected.finetune``."""
        if not self.recalibrates:
            return super().finetune(zoo, vectors, steps=steps, rng=rng)
        recalibration = self.recalibration(zoo)
        own = recalibration.statistics(vectors)
        folded = recalibration.fold(vectors, own)
        trained = super().finetune(zoo, folded, steps=steps, rng=rng)
        return recalibration.unfold(trained, own)

    def adopt(self, zoo: Zoo, asked: Set[str]) -> None:
        """Find out which layers a given zoo holds; see ``Collected.adopt``.

        Raises:
            BadRequest: its checkpoints are described with other statistics than were asked for.
        """
        super().adopt(zoo, asked)
        collected = "layers" in zoo.settings
        if collected and zoo.settings.get("statistics", "folded") != self.statistics:
            raise BadRequest(
                f"the zoo's checkpoints do not have {self.statistics} statistics: leave --set task.statistics out, "
                "or collect another zoo"
            )

    def recalibration(self, zoo: Zoo) -> Recalibration:
        """Return what gives the models of a zoo statistics of their own."""
        images = self._calibrating
        return Recalibration(self.base_model(zoo), zoo.layout, images.inputs(images.examples))

    def plain(self, zoo: Zoo) -> Plain:
        """Return the network, and torchmetrics' accuracy of it."""
        from tasks.plain import (
            accuracy,
            recalibrated,
        )  # loads torchmetrics, which nothing else needs

        images, data = self._val, self.data
        measure = accuracy(
            images.examples, images.labels, size=images.size, mean=data.mean, std=data.std,
            classes=len(data.classes), device=self.device,
        )  # fmt: skip
        if self.recalibrates:
            examples = self._calibrating.examples
            measure = recalibrated(
                measure,
                examples,
                size=images.size,
                mean=data.mean,
                std=data.std,
                device=self.device,
            )
        network = self.build().to(self.device)
        # One image in a thousand, or a single one, may have two classes so close that rounding decides.
        return Plain(network, zoo.base, measure, absolute=max(1e-3, 1.01 / len(images)))

    @property
    def inputs(self) -> Callable[[UInt8[Tensor, "n C H W"]], Tensor]:
        """The function from images of 8 bits, on the device, to a network's inputs."""
        first = Split(self.data.train.images[:1], self.data.train.labels[:1])
        return Images.of(self.data, first, self.shape.size, self.device).inputs

    @functools.cached_property
    def _train(self) -> Images:
        """The whole training split, for training."""
        return Images.of(self.data, self.data.train, self.shape.size, self.device)

    def _scored(self, split: str) -> Images:
        """Return the subset of a split that is scored."""
        whole, rows = self._split(split), self.rows(split).sort().values
        chosen = Split(whole.images[rows], whole.labels[rows])
        return Images.of(self.data, chosen, self.shape.size, self.device)

    @functools.cached_property
    def _calibrating(self) -> Images:
        """The training images that statistics are recalibrated on: the same random ones for every model."""
        whole = self.data.train
        order = torch.randperm(len(whole), generator=generator(0, "statistics"))
        rows = order[:CALIBRATING].sort().values
        chosen = Split(whole.images[rows], whole.labels[rows])
        return Images.of(self.data, chosen, self.shape.size, self.device)

    @functools.cached_property
    def _val(self) -> Images:
        """The scored validation images, for the network of one base after another."""
        return self._scored("val")

    @torch.inference_mode()
    def score(self, model: nn.Module) -> float:
        """Return the validation accuracy of one network."""
        images, missed = self._val, 0
        for start in range(0, len(images), 500):
            rows = slice(start, start + 500)
            inputs = channels_last(images.inputs(images.examples[rows]))
            wrong, _ = judge(model(inputs), images.labels[rows])
            missed += int(wrong.sum())
        return (len(images) - missed) / len(images)
