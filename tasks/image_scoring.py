"""Score many image generating networks of one base at once: draw images, and compare them with real ones."""

import dataclasses
from typing import Any, Self

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bench.metrics import frechet as fd
from bench.progress import track
from bench.randomness import generator
from bench.zoo import Layout
from tasks.base import Evaluation
from tasks.features import FeatureNetwork
from tasks.sampling import Denoiser, Sampler, pixels, together

# Of all images in one batch: on a CPU, so few that they stay in its cache.
PIXELS = {"cpu": 2**15, "cuda": 2**19}
CANDIDATES = 8  # at once, at most
PAIRED = (
    10_000  # images, at most, of which all pairs are compared: their number grows with the square
)
COMPARED = 64  # images, and at most as many features of each, by which two models are compared


@dataclasses.dataclass(frozen=True)
class Reference:
    """Real images in the features of a network.

    Attributes:
        gaussian: their mean and covariance.
        root: of the covariance.
        some: features of at most ``PAIRED`` of them, drawn at random.
    """

    gaussian: fd.Gaussian
    root: Float[Tensor, "d d"]
    some: Float[Tensor, "m d"]

    @classmethod
    def of(cls, images: UInt8[Tensor, "M C H W"], network: FeatureNetwork, device: str) -> Self:
        """From the images, a block at a time."""
        order = torch.randperm(len(images), generator=generator(0, "real images"))
        moments = fd.Moments.zero((), network(images[:1].to(device))[0])
        kept, there = [], 0
        for rows in track(order.split(fd.BLOCK), "features of real images"):
            features = network(images[rows].to(device))
            moments = moments.add(features)
            kept.append(features[: max(0, PAIRED - there)])
            there += len(features)
        gaussian = moments.gaussian()
        return cls(gaussian, fd.root(gaussian), torch.cat(kept))

    def tensors(self) -> dict[str, Tensor]:
        """As one file keeps it."""
        gaussian = {"mean": self.gaussian.mean, "covariance": self.gaussian.covariance}
        return {**gaussian, "root": self.root, "some": self.some}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], device: str) -> Self:
        """From what ``tensors`` gave."""
        mean, covariance, root, some = (
            tensors[name].to(device) for name in ("mean", "covariance", "root", "some")
        )
        return cls(fd.Gaussian(mean, covariance), root, some)


class ImageScorer:
    """Draws images with candidates of one base, all from the same noise, and compares them with real images.

    Args:
        model: the base, in eval mode, on the device; its generated layers are replaced.
        layout: which parameters the candidates' vectors hold.
        sampler: how images are made of noise.
        noise: one for each image, on the CPU.
        network: gives the features that are compared.
        reference: the real images.
        precision: of the denoising network, "float32" or "bfloat16".
    """

    def __init__(
        self,
        model: Any,
        layout: Layout,
        sampler: Sampler,
        noise: Float[Tensor, "n C S S"],
        network: FeatureNetwork,
        reference: Reference,
        precision: str = "float32",
    ) -> None:
        self.kind: str = model.device.type
        self.sampler, self.noise, self.network, self.reference = sampler, noise, network, reference
        self.precision = precision
        self.together = CANDIDATES if together(layout) else 1
        rows = PIXELS[self.kind] // noise[0, 0].numel()
        self.batch = max(1, rows // self.together)
        if self.kind == "cpu":
            model.to(memory_format=torch.channels_last)
        self.denoiser = Denoiser(model, layout, self.together, sampler.times)

    @torch.inference_mode()
    def draw(self, vectors: Float[Tensor, "n D"], count: int) -> UInt8[Tensor, "n m C S S"]:
        """The first images of each of a few candidates."""
        self.denoiser.put(vectors)
        mixed = torch.autocast(self.kind, torch.bfloat16, enabled=self.precision == "bfloat16")
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        drawn = []
        with mixed, exact:
            for noise in self.noise[:count].split(self.batch):
                images = self.sampler(self.denoiser, noise.to(self.denoiser.model.device))
                drawn.append(pixels(images).unflatten(0, (len(vectors), -1)))
        return torch.cat(drawn, dim=1)

    def __call__(self, vectors: Float[Tensor, "N D"], *, further: bool) -> Evaluation:
        """Distances of N candidates, what they are compared by and, if wanted, the other numbers."""
        found = []
        for some in track(vectors.split(self.together), f"draw images with {len(vectors)} models"):
            for images in self.draw(some, len(self.noise)):
                # One at a time from here on: no digit depends on who else is scored.
                features = self.network(images)[None]
                extra = self.further(features) if further else {}
                found.append((self.distance(features), extra, self.compared(features)))
        distances, extras, compared = zip(*found, strict=True)
        return Evaluation(
            scores=torch.cat(distances).cpu(),
            wrong=None,
            extra={name: torch.cat([extra[name] for extra in extras]).cpu() for name in extras[0]},
            features=torch.cat(compared),
        )

    def distance(self, features: Float[Tensor, "n m d"]) -> Float[Tensor, " n"]:
        """Fréchet distance to the real images."""
        ours, real = fd.Gaussian.of(features), self.reference
        return fd.frechet(ours, real.gaussian, real.root)

    def standard_error(self, features: Float[Tensor, "n m d"]) -> Float[Tensor, " n"]:
        """How far other images would move it."""
        return fd.standard_error(features, self.reference.gaussian, self.reference.root)

    def further(self, features: Float[Tensor, "n m d"]) -> dict[str, Float[Tensor, " n"]]:
        """The distance without the bias of few images, the kernel distance, precision and recall."""
        real, few = self.reference, features[:, :PAIRED]
        halves = generator(0, "halves")
        precision, recall = fd.precision_recall(few, real.some)
        return {
            "unbiased": fd.unbiased(features, real.gaussian, rng=halves, real_root=real.root),
            "kernel": fd.kid(few, real.some),
            "precision": precision,
            "recall": recall,
        }

    def compared(self, features: Float[Tensor, "n m d"]) -> Float[Tensor, "n M"]:
        """What models are compared by: evenly spaced features of the first images."""
        dim = features.shape[-1]
        kept = torch.linspace(0, dim - 1, min(dim, COMPARED)).round().long().to(features.device)
        return features[:, :COMPARED, kept].flatten(1).cpu()
