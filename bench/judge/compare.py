"""From scored populations to the record's numbers: statistics, similarity, novelty, timing."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bench.metrics import novelty as novel
from bench.metrics import similarity as similar
from bench.metrics import statistics
from bench.records import verdict
from bench.records.record import (
    ControlSimilarity,
    Further,
    GoodModels,
    Interval,
    NoisePopulation,
    Novelty,
    Population,
    Scores,
    Similarity,
    Timing,
)
from bench.runs.stages import Evaluated
from bench.system.randomness import derive

Scored = tuple[
    Tensor, Tensor, Tensor, Tensor
]  # val scores, train scores, train losses, wrong units or features


def compare(
    populations: Mapping[str, Scored],
    generated: Float[Tensor, "n D"],
    originals: Float[Tensor, "K D"],
    *,
    higher_is_better: bool,
    rng: torch.Generator,
    further: Mapping[str, Mapping[str, Tensor]] | None = None,
    not_finite: Mapping[str, Tensor | None] | None = None,
) -> tuple[Scores, Similarity, Novelty]:
    """Scores, similarity and novelty of all populations.

    Args:
        populations: "original", "generated" and every control; noise levels are named "noise <amplitude>".
        generated, originals: the vectors, for distances in weight space.
        higher_is_better: of the score.
        rng: of the bootstrap. Every interval draws from a source of its own, so that a control's is the same in every
            record, whatever was generated.
        further: other metrics of each population on validation.
        not_finite: for how many examples each model of a population put out something that is not finite.
    """
    scores = {
        name: population(
            *scored[:3], higher_is_better=higher_is_better, rng=derive(rng, name),
            further=(further or {}).get(name), not_finite=(not_finite or {}).get(name),
        )
        for name, scored in populations.items()
    }  # fmt: skip
    scored = {name: (val, wrong) for name, (val, _, _, wrong) in populations.items()}
    beside = Beside.of(scored, higher_is_better=higher_is_better, rng=rng)
    similarity, novelty = assess(beside, scored["generated"], generated, originals, rng=rng)
    return _scores(scores), similarity, novelty


@dataclasses.dataclass(frozen=True)
class Beside:
    """What generated models are compared with; it does not depend on them.

    Attributes:
        scored: validation scores and wrong units (or features) of "original" and the controls.
        with_originals, within: similarity of every population with the originals, and within it.
        curves: score at novelty, of the controls that have one.
    """

    scored: Mapping[str, tuple[Tensor, Tensor]]
    with_originals: Mapping[str, Tensor]
    within: Mapping[str, Tensor]
    curves: Mapping[str, novel.Curve]

    @classmethod
    def of(
        cls,
        scored: Mapping[str, tuple[Tensor, Tensor]],
        *,
        higher_is_better: bool,
        rng: torch.Generator,
    ) -> "Beside":
        """From scores and wrong units (or features) of originals and all controls that the verdict reads."""
        scored = {name: found for name, found in scored.items() if name != "generated"}
        original = scored["original"][1]
        alike = {name: similar.pairwise(wrong, original) for name, (_, wrong) in scored.items()}
        within = {name: similar.pairwise(wrong, wrong) for name, (_, wrong) in scored.items()}
        levels = [name for name in scored if name.startswith("noise ")]
        groups = {"noise": levels, "interpolation": ["interpolation"], "gaussian": ["gaussian"]}
        curves = {
            group: novel.Curve(
                torch.stack([scored[name][0] for name in members]),
                torch.stack([novel.novelty(alike[name]) for name in members]),
                higher_is_better=higher_is_better,
                rng=derive(rng, "curve", group),
            )
            for group, members in groups.items()
        }
        return cls(scored, alike, within, curves)


def assess(
    beside: Beside,
    scored: tuple[Tensor, Tensor],
    generated: Float[Tensor, "n D"],
    originals: Float[Tensor, "K D"],
    *,
    rng: torch.Generator,
) -> tuple[Similarity, Novelty]:
    """Similarity, novelty and the verdict of generated models.

    Args:
        beside: originals and controls.
        scored: validation scores and wrong units (or features) of the generated models.
        generated, originals: the vectors.
        rng: of the bootstrap.
    """
    cross = similar.pairwise(scored[1], beside.scored["original"][1])
    similarity = _similarity(
        {**beside.with_originals, "generated": cross},
        {**beside.within, "generated": similar.pairwise(scored[1], scored[1])},
        derive(rng, "similarity"),
    )
    alike, usual = similarity.generated_generated, similarity.original_original
    novelty = _novelty(scored[0], cross, beside, derive(rng, "novelty")).model_copy(
        update={
            "nearest_l2_ratio": similar.nearest_l2_ratio(generated, originals),
            "toward_mean": similar.toward_mean(generated, originals),
            "collapsed": None if alike is None or usual is None else alike.value > usual.value,
            "sees_training": _sees_training(beside, derive(rng, "finetune")),
        }
    )
    means = _means({**beside.scored, "generated": scored})
    word = verdict.verdict(means, len(generated), similarity, novelty)
    return similarity, novelty.model_copy(update={"verdict": word})


def _sees_training(beside: Beside, rng: torch.Generator) -> bool | None:
    """Whether fine-tuned originals are called novel; None where there are none."""
    if "finetune" not in beside.scored:
        return None
    scores, _ = beside.scored["finetune"]
    found = _novelty(scores, beside.with_originals["finetune"], beside, rng)
    return verdict.is_novel(len(scores), found)


def good_models(
    original: Evaluated, generated: Evaluated, min_score: float, higher_is_better: bool
) -> GoodModels:
    """The paper's comparisons among models that score ``min_score`` or better on validation."""
    sign = 1.0 if higher_is_better else -1.0
    ours, theirs = (
        found.compared[sign * found.val >= sign * min_score] for found in (generated, original)
    )
    cross = similar.pairwise(ours, theirs).double()
    return GoodModels(
        min_score=min_score,
        originals=len(theirs),
        generated=len(ours),
        original_original=similar.mean_off_diagonal(similar.pairwise(theirs, theirs)),
        generated_generated=similar.mean_off_diagonal(similar.pairwise(ours, ours)),
        original_generated=float(cross.mean()) if cross.numel() else None,
        original_generated_max=float(cross.max(dim=1).values.mean()) if cross.numel() else None,
    )


def _means(scored: Mapping[str, tuple[Tensor, Tensor]]) -> verdict.Means:
    noisiest = [name for name in scored if name.startswith("noise ")][-1]
    means = (_mean(scored[name][0]) for name in ("generated", "original", noisiest))
    return verdict.Means(*means)


def _mean(values: Float[Tensor, " N"]) -> float:
    return math.fsum(values.tolist()) / len(values)


def population(
    val: Float[Tensor, " N"],
    train: Float[Tensor, " N"],
    train_loss: Float[Tensor, " N"],
    *,
    higher_is_better: bool,
    rng: torch.Generator,
    further: Mapping[str, Float[Tensor, " N"]] | None = None,
    not_finite: Int64[Tensor, " N"] | None = None,
) -> Population:
    """Statistics of one population's validation scores; the selected model is chosen on train alone."""
    sign = 1.0 if higher_is_better else -1.0
    low, high = statistics.mean_interval(val, rng)
    ordered = (sign * val).sort().values * sign
    chosen = select(sign * train, train_loss)
    return Population(
        best=float(ordered[-1]),
        selected=float(val[chosen]),
        mean=_mean(val),
        median=float(val.double().quantile(0.5)),
        worst=float(ordered[0]),
        std=float(val.double().std()) if len(val) > 1 else None,
        low=low,
        high=high,
        values=val.tolist(),
        further={
            name: Further(mean=_mean(values), selected=float(values[chosen]))
            for name, values in (further or {}).items()
        },
        not_finite=None if not_finite is None else int((not_finite > 0).sum()),
    )


def select(train: Float[Tensor, " N"], loss: Float[Tensor, " N"]) -> int:
    """The model with the highest of ``train``; of several, the one with the lowest loss, then the first."""
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
    scores: Float[Tensor, " N"],
    with_originals: Float[Tensor, "N K"],
    beside: Beside,
    rng: torch.Generator,
) -> Novelty:
    """One population's advantages over the controls."""
    novelties = novel.novelty(with_originals)
    over = {
        name: novel.advantage(scores, novelties, curve, rng=derive(rng, name))
        for name, curve in beside.curves.items()
    }
    return Novelty(
        advantage_over_noise=_bounds(over["noise"].mean),
        advantage_over_interpolation=_bounds(over["interpolation"].mean),
        advantage_over_gaussian=_bounds(over["gaussian"].mean),
        typical_advantage_over_noise=_bounds(over["noise"].typical),
        median_novelty=float(novelties.double().quantile(0.5)),
        beyond_noise=over["noise"].beyond,
        beyond_interpolation=over["interpolation"].beyond,
        beyond_gaussian=over["gaussian"].beyond,
        nearest_l2_ratio=None,
        collapsed=None,
        rule=verdict.RULE,
        verdict=None,
    )


def _bounds(bounds: novel.Bounds | None) -> Interval | None:
    return None if bounds is None else _interval(bounds[0], bounds[1:])


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
    """Times and what follows from them; definitions are in ``bench.records.record.Timing``.

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
