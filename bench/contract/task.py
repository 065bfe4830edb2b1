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
        compared: the units by which two models are compared.
        presets: settings that differ from the defaults (the quick preset), by preset name: "paper". A preset that the
            generator alone has leaves the task at its defaults.
        beside_base: settings that do not affect the base that ``prepare`` makes.
        scoring: settings that affect the scoring of models but not the checkpoints; a collected zoo can be scored
            with other values of them.
        rescoring: the settings of ``scoring`` that affect validation scores.
        collecting: settings that only describe the training of checkpoints; unknown for an imported zoo.
        official: the folder of zoos that come with the package, see ``bench.runs.official``; None where none do.
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
    official: ClassVar[Path | None] = None

    @abstractmethod
    def collect(self, k: int, *, rng: torch.Generator, work: Path) -> Zoo:
        """Train k checkpoints and return them as a zoo.

        Args:
            k: the number of checkpoints.
            rng: the source of every random draw.
            work: a folder for unfinished work, from which a call after an interruption continues; the harness removes
                it once the zoo is saved.
        """

    def prepare(self, *, rng: torch.Generator) -> None:
        """Make the base that zoos which differ only in ``beside_base`` share; by default nothing.

        Args:
            rng: the generator that ``collect`` gets too.
        """

    @property
    def embedded(self) -> bool:
        """Whether the data come with the suite."""
        return False

    @property
    def small(self) -> bool:
        """Whether a step of training is so little work that more threads than one gain nothing."""
        return False

    @classmethod
    def of_zoo(cls, facts: Settings) -> dict[str, Json]:
        """Return the task's settings that a zoo's file records: those among ``facts`` that are fields of the task."""
        return {name: value for name, value in facts.items() if name in cls.setting_names()}

    def adopt(self, zoo: Zoo, asked: Set[str]) -> None:
        """Take over the settings that only the checkpoints of a given zoo determine; by default none.

        Args:
            zoo: the checkpoints.
            asked: names of the settings that the user set.

        Raises:
            BadRequest: the zoo contradicts a setting that the user set.
        """

    @abstractmethod
    def scorer(self, zoo: Zoo, split: str) -> Scorer:
        """Return the scorer of a zoo's models on a split ("train" or "val").

        Features that all candidates share are computed here, so that a call of the scorer takes only the time of the
        models it is given.
        """

    @abstractmethod
    def finetune(
        self, zoo: Zoo, vectors: Float[Tensor, "N D"], *, steps: int, rng: torch.Generator
    ) -> Float[Tensor, "N D"]:
        """Train each vector for a few more steps on the training split, on batches of its own."""

    def reference(
        self, zoo: Zoo, count: int, *, rng: torch.Generator, work: Path
    ) -> Float[Tensor, "m D"] | None:
        """Train models by the process that made the zoo's checkpoints, of which no generator sees any.

        Every model is a run of its own, on batches of its own. None where that process is not known, which is the
        default: without a reference there is no verdict.

        Args:
            zoo: the checkpoints.
            count: how many models.
            rng: the source of every random draw; another one than the checkpoints'.
            work: a folder for unfinished work, as of ``collect``.
        """
        return None

    def initial(self, zoo: Zoo, count: int, *, rng: torch.Generator) -> Float[Tensor, "r D"] | None:
        """Return the vectors of ``count`` untrained networks, for figures; None where the task has none."""
        return None

    @abstractmethod
    def identity(self) -> dict[str, Json]:
        """Return everything that determines the results of ``collect`` and ``scorer``, as plain JSON data.

        It has ``dataset``, ``dataset_hash`` (SHA-256), ``arch`` and ``layers`` at least. What determines a score
        besides checkpoints and ``size`` is under ``scoring``, which is part of the comparability key.
        """

    @abstractmethod
    def size(self, split: str) -> int:
        """Return the number of examples of a split ("train" or "val") on which models are scored."""
