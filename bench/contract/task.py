"""The contract of a task: collect zoos of trained checkpoints, and evaluate vectors on real data."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract.context import Plugin
from bench.contract.evaluation import Scorer
from bench.contract.metric import Compared, Metric
from bench.contract.zoo import Zoo
from bench.system.data import Json, Settings


@dataclasses.dataclass(eq=False)
class Task(Plugin, ABC):
    """A task is a dataclass; its fields are its settings.

    Attributes:
        kind: classification, detection, segmentation or image generation.
        metric: the headline metric, that of ``Evaluation.scores``.
        compared: what two models are compared by.
        presets: settings that differ from the defaults (the quick preset), by preset name.
        beside_base: settings that do not decide what ``prepare`` makes.
        scoring: settings that decide how models are scored and not the checkpoints: a zoo can be scored otherwise than
            it was when it was collected.
        rescoring: those of them that decide validation scores.
        collecting: settings that only tell how checkpoints were trained; not known of a zoo that was made elsewhere.
        embedded: whether the data come with the suite, so that no data folder is read.
    """

    kind: ClassVar[str]
    metric: ClassVar[Metric]
    compared: ClassVar[Compared]
    presets: ClassVar[Mapping[str, Settings]] = {}
    beside_base: ClassVar[tuple[str, ...]] = ()
    scoring: ClassVar[tuple[str, ...]] = ()
    rescoring: ClassVar[tuple[str, ...]] = ()
    collecting: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def collect(self, k: int, *, rng: torch.Generator, work: Path) -> Zoo:
        """Train k checkpoints.

        Args:
            k: how many.
            rng: the source of every random draw.
            work: a folder for unfinished work. Interrupted, a second call goes on from what lies there; the harness
                removes it once the zoo is saved.
        """

    def prepare(self, *, rng: torch.Generator) -> None:
        """Make what zoos share that differ in ``beside_base`` alone, for ``collect`` to find; nothing by default.

        Args:
            rng: the one that ``collect`` gets.
        """

    @property
    def embedded(self) -> bool:
        """Whether the data come with the suite."""
        return False

    @classmethod
    def of_zoo(cls, facts: Settings) -> dict[str, Json]:
        """Return the settings that a zoo's own settings tell: the fields of the task among them."""
        return {name: value for name, value in facts.items() if name in cls.setting_names()}

    def adopt(self, zoo: Zoo, asked: Set[str]) -> None:
        """Take over what only the checkpoints of a given zoo tell; nothing by default.

        Args:
            zoo: the checkpoints.
            asked: names of the settings that were asked for.

        Raises:
            BadRequest: the zoo contradicts a setting that was asked for.
        """

    @abstractmethod
    def scorer(self, zoo: Zoo, split: str) -> Scorer:
        """Return what scores models of a zoo on a split ("train" or "val").

        What all candidates share is computed here, so that the time of a call is that of the models it is given.
        """

    @abstractmethod
    def finetune(
        self, zoo: Zoo, vectors: Float[Tensor, "N D"], *, steps: int, rng: torch.Generator
    ) -> Float[Tensor, "N D"]:
        """Train each vector for a few more steps on the training split, on batches of its own."""

    def initial(self, zoo: Zoo, count: int, *, rng: torch.Generator) -> Float[Tensor, "r D"] | None:
        """The generated part of untrained networks, to look at beside trained ones; None where there is none."""
        return None

    @abstractmethod
    def identity(self) -> dict[str, Json]:
        """Everything that decides what ``collect`` and ``scorer`` compute, as plain JSON data.

        It has ``dataset``, ``dataset_hash`` (SHA-256), ``arch`` and ``layers`` at least. What decides a score besides
        checkpoints and ``size`` is under ``scoring``, which is part of the comparability key.
        """

    @abstractmethod
    def size(self, split: str) -> int:
        """How many examples of the split are scored."""
