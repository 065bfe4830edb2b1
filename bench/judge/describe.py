"""Statistics of one population's scores and similarities, in the form of a record."""

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Metric
from bench.judge.alike import Alike
from bench.judge.population import Population, mean
from bench.metrics import similarity as similar
from bench.metrics import statistics
from bench.records import population as records
from bench.records.fields import Interval
from bench.records.population import Kappa, Likeness, Similarity
from bench.system.randomness import derive


def describe(
    population: Population, similarity: Similarity, metric: Metric, rng: torch.Generator
) -> records.Population:
    """Return statistics of a population's validation scores; the training split alone selects one model.

    Args:
        population: the models.
        similarity: of the models, to each other and to the originals.
        metric: of the scores.
        rng: of the bootstrap.
    """
    val, origin = population.val, population.origin
    low, high = statistics.mean_interval(val, rng)
    ordered = (metric.sign * val).sort().values * metric.sign
    chosen = population.selected(metric.sign)
    broken = population.not_finite
    return records.Population(
        name=origin.name,
        role=origin.role,
        aligned=origin.aligned,
        amplitude=origin.amplitude,
        n=len(val),
        best=float(ordered[-1]),
        selected=float(val[chosen]),
        mean=mean(val),
        median=float(val.double().quantile(0.5)),
        worst=float(ordered[0]),
        std=float(val.double().std()) if len(val) > 1 else None,
        low=low,
        high=high,
        values=val.tolist(),
        further={
            name: records.Further(mean=mean(values), selected=float(values[chosen]))
            for name, values in population.further.items()
        },
        not_finite=None if broken is None else int((broken > 0).sum()),
        similarity=similarity,
    )


def of_originals(among: Alike, rng: torch.Generator) -> Similarity:
    """Return the similarity of the originals to each other, and of each to the nearest other one, with intervals."""
    nearest = similar.nearest_others(among.similarity)
    return Similarity(
        nearest=_mean(nearest, derive(rng, "original nearest")),
        within=_pairs(among.similarity, derive(rng, "original")),
        kappa=_kappa_of_originals(among.kappa),
    )


def of_control(alike: Alike, within: Alike) -> Similarity:
    """Return the similarity of a control's N models to K originals and to each other; no intervals are drawn."""
    mean_within = similar.mean_off_diagonal(within.similarity)
    return Similarity(
        originals=Likeness(value=float(alike.similarity.double().mean())),
        nearest=Likeness(value=float(alike.similarity.max(dim=1).values.double().mean())),
        within=None if mean_within is None else Likeness(value=mean_within),
        kappa=_kappa(alike.kappa, within.kappa),
    )


def of_generated(alike: Alike, within: Alike, rng: torch.Generator) -> Similarity:
    """Return the similarity of N generated models to K originals and to each other, with intervals."""
    average = float(alike.similarity.double().mean())
    return Similarity(
        originals=Likeness.of(interval(average, statistics.cross_interval(alike.similarity, rng))),
        nearest=_mean(alike.similarity.max(dim=1).values, rng),
        within=_pairs(within.similarity, derive(rng, "generated")),
        kappa=_kappa(alike.kappa, within.kappa),
    )


def _kappa(alike: Float[Tensor, "N K"] | None, within: Float[Tensor, "N N"] | None) -> Kappa | None:
    """Return the mean error consistencies of N models with K originals and with each other; None for None."""
    if alike is None or within is None:
        return None
    return Kappa(
        originals=float(alike.mean()),
        nearest=float(alike.max(dim=1).values.mean()),
        within=similar.mean_off_diagonal(within),
    )


def _kappa_of_originals(among: Float[Tensor, "K K"] | None) -> Kappa | None:
    """Return the mean error consistencies among the originals; None for None."""
    if among is None:
        return None
    return Kappa(nearest=similar.nearest_other(among), within=similar.mean_off_diagonal(among))


def _mean(values: Float[Tensor, " N"], rng: torch.Generator) -> Likeness | None:
    """Return the mean of the models' similarities with its interval; None for no model."""
    if not len(values):
        return None
    average = float(values.double().mean())
    return Likeness.of(interval(average, statistics.mean_interval(values, rng)))


def _pairs(within: Float[Tensor, "N N"], rng: torch.Generator) -> Likeness | None:
    average = similar.mean_off_diagonal(within)
    if average is None:
        return None
    return Likeness.of(interval(average, statistics.pair_interval(within, rng)))


def interval(value: float, bounds: tuple[float, float] | None) -> Interval:
    """Return a value with its interval, widened to contain it; without bounds the interval is the value itself."""
    low, high = bounds or (value, value)
    return Interval(value=value, low=min(low, value), high=max(high, value))
