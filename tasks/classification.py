"""Image classification: train checkpoints of any architecture on any data set, and score candidates."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.errors import BadRequest, unknown
from bench.randomness import derive, generator, scoped
from bench.store import digest, file_hash, home, stage
from bench.zoo import Layout, Zoo
from tasks import datasets
from tasks.base import Evaluation, Task
from tasks.catalog import RECIPES
from tasks.collecting import (
    Rows,
    load_tensors,
    neutral_statistics,
    save_tensors,
    seeds,
    train_base,
    train_part,
    trajectory,
)
from tasks.images import Images
from tasks.layers import select
from tasks.models import NAMES, Shape, build
from tasks.scoring import Scorer
from tasks.training import Batches, Recipe

TRACKS = ("trajectory", "seeds")


@dataclasses.dataclass(eq=False)
class Classification(Task):
    """Train classifiers, generate a subset of their weights, score by accuracy.

    Attributes:
        dataset: one of ``tasks.datasets.NAMES``.
        arch: one of ``tasks.models.NAMES``.
        layers: which parameters are generated, a pattern of ``tasks.layers``.
        track: "trajectory" (consecutive steps of one run, the rest frozen) or "seeds" (independent runs).
        epochs, batch_size, lr, weight_decay, optimizer, augment, precision: training, see ``Recipe``; None takes the
            architecture's own.
        subset_lr: constant learning rate of the generated part on a trajectory, and in ``finetune``; None takes the
            recipe's peak rate for normalization parameters, and a tenth of it where there are others.
        every: optimizer steps between two checkpoints of a trajectory.
        train_size, val_size: how many examples of each split are scored (a fixed random subset); None means all.
        image_size: side of the model's input; None takes the data's own, or 224 with pretrained weights.
        pretrained: None, "released" or a file of weights to start from.
    """

    kind: ClassVar[str] = "classification"
    metric: ClassVar[str] = "accuracy"
    units: ClassVar[str] = "validation image, wrong where its class is not predicted"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"epochs": 100, "train_size": None}}

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
    image_size: int | None = None
    pretrained: str | None = None

    def __post_init__(self) -> None:
        for kind, value, valid in (
            ("data set", self.dataset, datasets.NAMES),
            ("architecture", self.arch, NAMES),
            ("track", self.track, TRACKS),
            ("augmentation", self.augment, ("none", "crop-flip")),
            ("optimizer", self.recipe.optimizer, ("sgd", "adamw")),
            ("precision", self.recipe.precision, ("float32", "bfloat16")),
        ):
            if value not in valid:
                raise unknown(kind, value, valid)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not value > 0 and field.name != "weight_decay":
                raise BadRequest(f"{field.name} is {value}, expected a number above 0")
        self._scorers: dict[tuple[str, str], Scorer] = {}

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The architecture's training recipe, with this task's settings in place."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)}
        chosen = {name: value for name, value in own.items() if value is not None}
        return Recipe(**{**RECIPES.get(self.arch, {}), **chosen})

    @functools.cached_property
    def data(self) -> datasets.ImageData:
        """The data set, loaded on first use."""
        return datasets.load(self.dataset, Path(self.data_dir) if self.data_dir else None)

    @functools.cached_property
    def shape(self) -> Shape:
        """Channels, input side and classes of the model."""
        channels, side = self.data.train.images.shape[1], self.data.train.images.shape[3]
        size = self.image_size or (224 if self.pretrained else side)
        return Shape(channels, size, len(self.data.classes), released=bool(self.pretrained))

    def identity(self) -> dict[str, Any]:
        """Settings, and hashes of the data and of a weights file."""
        return {
            **dataclasses.asdict(self),
            **dataclasses.asdict(self.recipe),
            "kind": self.kind,
            "dataset_hash": self.data.hash,
            "pretrained": self._pretrained_identity(),
            "train_size": self.size("train"),
            "val_size": self.size("val"),
        }

    def _pretrained_identity(self) -> str | None:
        if self.pretrained and Path(self.pretrained).is_file():
            return file_hash(Path(self.pretrained))
        return self.pretrained

    def size(self, split: str) -> int:
        """How many examples of the split are scored."""
        there = len((self.data.train if split == "train" else self.data.val).labels)
        wanted = self.train_size if split == "train" else self.val_size
        return min(wanted or there, there)

    def evaluate(self, zoo: Zoo, vectors: Float[Tensor, "N D"], split: str) -> Evaluation:
        """Accuracy in [0, 1], the wrong images and the mean cross-entropy of every candidate."""
        key = (zoo.hash, split)
        if key not in self._scorers:
            self._scorers[key] = Scorer(self._model(zoo), zoo.layout, self._scored(split))
        scored = self._scorers[key](vectors)
        accuracy = 1 - scored.wrong.double().mean(dim=1)
        return Evaluation(accuracy, scored.wrong, {"loss": scored.loss})

    def finetune(
        self, zoo: Zoo, vectors: Float[Tensor, "N D"], *, steps: int, rng: torch.Generator
    ) -> Float[Tensor, "N D"]:
        """Steps of the recipe's optimizer at ``subset_lr`` from each vector, on batches of its own."""
        train = functools.partial(
            train_part, self._model(zoo), zoo.layout, images=self._train, recipe=self.recipe,
            steps=steps, lr=self._subset_lr(zoo.layout),
        )  # fmt: skip
        pieces = []
        for low in range(0, len(vectors), 10):  # ten at a time bound the memory
            part = vectors[low : low + 10]
            keys = [derive(rng, low + index) for index in range(len(part))]
            pieces.append(train(part, keys=keys))
        return torch.cat(pieces)

    def initial(self, zoo: Zoo, count: int, *, rng: torch.Generator) -> Float[Tensor, "r D"]:
        """The generated part of networks at random initialisation."""
        vectors = []
        for index in range(count):
            with scoped(derive(rng, index)):
                model = build(self.arch, self.shape)
            parameters = {name: model.get_parameter(name).detach() for name in zoo.layout.names}
            vectors.append(zoo.layout.flatten(parameters))
        return torch.stack(vectors)

    def collect(self, k: int, *, rng: torch.Generator, work: Path) -> Zoo:
        """K checkpoints: consecutive steps of one run, or independent runs; see ``tasks.collecting``."""
        names = select(build(self.arch, self.shape), self.layers)  # a bad pattern costs no training
        whole = self.track == "seeds" and self.layers == "all"
        model, curve = self._base(
            rng
        )  # of whole networks only its curve is used: SGD's, in one run
        layout = Layout.of({name: model.get_parameter(name) for name in names})
        rows = Rows(work, k, layout.dim)
        key = derive(rng, self.track)
        if self.track == "trajectory":
            data = Batches(self._train, self.recipe, key)
            trajectory(model, layout, data, rows, lr=self._subset_lr(layout), every=self.every)
        else:
            base = None if whole else model
            seeds(self._fresh, base, layout, self._train, self.recipe, rows, key)
        if whole:
            neutral_statistics(model)
        base_tensors = {n: t.cpu() for n, t in model.state_dict().items() if n not in layout.names}
        zoo = Zoo(rows.vectors.clone(), layout, base_tensors, settings=self._settings(rng))
        return self._timed(zoo, curve, rows.seconds)

    def _settings(self, rng: torch.Generator) -> dict[str, Any]:
        return {"seed": rng.initial_seed(), **self.identity()}

    def _timed(
        self, zoo: Zoo, curve: list[tuple[float, float]], seconds: Float[Tensor, " K"]
    ) -> Zoo:
        """The zoo with its checkpoints' scores, SGD's curve, and how long it all took."""
        scores = self.evaluate(zoo, zoo.vectors, "val").scores.tolist()
        elapsed = curve[-1][0] + (seconds if self.track == "trajectory" else seconds.cumsum(0))
        own = list(zip(elapsed.tolist(), scores, strict=True))
        return dataclasses.replace(
            zoo,
            scores=tuple(scores),
            curve=(*curve, *own),
            collect_s=float(elapsed[-1]),
            base_score=curve[-1][1],
        )

    def _subset_lr(self, layout: Layout) -> float:
        """The learning rate of the generated part: matrices and kernels bear less than scales and shifts."""
        factor = 1.0 if all(len(shape) == 1 for shape in layout.shapes) else 0.1
        return self.subset_lr or factor * self.recipe.lr

    def _fresh(self, rng: torch.Generator) -> nn.Module:
        """A new network, initialised from this source alone."""
        with scoped(rng):
            return build(self.arch, self.shape, pretrained=self.pretrained).to(self.device)

    def _base(self, rng: torch.Generator) -> tuple[nn.Module, list[tuple[float, float]]]:
        """The trained network that a subset is frozen into; shared by every choice of layers, track and K."""
        ignored = {"layers", "track", "every", "subset_lr", "train_size"}
        identity = {n: v for n, v in self.identity().items() if n not in ignored}
        identity |= {"seed": rng.initial_seed(), "device": self.device}
        path = home() / "bases" / f"{digest(identity)}.safetensors"
        state = path.with_suffix(".partial")

        def make() -> dict[str, Tensor]:
            key = derive(rng, "base")
            model = self._fresh(key)
            data = Batches(self._train, self.recipe, key)
            curve = train_base(model, data, lambda: self._accuracy(model), state)
            return {"curve": torch.tensor(curve, dtype=torch.float64), **model.state_dict()}

        tensors = stage(path, load_tensors, make, save_tensors, force=self.force)
        state.unlink(missing_ok=True)
        curve = [(seconds, score) for seconds, score in tensors.pop("curve").tolist()]
        model = build(self.arch, self.shape)
        model.load_state_dict(tensors)
        return model.to(self.device), curve

    def _model(self, zoo: Zoo) -> nn.Module:
        """The base of a zoo, with its first checkpoint in place."""
        model = build(self.arch, self.shape)
        try:
            model.load_state_dict({**zoo.base, **zoo.layout.unflatten(zoo.vectors[0])})
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise BadRequest(
                f"the zoo does not fit {self.arch} on {self.dataset}: {reason}"
            ) from None
        return model.to(self.device)

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
    def _accuracy(self, model: nn.Module) -> float:
        """Validation accuracy of one network."""
        images, right = self._scored("val"), 0
        for start in range(0, len(images), 500):
            rows = slice(start, start + 500)
            inputs = images.inputs(images.pixels[rows])
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            right += int((model(inputs).argmax(1) == images.labels[rows]).sum())
        return right / len(images)
