"""Score many candidates of one zoo at once: the shared part once an example, the rest for many of them together."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.contract.zoo import Layout
from bench.system.progress import track
from tasks.data.source import Source, channels_last
from tasks.fast.budget import Budget, of_candidates
from tasks.fast.dependence import split
from tasks.fast.finite import not_finite
from tasks.fast.folding import fold
from tasks.fast.hellinger import Coordinates

Batch = tuple[slice, tuple[Tensor, ...]]  # the numbers of some examples, and their shared tensors


@dataclasses.dataclass(frozen=True)
class Scored:
    """Per candidate: its wrong examples, its mean cross-entropy, and the number of examples with logits not finite.

    The cross-entropy is infinite where there is any such example. ``outputs``: coordinates of ``tasks.fast.hellinger``.
    """

    wrong: Bool[Tensor, "N M"]
    loss: Float[Tensor, " N"]
    not_finite: Int64[Tensor, " N"]
    outputs: Float[Tensor, "N P"]


class Candidates:
    """Runs candidates of one base on one split.

    Args:
        model: the base, in eval mode, on the device.
        layout: which parameters the candidates' vectors hold.
        source: the split.
        budget: how much is kept and runs at once; None takes the device's usual one.
    """

    def __init__(
        self, model: nn.Module, layout: Layout, source: Source, budget: Budget | None = None
    ) -> None:
        self.source = source
        self.layout = layout
        self.kind = torch.device(source.device).type
        self.budget = budget or of_candidates(torch.device(source.device))
        first = source.inputs(source.examples[:1])
        if self.kind == "cpu":
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parts = split(model, layout.names, first)
        # Kernels of many candidates together are a grouped convolution, or one of many outputs. On a CPU that takes
        # several times as long as one candidate after another with channels last, unless it is a plain product.
        shapes = dict(zip(layout.names, layout.shapes, strict=True))
        products = {name for name in self.parts.first if shapes[name][2:] == (1, 1)}
        kernels = {name for name, shape in shapes.items() if len(shape) == 4}
        self.alone = self.kind == "cpu" and not kernels <= products
        if self.alone:
            self._own = {name: self.parts.generated.get_parameter(name) for name in layout.names}
            self._folds = fold(self.parts.generated)
        self.rows = self.parts.rows(source.device, self.budget.images)
        self.batches = [slice(low, low + self.rows) for low in range(0, len(source), self.rows)]
        with torch.inference_mode(), as_reference(self.kind):
            self._kept = self._keep()

    def _shared(self, rows: slice) -> tuple[Tensor, ...]:
        inputs = self.source.inputs(self.source.examples[rows])
        if self.kind != "cpu":
            return tuple(self.parts.shared(inputs))
        return tuple(map(channels_last, self.parts.shared(channels_last(inputs))))

    def _keep(self) -> list[Batch]:
        """Compute the shared tensors of every batch, or nothing where they would not fit in the budget."""
        kept: list[Batch] = []
        for rows in track(self.batches, "shared features"):
            kept.append((rows, self._shared(rows)))
            size = sum(tensor.numel() * tensor.element_size() for tensor in kept[0][1])
            if size * len(self.batches) > self.budget.keep:
                return []
        return kept

    def _blocks(self) -> Iterator[list[Batch]]:
        """Yield all batches at once where their shared tensors are kept, else batch by batch."""
        if self._kept:
            yield self._kept
        else:
            yield from ([(rows, self._shared(rows))] for rows in self.batches)

    def __call__(
        self, vectors: Float[Tensor, "N D"]
    ) -> Iterator[tuple[slice, slice, Float[Tensor, "n B *output"]]]:
        """Yield slices of candidates and of examples with the network's output for them, until all N met all M.

        In float32, without tensor-core rounding. Every candidate meets every example once; consecutive items may belong
        to different candidates and examples.
        """
        count = len(vectors)
        each = 4 * self.rows * self.parts.widest_generated
        chunk = 1 if self.alone else max(1, self.budget.work // each)
        with as_reference(self.kind):
            for block in self._blocks():
                for low in track(range(0, count, chunk), f"score {count} models"):
                    some = slice(low, min(low + chunk, count))
                    run = self._in_place(vectors[some].to(self.source.device))
                    for rows, shared in block:
                        yield some, rows, run(shared)

    def _in_place(
        self, vectors: Float[Tensor, "n D"]
    ) -> Callable[[tuple[Tensor, ...]], Float[Tensor, "n B *output"]]:
        """Return the generated part with these candidates in place: shared tensors to the output."""
        generated = self.parts.generated
        if self.alone:
            for name, tensor in self.layout.unflatten(vectors[0]).items():
                self._own[name].copy_(tensor)
            for folded in self._folds:
                folded.refresh()
            return lambda shared: generated(*shared)[None]
        one = functools.partial(functional_call, generated)
        return functools.partial(vmap(one, in_dims=(0, None)), self.layout.unflatten(vectors))


class ClassifierScorer:
    """Scores candidates of one base on one split of a classification task.

    Args:
        model: the base, in eval mode, on the device.
        layout: which parameters the candidates' vectors hold.
        source: the split; one class an example.
        budget: how much is kept and runs at once; None takes the device's usual one.
    """

    def __init__(
        self, model: nn.Module, layout: Layout, source: Source, budget: Budget | None = None
    ) -> None:
        self.source = source
        self.candidates = Candidates(model, layout, source, budget)

    @torch.inference_mode()
    def __call__(self, vectors: Float[Tensor, "N D"]) -> Scored:
        """Score N candidates."""
        device, count = self.source.device, len(vectors)
        wrong = torch.empty(count, len(self.source), dtype=torch.bool, device=device)
        loss = torch.zeros(count, dtype=torch.float64, device=device)
        broken = torch.zeros(count, dtype=torch.int64, device=device)
        coordinates = Coordinates(count, len(self.source), device)
        for some, rows, logits in self.candidates(vectors):
            coordinates.fill(some, rows, logits)
            labels = self.source.labels[rows]
            wrong[some, rows], bad = judge(logits, labels)
            broken[some] += bad.sum(-1)
            loss[some] += cross_entropy(logits, labels)
        loss = loss.masked_fill(broken > 0, torch.inf) / len(self.source)
        return Scored(wrong.cpu(), loss.cpu(), broken.cpu(), coordinates.values)


@contextmanager
def as_reference(kind: str) -> Iterator[None]:
    """Compute convolutions in full float32, and on a CPU attention by a kernel that many candidates can share."""
    attention = sdpa_kernel(SDPBackend.MATH) if kind == "cpu" else nullcontext()
    convolution = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with convolution, attention, warnings.catch_warnings():
        # Pooling to one pixel has no such rule with channels last, but costs nothing either.
        warnings.filterwarnings("ignore", "There is a performance drop")
        yield


def judge(
    logits: Float[Tensor, "*n B classes"], labels: Int64[Tensor, " B"]
) -> tuple[Bool[Tensor, "*n B"], Bool[Tensor, "*n B"]]:
    """Return which images are wrong, and which of them because their logits are not finite.

    An image is right where the logit of its class is the largest (the first of several) and all of them are finite.
    """
    bad = not_finite(logits)
    return (logits.argmax(-1) != labels) | bad, bad


def cross_entropy(
    logits: Float[Tensor, "n B classes"], labels: Int64[Tensor, " B"]
) -> Float[Tensor, " n"]:
    """Return the cross-entropy summed over the batch, in float64; it says nothing where a logit is not finite."""
    expanded = labels.expand(len(logits), -1)
    return F.cross_entropy(logits.transpose(1, 2), expanded, reduction="none").double().sum(1)
