"""Image generation: train diffusion models, generate a subset of their weights, score by the images that they draw."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DDPMScheduler
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contract import Compared, Evaluation, Metric, Scorer, registry
from bench.contract.declarations import Declaration, Shape
from bench.contract.plain import Plain
from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest, BenchError, unknown
from bench.system.randomness import derive, generator
from bench.system.store import digest, home, stage
from tasks.classification import Classification
from tasks.data.images import AUGMENTATIONS, Images
from tasks.data.labelled import ImageData, Split
from tasks.fast import features
from tasks.fast.features import FeatureNetwork
from tasks.fast.image_scoring import ImageScorer, Reference
from tasks.fast.sampling import SAMPLERS, TIMESTEPS, Sampler
from tasks.training.batches import Batches
from tasks.training.collected import Collected
from tasks.training.problem import Problem
from tasks.training.rows import load_tensors, save_tensors
from tasks.training.steps import Loss

CLASSIFIER_EPOCHS = 10
FEWEST = 20  # images: of fewer, no distance can be said to be one
_FEATURES = "features."  # in a zoo's base: the weights of the network that images are compared by


@dataclasses.dataclass(eq=False)
class ImageGeneration(Collected):
    """Train denoising diffusion models (DDPM, Ho et al. 2020), score by the Fréchet distance of images drawn with them.

    Every candidate starts from the same noise and draws with the same deterministic sampler, so that differences are
    those of the weights. On the split "train" images from one set of noise are compared with the training images, on
    "val" images from another set with the validation images: models are selected on the former, reported on the latter.

    The distance is called FID if features are those of InceptionV3 with the reference implementation's weights, and
    otherwise ``fd-<network>``. Lower is better. That of few images is too large, for all models alike; ``unbiased``
    beside it is not (``bench.metrics.frechet.unbiased``).

    An image that is not finite is no image, and counts as worse than any; see ``tasks.fast.image_scoring``.

    Two models are as similar as the features of the images that they draw from the same noise: of the first 64
    validation images, at most 64 evenly spaced features each, the sum of minima over the sum of maxima (the weighted
    Jaccard index, ``bench.metrics.similarity.weighted_jaccard``): in [0, 1], 1 for models that draw the same.

    Attributes:
        fid_images: images that a model draws for each split; they are compared with all real ones.
        sampler: one of ``tasks.fast.sampling.SAMPLERS``.
        steps: of the sampler, each of which runs the network once.
        draw_precision: of drawing images, "float32", or "bfloat16" for autocast. The latter is refused where it moves
            the first checkpoint's distance by more than other images would.
        feature_network: one of ``tasks.fast.features.NAMES``; a classifier is trained on the
            data set's training images.
        feature_weights: of InceptionV3: "released" or a file.
        passes: passes over the training images an epoch; after each epoch the network is scored.
        ema: decay of the moving average of weights that is the trained base, see ``AveragedTraining``.
    """

    kind: ClassVar[str] = "image generation"
    compared: ClassVar[Compared] = Compared(
        "feature of one of the first images, drawn by all models from the same noise", features=True
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"fid_images": 50_000, "steps": 100}}
    data_form: ClassVar[str] = "labels"
    network_form: ClassVar[str] = "noise"
    augmentations: ClassVar[Sequence[str]] = ("none", *AUGMENTATIONS)
    rescoring: ClassVar[tuple[str, ...]] = (
        "fid_images", "sampler", "steps", "draw_precision", "feature_weights",
    )  # fmt: skip
    scoring: ClassVar[tuple[str, ...]] = rescoring
    collecting: ClassVar[tuple[str, ...]] = (*Collected.collecting, "passes", "ema")
    keeps_pretrained: ClassVar[bool] = True

    dataset: str = "cifar10"
    arch: str = "ddpm32"
    layers: str = "up_blocks.3.*norm*"
    fid_images: int = 1000
    sampler: str = "ddim"
    steps: int = 50
    draw_precision: str = "float32"
    feature_network: str = features.INCEPTION
    feature_weights: str = features.RELEASED
    passes: int = 1
    ema: float = 0.9999

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind, value, valid in (
            ("feature network", self.feature_network, features.NAMES),
            ("draw_precision", self.draw_precision, ("float32", "bfloat16")),
        ):
            if value not in valid:
                raise unknown(kind, value, valid)
        Sampler(self.sampler, self.steps)  # refuses an unknown sampler, and too many steps
        features.weights_identity(self.feature_weights)  # refuses a file that is not there
        if self.fid_images < FEWEST:
            raise BadRequest(f"fid_images is {self.fid_images}, expected at least {FEWEST}")
        if self.ema >= 1:
            raise BadRequest(f"ema is {self.ema}, expected a number below 1")

    @functools.cached_property
    def metric(self) -> Metric:  # type: ignore[override]
        """FID for InceptionV3 with the reference implementation's weights, otherwise ``fd-<network>``."""
        name = features.metric(self.feature_network, self.feature_weights)
        return Metric(name, higher_is_better=False, resampled="jackknife")

    # Data ------------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def data(self) -> ImageData:
        """The data set, loaded on first use."""
        return self.load(ImageData)

    def size(self, split: str) -> int:
        """Return how many images a model draws for the split; all real ones are compared with them."""
        return self.fid_images

    def _split(self, split: str) -> Split:
        return self.data.train if split == "train" else self.data.val

    @property
    def per_epoch(self) -> int:
        """Optimizer steps of an epoch's passes over the training split."""
        return self.passes * super().per_epoch

    def declarations(self) -> tuple[Declaration, ...]:
        """Return the architecture of the network of the features too, where it is one of the suite's."""
        declared = super().declarations()
        if self.feature_network not in features.CLASSIFIERS:
            return declared
        network = registry.architecture(self.feature_network, Classification.network_form)
        return (*declared, network)

    def identity(self) -> dict[str, Any]:
        """Return settings, hashes of the data and of weights that are given as files, and how images are drawn."""
        drawing = ("sampler", "steps", "draw_precision")
        return {
            **super().identity(),
            "feature_weights": features.weights_identity(self.feature_weights),
            "scoring": {name: getattr(self, name) for name in drawing},
        }

    # Training --------------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """Channels and side of the images."""
        return self.data.train.images.shape[1], self.data.train.images.shape[3]

    def build(self, pretrained: str | None = None) -> nn.Module:
        """Build the UNet for the data's images."""
        channels, side = self.shape
        return self.architecture.build(Shape(channels, side, 0, bool(pretrained)), pretrained)

    @functools.cached_property
    def problem(self) -> Problem:
        """The noise in noisy training images; a whole network ends as the moving average of its weights.

        A part of a network is trained by the same loss: blocks before it need no gradients, and get none.
        """
        return Problem(
            name=f"{self.arch} on {self.dataset}",
            build=self.build,
            whole_loss=self._loss,
            part_loss=lambda model, layout: functools.partial(self._loss, model),
            score=self.score,
            recipe=self.recipe,
            per_epoch=self.per_epoch,
            device=self.device,
            ema=self.ema,
        )

    def _loss(self, model: nn.Module, rng: torch.Generator) -> Loss:
        """Return the mean squared error of the noise found in noisy images (Ho et al. 2020, equation 14)."""
        data, kind = Batches(self._train, self.recipe, rng), torch.device(self.device).type
        mixed = self.recipe.precision == "bfloat16"
        process: Any = DDPMScheduler(TIMESTEPS)

        def loss(step: int) -> Tensor:
            images, _ = data(step)
            draw = derive(rng, "noise", step, device=self.device)
            noise = torch.randn(images.shape, generator=draw, device=self.device)
            times = torch.randint(TIMESTEPS, (len(images),), generator=draw, device=self.device)
            noisy = process.add_noise(images, noise, times)
            with torch.autocast(kind, torch.bfloat16, enabled=mixed):
                (predicted,) = model(noisy, times, return_dict=False)
            return F.mse_loss(predicted.float(), noise)

        return loss

    @functools.cached_property
    def _train(self) -> Images:
        """The training split; the network sees it between -1 and 1."""
        middle = (0.5,) * self.shape[0]
        data = dataclasses.replace(self.data, mean=middle, std=middle)
        return Images.of(data, data.train, self.shape[1], self.device)

    # Scoring ---------------------------------------------------------------------------------------------------------

    def scorer(self, zoo: Zoo, split: str) -> Scorer:
        """Return what gives the distance of candidates' images to the split's; on validation further metrics too.

        These are the distance without the bias of few images, the kernel distance (KID, where the distance is FID),
        precision and recall, of ``bench.metrics.frechet``.
        """
        distance = self.metric.name
        kernel = "KID" if distance == "FID" else distance.replace("fd-", "kd-")
        names = {"unbiased": f"{distance} unbiased", "kernel": kernel}
        images = self._candidates(zoo, split)

        def score(vectors: Float[Tensor, "N D"]) -> Evaluation:
            found = images(vectors, further=split == "val")
            extra = {names.get(name, name): values for name, values in found.extra.items()}
            return dataclasses.replace(found, extra=extra)

        return score

    def draw(
        self, zoo: Zoo, vectors: Float[Tensor, "N D"], split: str, count: int
    ) -> UInt8[Tensor, "N m C S S"]:
        """Draw the first images that each candidate is scored by on a split."""
        scorer = self._candidates(zoo, split)
        return torch.cat([scorer.draw(some, count) for some in vectors.split(scorer.together)])

    def _candidates(self, zoo: Zoo, split: str) -> ImageScorer:
        """Return what draws and compares the images of a zoo's candidates.

        Raises:
            BenchError: half precision moves the first checkpoint's distance by more than other images would.
        """
        make = functools.partial(self._scorer, zoo.layout, self.network(zoo), split)
        scorer = make(self.base_model(zoo), self.draw_precision)
        if self.draw_precision != "float32":
            exact = make(self.base_model(zoo), "float32")
            self._check_precision(scorer, exact, zoo.vectors[:1])
        return scorer

    def plain(self, zoo: Zoo) -> Plain:
        """Return the network, and torchmetrics' Fréchet distance of the images that diffusers draws with it."""
        from tasks.plain import BATCH, frechet  # loads torchmetrics, which nothing else needs

        measure = frechet(
            self._split("val").images.split(BATCH),
            self.network(zoo),
            self._noise("val"),
            SAMPLERS[self.sampler](),
            name=self.metric.name,
            steps=self.steps,
            mixed=self.draw_precision == "bfloat16",
            device=self.device,
        )
        network, base = self.build().to(self.device), _without_features(zoo).base
        # Rounding turns a few bytes of images; in half precision, many.
        relative = 1e-3 if self.draw_precision == "float32" else 2e-2
        return Plain(network, base, measure, absolute=1e-3, relative=relative)

    def score(self, model: nn.Module) -> float:
        """Return the distance to the validation images of one network."""
        alone = self._scorer(Layout((), ()), self.network(None), "val", model, self.draw_precision)
        return float(alone(torch.empty(1, 0), further=False).scores)

    def _scorer(
        self, layout: Layout, network: FeatureNetwork, split: str, model: Any, precision: str
    ) -> ImageScorer:
        reference, sampler = self._reference(network, split), Sampler(self.sampler, self.steps)
        noise = self._noise(split)
        return ImageScorer(model, layout, sampler, noise, network, reference, precision)

    def _noise(self, split: str) -> Float[Tensor, "n C S S"]:
        """Draw what the images of every candidate start from."""
        channels, side = self.shape
        shape = (self.fid_images, channels, side, side)
        return torch.randn(shape, generator=generator(0, "noise", split))

    def _check_precision(self, mixed: ImageScorer, exact: ImageScorer, first: Tensor) -> None:
        """Refuse half precision that moves a distance by more than other images would."""
        count = len(exact.noise)
        ours, theirs = (one.network(one.draw(first, count)[0])[None] for one in (mixed, exact))
        moved = abs(float(exact.distance(ours) - exact.distance(theirs)))
        noise = float(exact.standard_error(theirs))
        if moved > noise:
            raise BenchError(
                f"in bfloat16 the first checkpoint's {self.metric.name} moves by {moved:.3g}, more than the "
                f"{noise:.3g} that other images would move it by: leave --set task.draw_precision=bfloat16 out"
            )

    # The network of the features -------------------------------------------------------------------------------------

    def collect(self, k: int, *, rng: torch.Generator, work: Path) -> Zoo:
        """Train K checkpoints; a classifier that they are scored with goes with them, so that one file says it all."""
        network = self.network(None)  # one that cannot be had costs no training
        zoo = super().collect(k, rng=rng, work=work)
        weights = {f"{_FEATURES}{n}": t for n, t in network.tensors.items()}
        return dataclasses.replace(zoo, base={**zoo.base, **weights})

    def base_model(self, zoo: Zoo) -> nn.Module:
        """Return the base of a zoo, with its first checkpoint in place."""
        return super().base_model(_without_features(zoo))

    def finetune(
        self, zoo: Zoo, vectors: Float[Tensor, "N D"], *, steps: int, rng: torch.Generator
    ) -> Float[Tensor, "N D"]:
        """Take steps of the recipe's optimizer at ``subset_lr`` from each vector, on batches of its own."""
        return super().finetune(_without_features(zoo), vectors, steps=steps, rng=rng)

    def reference(
        self, zoo: Zoo, count: int, *, rng: torch.Generator, work: Path
    ) -> Float[Tensor, "m D"] | None:
        """Train models as the zoo's checkpoints were; None for a zoo that was made elsewhere."""
        return super().reference(_without_features(zoo), count, rng=rng, work=work)

    def network(self, zoo: Zoo | None) -> FeatureNetwork:
        """Return the network of the features: a classifier is the zoo's own, where it has one."""
        if self.feature_network == features.INCEPTION:
            return self._inception
        named = {} if zoo is None else zoo.base
        tensors = {
            n.removeprefix(_FEATURES): t for n, t in named.items() if n.startswith(_FEATURES)
        }
        return self._classifier(tensors) if tensors else self._trained_classifier

    def _classifier(self, tensors: dict[str, Tensor] | None) -> FeatureNetwork:
        """Return a classifier of the data set's images, up to its last layer.

        Args:
            tensors: its weights, if it was trained before; None takes it from the store, or trains it as the named task
                of the data set trains its own.
        """
        settings = {
            "dataset": self.dataset,
            **self.data_set.settings,
            "arch": self.feature_network,
            "epochs": CLASSIFIER_EPOCHS,
        }
        context = dataclasses.replace(self.context, force=False)
        task = Classification(**settings, context=context)
        if tensors is None:
            model, _ = task.collection.base(generator(0, "features"))
            tensors = {n: t.detach().cpu().clone() for n, t in model.state_dict().items()}
        else:
            model = task.build().to(self.device)
            model.load_state_dict(tensors)
        return features.classifier(self.feature_network, model, task.inputs, tensors)

    @functools.cached_property
    def _trained_classifier(self) -> FeatureNetwork:
        return self._classifier(None)

    @functools.cached_property
    def _inception(self) -> FeatureNetwork:
        return features.inception(self.feature_weights, self.device)

    def _reference(self, network: FeatureNetwork, split: str) -> Reference:
        """Return the split's real images in a network's features, computed once for all runs."""
        identity = [self.data.hash, split, network.identity, self.device]
        path = home() / "statistics" / f"{digest(identity)}.safetensors"

        def make() -> dict[str, Tensor]:
            return Reference.of(self._split(split).images, network, self.device).tensors()

        return Reference.from_tensors(stage(path, load_tensors, make, save_tensors), self.device)


def _without_features(zoo: Zoo) -> Zoo:
    """Return the zoo without the network of the features, which no diffusion model has."""
    base = {n: t for n, t in zoo.base.items() if not n.startswith(_FEATURES)}
    return dataclasses.replace(zoo, base=base)
