"""Loss and scores of networks that predict a class for every pixel."""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contract.zoo import Layout
from bench.system.randomness import generator
from tasks.data.coco import IGNORED
from tasks.data.source import Source
from tasks.fast.confusion import mean_of_classes, overlaps
from tasks.fast.hellinger import Coordinates
from tasks.fast.scoring import Candidates, cross_entropy
from tasks.fast.upsampling import Coarse, Pixels


def pixel_cross_entropy(
    logits: Float[Tensor, "B C h w"], masks: UInt8[Tensor, "B H W"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of bilinearly upsampled logits over all pixels that are not ``IGNORED``."""
    upsampled = F.interpolate(logits, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(upsampled, masks.long(), ignore_index=IGNORED)


def random_pixels(masks: UInt8[Tensor, "M H W"], each: int, split: str) -> Pixels:
    """Draw labelled pixels from every image at random, the same ones in every run.

    Args:
        masks: class of every pixel, or ``IGNORED``.
        each: number of pixels of an image; all labelled pixels are taken if there are fewer.
        split: "train" or "val", part of the generator's seed.
    """
    drawn = []
    for number, mask in enumerate(masks):
        places = (mask != IGNORED).flatten().nonzero().flatten()
        order = torch.randperm(len(places), generator=generator(0, "units", split, number))[:each]
        places = places[order.sort().values.to(places.device)]
        drawn.append((torch.full_like(places, number), places, mask.flatten()[places].long()))
    image, place, label = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    wide = masks.shape[-1]
    return Pixels(image, place.div(wide, rounding_mode="floor"), place % wide, label)


@dataclasses.dataclass(frozen=True)
class DenseScored:
    """The scores of N candidates on a split.

    Attributes:
        matrices: confusion matrix of each candidate, see ``tasks.fast.confusion``.
        replicates: mean IoU on each resample of the images; None where there are none.
        wrong: whether the prediction is wrong, for each of the U chosen pixels.
        loss: mean cross-entropy of the chosen pixels; infinite if a logit of the candidate is not finite.
        not_finite: number of images with a logit that is not finite.
        outputs: coordinates of the class probabilities at evenly spaced chosen pixels, see ``tasks.fast.hellinger``; 0
            at a pixel that gets no class.
    """

    matrices: Int64[Tensor, "N C C+1"]
    replicates: Float[Tensor, "N R"] | None
    wrong: Bool[Tensor, "N U"]
    loss: Float[Tensor, " N"]
    not_finite: Int64[Tensor, " N"]
    outputs: Float[Tensor, "N P"]


def parts_of_overlaps(classes: int) -> Float[Tensor, "cells columns"]:
    """Return what each cell of a confusion matrix adds to ``overlaps``, which is linear: one product gives many."""
    cells = torch.eye(classes * (classes + 1), dtype=torch.float64)
    return torch.cat(overlaps(cells.view(-1, classes, classes + 1)), dim=1)


class DenseScorer:
    """The scorer of candidates of one base on one split.

    Args:
        model: the base in eval mode, on the device; it returns coarse logits.
        layout: parameters that the candidates' vectors hold.
        source: the split; its labels are masks.
        pixels: chosen pixels, for which loss and errors are returned.
        classes: number of classes, with the background.
        counts: how often each of the M images is drawn in each of R resamples; None resamples nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        layout: Layout,
        source: Source,
        pixels: Pixels,
        classes: int,
        counts: Float[Tensor, "R M"] | None = None,
    ) -> None:
        self.source, self.pixels, self.classes = source, pixels.to(source.device), classes
        self.candidates = Candidates(model, layout, source)
        self.counts = None if counts is None else counts.to(source.device)
        self.parts = parts_of_overlaps(classes).to(source.device)

    @torch.inference_mode()
    def __call__(self, vectors: Float[Tensor, "N D"]) -> DenseScored:
        """Score N candidates, one a row of ``vectors``."""
        count, device = len(vectors), self.source.device
        shape = (count, self.classes, self.classes + 1)
        matrices = torch.zeros(shape, dtype=torch.int64, device=device)
        resampled = self._no_overlaps(count)
        broken = torch.zeros(count, dtype=torch.int64, device=device)
        wrong = torch.empty(count, len(self.pixels), dtype=torch.bool, device=device)
        loss = torch.zeros(count, dtype=torch.float64, device=device)
        coordinates = Coordinates(count, len(self.pixels), device)
        for chunk, rows, outputs in self.candidates(vectors):
            masks, coarse = self.source.labels[rows].to(device), Coarse.of(outputs)
            of_images = coarse.confusion(masks)
            matrices[chunk] += of_images.sum(1)
            if self.counts is not None:
                resampled[chunk] += self._resampled(of_images, self.counts[:, rows])
            broken[chunk] += coarse.broken.sum(1)
            chosen, factor = self.pixels.of(rows), masks.shape[-1] // outputs.shape[-1]
            logits = self.pixels.logits(coarse.logits, rows, factor)
            invalid = self.pixels.invalid(coarse, rows, factor)
            coordinates.fill(chunk, chosen, logits, invalid)
            wrong[chunk, chosen] = (logits.argmax(-1) != self.pixels.label[chosen]) | invalid
            loss[chunk] += cross_entropy(logits, self.pixels.label[chosen])
        loss = loss.masked_fill(broken > 0, torch.inf) / max(1, len(self.pixels))
        return DenseScored(
            matrices.cpu(),
            None if self.counts is None else mean_of_classes(*resampled.unbind(2)).cpu(),
            wrong.cpu(),
            loss.cpu(),
            broken.cpu(),
            coordinates.values,
        )

    def _no_overlaps(self, models: int) -> Float[Tensor, "N R 2 C"]:
        """Return zeros for the sums of ``overlaps`` over the images of each resample."""
        resamples = 0 if self.counts is None else len(self.counts)
        shape = (models, resamples, 2, self.classes)
        return torch.zeros(shape, dtype=torch.float64, device=self.source.device)

    def _resampled(
        self, matrices: Int64[Tensor, "n B C C+1"], counts: Float[Tensor, "R B"]
    ) -> Float[Tensor, "n R 2 C"]:
        """Return the sums of ``overlaps`` over some images, each counted as often as it is drawn.

        They are whole numbers below 2^53, exact in any order.
        """
        of_images = matrices.flatten(2).double() @ self.parts
        return (counts @ of_images).view(len(matrices), len(counts), 2, self.classes)
