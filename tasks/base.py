"""The contract of a task: collect zoos of trained checkpoints, and evaluate vectors on real data."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bench.errors import BenchError
from bench.zoo import Zoo


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What N models did on one split.

    Attributes:
        scores: the headline metric of each model, float64.
        wrong: which of the M units each model gets wrong, or None where the task has no such units.
        extra: further metrics by name, one value a model; ``loss`` breaks ties when a model is selected.
        features: what models are compared by where there is no ``wrong``: numbers of 0 or more that describe what each
            of them does; see ``bench.metrics.similarity.weighted_jaccard``.
        not_finite: for how many examples each model put out something that is not finite (NaN or infinite), which is
            wrong; None where the task does not count that.
    """

    scores: Float[Tensor, " N"]
    wrong: Bool[Tensor, "N M"] | None
    extra: dict[str, Float[Tensor, " N"]]
    features: Float[Tensor, "N M"] | None = None
    not_finite: Int64[Tensor, " N"] | None = None

    def __post_init__(self) -> None:
        if (self.wrong is None) is (self.features is None):
            raise BenchError("an evaluation needs wrong units or features, and not both")

    @property
    def compared(self) -> Tensor:
        """What similarity compares: wrong units, or else features."""
        found = self.features if self.wrong is None else self.wrong
        assert found is not None  # see above
        return found


@dataclasses.dataclass(eq=False)
class Task(ABC):
    """A task is a dataclass; its fields are its settings.

    Attributes:
        kind: classification, detection, segmentation or image generation.
        metric: the headline metric's name.
        higher_is_better: whether a higher score is better.
        units: what one column of ``Evaluation.wrong``, or of ``features``, is.
        independent_units: whether units are independent of each other, as tests between two models need them.
        presets: settings that differ from the defaults (the quick preset), by preset name.
        beside_base: settings that do not decide what ``prepare`` makes.
        scoring: settings that decide how models are scored and not the checkpoints: a zoo can be scored otherwise than
            it was when it was collected.
        rescoring: those of them that decide validation scores.
        collecting: settings that only tell how checkpoints were trained; not known of a zoo that was made elsewhere.
        embedded: whether the data come with the suite, so that no data folder is read.
        device: where the work is done; it is no setting.
        force: whether to make again what is in the store; it is no setting.
        data_dir: the folder that real data is looked for in; it is no setting (the data's hash is).
    """

    kind: ClassVar[str]
    metric: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    units: ClassVar[str]
    independent_units: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    beside_base: ClassVar[tuple[str, ...]] = ()
    scoring: ClassVar[tuple[str, ...]] = ()
    rescoring: ClassVar[tuple[str, ...]] = ()
    collecting: ClassVar[tuple[str, ...]] = ()
    device: ClassVar[str] = "cpu"
    force: ClassVar[bool] = False
    data_dir: ClassVar[str | None] = None

    @abstractmethod
    def collect(self, k: int, *, rng: torch.Generator, work: Path) -> Zoo:
        """Train k checkpoints.

        Args:
            k: how many.
            rng: the source of every random draw.
            work: a folder for unfinished work. Interrupted, a second call goes on from what lies there; the harness
                removes it once the zoo is saved.
        """

    def prepare(self, *, rng: torch.Generator) -> None:  # noqa: B027 - not every task has a base
        """Make what zoos share that differ in ``beside_base`` alone, for ``collect`` to find; nothing by default.

        Args:
            rng: the one that ``collect`` gets.
        """

    @property
    def embedded(self) -> bool:
        """Whether the data come with the suite."""
        return False

    @classmethod
    def of_zoo(cls, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that a zoo's own settings tell: the fields of the task among them."""
        names = {field.name for field in dataclasses.fields(cls)}
        return {name: value for name, value in facts.items() if name in names}

    def adopt(self, zoo: Zoo, asked: Set[str]) -> None:  # noqa: B027 - most zoos tell it in their settings
        """Take over what only the checkpoints of a given zoo tell; nothing by default.

        Args:
            zoo: the checkpoints.
            asked: names of the settings that were asked for.

        Raises:
            BadRequest: the zoo contradicts a setting that was asked for.
        """

    @abstractmethod
    def evaluate(self, zoo: Zoo, vectors: Float[Tensor, "N D"], split: str) -> Evaluation:
        """Score all N models on a split ("train" or "val") at once."""

    @abstractmethod
    def finetune(
        self, zoo: Zoo, vectors: Float[Tensor, "N D"], *, steps: int, rng: torch.Generator
    ) -> Float[Tensor, "N D"]:
        """A few more optimizer steps on the training split from each vector."""

    def initial(self, zoo: Zoo, count: int, *, rng: torch.Generator) -> Float[Tensor, "r D"] | None:
        """The generated part of untrained networks, to look at beside trained ones; None where there is none."""
        return None

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that decides what ``collect`` and ``evaluate`` compute, as plain JSON data.

        It has ``dataset``, ``dataset_hash`` (SHA-256), ``arch`` and ``layers`` at least. What decides a score besides
        checkpoints and ``size`` is under ``scoring``, which is part of the comparability key.
        """

    @abstractmethod
    def size(self, split: str) -> int:
        """How many examples of the split are scored."""
