"""Tasks whose checkpoints are trained here: settings, base, trajectory, independent runs and a few more steps."""

import dataclasses
import functools
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.contract import Task, registry
from bench.contract.declarations import Architecture, DataSet, Declaration
from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest, unknown
from bench.system.identity import libraries, plugin_hash
from bench.system.randomness import derive, scoped
from bench.system.store import digest, file_hash, home, stage
from tasks.networks.layers import describe, select
from tasks.training.collecting import (
    Curve,
    Rows,
    fold_statistics,
    free,
    load_tensors,
    neutral_statistics,
    put,
    save_tensors,
    seeds,
    take,
    train_base,
    trajectory,
)
from tasks.training.steps import Loss, Recipe, Training

D = TypeVar("D")
TRACKS = ("trajectory", "seeds")


@dataclasses.dataclass(eq=False)
class Trained(Task):
    """What a task needs besides is its data, its networks, its loss and its score.

    Attributes:
        dataset: a registered data set of the form ``data_form``.
        arch: a registered architecture of the form ``network_form``.
        layers: which parameters are generated, a pattern of ``tasks.networks.layers``.
        track: "trajectory" (consecutive steps of one run, the rest frozen) or "seeds" (independent runs).
        epochs, batch_size, lr, weight_decay, optimizer, augment, precision: training, see ``Recipe``; None takes the
            architecture's own. No epochs are possible from pretrained weights.
        subset_lr: constant learning rate of the generated part on a trajectory, and in ``finetune``; None takes the
            recipe's peak rate for normalization parameters, and a tenth of it where there are others.
        every: optimizer steps between two checkpoints of a trajectory.
        train_size, val_size: how many examples of each split are scored (a fixed random subset); None means all.
        pretrained: None, "released" or a file of weights to start from.
        data_form, network_form: see ``bench.contract.declarations``.
        augmentations: what the setting ``augment`` may be.
        keeps_pretrained: whether pretrained weights are the base as they are, instead of where its training starts.
    """

    data_form: ClassVar[str]
    network_form: ClassVar[str]
    augmentations: ClassVar[Sequence[str]] = ("none",)
    scoring: ClassVar[tuple[str, ...]] = ("train_size", "val_size")
    rescoring: ClassVar[tuple[str, ...]] = ("val_size",)
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
    train_size: int | None = 10_000
    val_size: int | None = None
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
        """How many examples the split has."""

    @abstractmethod
    def build(self, pretrained: str | None = None) -> nn.Module:
        """The network in eval mode, on the CPU, initialised from torch's global source or with pretrained weights."""

    @abstractmethod
    def whole_loss(self, model: nn.Module, rng: torch.Generator) -> Loss:
        """The loss of a whole network in train mode on the batch of each step; rng decides the batches."""

    @abstractmethod
    def part_loss(self, model: nn.Module, layout: Layout, rng: torch.Generator) -> Loss:
        """The same of a network in eval mode of which only the layout's parameters are trained."""

    @abstractmethod
    def score(self, model: nn.Module) -> float:
        """The validation score of one network in eval mode, as ``evaluate`` gives it."""

    def training(self, model: nn.Module, rng: torch.Generator) -> Training:
        """Training of a whole network."""
        loss = self.whole_loss(model, rng)
        return Training(loss, list(model.parameters()), self.recipe, self.per_epoch)

    @functools.cached_property
    def per_epoch(self) -> int:
        """Optimizer steps an epoch."""
        there = self.available("train")
        return there // min(self.batch_size, there)

    @property
    def embedded(self) -> bool:
        """Whether the data come with the suite."""
        return self.data_set.embedded

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

    def load(self, kind: type[D], **options: Any) -> D:
        """Load the data set, whose function returns this type; options are those that the function takes."""
        folder = Path(self.context.data_dir) if self.context.data_dir else None
        return self.data_set.load(kind, folder, **options)

    @classmethod
    def of_zoo(cls, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that a zoo tells; how many training examples are scored is each run's own."""
        return {n: value for n, value in super().of_zoo(facts).items() if n != "train_size"}

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

    # What all share --------------------------------------------------------------------------------------------------

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The architecture's training recipe, with this task's settings in place."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)}
        chosen = {name: value for name, value in own.items() if value is not None}
        return Recipe(**{**self.architecture.recipe, **chosen})

    def identity(self) -> dict[str, Any]:
        """Settings, and hashes of the data and of a weights file."""
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

    def size(self, split: str) -> int:
        """How many examples of the split are scored."""
        there = self.available(split)
        wanted = self.train_size if split == "train" else self.val_size
        return min(wanted or there, there)

    def initial(self, zoo: Zoo, count: int, *, rng: torch.Generator) -> Float[Tensor, "r D"]:
        """The generated part of networks at random initialisation."""
        vectors = []
        for index in range(count):
            with scoped(derive(rng, index)):
                model = self.build()
            parameters = {name: model.get_parameter(name).detach() for name in zoo.layout.names}
            vectors.append(zoo.layout.flatten(parameters))
        return torch.stack(vectors)

    def prepare(self, *, rng: torch.Generator) -> None:
        """Train the base."""
        self.base(rng)

    def collect(self, k: int, *, rng: torch.Generator, work: Path) -> Zoo:
        """K checkpoints: consecutive steps of one run, or independent runs; see ``tasks.training.collecting``."""
        names = select(self.build(), self.layers)  # a bad pattern costs no training
        whole = self.track == "seeds" and self.layers == "all"
        # Of the base of whole networks only its curve is used: SGD's, in one run.
        model, curve = self.base(rng)
        layout = Layout.of({name: model.get_parameter(name) for name in names})
        rows = Rows(work, k, layout.dim)
        key = derive(rng, self.track)
        if self.track == "trajectory":
            training, own = self._part(model, layout, key, self._subset_lr(layout))
            trajectory(training, own, layout, rows, every=self.every)
        else:
            train = functools.partial(self._seeds, None if whole else model, layout)
            seeds(train, rows, key, together=self.together(layout, whole), device=self.device)
        if whole:
            neutral_statistics(model)
        base_tensors = {n: t.cpu() for n, t in model.state_dict().items() if n not in layout.names}
        settings = {"seed": rng.initial_seed(), **self.identity()}
        zoo = Zoo(rows.vectors.clone(), layout, base_tensors, settings=settings)
        return self._timed(zoo, curve, rows.seconds)

    def _timed(self, zoo: Zoo, curve: Curve, seconds: Float[Tensor, " K"]) -> Zoo:
        """The zoo with its checkpoints' scores, SGD's curve, and how long it all took."""
        scores = self.scorer(zoo, "val")(zoo.vectors).scores.tolist()
        elapsed = curve[-1][0] + (seconds if self.track == "trajectory" else seconds.cumsum(0))
        own = list(zip(elapsed.tolist(), scores, strict=True))
        return dataclasses.replace(
            zoo,
            scores=tuple(scores),
            curve=(*curve, *own),
            collect_s=float(elapsed[-1]),
            base_score=curve[-1][1],
        )

    def finetune(
        self, zoo: Zoo, vectors: Float[Tensor, "N D"], *, steps: int, rng: torch.Generator
    ) -> Float[Tensor, "N D"]:
        """Steps of the recipe's optimizer at ``subset_lr`` from each vector, on batches of its own."""
        keys = [derive(rng, index) for index in range(len(vectors))]
        lr = self._subset_lr(zoo.layout)
        return self.train_part(self.base_model(zoo), zoo.layout, vectors, keys, steps=steps, lr=lr)

    def _subset_lr(self, layout: Layout) -> float:
        """The learning rate of the generated part: matrices and kernels bear less than scales and shifts."""
        factor = 1.0 if all(len(shape) == 1 for shape in layout.shapes) else 0.1
        return self.subset_lr or factor * self.recipe.lr

    # Independent runs: one after another, unless a task can train many at once ---------------------------------------

    def together(self, layout: Layout, whole: bool) -> int:
        """How many independent runs to train at once."""
        return 1

    def _seeds(
        self, base: nn.Module | None, layout: Layout, keys: Sequence[torch.Generator]
    ) -> Float[Tensor, "S D"]:
        """Runs from a start of their own: of whole networks where there is no base, else of its generated part."""
        starts = [self.fresh(derive(key, "start")) for key in keys]
        if base is None:
            return self.train_whole(starts, layout, keys)
        own = [take([start.get_parameter(n) for n in layout.names]) for start in starts]
        return self.train_part(base, layout, torch.stack(own), keys)

    def train_whole(
        self, starts: Sequence[nn.Module], layout: Layout, keys: Sequence[torch.Generator]
    ) -> Float[Tensor, "S D"]:
        """Train whole networks in train mode, then express each one's running statistics in its affine parameters."""
        trained = []
        for model, key in zip(starts, keys, strict=True):
            training = self.training(model.train(), key)
            training.run(0, training.steps)
            folded = fold_statistics(
                model, dict(model.named_parameters()), dict(model.named_buffers())
            )
            trained.append(layout.flatten(folded).detach().cpu())
        return torch.stack(trained)

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
        """Train S versions of the generated part, each on its own batches, everything in eval mode.

        Args:
            base: the frozen network, in eval mode.
            layout: the generated part.
            vectors: where each version starts.
            keys: the source of each version's data order and augmentation.
            steps: optimizer steps; None takes the recipe's epochs.
            lr: a constant learning rate; None takes the recipe's schedule.
        """
        trained = []
        for vector, key in zip(vectors, keys, strict=True):
            training, own = self._part(base, layout, key, lr)
            put(vector, layout, own)
            training.run(0, training.steps if steps is None else steps)
            trained.append(take(own))
        return torch.stack(trained)

    # Networks --------------------------------------------------------------------------------------------------------

    def fresh(self, rng: torch.Generator) -> nn.Module:
        """A new network on the device, initialised from this source alone."""
        with scoped(rng):
            return self.build(self.pretrained).to(self.device)

    def base_model(self, zoo: Zoo) -> nn.Module:
        """The base of a zoo, with its first checkpoint in place.

        Raises:
            BadRequest: the zoo is of another network.
        """
        model = self.build()
        try:
            model.load_state_dict({**zoo.base, **zoo.layout.unflatten(zoo.vectors[0])})
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise BadRequest(
                f"the zoo does not fit {self.arch} on {self.dataset}: {reason}"
            ) from None
        return model.to(self.device)

    def _part(
        self, model: nn.Module, layout: Layout, rng: torch.Generator, lr: float | None
    ) -> tuple[Training, list[Tensor]]:
        """Plain training of the generated part of a frozen network in eval mode, and the tensors it trains.

        What does not depend on the generated part runs without gradients, and its normalization statistics stand still:
        a checkpoint is completely described by the base and its row.
        """
        own = free(model, layout)
        loss = self.part_loss(model, layout, rng)
        return Training(loss, own, self.recipe, self.per_epoch, lr=lr), own

    def base(self, rng: torch.Generator) -> tuple[nn.Module, Curve]:
        """The trained network that a subset is frozen into; shared by every choice of layers, track and K."""
        identity = {n: v for n, v in self.identity().items() if n not in self.beside_base}
        identity |= {"seed": rng.initial_seed(), "device": self.device}
        identity["code"] = [plugin_hash(self, {}), *libraries()]
        path = home() / "bases" / f"{digest(identity)}.safetensors"
        state = path.with_suffix(".partial")

        def make() -> dict[str, Tensor]:
            key = derive(rng, "base")
            model = self.fresh(key)
            if self.pretrained and self.keeps_pretrained:
                curve = [(0.0, self.score(model))]
            else:
                curve = train_base(
                    model, self.training(model, key), lambda: self.score(model), state
                )
            return {"curve": torch.tensor(curve, dtype=torch.float64), **model.state_dict()}

        tensors = stage(path, load_tensors, make, save_tensors, force=self.context.force)
        state.unlink(missing_ok=True)
        curve = [(seconds, score) for seconds, score in tensors.pop("curve").tolist()]
        model = self.build()
        model.load_state_dict(tensors)
        return model.to(self.device), curve
