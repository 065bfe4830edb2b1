"""Tasks whose checkpoints are trained here: their settings, and a problem and a collection made of these."""

import dataclasses
import functools
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from bench.contract import Task, registry
from bench.contract.declarations import Architecture, DataSet, Declaration
from bench.contract.zoo import Zoo
from bench.errors import BadRequest, unknown
from bench.system.identity import libraries, plugin_hash
from bench.system.randomness import generator
from bench.system.store import file_hash
from tasks.networks.layers import describe, select
from tasks.training.collection import TRACKS, Collection
from tasks.training.problem import Problem
from tasks.training.runs import Runs
from tasks.training.steps import Recipe

D = TypeVar("D")


@dataclasses.dataclass(eq=False)
class Collected(Task):
    """A task that brings a problem (data, network, loss, score), and collects its checkpoints by the settings below.

    Attributes:
        dataset: a registered data set of the form ``data_form``.
        arch: a registered architecture of the form ``network_form``.
        layers: which parameters are generated, a pattern of ``tasks.networks.layers``.
        track: "trajectory" (consecutive steps of one run, the rest frozen) or "seeds" (independent runs).
        epochs, batch_size, lr, weight_decay, optimizer, augment, precision: training, see ``Recipe``; None takes the
            architecture's own. No epochs are possible from pretrained weights.
        subset_lr, every: see ``tasks.training.collection.Collection``.
        pretrained: None, "released" or a file of weights to start from.
        data_form, network_form: see ``bench.contract.declarations``.
        augmentations: what the setting ``augment`` may be.
        keeps_pretrained: whether pretrained weights are the base as they are, instead of where its training starts.
    """

    data_form: ClassVar[str]
    network_form: ClassVar[str]
    augmentations: ClassVar[Sequence[str]] = ("none",)
    collecting: ClassVar[tuple[str, ...]] = ("track", "epochs", "every")
    beside_base: ClassVar[tuple[str, ...]] = ("layers", "track", "every", "subset_lr", "train_size")
    keeps_pretrained: ClassVar[bool] = False

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
    pretrained: str | None = None

    def __post_init__(self) -> None:
        self.declarations()  # refuses unknown names
        for kind, value, valid in (
            ("track", self.track, TRACKS),
            ("augmentation", self.augment, self.augmentations),
            ("optimizer", self.recipe.optimizer, ("sgd", "adamw")),
            ("precision", self.recipe.precision, ("float32", "bfloat16")),
        ):
            if value not in valid:
                raise unknown(kind, value, valid)
        for name, value in self.settings().items():
            may_be_0 = name == "weight_decay" or (name == "epochs" and self.pretrained)
            if isinstance(value, int | float) and not (
                0 < value < math.inf or (may_be_0 and value == 0)
            ):
                raise BadRequest(f"{name} is {value}, expected a number above 0, and a finite one")

    # What a task brings ----------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def dataset_hash(self) -> str:
        """SHA-256 of the data's content."""

    @abstractmethod
    def available(self, split: str) -> int:
        """Return how many examples the split has."""

    @abstractmethod
    def build(self, pretrained: str | None = None) -> nn.Module:
        """Build the network, see ``Problem``."""

    @property
    @abstractmethod
    def problem(self) -> Problem:
        """What is trained."""

    @property
    def runs(self) -> Runs:
        """What trains independent runs; one after another by default."""
        return Runs(self.problem)

    # The parts that settings name ------------------------------------------------------------------------------------

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

    def load(self, kind: type[D], **options: Any) -> D:
        """Load the data set, whose function returns this type; options are those that the function takes."""
        folder = Path(self.context.data_dir) if self.context.data_dir else None
        return self.data_set.load(kind, folder, **options)

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The architecture's training recipe, with this task's settings in place."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)}
        chosen = {name: value for name, value in settings.items() if value is not None}
        return Recipe(**{**self.architecture.recipe, **chosen})

    @property
    def per_epoch(self) -> int:
        """Optimizer steps of one pass over the training split."""
        count = self.available("train")
        return count // min(self.batch_size, count)

    @property
    def collection(self) -> Collection:
        """How checkpoints are collected; made anew, because a given zoo can tell the layers."""
        facts = {n: v for n, v in self.identity().items() if n not in self.beside_base}
        return Collection(
            problem=self.problem,
            runs=self.runs,
            layers=self.layers,
            track=self.track,
            every=self.every,
            subset_lr=self.subset_lr,
            pretrained=self.pretrained,
            keeps_pretrained=self.keeps_pretrained,
            facts={**facts, "code": [plugin_hash(self, {}), *libraries()]},
            force=self.context.force,
        )

    # The contract of a task ------------------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """Return settings, and hashes of the data and of a weights file."""
        return {
            **self.settings(),
            **dataclasses.asdict(self.recipe),
            "kind": self.kind,
            "dataset_hash": self.dataset_hash,
            "pretrained": self._pretrained_identity(),
            "train_size": self.size("train"),
            "val_size": self.size("val"),
        }

    def _pretrained_identity(self) -> str | None:
        if self.pretrained and Path(self.pretrained).exists():
            return file_hash(Path(self.pretrained))
        return self.pretrained

    def adopt(self, zoo: Zoo, asked: Set[str]) -> None:
        """Find out which layers the checkpoints of a zoo hold that was made elsewhere.

        Raises:
            BadRequest: others were asked for, or a track, which such a zoo does not have.
        """
        if "layers" in zoo.settings:
            return
        if "track" in asked:
            raise BadRequest("a zoo that was made elsewhere has no track: leave --track out")
        model = self.build()
        if "layers" not in asked:
            self.layers = describe(model, zoo.layout.names)
        elif set(select(model, self.layers)) != set(zoo.layout.names):
            raise BadRequest(
                f"the zoo holds the layers '{describe(model, zoo.layout.names)}', "
                f"'{self.layers}' were asked for: leave --layers out"
            )

    def prepare(self, *, rng: torch.Generator) -> None:
        """Train the base."""
        self.collection.base(rng)

    def collect(self, k: int, *, rng: torch.Generator, work: Path) -> Zoo:
        """Train K checkpoints, see ``tasks.training.collection``."""
        settings = {"seed": rng.initial_seed(), **self.identity()}
        return self.collection.collect(
            k, rng=rng, work=work, settings=settings, scores=self._val_scores
        )

    def _val_scores(self, zoo: Zoo) -> list[float]:
        scores: list[float] = self.scorer(zoo, "val")(zoo.vectors).scores.tolist()
        return scores

    def finetune(
        self, zoo: Zoo, vectors: Float[Tensor, "N D"], *, steps: int, rng: torch.Generator
    ) -> Float[Tensor, "N D"]:
        """Take steps of the recipe's optimizer at ``subset_lr`` from each vector, on batches of its own."""
        return self.collection.finetune(zoo, vectors, steps=steps, rng=rng)

    def initial(self, zoo: Zoo, count: int, *, rng: torch.Generator) -> Float[Tensor, "r D"]:
        """Return the generated part of networks at random initialisation."""
        return self.collection.initial(zoo, count, rng=rng)

    def base_model(self, zoo: Zoo) -> nn.Module:
        """Return the base of a zoo, with its first checkpoint in place."""
        return self.collection.base_model(zoo)


@dataclasses.dataclass(eq=False)
class Sampled(Collected):
    """A task whose models are scored on a fixed random subset of each split.

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
