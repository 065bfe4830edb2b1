"""Results of stages, and their files in the store."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.errors import BenchError
from bench.judge.population import Origin, Population
from bench.system.store import atomic

VERSION = 1  # of what the store keeps: it enters the names of zoos, samples and evaluations
_FURTHER = "further."  # prefix of the names of further metrics in an evaluation's file


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
    """Read the reference that ``save_reference`` wrote."""
    tensors, _ = _read(path)
    return Reference(tensors["vectors"], path)


def save_reference(reference: Reference, path: Path) -> None:
    """Write the reference's vectors to one safetensors file."""
    _write({"vectors": reference.vectors.contiguous()}, {}, path)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the facts (JSON) of a stage's file.

    Raises:
        BenchError: the file is damaged.
    """
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
    """Read the samples that ``save_sampled`` wrote."""
    tensors, facts = _read(path)
    repeats = tuple(facts.pop("sample_repeats_s", ()))
    vectors = tensors.pop("vectors")
    return Sampled(vectors, **facts, path=path, sample_repeats_s=repeats, views=tensors)


def save_sampled(sampled: Sampled, path: Path) -> None:
    """Write vectors, views, times and peak memory to one safetensors file."""
    names = ("fit_s", "sample_s", "sample_repeats_s", "peak_memory_bytes")
    facts = {name: getattr(sampled, name) for name in names}
    tensors = {"vectors": sampled.vectors, **sampled.views}
    _write({name: tensor.contiguous() for name, tensor in tensors.items()}, facts, path)


def load_population(path: Path, origin: Origin) -> Population:
    """Read the scores that ``save_population`` wrote, as the population of an origin."""
    tensors, facts = _read(path)
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
