"""Arrays of a record's side file (``bench.records.side``), computed from the results of a run's stages."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract.zoo import Zoo
from bench.errors import BenchError, unexpected
from bench.judge.population import Population
from bench.metrics import similarity as similar
from bench.records.side import (
    CURVE_POINTS,
    EMBEDDED,
    HEAT_MODELS,
    HEAT_PARAMETERS,
    IOU_MODELS,
    MAPPED,
    MODELS,
    RESAMPLED,
    STATISTICS,
    UNITS,
    Array,
    evenly,
)
from bench.system.progress import say

COMPONENTS = 50  # principal components that t-SNE is given


@contextlib.contextmanager
def optional(what: str) -> Iterator[None]:
    """Turn an error within the block, which makes a figure, into a note: a figure never costs the record."""
    try:
        yield
    except Exception as error:
        why = str(error) if isinstance(error, BenchError) else unexpected(error)
        say(f"note: the record has no {what}: {why}")


def arrays(
    zoo: Zoo,
    vectors: Mapping[str, Float[Tensor, "N D"]],
    views: Mapping[str, Tensor],
    populations: Sequence[Population],
    initial: Float[Tensor, "r D"] | None,
    *,
    sign: float,
) -> dict[str, Array]:
    """Compute every array of the side file.

    Args:
        zoo: the checkpoints.
        vectors: of the populations in ``EMBEDDED``, and of the reference, if there is one.
        views: latents of these populations ("latent.<population>") and vectors along the sampling path ("path",
            m x s x D), where the generator has them.
        populations: originals, generated models and every control.
        initial: untrained vectors, if the task can make them.
        sign: 1 where a higher score is better, otherwise -1.
    """
    embedded = {f"map.{name}": _few(vectors[name], MODELS) for name in EMBEDDED}
    if "path" in views:
        embedded["map_path"] = views["path"]
    latents = {name: value for name, value in views.items() if name.startswith("latent.")}
    named = {one.key: one for one in populations}
    kinds: dict[str, Callable[[], dict[str, Array]]] = {
        "numbers of single models": lambda: _per_model(named),
        "matrix of similarities": lambda: _iou(named["original"], named["generated"]),
        "map of parameters": lambda: embed(embedded),
        "map of latents": lambda: embed(latents),
        "parameters": lambda: _weights(vectors, initial),
        "outcomes of validation units": lambda: _right(named, sign),
        "resampled scores": lambda: _resampled(populations, sign),
        "curve of SGD": lambda: _curve(zoo.curve),
    }
    made: dict[str, Array] = {}
    for what, make in kinds.items():
        with optional(what):
            made |= make()
    return made


def _few(rows: Tensor, most: int) -> Tensor:
    """Return at most ``most`` rows, evenly spaced."""
    return rows[torch.from_numpy(evenly(len(rows), most))]


def _half(tensor: Tensor) -> Array:
    """Return a tensor as float16, with values beyond its range clamped to the largest."""
    return _clamped(tensor.detach().cpu().numpy(), np.float16)


def _clamped(values: Array, kind: type[np.floating[Any]]) -> Array:
    """Return numbers in another type, with values beyond its range clamped to the largest."""
    largest = np.finfo(kind).max
    return np.clip(values, -largest, largest).astype(kind)


def _per_model(populations: Mapping[str, Population]) -> dict[str, Array]:
    """Return every model's similarity to the nearest original and its training score, by population."""
    per_model: dict[str, Array] = {}
    originals = populations["original"].compared
    for name, population in populations.items():
        alike = similar.pairwise(population.compared, originals)
        if name == "original":
            alike = alike.fill_diagonal_(-1.0)
        if alike.shape[1] > 1 or name != "original":
            per_model[f"nearest.{name}"] = _half(_few(alike.max(dim=1).values, MODELS))
        if population.train is not None:
            few = _few(population.train, MODELS)
            per_model[f"train.{name}"] = _clamped(few.numpy(), np.float32)
    return per_model


def _iou(original: Population, generated: Population) -> dict[str, Array]:
    rows = [_few(one.compared, IOU_MODELS) for one in (original, generated)]
    models = torch.cat(rows)
    count = np.array([len(rows[0])], dtype=np.int32)
    return {"iou": _half(similar.pairwise(models, models)), "iou_originals": count}


def embed(points: Mapping[str, Float[Tensor, "*rows D"]]) -> dict[str, Array]:
    """Map all groups of points to one plane by PCA and t-SNE (van der Maaten and Hinton, 2008).

    Return float16 coordinates by group; an empty mapping for fewer than ``MAPPED`` points.
    """
    flat = {name: group.flatten(0, -2) for name, group in points.items()}
    sizes = [len(group) for group in flat.values()]
    if sum(sizes) < MAPPED:
        return {}
    pieces = _tsne(torch.cat(list(flat.values())).float()).split(sizes)
    return {
        name: _half(piece.reshape(*points[name].shape[:-1], 2))
        for name, piece in zip(flat, pieces, strict=True)
    }


def _tsne(points: Float[Tensor, "n D"]) -> Float[Tensor, "n 2"]:
    from sklearn.manifold import TSNE  # here, because it takes a second

    principal = _principal(points)
    perplexity = min(30.0, (len(points) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init=principal[:, :2], random_state=0, max_iter=500)
    return torch.from_numpy(tsne.fit_transform(principal))


def _principal(points: Float[Tensor, "n D"]) -> Array:
    """Return coordinates along the first principal components, from the n x n products; the first has unit variance."""
    # By a power of two, which changes no digit: sums and squares of a broken generator's weights would overflow.
    exponent = int(torch.frexp(points.abs().max()).exponent) - 1
    points = points / 2.0 ** max(exponent, -126)
    centred = points - points.mean(0)
    values, directions = torch.linalg.eigh((centred @ centred.T).double())
    few = min(COMPONENTS, len(points) - 1)
    scales = values[-few:].clamp(min=0).sqrt()
    coordinates = (directions[:, -few:] * scales).flip(1)
    spread = float(coordinates[:, 0].std()) or 1.0
    # Signs of eigenvectors are arbitrary: the largest entry is positive.
    largest = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0)
    scaled: Array = (coordinates * signs / spread).float().contiguous().numpy()
    return scaled


def _weights(
    vectors: Mapping[str, Float[Tensor, "N D"]], initial: Float[Tensor, "r D"] | None
) -> dict[str, Array]:
    """Return evenly spaced parameters of a few models of every kind, and their indices."""
    kinds = ("original", "generated", "reference")
    groups = {name: vectors[name] for name in kinds if name in vectors}
    if initial is not None:
        groups["random"] = initial
    index = evenly(vectors["original"].shape[1], HEAT_PARAMETERS)
    return {
        "weights_index": index.astype(np.int32),
        **{
            f"weights.{name}": _half(_few(rows, HEAT_MODELS)[:, torch.from_numpy(index)])
            for name, rows in groups.items()
        },
    }


def _right(populations: Mapping[str, Population], sign: float) -> dict[str, Array]:
    """Return which validation units are right, per population and chosen model; empty without wrong units."""
    wrong = {name: one.wrong for name, one in populations.items() if one.wrong is not None}
    if not wrong:
        return {}
    total = wrong["original"].shape[1]
    kept = torch.from_numpy(evenly(total, UNITS))
    correct: dict[str, Array] = {"units": np.array([len(kept), total], dtype=np.int32)}
    for name, outcomes in wrong.items():
        right = ~outcomes[:, kept]
        share = right.double().mean(0)
        correct[f"right_mean.{name}"] = (255 * share).round().to(torch.uint8).numpy()
        for statistic, model in _chosen(populations[name], sign).items():
            correct[f"right_{statistic}.{name}"] = np.packbits(right[model].numpy())
    return correct


def _resampled(populations: Sequence[Population], sign: float) -> dict[str, Array]:
    """Return each population's mean score and those of its chosen models on every replicate; empty without them."""
    kept: dict[str, Array] = {}
    for one in populations:
        if one.replicates is not None:
            scores, chosen = one.replicates.double(), _chosen(one, sign)
            for name in RESAMPLED:
                row = scores.mean(0) if name == "mean" else scores[chosen[name]]
                kept[f"resampled_{name}.{one.key}"] = _clamped(row.numpy(), np.float32)
    return kept


def _chosen(population: Population, sign: float) -> dict[str, int]:
    """Return the indices of a population's best, selected, median and worst model."""
    order = (sign * population.val).argsort(descending=True, stable=True)
    chosen = {
        "best": int(order[0]),
        "selected": population.selected(sign),
        "median": int(order[len(order) // 2]),
        "worst": int(order[-1]),
    }
    return {name: chosen[name] for name in STATISTICS}


def _curve(curve: Sequence[tuple[float, float]]) -> dict[str, Array]:
    if not curve:
        return {}
    points = _clamped(np.asarray(curve), np.float32)
    return {"curve": points[evenly(len(points), CURVE_POINTS)]}
