"""The verdict: one word for a generator, by a rule on the record's numbers alone. docs/verdict.md explains the rule."""

import dataclasses
from collections.abc import Mapping

from bench.records.fields import Verdict
from bench.records.judged import Advantage
from bench.records.population import Population, Similarity
from bench.records.record import Record

RULE = 1  # version of the rule and of the intervals it reads, as written into records
LOST = 0.5  # largest ``Means.lost`` of a generator that is not broken
# Share of models more novel than any of a control's, from which on the control is beaten by that alone.
BEYOND = 0.95
TOWARD_MEAN = 0.48  # below it, models are nearer to a checkpoint than to the checkpoints' mean
MODELS = 10  # fewest models that can be called novel
AVERAGES = ("average", "interpolation", "gaussian")
# Controls that generated models are compared with to tell copies from averages.
LIKENED = (*AVERAGES, "copy", "noise")


@dataclasses.dataclass(frozen=True)
class Means:
    """Mean scores that decide whether a generator is broken, in the metric's unit.

    Attributes:
        generated: mean score of the models that are judged.
        original: mean score of the zoo's checkpoints.
        ruined: mean score of the noise control at its largest amplitude.
    """

    generated: float
    original: float
    ruined: float

    @property
    def lost(self) -> float:
        """The loss of score as a share of the difference between the originals and the noisiest control."""
        apart = self.original - self.ruined
        return (self.original - self.generated) / apart if apart else 0.0


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The numbers on the judged models that the rule reads.

    Attributes:
        models: number of models.
        median_novelty: median of 1 - similarity to the nearest original.
        toward_mean: position between the nearest original (0) and the mean of all (1), see ``judged.Origin``.
        advantages: score above each control's at the same novelty.
    """

    models: int
    median_novelty: float | None
    toward_mean: float | None
    advantages: Mapping[str, Advantage]


def verdict(
    means: Means, evidence: Evidence, own: Similarity, controls: Mapping[str, Similarity]
) -> Verdict:
    """Return broken, novel, copies or averages, tried in this order.

    Args:
        means: mean scores.
        evidence: numbers on the judged models.
        own: similarity of the judged models.
        controls: similarity of every control that copies or averages, by the control's name.
    """
    if means.lost > LOST or worse_than_all(evidence.advantages):
        return "broken"
    if is_novel(evidence):
        return "novel"
    near = evidence.toward_mean is not None and evidence.toward_mean < TOWARD_MEAN
    return "copies" if near and nearest_control(own, controls) not in AVERAGES else "averages"


def of(record: Record) -> Verdict:
    """Return the verdict on a record's generated models, by its numbers."""
    made, judge = record.generated, record.judge
    means = Means(made.mean, record.original.mean, noisiest(record.controls).mean)
    evidence = Evidence(made.n, judge.median_novelty, judge.origin.toward_mean, judge.advantages)
    controls = {
        name: one.similarity
        for name, one in record.controls.items()
        if one.name in LIKENED and not one.aligned
    }
    return verdict(means, evidence, made.similarity, controls)


def noisiest(controls: Mapping[str, Population]) -> Population:
    """Return the noise control at its largest amplitude."""
    return max(controls.values(), key=lambda one: one.amplitude or 0.0)


def worse_than_all(advantages: Mapping[str, Advantage]) -> bool:
    """Return whether every control scores higher at equal novelty, with all intervals below zero."""
    means = [advantage.mean for advantage in advantages.values()]
    return all(mean is not None and mean.high < 0 for mean in means)


def is_novel(evidence: Evidence) -> bool:
    """Return whether most models differ from every original, and at equal novelty score above every control.

    Against noise the 40th percentile counts too: a few new models among copies raise the mean alone.
    """
    new = evidence.median_novelty is not None and evidence.median_novelty > 0
    advantages = evidence.advantages.values()
    ahead = all(one.typical is None or one.typical.low > 0 for one in advantages)
    return evidence.models >= MODELS and new and ahead and all(map(beats, advantages))


def beats(advantage: Advantage) -> bool:
    """Return whether the advantage's interval is above zero, or nearly all models are beyond the control's novelty."""
    above = advantage.mean is not None and advantage.mean.low > 0
    return above or (advantage.beyond is not None and advantage.beyond >= BEYOND)


def nearest_control(own: Similarity, controls: Mapping[str, Similarity]) -> str:
    """Return the name of the control whose similarities are closest to those of the judged models.

    The distance of two populations is the mean absolute difference of those similarities that both have: to all
    originals, to the nearest original, and within the population.
    """
    return min(controls, key=lambda name: _distance(own, controls[name]))


def _distance(a: Similarity, b: Similarity) -> float:
    pairs = [(a.originals, b.originals), (a.nearest, b.nearest), (a.within, b.within)]
    known = [abs(x.value - y.value) for x, y in pairs if x is not None and y is not None]
    return sum(known) / len(known) if known else 0.0
