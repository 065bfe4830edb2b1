"""Results of stages, and their files in the store."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.errors import BenchError
from bench.judge.population import Origin, Population
from bench.records.fields import Count, Seconds
from bench.system import reading
from bench.system.store import atomic

VERSION = 1  # of what the store keeps: it enters the names of zoos, samples and evaluations
_FURTHER = "further."  # prefix of the names of further metrics in an evaluation's file
# Number of dimensions of the tensors of a population, of which the first is that of its models, and their types.
_FLOATS = (torch.float64, torch.float32)
_OF_POPULATION: Mapping[str, tuple[int, tuple[torch.dtype, ...]]] = {
    "val": (1, _FLOATS), "train": (1, _FLOATS), "train_loss": (1, _FLOATS), "not_finite": (1, (torch.int64,)),
    "wrong": (2, (torch.bool,)), **dict.fromkeys(("features", "outputs", "replicates", "weights"), (2, _FLOATS)),
}  # fmt: skip


class _Facts(BaseModel):
    """Facts beside the tensors of a stage: none of another name or type."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _Sampling(_Facts):
    fit_s: Seconds
    sample_s: Seconds
    sample_repeats_s: tuple[Seconds, ...] = ()
    peak_memory_bytes: Count


class _Scoring(_Facts):
    select_s: Seconds
    score_s: Seconds


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Vectors that a generator made, and the time and memory that took.

    Attributes:
        vectors: the samples.
        fit_s, sample_s, peak_memory_bytes: seconds of fitting and sampling, and the peak of memory.
        path: the file of this result.
        sample_repeats_s: seconds of further samplings of as many models, of which sample_s is the median; empty where
            the only sampling was timed: of controls, and in files from before samplings were repeated.
        views: latents of populations ("latent.<population>") and vectors along the sampling path ("path", m x s x D)
            for figures; empty where the generator has none.
    """

    vectors: Float[Tensor, "n D"]
    fit_s: float
    sample_s: float
    peak_memory_bytes: int
    path: Path
    sample_repeats_s: tuple[float, ...] = ()
    views: dict[str, Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Reference:
    """Trained models that no generator sees.

    Attributes:
        vectors: the models; none where the process that made the zoo is not known.
        path: path of the file that holds them.
    """

    vectors: Float[Tensor, "m D"]
    path: Path


def load_reference(path: Path) -> Reference:
    """Read the reference that ``save_reference`` wrote; errors as of ``load_sampled``."""
    with _damage_told(path):
        tensors, _ = _read(path)
        return Reference(_vectors(tensors), path)


def save_reference(reference: Reference, path: Path) -> None:
    """Write the reference's vectors to one safetensors file."""
    _write({"vectors": reference.vectors.contiguous()}, {}, path)


@contextlib.contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turn whatever reading a damaged file raises within the block into ``BenchError``."""
    try:
        yield
    except Exception as error:
        why = next(iter(str(error).splitlines()), "")
        raise BenchError(
            f"the cached stage {path} is damaged ({type(error).__name__}: {why})"
        ) from error


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read the tensors and the facts (JSON) of a stage's file."""
    reading.check_regular(path, "cached stage")
    with safe_open(path, "pt") as file:
        facts = (file.metadata() or {})["facts"]
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118


def _vectors(tensors: dict[str, Tensor]) -> Float[Tensor, "n D"]:
    """Take the models out of a stage's tensors; raise ValueError where they are no finite float32 matrix."""
    vectors = tensors.pop("vectors")
    if vectors.ndim != 2 or vectors.dtype != torch.float32 or not vectors.isfinite().all():
        raise ValueError("its vectors are no matrix of finite float32 numbers")
    return vectors


def _write(tensors: dict[str, Tensor], facts: dict[str, Any], path: Path) -> None:
    with atomic(path) as temporary:
        save_file(tensors, temporary, {"facts": json.dumps(facts)})


def load_sampled(path: Path) -> Sampled:
    """Read the samples that ``save_sampled`` wrote.

    Raises:
        BenchError: the file is damaged.
    """
    with _damage_told(path):
        tensors, text = _read(path)
        facts = _Sampling.model_validate_json(text)
        return Sampled(_vectors(tensors), **dict(facts), path=path, views=tensors)


def save_sampled(sampled: Sampled, path: Path) -> None:
    """Write vectors, views, times and peak memory to one safetensors file."""
    names = ("fit_s", "sample_s", "sample_repeats_s", "peak_memory_bytes")
    facts = {name: getattr(sampled, name) for name in names}
    tensors = {"vectors": sampled.vectors, **sampled.views}
    _write({name: tensor.contiguous() for name, tensor in tensors.items()}, facts, path)


def load_population(path: Path, origin: Origin) -> Population:
    """Read the scores that ``save_population`` wrote, as the population of an origin; errors as of ``load_sampled``."""
    with _damage_told(path):
        tensors, text = _read(path)
        facts = dict(_Scoring.model_validate_json(text))
        n = len(tensors["val"])
        for name, tensor in tensors.items():
            dimensions, kinds = (1, _FLOATS) if name.startswith(_FURTHER) else _OF_POPULATION[name]
            if tensor.ndim != dimensions or len(tensor) != n or tensor.dtype not in kinds:
                raise ValueError(f"'{name}' is {tensor.dtype} of shape {tuple(tensor.shape)}")
        names = [name for name in tensors if name.startswith(_FURTHER)]
        further = {name.removeprefix(_FURTHER): tensors.pop(name) for name in names}
        fields: dict[str, Any] = {"wrong": None, **tensors, **facts}
        return Population(origin, **fields, further=further)


def save_population(population: Population, path: Path) -> None:
    """Write scores, wrong units and times, but no origin, to one safetensors file."""
    fields = {n: v for n, v in vars(population).items() if v is not None and n != "origin"}
    fields |= {f"{_FURTHER}{name}": values for name, values in fields.pop("further").items()}
    tensors = {n: v.contiguous() for n, v in fields.items() if isinstance(v, Tensor)}
    _write(tensors, {n: v for n, v in fields.items() if n not in tensors}, path)
