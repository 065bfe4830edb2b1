"""From scored populations to the record's numbers: statistics, similarity, novelty, timing."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bench.metrics import novelty as novel
from bench.metrics import similarity as similar
from bench.metrics import statistics
from bench.randomness import derive
from bench.record import (
    ControlSimilarity,
    Interval,
    NoisePopulation,
    Novelty,
    Population,
    Scores,
    Similarity,
    Timing,
)

Scored = tuple[Tensor, Tensor, Tensor, Tensor]  # val scores, train scores, train losses, wrong


def compare(
    populations: Mapping[str, Scored],
    generated: Float[Tensor, "n D"],
    originals: Float[Tensor, "K D"],
    *,
    higher_is_better: bool,
    rng: torch.Generator,
) -> tuple[Scores, Similarity, Novelty]:
    """Scores, similarity and novelty of all populations.

    Args:
        populations: "original", "generated" and every control; noise levels are named "noise <amplitude>".
        generated, originals: the vectors, for distances in weight space.
        higher_is_better: of the score.
        rng: of the bootstrap. Every interval draws from a source of its own, so that a control's is the same in every
            record, whatever was generated.
    """
    wrong = {name: population[3] for name, population in populations.items()}
    with_originals = {name: similar.iou(rows, wrong["original"]) for name, rows in wrong.items()}
    within = {name: similar.iou(rows, rows) for name, rows in wrong.items()}
    scores = {
        name: population(*scored[:3], higher_is_better=higher_is_better, rng=derive(rng, name))
        for name, scored in populations.items()
    }
    similarity = _similarity(with_originals, within, derive(rng, "similarity"))
    novelty = _novelty(
        populations, with_originals, similarity, higher_is_better, derive(rng, "novelty")
    )
    ratio = similar.nearest_l2_ratio(generated, originals)
    return _scores(scores), similarity, novelty.model_copy(update={"nearest_l2_ratio": ratio})


def population(
    val: Float[Tensor, " N"],
    train: Float[Tensor, " N"],
    train_loss: Float[Tensor, " N"],
    *,
    higher_is_better: bool,
    rng: torch.Generator,
) -> Population:
    """Statistics of one population's validation scores; the selected model is chosen on train alone."""
    sign = 1.0 if higher_is_better else -1.0
    low, high = statistics.mean_interval(val, rng)
    ordered = (sign * val).sort().values * sign
    return Population(
        best=float(ordered[-1]),
        selected=float(val[select(sign * train, train_loss)]),
        mean=math.fsum(val.tolist()) / len(val),
        median=float(val.double().quantile(0.5)),
        worst=float(ordered[0]),
        std=float(val.double().std()) if len(val) > 1 else None,
        low=low,
        high=high,
        values=val.tolist(),
    )


def select(train: Float[Tensor, " N"], loss: Float[Tensor, " N"]) -> int:
    """The model with the highest training score; of several, the one with the lowest loss, then the first."""
    best = (train == train.max()).nonzero().flatten()
    return int(best[loss[best].argmin()])


def _scores(scores: Mapping[str, Population]) -> Scores:
    noise = [
        NoisePopulation(amplitude=float(name.removeprefix("noise ")), **level.model_dump())
        for name, level in scores.items()
        if name.startswith("noise ")
    ]
    named = {name: level for name, level in scores.items() if not name.startswith("noise ")}
    return Scores(noise=noise, **named)


def _interval(value: float, bounds: tuple[float, float] | None) -> Interval:
    low, high = bounds or (value, value)
    return Interval(value=value, low=min(low, value), high=max(high, value))


def _pairs(within: Float[Tensor, "N N"], rng: torch.Generator) -> Interval | None:
    mean = similar.mean_off_diagonal(within)
    return None if mean is None else _interval(mean, statistics.pair_interval(within, rng))


def _similarity(
    with_originals: Mapping[str, Float[Tensor, "N K"]],
    within: Mapping[str, Float[Tensor, "N N"]],
    rng: torch.Generator,
) -> Similarity:
    """The paper's four comparisons (section 4), and three of them for every control."""
    pairs = {name: _pairs(within[name], derive(rng, name)) for name in ("original", "generated")}
    cross = with_originals["generated"]
    nearest = cross.max(dim=1).values
    mean, nearest_mean = float(cross.double().mean()), float(nearest.double().mean())
    return Similarity(
        original_original=pairs["original"],
        generated_generated=pairs["generated"],
        original_generated=_interval(mean, statistics.cross_interval(cross, rng)),
        original_generated_max=_interval(nearest_mean, statistics.mean_interval(nearest, rng)),
        controls={
            name: ControlSimilarity(
                original=float(matrix.double().mean()),
                original_max=float(matrix.max(dim=1).values.double().mean()),
                within=similar.mean_off_diagonal(within[name]),
            )
            for name, matrix in with_originals.items()
            if name not in ("original", "generated")
        },
    )


def _novelty(
    populations: Mapping[str, Scored],
    with_originals: Mapping[str, Float[Tensor, "N K"]],
    similarity: Similarity,
    higher_is_better: bool,
    rng: torch.Generator,
) -> Novelty:
    novelties = {name: novel.novelty(matrix) for name, matrix in with_originals.items()}
    noise = [name for name in populations if name.startswith("noise ")]
    groups = {"noise": noise, "interpolation": ["interpolation"], "gaussian": ["gaussian"]}
    advantages = {}
    for group, members in groups.items():
        values = novel.advantage(
            populations["generated"][0],
            novelties["generated"],
            torch.cat([populations[name][0] for name in members]),
            torch.cat([novelties[name] for name in members]),
            higher_is_better=higher_is_better,
        )
        advantages[group] = (
            _interval(float(values.mean()), statistics.mean_interval(values, rng))
            if len(values)
            else None
        )
    farthest = torch.cat([novelties[name] for name in noise]).max()
    alike, usual = similarity.generated_generated, similarity.original_original
    return Novelty(
        advantage_over_noise=advantages["noise"],
        advantage_over_interpolation=advantages["interpolation"],
        advantage_over_gaussian=advantages["gaussian"],
        beyond_noise=float((novelties["generated"] > farthest).double().mean()),
        nearest_l2_ratio=None,
        collapsed=None if alike is None or usual is None else alike.value > usual.value,
        verdict=None,
    )


def timing(
    *,
    device: str,
    curve: Sequence[tuple[float, float]],
    collect_s: float | None,
    fit_s: float,
    sample_s: float,
    samples: int,
    select_s: float,
    score_s: float,
    scores: Scores,
    higher_is_better: bool,
    peak_memory_bytes: int,
) -> Timing:
    """Times and what follows from them; definitions are in ``bench.record.Timing``.

    Args:
        curve: (seconds of training, validation score) of SGD, in order.
        samples: models that ``sample_s`` and ``select_s`` are for.
        scores: for the target score.
    """
    worse, sign = (min, 1.0) if higher_is_better else (max, -1.0)
    target = worse(scores.generated.selected, scores.original.best)
    sgd_s = next((seconds for seconds, score in curve if sign * score >= sign * target), None)
    per_model = sample_s / samples
    fixed = None if collect_s is None else collect_s + fit_s + select_s
    return Timing(
        device=device,
        collect_s=collect_s,
        fit_s=fit_s,
        sample_s=sample_s,
        sample_per_model_s=per_model,
        select_s=select_s,
        score_s=score_s,
        target_score=target,
        sgd_s=sgd_s,
        speedup=sgd_s / per_model if sgd_s is not None and per_model > 0 else None,
        speedup_amortised=(
            None if sgd_s is None or fixed is None else sgd_s / ((fixed + sample_s) / samples)
        ),
        break_even_models=(
            None
            if sgd_s is None or fixed is None or sgd_s <= per_model
            else max(1, math.ceil(fixed / (sgd_s - per_model)))
        ),
        peak_memory_bytes=peak_memory_bytes,
    )
