"""Scoring of many denoising networks of one base at once: images are drawn and compared with real ones.

An image with a value that is not finite (NaN or infinite, at the end or at any step) must count as worse than any
image. A black image in its place could improve the distance of a network that draws noise, or always the same image. So
a stand-in takes its place: the image farthest from the mean of the real ones among a few artificial images. The
distance of a network is the mean of the distance of its finite images and that of copies of the stand-in, weighted by
their numbers. Because squared Fréchet distances are convex, this mean is no less than the distance of both kinds of
images together, nor than that with any image at most as far away in the place of the stand-in (but for the factor
n / (n - 1) of a covariance).
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

# The most pixels of a batch, of all its images: on a CPU, a batch stays in the cache.
PIXELS = {"cpu": 2**15, "cuda": 2**19}
CANDIDATES = 8  # the most candidates at once
# The most images of which all pairs are compared: time grows with the square of their number.
PAIRED = 10_000
COMPARED = 64  # images by which two models are compared, and the most features of each
NEEDED = 4  # finite images, the fewest that all numbers can be computed of; with fewer, all count as stand-ins
GROUPS = 20  # groups of a network's images, each of which is left out once
NOISE = 16  # images of noise among those that the stand-in is chosen from


@dataclasses.dataclass(frozen=True)
class Reference:
    """The features of real images, summarised.

    Attributes:
        gaussian: mean and covariance of the features.
        root: square root of the covariance.
        sample: features of at most ``PAIRED`` images, drawn at random.
    """

    gaussian: fd.Gaussian
    root: Float[Tensor, "d d"]
    sample: Float[Tensor, "m d"]

    @classmethod
    def of(cls, images: UInt8[Tensor, "M C H W"], network: FeatureNetwork, device: str) -> Self:
        """Compute the reference from real images, a block at a time.

        Args:
            images: the real images.
            network: network that computes the features.
            device: device of the network.
        """
        order = torch.randperm(len(images), generator=generator(0, "real images"))
        moments = fd.Moments.zero((), network(images[:1].to(device))[0])
        kept, count = [], 0
        for rows in track(order.split(fd.BLOCK), "features of real images"):
            features = network(images[rows].to(device))
            moments = moments.add(features)
            kept.append(features[: max(0, PAIRED - count)])
            count += len(features)
        gaussian = moments.gaussian()
        return cls(gaussian, fd.root(gaussian), torch.cat(kept))

    def tensors(self) -> dict[str, Tensor]:
        """Return the reference as tensors by name, to be saved in a file."""
        gaussian = {"mean": self.gaussian.mean, "covariance": self.gaussian.covariance}
        return {**gaussian, "root": self.root, "some": self.sample}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], device: str) -> Self:
        """Restore a reference from the result of ``tensors``, on a device."""
        mean, covariance, root, sample = (
            tensors[name].to(device) for name in ("mean", "covariance", "root", "some")
        )
        return cls(fd.Gaussian(mean, covariance), root, sample)


class ImageScorer:
    """The scorer of candidates of one base: all draw images from the same noise, which are compared with real images.

    Args:
        model: the base, in eval mode, on the device; its generated layers are replaced.
        layout: parameters that the candidates' vectors hold.
        sampler: method that turns noise into images.
        noise: noise of each of the n images of a candidate, on the CPU.
        network: network that computes the features to compare.
        reference: features of the real images.
        precision: number format of the denoising network, "float32" or "bfloat16".
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
        """Return the first m = ``count`` images of n candidates, with the stand-in for images that are not finite."""
        return self._drawn(vectors, count)[0]

    @torch.inference_mode()
    def _drawn(
        self, vectors: Float[Tensor, "n D"], count: int
    ) -> tuple[UInt8[Tensor, "n m C S S"], Bool[Tensor, "n m"]]:
        """Return the images of ``draw``, and whether each of them is not finite."""
        self.denoiser.set_candidates(vectors)
        mixed = torch.autocast(self.kind, torch.bfloat16, enabled=self.precision == "bfloat16")
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        drawn, lost = [], []
        with mixed, exact:
            for noise in self.noise[:count].split(self.batch):
                images = self.sampler(self.denoiser, noise.to(self.denoiser.model.device))
                invalid = not_finite(images.flatten(1))
                drawn.append(pixels(images.masked_fill(invalid[:, None, None, None], 0)))
                lost.append(invalid)
        images, invalid = (
            torch.cat([part.unflatten(0, (len(vectors), -1)) for part in parts], dim=1)
            for parts in (drawn, lost)
        )
        if bool(invalid.any()):
            images[invalid] = self.stand_in
        return images, invalid

    def __call__(self, vectors: Float[Tensor, "N D"], *, further: bool) -> Evaluation:
        """Score N candidates by their distance to the real images; ``further`` adds the rest.

        The rest are the numbers of ``further``, and the replicates of ``without_groups``.

        The evaluation has no ``outputs``: its ``features``, of images drawn from the same noise, are coordinates of the
        models as functions themselves.
        """
        scored = []
        for part in track(vectors.split(self.together), f"draw images with {len(vectors)} models"):
            for images, invalid in zip(*self._drawn(part, len(self.noise)), strict=True):
                # One candidate at a time, so that no digit depends on the others.
                features = self.network(images)
                numbers = self.numbers(features, invalid, further=further)
                without = self.without_groups(features, invalid) if further else None
                scored.append((numbers, self.compared(features[None]), invalid.sum(), without))
        rows, compared, broken, replicates = zip(*scored, strict=True)
        columns = {name: torch.cat([row[name] for row in rows]).cpu() for name in rows[0]}
        return Evaluation(
            scores=columns.pop("distance"),
            wrong=None,
            extra=columns,
            features=torch.cat(compared),
            not_finite=torch.stack(broken).cpu(),
            replicates=torch.stack(replicates).cpu() if further else None,
        )

    def numbers(
        self, features: Float[Tensor, "m d"], invalid: Bool[Tensor, " m"], *, further: bool
    ) -> dict[str, Float[Tensor, " 1"]]:
        """Return the numbers of one candidate by name: "distance", and those of ``further`` if ``further`` is true.

        Args:
            features: features of the candidate's m images.
            invalid: whether each image is not finite.
            further: whether to compute more than the distance.
        """
        finite = features[~invalid][None] if bool(invalid.any()) else features[None]
        if finite.shape[1] < NEEDED:
            names = self.stand_in_numbers if further else ["distance"]
            return {name: self.stand_in_numbers[name] for name in names}
        numbers = {"distance": self.distance(finite), **(self.further(finite) if further else {})}
        if finite.shape[1] == len(features):
            return numbers
        share = float(invalid.double().mean())
        return {
            name: (1 - share) * value + share * self.stand_in_numbers[name]
            for name, value in numbers.items()
        }

    def without_groups(
        self, features: Float[Tensor, "m d"], invalid: Bool[Tensor, " m"]
    ) -> Float[Tensor, " B"]:
        """Return one candidate's distance without each of ``GROUPS`` groups of its images, one after another.

        Images that are not finite count among those that are left as they do among all.
        """
        kept = [~lost for lost in invalid.tensor_split(GROUPS)]
        groups = features.tensor_split(GROUPS)
        parts = fd.without_groups(
            [group[finite] for group, finite in zip(groups, kept, strict=True)]
        )
        distances = []
        for part, own in zip(parts, kept, strict=True):
            share = 1 - part.count / (len(features) - len(own))
            distances.append(self._with_stand_in(part, share))
        return torch.cat(distances)

    def _with_stand_in(self, finite: fd.Moments, share: float) -> Float[Tensor, " 1"]:
        """Return the distance of finite images and a share of stand-ins."""
        alone = self.stand_in_numbers["distance"] if share else torch.zeros(())
        if finite.count < NEEDED:
            return alone
        real = self.reference
        distance = fd.frechet(finite.gaussian(), real.gaussian, real.root)
        return (1 - share) * distance[None] + share * alone

    @functools.cached_property
    def stand_in(self) -> UInt8[Tensor, "C S S"]:
        """Return the image that takes the place of one that is not finite.

        Of black, white, a checkerboard and images of black and white noise, it is the one whose features are farthest
        from the mean of the real images.
        """
        shape = self.noise.shape[1:]
        noise = torch.randint(2, (NOISE, *shape), generator=generator(0, "hopeless"))
        board = (torch.arange(shape[1])[:, None] + torch.arange(shape[2])) % 2
        plain = torch.stack([torch.zeros(shape), torch.ones(shape), board.expand(shape)])
        images = torch.cat([plain, noise]).mul(255).to(self.reference.sample.device, torch.uint8)
        distances = (self.network(images).double() - self.reference.gaussian.mean).square().sum(1)
        return images[distances.argmax()]

    @functools.cached_property
    def stand_in_numbers(self) -> dict[str, Float[Tensor, " 1"]]:
        """Return the numbers of a network that draws the stand-in alone; precision and recall are 0 by definition."""
        real, feature = self.reference, self.network(self.stand_in[None])
        point = fd.Gaussian(feature.double(), torch.zeros_like(real.gaussian.covariance)[None])
        distance = fd.frechet(point, real.gaussian, real.root)
        zero = torch.zeros_like(distance)
        kernel = fd.kid(feature[:, None].expand(-1, 2, -1), real.sample)
        return {
            "distance": distance,
            "unbiased": distance,
            "kernel": kernel,
            "precision": zero,
            "recall": zero,
        }

    def distance(self, features: Float[Tensor, "n m d"]) -> Float[Tensor, " n"]:
        """Return the Fréchet distance of the features of n candidates, m images each, to those of the real images."""
        drawn, real = fd.Gaussian.of(features), self.reference
        return fd.frechet(drawn, real.gaussian, real.root)

    def standard_error(self, features: Float[Tensor, "n m d"]) -> Float[Tensor, " n"]:
        """Estimate the standard error of the distance over draws of images."""
        return fd.standard_error(features, self.reference.gaussian, self.reference.root)

    def further(self, features: Float[Tensor, "n m d"]) -> dict[str, Float[Tensor, " n"]]:
        """Return further numbers of n candidates, m images each, by name.

        They are "unbiased" (the distance without the bias of a finite number of images), "kernel" (the kernel
        distance, KID), "precision" and "recall".
        """
        real, few = self.reference, features[:, :PAIRED]
        halves = generator(0, "halves")
        precision, recall = fd.precision_recall(few, real.sample)
        return {
            "unbiased": fd.unbiased(features, real.gaussian, rng=halves, real_root=real.root),
            "kernel": fd.kid(few, real.sample),
            "precision": precision,
            "recall": recall,
        }

    def compared(self, features: Float[Tensor, "n m d"]) -> Float[Tensor, "n M"]:
        """Return the numbers by which two models are compared: evenly spaced features of the first images."""
        dim = features.shape[-1]
        kept = torch.linspace(0, dim - 1, min(dim, COMPARED)).round().long().to(features.device)
        return features[:, :COMPARED, kept].flatten(1).cpu()
