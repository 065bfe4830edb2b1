"""Score many candidates of one zoo at once: the shared part once an image, the rest for many candidates together."""

import dataclasses
import functools

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from bench.progress import track
from bench.zoo import Layout
from tasks.dependence import split
from tasks.images import Images

KEEP_BYTES = (
    2 * 1024**3
)  # shared tensors are kept between calls up to this size, and computed again beyond it
# The widest tensor of one chunk of candidates may take this much: on a CPU, fresh large blocks cost page faults.
WORK_BYTES = {"cpu": 32 * 1024**2, "cuda": 1024**3}
BATCH = 250


@dataclasses.dataclass(frozen=True)
class Scored:
    """Per candidate: which images it gets wrong, and its mean cross-entropy."""

    wrong: Bool[Tensor, "N M"]
    loss: Float[Tensor, " N"]


class Scorer:
    """Runs candidates of one base on one split.

    Args:
        model: the base, in eval mode, on the device.
        layout: which parameters the candidates' vectors hold.
        images: the split.
    """

    def __init__(self, model: nn.Module, layout: Layout, images: Images) -> None:
        self.images = images
        self.layout = layout
        first = images.inputs(images.pixels[: min(2, len(images))])
        self.parts = split(model, layout.names, first)
        # With kernels of their own, candidates together are a grouped convolution. On a CPU that takes three times as
        # long as one candidate after another with channels last.
        kernels = any(len(shape) == 4 for shape in layout.shapes)
        self.alone = images.device == "cpu" and kernels

    @property
    def _starts(self) -> range:
        return range(0, len(self.images), BATCH)

    def _shared(self, start: int) -> tuple[Tensor, ...]:
        inputs = self.images.inputs(self.images.pixels[start : start + BATCH])
        shared: tuple[Tensor, ...] = self.parts.shared(inputs)
        return tuple(map(_channels_last, shared)) if self.alone else shared

    @functools.cached_property
    def _kept(self) -> list[tuple[Tensor, ...]]:
        """Shared tensors of every batch, or nothing where they would not fit in the budget."""
        kept: list[tuple[Tensor, ...]] = []
        for start in track(self._starts, "shared features"):
            kept.append(self._shared(start))
            size = sum(tensor.numel() * tensor.element_size() for tensor in kept[0])
            if size * len(self._starts) > KEEP_BYTES:
                return []
        return kept

    @torch.inference_mode()
    def __call__(self, vectors: Float[Tensor, "N D"]) -> Scored:
        """Score N candidates; in float32, without tensor-core rounding."""
        budget = WORK_BYTES[torch.device(self.images.device).type]
        chunk = 1 if self.alone else max(1, budget // (4 * BATCH * self.parts.widest))
        wrong = torch.empty(len(vectors), len(self.images), dtype=torch.bool)
        loss = torch.zeros(len(vectors), dtype=torch.float64)
        kept = self._kept
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            for index, start in enumerate(track(self._starts, f"score {len(vectors)} models")):
                shared = kept[index] if kept else self._shared(start)
                labels = self.images.labels[start : start + BATCH]
                for low in range(0, len(vectors), chunk):
                    rows = slice(low, low + chunk)
                    logits = self._logits(vectors[rows].to(self.images.device), shared)
                    wrong[rows, start : start + BATCH] = (logits.argmax(-1) != labels).cpu()
                    loss[rows] += _cross_entropy(logits, labels).cpu()
        return Scored(wrong, loss / len(self.images))

    def _logits(
        self, vectors: Float[Tensor, "n D"], shared: tuple[Tensor, ...]
    ) -> Float[Tensor, "n B classes"]:
        def one(tensors: dict[str, Tensor]) -> Tensor:
            logits: Tensor = functional_call(self.parts.own, tensors, shared)
            return logits

        if self.alone:
            own = self.layout.unflatten(vectors[0])
            return one({name: _channels_last(tensor) for name, tensor in own.items()})[None]
        return vmap(one)(self.layout.unflatten(vectors))


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _cross_entropy(
    logits: Float[Tensor, "n B classes"], labels: Int64[Tensor, " B"]
) -> Float[Tensor, " n"]:
    """Summed over the batch, in float64; a candidate with non-finite logits has an infinite loss."""
    expanded = labels.expand(len(logits), -1)
    loss = F.cross_entropy(logits.transpose(1, 2), expanded, reduction="none").double().sum(1)
    return loss.nan_to_num(nan=torch.inf)
