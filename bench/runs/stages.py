"""Results of stages, and how they lie in the store."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.errors import BenchError
from bench.system.store import atomic

_FURTHER = "further."  # of the names of further metrics in an evaluation's file


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Vectors that a generator made, and what that took.

    Attributes:
        vectors: the samples.
        fit_s, sample_s, peak_memory_bytes: what making them took.
        path: the file they lie in.
        views: what figures show of the fitted generator: latents of populations ("latent.<population>") and vectors
            along the sampling ("path", m x s x D); empty where it has none.
    """

    vectors: Float[Tensor, "n D"]
    fit_s: float
    sample_s: float
    peak_memory_bytes: int
    path: Path
    views: dict[str, Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """One population on both splits.

    Attributes:
        val, train: scores on the two splits.
        train_loss: what breaks ties of ``train``.
        wrong: which validation units each model gets wrong; None where the task has no such units.
        select_s, score_s: seconds that scoring it on train and on validation took.
        features: what models are compared by where there is no ``wrong``.
        further: other metrics on validation, by name.
        not_finite: for how many validation examples each model put out something that is not finite; None where the
            task does not count that.
    """

    val: Float[Tensor, " N"]
    train: Float[Tensor, " N"]
    train_loss: Float[Tensor, " N"]
    wrong: Bool[Tensor, "N M"] | None
    select_s: float
    score_s: float
    features: Float[Tensor, "N M"] | None = None
    further: dict[str, Float[Tensor, " N"]] = dataclasses.field(default_factory=dict)
    not_finite: Int64[Tensor, " N"] | None = None

    @property
    def compared(self) -> Tensor:
        """What similarity compares: wrong units, or else features."""
        found = self.features if self.wrong is None else self.wrong
        assert found is not None  # the task's evaluation has one of them
        return found

    def rows(self, index: Int64[Tensor, " n"]) -> "Evaluated":
        """Some of the models; times are still those of all."""
        fields = vars(self).items()
        some: dict[str, Any] = {n: v[index] for n, v in fields if isinstance(v, Tensor)}
        further = {name: values[index] for name, values in self.further.items()}
        return dataclasses.replace(self, **some, further=further)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a stage's file."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise BenchError(f"the cached stage {path} is damaged ({error})") from error


def _write(tensors: dict[str, Tensor], facts: dict[str, Any], path: Path) -> None:
    with atomic(path) as temporary:
        save_file(tensors, temporary, {"facts": json.dumps(facts)})


def load_sampled(path: Path) -> Sampled:
    """Read what ``save_sampled`` wrote."""
    tensors, facts = _read(path)
    return Sampled(tensors.pop("vectors"), **facts, path=path, views=tensors)


def save_sampled(sampled: Sampled, path: Path) -> None:
    """Vectors, views and times to one safetensors file."""
    facts = {name: getattr(sampled, name) for name in ("fit_s", "sample_s", "peak_memory_bytes")}
    tensors = {"vectors": sampled.vectors, **sampled.views}
    _write({name: tensor.contiguous() for name, tensor in tensors.items()}, facts, path)


def load_evaluated(path: Path) -> Evaluated:
    """Read what ``save_evaluated`` wrote."""
    tensors, facts = _read(path)
    names = [name for name in tensors if name.startswith(_FURTHER)]
    further = {name.removeprefix(_FURTHER): tensors.pop(name) for name in names}
    fields: dict[str, Any] = {"wrong": None, **tensors, **facts}
    return Evaluated(**fields, further=further)


def save_evaluated(evaluated: Evaluated, path: Path) -> None:
    """Scores, wrong units and times to one safetensors file."""
    fields = {n: v for n, v in vars(evaluated).items() if v is not None}
    fields |= {f"{_FURTHER}{name}": values for name, values in fields.pop("further").items()}
    tensors = {n: v.contiguous() for n, v in fields.items() if isinstance(v, Tensor)}
    _write(tensors, {n: v for n, v in fields.items() if n not in tensors}, path)
