"""A zoo: K checkpoints of one base as a K x D matrix, and the layout that maps slices of a row to tensors."""

import copy
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.contract.whole_runs import check_labels, held_rows, told
from bench.contract.zoo_header import FACTS, Facts, opened
from bench.errors import BadRequest, BenchError, no_zoo
from bench.system.data import Json
from bench.system.store import atomic
from bench.system.weights import PLAIN

_BASE = "base."


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names and shapes of the tensors that a vector holds, in order and without gaps."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.shapes) or len(set(self.names)) != len(self.names):
            raise BadRequest("a layout needs one shape for each name, and no name twice")

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return the layout of named tensors, in their order."""
        return cls(tuple(tensors), tuple(tuple(tensor.shape) for tensor in tensors.values()))

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of values in each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def dim(self) -> int:
        """The length D of a vector."""
        return sum(self.sizes)

    def slices(self) -> dict[str, slice]:
        """Return the slice of a vector that holds each tensor, by name."""
        ends = torch.tensor(self.sizes).cumsum(0).tolist()
        return {
            name: slice(end - size, end)
            for name, size, end in zip(self.names, self.sizes, ends, strict=True)
        }

    def flatten(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "*batch D"]:
        """Concatenate named tensors (each ``*batch`` dimensions, then its own shape) into vectors.

        Raises:
            BadRequest: a tensor is missing or has another shape than the layout says.
        """
        parts = []
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name not in tensors:
                raise BadRequest(f"tensor '{name}' of the layout is missing")
            tensor = tensors[name]
            batch = tensor.shape[: tensor.ndim - len(shape)]
            if tuple(tensor.shape[len(batch) :]) != shape:
                raise BadRequest(
                    f"tensor '{name}' has shape {tuple(tensor.shape)}, expected {shape}"
                )
            parts.append(tensor.reshape((*batch, math.prod(shape))))
        return torch.cat(parts, dim=-1)

    def unflatten(self, vectors: Float[Tensor, "*batch D"]) -> dict[str, Tensor]:
        """Cut vectors into named tensors (views where possible), the batch dimensions kept in front.

        Raises:
            BadRequest: the last dimension is not D.
        """
        if vectors.shape[-1] != self.dim:
            raise BadRequest(
                f"vectors have length {vectors.shape[-1]}, the layout expects {self.dim}"
            )
        pieces = vectors.split(self.sizes, dim=-1)
        return {
            name: piece.reshape((*vectors.shape[:-1], *shape))
            for name, shape, piece in zip(self.names, self.shapes, pieces, strict=True)
        }


@dataclasses.dataclass(frozen=True)
class Zoo:
    """K trained checkpoints that share a base.

    Attributes:
        vectors: the checkpoints, float32 on the CPU, row k is checkpoint k.
        layout: the names and shapes of the tensors that a row holds.
        base: the frozen rest of the model, parameters and buffers by name.
        scores: the validation score of each checkpoint when it was collected (if imported: as told, or empty).
        curve: (seconds of training, validation score) along the way, evaluation pauses not counted; its last K points
            are the checkpoints, one run after the other where they are of several.
        collect_s: seconds that collecting all K took, evaluation pauses excluded.
        base_score: validation score of the trained network that the checkpoints were collected from, if there is one.
        settings: how it was collected: task, architecture, layers, track, seed and the task's own fields.
        runs: of checkpoints that were made elsewhere, the label of the run that each comes from; empty where unknown.
        epochs: of checkpoints that were made elsewhere, the epoch or step of its run; empty where unknown.
    """

    vectors: Float[Tensor, "K D"]
    layout: Layout
    base: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    scores: tuple[float, ...] = ()
    curve: tuple[tuple[float, float], ...] = ()
    collect_s: float = 0.0
    base_score: float | None = None
    settings: dict[str, Json] = dataclasses.field(default_factory=dict)
    runs: tuple[str, ...] = ()
    epochs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or not len(self.vectors):
            raise BadRequest(
                f"a zoo is a K x D matrix with K >= 1, got {tuple(self.vectors.shape)}"
            )
        if self.vectors.shape[1] != self.layout.dim:
            raise BadRequest(
                f"the zoo's vectors have length {self.vectors.shape[1]}, its layout {self.layout.dim}"
            )
        check_labels(self.runs, len(self.vectors))
        if self.epochs and len(self.epochs) != len(self.vectors):
            raise BadRequest(f"the zoo tells {len(self.epochs)} epochs of {len(self)} checkpoints")
        _check_tensor("the zoo's vectors", self.vectors, (torch.float32,))
        for name, tensor in self.base.items():
            _check_tensor(f"tensor '{name}' of the zoo's base", tensor, PLAIN)
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise BadRequest(
                    f"tensor '{name}' of the zoo's base has values that are not finite"
                )
        finite = self.vectors.isfinite().all(dim=1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise BadRequest(
                f"checkpoint {row} of the zoo has values that are not finite (NaN or inf)"
            )

    def __len__(self) -> int:
        return len(self.vectors)

    @functools.cached_property
    def hash(self) -> str:
        """The SHA-256 of vectors, layout and base; scores, times and settings do not affect it."""
        return self._content_hash()

    def check_unchanged(self) -> None:
        """Check that vectors, layout and base are unchanged since ``hash`` was first read.

        Raises:
            BenchError: one of them was changed.
        """
        if self._content_hash() != self.hash:
            raise BenchError(
                f"the zoo {self.hash[:16]} was changed while it was in use: nothing that was made with it is kept"
            )

    def copy(self) -> "Zoo":
        """Return a deep copy: changes of the copy do not affect this zoo."""
        return Zoo(
            vectors=self.vectors.clone(),
            layout=Layout(self.layout.names, self.layout.shapes),
            base={name: tensor.clone() for name, tensor in self.base.items()},
            scores=self.scores,
            curve=self.curve,
            collect_s=self.collect_s,
            base_score=self.base_score,
            settings=copy.deepcopy(self.settings),
            runs=self.runs,
            epochs=self.epochs,
        )

    def _content_hash(self) -> str:
        digest = hashlib.sha256(json.dumps([self.layout.names, self.layout.shapes]).encode())
        for name, tensor in [("", self.vectors), *sorted(self.base.items())]:
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(
                tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            )
        return digest.hexdigest()

    def head(self, k: int) -> "Zoo":
        """Return the zoo of the first k checkpoints, with the time that collecting them took.

        Raises:
            BadRequest: k is less than 1, or the zoo has fewer than k checkpoints.
        """
        if k < 1:
            raise BadRequest(f"k is {k}, expected at least 1")
        if k > len(self):
            raise BadRequest(f"the zoo has {len(self)} checkpoints, {k} were asked for: lower --k")
        if k == len(self):
            return self
        curve = self.curve[: k - len(self)]
        return dataclasses.replace(
            self,
            vectors=self.vectors[:k],
            scores=self.scores[:k],
            curve=curve,
            collect_s=curve[-1][0] if curve else self.collect_s,
            runs=self.runs[:k],
            epochs=self.epochs[:k],
        )

    def rows(self, index: Sequence[int]) -> "Zoo":
        """Return the zoo of the checkpoints at ``index``, without the curve and times of training all of them."""
        return dataclasses.replace(
            self,
            vectors=self.vectors[list(index)],
            scores=tuple(self.scores[row] for row in index) if self.scores else (),
            curve=(),
            collect_s=0.0,
            runs=tuple(self.runs[row] for row in index) if self.runs else (),
            epochs=tuple(self.epochs[row] for row in index) if self.epochs else (),
        )

    def parted(self, count: int) -> tuple["Zoo", "Zoo | None"]:
        """Return the zoo without its held-out runs, and the zoo of these; of an unparted one itself and None.

        Args:
            count: how many rows are held out at least, see ``bench.contract.whole_runs``.

        Raises:
            BadRequest: no run would be left.
        """
        runs = told(self.runs, self.settings)
        if not runs or not count:
            return self, None
        held = held_rows(runs, count)
        left = sorted(set(range(len(self))) - set(held))
        return self.rows(left), self.rows(held)

    def save(self, path: Path) -> None:
        """Write the zoo to one safetensors file, atomically."""
        tensors = {"vectors": self.vectors} | {_BASE + n: t for n, t in self.base.items()}
        facts = {
            "names": self.layout.names,
            "shapes": self.layout.shapes,
            "scores": self.scores,
            "curve": self.curve,
            "collect_s": self.collect_s,
            "base_score": self.base_score,
            "settings": self.settings,
            **({"runs": self.runs} if self.runs else {}),
            **({"epochs": self.epochs} if self.epochs else {}),
        }
        tensors = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        with atomic(path) as temporary:
            save_file(tensors, temporary, {FACTS: json.dumps(facts)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a zoo from a file that ``save`` wrote.

        Raises:
            BadRequest: the file is missing, truncated, not a zoo, or holds inconsistent or non-finite data.
        """
        opened(path).close()
        try:
            with safe_open(path, "pt") as file:
                text = (file.metadata() or {})[FACTS]
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            vectors = tensors.pop("vectors")
            facts = Facts.parsed(text, len(vectors))
            return cls(
                vectors=vectors,
                layout=Layout(facts.names, facts.shapes),
                base={name.removeprefix(_BASE): tensor for name, tensor in tensors.items()},
                scores=facts.scores,
                curve=facts.curve,
                collect_s=facts.collect_s,
                base_score=facts.base_score,
                settings=facts.settings,
                runs=facts.runs,
                epochs=facts.epochs,
            )
        except BadRequest as error:
            raise BadRequest(f"{path}: {error}") from None
        except (SafetensorError, OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise no_zoo(path, error) from error


def _check_tensor(what: str, tensor: Tensor, kinds: Sequence[torch.dtype]) -> None:
    """Check that a tensor is a plain, dense one with numbers of one of these types.

    Raises:
        BadRequest: it is not.
    """
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_meta:
        raise BadRequest(f"{what}: expected a dense tensor with values, not {tensor.layout}")
    if tensor.dtype not in kinds:
        names = ", ".join(str(kind).removeprefix("torch.") for kind in kinds)
        raise BadRequest(
            f"{what}: expected {names}, not {str(tensor.dtype).removeprefix('torch.')}"
        )


def per_tensor_std(vectors: Float[Tensor, "n D"], layout: Layout) -> Float[Tensor, "n D"]:
    """Return for every value the (biased) standard deviation of its tensor within its checkpoint; 0 for scalars."""
    spread = [
        piece.std(dim=1, correction=0, keepdim=True).expand_as(piece)
        for piece in vectors.split(layout.sizes, dim=1)
    ]
    return torch.cat(spread, dim=1)
