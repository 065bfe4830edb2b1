"""Score many image generating networks of one base at once: draw images, and compare them with real ones.

An image that is not finite (NaN or infinite, at the end or on its way) is no image, and has to be worse than any. Were
it black, it would improve the distance of a network that draws noise, or one and the same image. So the stand-in is the
farthest of some hopeless images from the mean of the real ones, and it counts for itself: a network's distance is the
mean of that of its finite images and that of copies of the stand-in, weighted by how many there are of both. That is no
less than the distance of the mixture of both, as squared Fréchet distances are convex: the distance that any image at
most as far away would have given in its place is not larger (but for the n / (n - 1) of a covariance).
"""

import dataclasses
import functools
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from bench.contract import Evaluation
from bench.contract.zoo import Layout
from bench.metrics import frechet as fd
from bench.system.progress import track
from bench.system.randomness import generator
from tasks.fast.features import FeatureNetwork
from tasks.fast.finite import not_finite
from tasks.fast.sampling import Denoiser, Sampler, pixels, together

# Of all images in one batch: on a CPU, so few that they stay in its cache.
PIXELS = {"cpu": 2**15, "cuda": 2**19}
CANDIDATES = 8  # at once, at most
PAIRED = (
    10_000  # images, at most, of which all pairs are compared: their number grows with the square
)
COMPARED = 64  # images, and at most as many features of each, by which two models are compared
NEEDED = 4  # finite images: all numbers can be computed of so many; with fewer, all images count as stand-ins
NOISE = 16  # hopeless images of noise


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
        """Compute it from the images, a block at a time."""
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
        """Return it as the tensors of one file."""
        gaussian = {"mean": self.gaussian.mean, "covariance": self.gaussian.covariance}
        return {**gaussian, "root": self.root, "some": self.some}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], device: str) -> Self:
        """Make it from what ``tensors`` returned."""
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

    def draw(self, vectors: Float[Tensor, "n D"], count: int) -> UInt8[Tensor, "n m C S S"]:
        """Return the first images of each of a few candidates; the stand-in for what is not finite."""
        return self._drawn(vectors, count)[0]

    @torch.inference_mode()
    def _drawn(
        self, vectors: Float[Tensor, "n D"], count: int
    ) -> tuple[UInt8[Tensor, "n m C S S"], Bool[Tensor, "n m"]]:
        """Return the images as bytes, and which of them are not finite."""
        self.denoiser.put(vectors)
        mixed = torch.autocast(self.kind, torch.bfloat16, enabled=self.precision == "bfloat16")
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        drawn, lost = [], []
        with mixed, exact:
            for noise in self.noise[:count].split(self.batch):
                images = self.sampler(self.denoiser, noise.to(self.denoiser.model.device))
                bad = not_finite(images.flatten(1))
                drawn.append(pixels(images.masked_fill(bad[:, None, None, None], 0)))
                lost.append(bad)
        images, bad = (
            torch.cat([part.unflatten(0, (len(vectors), -1)) for part in parts], dim=1)
            for parts in (drawn, lost)
        )
        if bool(bad.any()):
            images[bad] = self.stand_in
        return images, bad

    def __call__(self, vectors: Float[Tensor, "N D"], *, further: bool) -> Evaluation:
        """Return the distances of N candidates, the features they are compared by and, if wanted, the other numbers."""
        found = []
        for some in track(vectors.split(self.together), f"draw images with {len(vectors)} models"):
            for images, bad in zip(*self._drawn(some, len(self.noise)), strict=True):
                # One at a time from here on: no digit depends on who else is scored.
                features = self.network(images)
                own = self.numbers(features, bad, further=further)
                found.append((own, self.compared(features[None]), bad.sum()))
        numbers, compared, broken = zip(*found, strict=True)
        names = list(numbers[0])
        columns = {name: torch.cat([own[name] for own in numbers]).cpu() for name in names}
        return Evaluation(
            scores=columns.pop("distance"),
            wrong=None,
            extra=columns,
            features=torch.cat(compared),
            not_finite=torch.stack(broken).cpu(),
        )

    def numbers(
        self, features: Float[Tensor, "m d"], bad: Bool[Tensor, " m"], *, further: bool
    ) -> dict[str, Float[Tensor, " 1"]]:
        """Return the distance of one candidate's images and, if wanted, the other numbers.

        Args:
            features: of the images.
            bad: which of them are not finite.
            further: whether the other numbers are wanted.
        """
        finite = features[~bad][None] if bool(bad.any()) else features[None]
        if finite.shape[1] < NEEDED:
            names = self.hopeless if further else ["distance"]
            return {name: self.hopeless[name] for name in names}
        own = {"distance": self.distance(finite), **(self.further(finite) if further else {})}
        if finite.shape[1] == len(features):
            return own
        share = float(bad.double().mean())
        return {
            name: (1 - share) * value + share * self.hopeless[name] for name, value in own.items()
        }

    @functools.cached_property
    def stand_in(self) -> UInt8[Tensor, "C S S"]:
        """Of black, white, a checkerboard and noise of extremes, the image farthest from the mean of the real ones."""
        shape = self.noise.shape[1:]
        noise = torch.randint(2, (NOISE, *shape), generator=generator(0, "hopeless"))
        board = (torch.arange(shape[1])[:, None] + torch.arange(shape[2])) % 2
        plain = torch.stack([torch.zeros(shape), torch.ones(shape), board.expand(shape)])
        images = torch.cat([plain, noise]).mul(255).to(self.reference.some.device, torch.uint8)
        away = (self.network(images).double() - self.reference.gaussian.mean).square().sum(1)
        return images[away.argmax()]

    @functools.cached_property
    def hopeless(self) -> dict[str, Float[Tensor, " 1"]]:
        """The numbers of copies of the stand-in alone, which by rule look like no real image."""
        real, feature = self.reference, self.network(self.stand_in[None])
        point = fd.Gaussian(feature.double(), torch.zeros_like(real.gaussian.covariance)[None])
        distance = fd.frechet(point, real.gaussian, real.root)
        none = torch.zeros_like(distance)
        kernel = fd.kid(feature[:, None].expand(-1, 2, -1), real.some)
        return {
            "distance": distance,
            "unbiased": distance,
            "kernel": kernel,
            "precision": none,
            "recall": none,
        }

    def distance(self, features: Float[Tensor, "n m d"]) -> Float[Tensor, " n"]:
        """Return the Fréchet distance to the real images."""
        ours, real = fd.Gaussian.of(features), self.reference
        return fd.frechet(ours, real.gaussian, real.root)

    def standard_error(self, features: Float[Tensor, "n m d"]) -> Float[Tensor, " n"]:
        """Estimate how far other images would move the distance."""
        return fd.standard_error(features, self.reference.gaussian, self.reference.root)

    def further(self, features: Float[Tensor, "n m d"]) -> dict[str, Float[Tensor, " n"]]:
        """Return the distance without the bias of few images, the kernel distance, precision and recall."""
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
        """Return what models are compared by: evenly spaced features of the first images."""
        dim = features.shape[-1]
        kept = torch.linspace(0, dim - 1, min(dim, COMPARED)).round().long().to(features.device)
        return features[:, :COMPARED, kept].flatten(1).cpu()
