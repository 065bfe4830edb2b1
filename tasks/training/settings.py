"""The settings of tasks whose checkpoints are trained here, and the parts that they name."""

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor

from bench.contract import Task, registry
from bench.contract.cost import network_cost
from bench.contract.declarations import Architecture, DataSet, Declaration, Shape
from bench.system.environment import computes_bfloat16
from bench.system.randomness import generator
from tasks.training.recipe import Recipe

D = TypeVar("D")
SMALL = 1.0  # GFLOP of a training step below which it runs on one thread: 20 ms of a core
CLASSES = 10  # of a network whose operations are counted: more hardly add any


@runtime_checkable
class Data(Protocol):
    """A loaded data set: two splits, and a SHA-256 of their content."""

    @property
    def train(self) -> Sized:
        """The training split."""
        ...

    @property
    def val(self) -> Sized:
        """The validation split."""
        ...

    @property
    def hash(self) -> str:
        """SHA-256 of the content of both splits."""
        ...


@dataclasses.dataclass(eq=False)
class Settings(Task):
    """The settings that every trained task has, but for ``pretrained``.

    Attributes:
        dataset: a registered data set of the form ``data_form``.
        arch: a registered architecture of the form ``network_form``.
        layers: which parameters are generated, a pattern of ``tasks.networks.layers``.
        track: "trajectory" (consecutive steps of one run, the rest frozen) or "seeds" (independent runs).
        epochs, batch_size, lr, weight_decay, optimizer, augment, precision: training, see ``Recipe``; None takes the
            architecture's own. No epochs are possible from pretrained weights. The precision "auto" is bfloat16 where
            the device computes in it, and float32 elsewhere.
        subset_lr, every: see ``tasks.training.collection.Collection``.
        data_form, network_form: see ``bench.contract.declarations``.
        augmentations: what the setting ``augment`` may be.
    """

    data_form: ClassVar[str]
    network_form: ClassVar[str]
    augmentations: ClassVar[Sequence[str]] = ("none",)

    dataset: str = "digits"
    arch: str = "resnet18"
    layers: str = "last-norms:2"
    track: str = "trajectory"
    epochs: int = 10
    batch_size: int = 128
    lr: float | None = None
    weight_decay: float | None = None
    optimizer: str | None = None
    augment: str = "none"
    precision: str | None = None
    subset_lr: float | None = None
    every: int = 1

    @property
    def data_set(self) -> DataSet:
        """The declaration of the data set."""
        return registry.data_set(self.dataset, self.data_form)

    @property
    def architecture(self) -> Architecture:
        """The declaration of the architecture."""
        return registry.architecture(self.arch, self.network_form)

    def declarations(self) -> tuple[Declaration, ...]:
        """Return the data set, those that it is made of, and the architecture."""
        return (*registry.with_sources(self.data_set), self.architecture)

    @property
    def embedded(self) -> bool:
        """Whether the data come with the suite."""
        return self.data_set.embedded

    @property
    def declared_shape(self) -> Shape:
        """The shape of the network by the data set's declaration: at least 224 pixels from released weights."""
        released = bool(getattr(self, "pretrained", None))
        usual = max(self.data_set.size, 224) if released else self.data_set.size
        side = getattr(self, "image_size", None) or usual
        return Shape(self.data_set.channels, side, CLASSES, released)

    @property
    def small(self) -> bool:
        """Whether a training step takes less than ``SMALL``: a backward pass takes twice a forward pass."""
        forward = network_cost(self.arch, self.declared_shape).gflop
        return 3 * forward * self.batch_size < SMALL

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The architecture's training recipe, with this task's settings in place."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)}
        chosen = {name: value for name, value in settings.items() if value is not None}
        recipe = Recipe(**{**self.architecture.recipe, **chosen})
        if recipe.precision != "auto":
            return recipe
        fast = "bfloat16" if computes_bfloat16(self.device) else "float32"
        return dataclasses.replace(recipe, precision=fast)

    @property
    @abstractmethod
    def data(self) -> Data:
        """The data set, loaded on first use."""

    def load(self, kind: type[D], **options: Any) -> D:
        """Load the data set, whose function returns this type; options are those that the function takes."""
        folder = Path(self.context.data_dir) if self.context.data_dir else None
        return self.data_set.load(kind, folder, **options)

    def available(self, split: str) -> int:
        """Return how many examples the split has."""
        return len(self.data.train if split == "train" else self.data.val)

    @property
    def per_epoch(self) -> int:
        """Optimizer steps of one pass over the training split."""
        count = self.available("train")
        return count // min(self.batch_size, count)


@dataclasses.dataclass(eq=False)
class Sampled(Settings):
    """The settings of a task whose models are scored on a fixed random subset of each split.

    Attributes:
        train_size, val_size: how many examples of each split are scored; None means all.
    """

    scoring: ClassVar[tuple[str, ...]] = ("train_size", "val_size")
    rescoring: ClassVar[tuple[str, ...]] = ("val_size",)

    train_size: int | None = 10_000
    val_size: int | None = None

    @classmethod
    def of_zoo(cls, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that a zoo tells; how many training examples are scored is each run's own."""
        return {n: value for n, value in super().of_zoo(facts).items() if n != "train_size"}

    def size(self, split: str) -> int:
        """Return how many examples of the split are scored."""
        count = self.available(split)
        wanted = self.train_size if split == "train" else self.val_size
        return min(wanted or count, count)

    def rows(self, split: str) -> Int64[Tensor, " m"]:
        """Return the numbers of the examples that are scored, in the random order in which they were drawn."""
        order = torch.randperm(self.available(split), generator=generator(0, "scored", split))
        return order[: self.size(split)]
