"""Tasks whose checkpoints are trained here: a problem and a collection, made of a task's settings."""

import dataclasses
import functools
import math
from abc import abstractmethod
from collections.abc import Set
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.contract.zoo import Zoo
from bench.errors import BadRequest, unknown
from bench.system.identity import Code, libraries
from bench.system.store import file_hash
from tasks.networks.layers import describe, select
from tasks.training.collection import TRACKS, Collection
from tasks.training.problem import Problem
from tasks.training.runs import Runs
from tasks.training.settings import Settings


@dataclasses.dataclass(eq=False)
class Collected(Settings):
    """A task that brings a problem (data, network, loss, score); its checkpoints are collected by its settings.

    Attributes:
        pretrained: None, "released" or a file of weights to start from.
        keeps_pretrained: whether pretrained weights are the base as they are, instead of where its training starts.
    """

    collecting: ClassVar[tuple[str, ...]] = ("track", "epochs", "every")
    beside_base: ClassVar[tuple[str, ...]] = ("layers", "track", "every", "subset_lr", "train_size")
    keeps_pretrained: ClassVar[bool] = False
    official: ClassVar[Path | None] = Path(__file__).parents[1] / "official"

    pretrained: str | None = None  # here, so that it comes after the sizes of ``Sampled``

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

    @property
    @abstractmethod
    def problem(self) -> Problem:
        """The network, its loss and its score."""

    @property
    def runs(self) -> Runs:
        """The trainer of independent runs: one after another by default."""
        return Runs(self.problem)

    @property
    def collection(self) -> Collection:
        """The way checkpoints are collected; made anew, because a given zoo can tell the layers."""
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
            facts={**facts, "code": self._code},
            force=self.context.force,
        )

    @functools.cached_property
    def _code(self) -> list[str]:
        """The hash of the task's code, and the versions of its libraries."""
        return [Code().of(self, {}), *libraries()]

    def identity(self) -> dict[str, Any]:
        """Return settings, and hashes of the data and of a weights file."""
        return {
            **self.settings(),
            **dataclasses.asdict(self.recipe),
            "kind": self.kind,
            "dataset_hash": self.data.hash,
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
            BadRequest: others were asked for, or a track, which such a zoo does not have; or it is of another network.
        """
        if "layers" in zoo.settings:
            return
        if "track" in asked:
            raise BadRequest("a zoo that was made elsewhere has no track: leave --track out")
        model = self.problem.blank()
        self._check_fits(zoo, model)
        if "layers" not in asked:
            self.layers = describe(model, zoo.layout.names)
        elif set(select(model, self.layers)) != set(zoo.layout.names):
            raise BadRequest(
                f"the zoo holds the layers '{describe(model, zoo.layout.names)}', "
                f"'{self.layers}' were asked for: leave --layers out"
            )

    def _check_fits(self, zoo: Zoo, model: nn.Module) -> None:
        """Check that a zoo that was made elsewhere is of this network, before anything is fitted to it.

        Raises:
            BadRequest: it holds what is no parameter, lacks something, or was folded with another epsilon.
        """
        parameters = [name for name, _ in model.named_parameters()]
        odd = [name for name in zoo.layout.names if name not in parameters]
        if odd:
            raise BadRequest(
                f"the zoo does not fit {self.problem.name}: it holds '{odd[0]}', parameters of the network are named "
                f"like '{parameters[0]}': choose --arch"
            )
        self.base_model(zoo)
        folded = zoo.settings.get("norm_eps")
        other = {one.eps for one in model.modules() if isinstance(one, _BatchNorm)} - {folded}
        if folded is not None and other:
            raise BadRequest(
                f"the zoo's statistics were folded with an epsilon of {folded:g}, the network has {min(other):g}: "
                f"import it with --norm-eps {min(other):g}"
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

    def reference(
        self, zoo: Zoo, count: int, *, rng: torch.Generator, work: Path
    ) -> Float[Tensor, "m D"] | None:
        """Train models as the zoo's checkpoints were; None for a zoo that was made elsewhere."""
        if "track" not in zoo.settings:
            return None
        return self.collection.reference(zoo, count, rng=rng, work=work)

    def initial(self, zoo: Zoo, count: int, *, rng: torch.Generator) -> Float[Tensor, "r D"]:
        """Return the generated part of networks at random initialisation."""
        return self.collection.initial(zoo, count, rng=rng)

    def base_model(self, zoo: Zoo) -> nn.Module:
        """Return the base of a zoo, with its first checkpoint in place."""
        return self.collection.base_model(zoo)
