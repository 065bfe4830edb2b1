"""Score one network alone, with torchvision, diffusers, torchmetrics and pycocotools: no code of ``tasks.fast``.

The other implementations of ``bench verify --reference``. Each function here returns what measures a network on the
validation data that it was given; the network runs in float32 over a few examples at a time.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.ops import box_convert
from torchvision.transforms.v2 import functional

from tasks.data.coco import CocoSplit, quiet

BATCH = 50  # examples at a time
# The numbers of ``COCOeval.summarize``, in its order; the recalls after them are not compared.
SUMMARY = ("mAP", "AP50", "AP75", "mAP small", "mAP medium", "mAP large")

Values = dict[str, float]
Measure = Callable[[nn.Module], Values | None]


class NotFinite(Exception):
    """A network put out NaN or an infinite number."""


def measuring(function: Callable[..., Values]) -> Callable[..., Measure]:
    """Turn a function of a network and its data into one of the data alone, which returns what measures a network."""

    @functools.wraps(function)
    def given(*data: Any, **settings: Any) -> Measure:
        @torch.inference_mode()
        def measure(network: nn.Module) -> Values | None:
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                try:
                    return function(network, *data, **settings)
                except NotFinite:
                    return None

        return measure

    return given


@measuring
def accuracy(
    network: nn.Module,
    images: UInt8[Tensor, "M C H W"],
    labels: Int64[Tensor, " M"],
    *,
    size: int,
    mean: Iterable[float],
    std: Iterable[float],
    classes: int,
    device: str,
) -> Values:
    """Measure the accuracy of a classifier; an image with a logit that is not finite is wrong."""
    metric = MulticlassAccuracy(classes, average="micro").to(device)
    for pixels, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        truth = truth.to(device)
        logits = network(_inputs(pixels.to(device), size, mean, std))
        finite = logits.isfinite().all(1)
        metric.update(logits.argmax(1).where(finite, (truth + 1) % classes), truth)
    return {"accuracy": float(metric.compute())}


def recalibrated(
    measure: Measure,
    images: UInt8[Tensor, "M C H W"],
    *,
    size: int,
    mean: Iterable[float],
    std: Iterable[float],
    device: str,
) -> Measure:
    """Return what measures a network once torch has computed its running statistics anew, from all images at once."""
    inputs = _inputs(images.to(device), size, mean, std)

    def measured(network: nn.Module) -> Values | None:
        update_bn([inputs], network)
        return measure(network)

    return measured


def _inputs(
    pixels: UInt8[Tensor, "B C H W"], size: int, mean: Iterable[float], std: Iterable[float]
) -> Float[Tensor, "B C S S"]:
    """Scale bytes to [0, 1], resize and normalise them."""
    whole = functional.to_dtype(pixels, torch.float32, scale=True)
    resized = functional.resize(whole, [size, size])
    normalised: Tensor = functional.normalize(resized, list(mean), list(std))
    return normalised


@measuring
def jaccard(
    network: nn.Module,
    images: UInt8[Tensor, "M 3 S S"],
    masks: UInt8[Tensor, "M S S"],
    *,
    mean: Iterable[float],
    std: Iterable[float],
    classes: int,
    device: str,
) -> Values:
    """Measure mean IoU and pixel accuracy of a network whose logits are coarser than the masks.

    Class number ``classes`` stands for none: of a pixel that does not count, and of one that gets no class because a
    logit that it is interpolated from is not finite.
    """
    iou = MulticlassJaccardIndex(classes + 1, average="macro", ignore_index=classes).to(device)
    right = MulticlassAccuracy(classes + 1, average="micro", ignore_index=classes).to(device)
    for pixels, truth in zip(images.split(BATCH), masks.split(BATCH), strict=True):
        labels = truth.to(device).long().clamp(max=classes)
        coarse = network(_inputs(pixels.to(device), pixels.shape[-1], mean, std))
        broken = (~coarse.isfinite()).any(1, keepdim=True)
        coarse = coarse.masked_fill(broken, 0)
        upsample = functools.partial(F.interpolate, size=labels.shape[-2:], mode="bilinear")
        given = upsample(coarse).argmax(1).masked_fill(upsample(broken.float())[:, 0] > 0, classes)
        iou.update(given, labels)
        right.update(given, labels)
    return {"mean IoU": float(iou.compute()), "pixel accuracy": float(right.compute())}


@measuring
def average_precision(network: nn.Module, split: CocoSplit, *, device: str) -> Values:
    """Measure COCO's average precision of a detector of torchvision's, which sees one image after another.

    Raises:
        NotFinite: a layer puts out something that is not finite.
    """
    hooks = [
        module.register_forward_hook(_check_finite)
        for module in network.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    try:
        results = [
            one for row in range(len(split)) for one in _detected(network, split, row, device)
        ]
    finally:
        for hook in hooks:
            hook.remove()
    if not results:
        return dict.fromkeys(SUMMARY, 0.0)
    with quiet():
        run = COCOeval(split.api, split.api.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    summary = zip(SUMMARY, run.stats, strict=False)
    return {name: float(value) for name, value in summary if value >= 0}  # -1: no such object


def _check_finite(_: nn.Module, __: Any, output: Tensor) -> None:
    if not output.isfinite().all():
        raise NotFinite


def _detected(
    network: nn.Module, split: CocoSplit, row: int, device: str
) -> Iterator[dict[str, Any]]:
    """Yield the detections of one image as COCO's results."""
    image = functional.to_dtype(split.image(row).to(device), torch.float32, scale=True)
    (detections,) = network([image])
    boxes = box_convert(detections["boxes"], "xyxy", "xywh")
    columns = (boxes, detections["labels"], detections["scores"])
    for box, label, score in zip(*(column.tolist() for column in columns), strict=True):
        yield {"image_id": split.ids[row], "category_id": label, "bbox": box, "score": score}


def frechet(
    real: Iterable[UInt8[Tensor, "B C S S"]],
    features: Callable[[UInt8[Tensor, "B C S S"]], Float[Tensor, "B d"]],
    noise: Float[Tensor, "n C S S"],
    scheduler: Any,
    *,
    name: str,
    steps: int,
    mixed: bool,
    device: str,
) -> Measure:
    """Return what measures the Fréchet distance of the images that a diffusion model draws to real ones.

    Args:
        real: the real images.
        features: of images.
        noise: what each image is drawn from.
        scheduler: of diffusers.
        name: of the metric.
        steps: of the scheduler.
        mixed: whether images are drawn in half precision.
        device: where it runs.
    """
    metric: Any = FrechetInceptionDistance(
        _Features(features, noise[:2].to(device)), reset_real_features=False
    )
    metric.to(device)
    for images in real:
        metric.update(images.to(device), real=True)
    return _frechet(metric, noise, scheduler, name=name, steps=steps, mixed=mixed, device=device)


@measuring
def _frechet(
    network: Any,
    metric: Any,
    noise: Float[Tensor, "n C S S"],
    scheduler: Any,
    *,
    name: str,
    steps: int,
    mixed: bool,
    device: str,
) -> Values:
    """Draw images step by step and compare them; the metric knows the real ones.

    Raises:
        NotFinite: an image is not finite at some step.
    """
    metric.reset()
    for images in noise.split(BATCH):
        images = images.to(device)
        scheduler.set_timesteps(steps)
        for time in scheduler.timesteps:
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=mixed):
                predicted = network(images, time.to(device)).sample
            images = scheduler.step(predicted, time, images).prev_sample
            if not (predicted.isfinite().all() and images.isfinite().all()):
                raise NotFinite
        metric.update(((images / 2 + 0.5).clamp(0, 1) * 255).round().byte(), real=False)
    return {name: float(metric.compute())}


class _Features(nn.Module):
    """Features of images, as torchmetrics wants them: in float64, whose type its result has."""

    def __init__(
        self, features: Callable[[Tensor], Tensor], like: Float[Tensor, "B C S S"]
    ) -> None:
        super().__init__()
        self.features = features
        self.num_features = features(torch.zeros_like(like, dtype=torch.uint8)).shape[1]

    def forward(self, images: UInt8[Tensor, "B C S S"]) -> Float[Tensor, "B d"]:
        """Return the features."""
        return self.features(images).double()
