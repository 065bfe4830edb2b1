"""Comparison of generated models with originals and controls: similarity, novelty and the verdict."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Metric
from bench.judge import composition, describe
from bench.judge.alike import Alike
from bench.judge.composition import Against
from bench.judge.population import Population
from bench.metrics import novelty as novel
from bench.metrics import similarity as similar
from bench.metrics.statistics import mcnemar
from bench.records import population as records
from bench.records import verdict
from bench.records.fields import Interval
from bench.records.judged import Advantage, GoodModels, Judge, Judgement, Origin, Paired, Tests
from bench.records.population import Similarity
from bench.records.rule1 import Means
from bench.system.randomness import derive

CURVES = ("noise", "interpolation", "gaussian")  # controls whose score at a novelty is compared


@dataclasses.dataclass(frozen=True)
class Baselines:
    """Originals and controls, and the numbers that do not depend on the generated models.

    Attributes:
        metric: the headline metric of the scores.
        original: the zoo's checkpoints.
        reference: held-out trained models, if there are any.
        controls: their populations by key.
        similarities: of the originals, the reference and every control, by key.
        curves: score at novelty, of the controls that have one, by name.
    """

    metric: Metric
    original: Population
    reference: Population | None
    controls: Mapping[str, Population]
    similarities: Mapping[str, Similarity]
    curves: Mapping[str, novel.Curve]

    @classmethod
    def of(
        cls, populations: Sequence[Population], metric: Metric, rng: torch.Generator
    ) -> "Baselines":
        """Compare reference and controls with the originals.

        Args:
            populations: originals, reference and controls, each once; populations of other roles are ignored.
            metric: of the scores.
            rng: of the bootstrap. Every interval draws from its own generator, so that a control's interval is the
                same in every record of a zoo.
        """
        original = next(one for one in populations if one.origin.role == "original")
        others = {
            one.key: one for one in populations if one.origin.role in ("reference", "control")
        }
        alike = {key: Alike.of(one, original) for key, one in others.items()}
        similarities = {
            key: describe.of_control(alike[key], Alike.of(one, one)) for key, one in others.items()
        }
        reference = others.pop("reference", None)
        controls = others
        among = Alike.of(original, original)
        similarities["original"] = describe.of_originals(among, derive(rng, "similarity"))
        curves = _curves(controls, alike, metric, rng)
        return cls(metric, original, reference, controls, similarities, curves)


def _curves(
    controls: Mapping[str, Population],
    alike: Mapping[str, Alike],
    metric: Metric,
    rng: torch.Generator,
) -> dict[str, novel.Curve]:
    """Fit every control's score as a function of novelty; the levels of the noise sweep make one curve."""
    fitted = {}
    for name in CURVES:
        levels = [
            key
            for key, one in controls.items()
            if one.origin.name == name and not one.origin.aligned
        ]
        fitted[name] = novel.Curve(
            torch.stack([controls[key].val for key in levels]),
            torch.stack([novel.novelty(alike[key].similarity) for key in levels]),
            higher_is_better=metric.higher_is_better,
            rng=derive(rng, "curve", name),
        )
    return fitted


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is found of generated models beside the originals and controls.

    Attributes:
        similarity: of the models, to each other and to the originals.
        median_novelty: median over models of 1 - similarity with the nearest original.
        advantages: score above each control's at the same novelty.
        origin: where the models lie in weight space.
        lost: share of what separates the originals from the noisiest control that the models lost.
    """

    similarity: Similarity
    median_novelty: float
    advantages: Mapping[str, Advantage]
    origin: Origin
    lost: float

    def judge(
        self,
        against: Against | None,
        *,
        models: int,
        tests: Tests | None,
        good: GoodModels | None,
    ) -> Judge:
        """Return the verdict and its evidence, in the form of a record.

        Args:
            against: every population against the reference; None without one.
            models: how many were generated, of a deterministic generator equal ones.
            tests: paired tests.
            good: comparisons of good models alone.
        """
        evidence = composition.evidence(against, "generated", lost=self.lost, models=models)
        return Judge(
            word=verdict.word(evidence),
            rule=verdict.RULE,
            collapsed=collapsed(evidence.judgement),
            median_novelty=self.median_novelty,
            advantages=dict(self.advantages),
            origin=self.origin,
            tests=tests,
            good=good,
            against_reference=dict(against.judgements) if against else {},
            resolution=evidence.resolution,
        )


def assess(baselines: Baselines, generated: Population, rng: torch.Generator) -> Finding:
    """Return similarity, novelty and origin of generated models.

    Args:
        baselines: originals and controls.
        generated: the generated models.
        rng: of the bootstrap.
    """
    alike, within = Alike.of(generated, baselines.original), Alike.of(generated, generated)
    similarity = describe.of_generated(alike, within, derive(rng, "similarity"))
    advantages, novelty = _advantages(
        generated, alike.similarity, baselines.curves, derive(rng, "novelty")
    )
    controls = baselines.controls.values()
    noisiest = max(controls, key=lambda one: one.origin.amplitude or 0.0)
    return Finding(
        similarity=similarity,
        median_novelty=novelty,
        advantages=advantages,
        origin=_origin(baselines, generated),
        lost=Means(generated.mean, baselines.original.mean, noisiest.mean).lost,
    )


def _origin(baselines: Baselines, generated: Population) -> Origin:
    """Return where generated models lie in weight space; all weights are those that ``Population.weights`` compares."""
    originals, models, held = baselines.original.weights, generated.weights, baselines.reference
    assert originals is not None  # every population that is judged has them
    assert models is not None
    reference = held.weights if held else None
    return Origin(
        nearest_l2_ratio=None
        if reference is None
        else similar.nearest_l2_ratio(models, originals, reference),
        toward_mean=similar.toward_mean(models, originals),
    )


def collapsed(judgement: Judgement | None) -> bool | None:
    """Return whether models vary less than the reference, beyond chance; None where that is not known."""
    variety = judgement.variety if judgement else None
    return None if variety is None else variety.collapsed


def _advantages(
    population: Population,
    alike: Float[Tensor, "N K"],
    curves: Mapping[str, novel.Curve],
    rng: torch.Generator,
) -> tuple[dict[str, Advantage], float]:
    """Return one population's advantages over the controls, and the median of its novelties."""
    novelties = novel.novelty(alike)
    advantages = {}
    for name, curve in curves.items():
        above = novel.advantage(population.val, novelties, curve, rng=derive(rng, name))
        typical = _bounds(above.typical) if name == "noise" else None
        advantages[name] = Advantage(mean=_bounds(above.mean), typical=typical, beyond=above.beyond)
    return advantages, float(novelties.double().quantile(0.5))


def _bounds(bounds: novel.Bounds | None) -> Interval | None:
    return None if bounds is None else describe.interval(bounds[0], bounds[1:])


def described(
    baselines: Baselines, generated: Population, similarity: Similarity, rng: torch.Generator
) -> dict[str, records.Population]:
    """Return the statistics of every population, in the form of a record; originals and generated models come first.

    Args:
        baselines: originals and controls.
        generated: the generated models.
        similarity: of the generated models.
        rng: of the bootstrap; every population draws from its own generator.
    """
    held = {"reference": baselines.reference} if baselines.reference else {}
    everything = {"original": baselines.original, **held, "generated": generated}
    everything |= baselines.controls
    similarities = {**baselines.similarities, "generated": similarity}
    return {
        key: describe.describe(one, similarities[key], baselines.metric, derive(rng, key))
        for key, one in everything.items()
    }


def good_models(
    original: Population, generated: Population, min_score: float, metric: Metric
) -> GoodModels:
    """Return the similarities among models whose validation score is ``min_score`` or better, as in the paper."""
    ours, theirs = (
        one.compared[metric.sign * one.val >= metric.sign * min_score]
        for one in (generated, original)
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


def paired_tests(
    original: Population, generated: Population, average: Population, metric: Metric
) -> Tests | None:
    """Compare the selected generated model with the best original and the average by paired tests.

    None where the task has no wrong units.
    """
    if generated.wrong is None or original.wrong is None or average.wrong is None:
        return None
    chosen = generated.wrong[generated.selected(metric.sign)]
    best = original.wrong[int((metric.sign * original.val).argmax())]
    return Tests(best_original=_paired(chosen, best), average=_paired(chosen, average.wrong[0]))


def _paired(ours: Tensor, theirs: Tensor) -> Paired:
    wins, losses, p = mcnemar(ours, theirs)
    return Paired(wins=wins, losses=losses, p=p)
