"""The verdict: one word for a generator, by a rule on the record's numbers alone. docs/verdict.md has the reasons."""

import dataclasses
from collections.abc import Mapping

from bench.records.fields import Verdict
from bench.records.judged import Advantage
from bench.records.population import Population, Similarity
from bench.records.record import Record

RULE = 1  # of the verdict and of the intervals it reads; a record says by which it was written
LOST = 0.5  # share of what separates originals from the noisiest control; a generator that lost more is broken
BEYOND = 0.95  # a control is beaten by reach alone if this share of models is more novel than any of its models
TOWARD_MEAN = 0.48  # models below it are nearer to a checkpoint than to the checkpoints' mean
MODELS = 10  # a population of fewer is not called novel
AVERAGES = ("average", "interpolation", "gaussian")
LIKENED = (*AVERAGES, "copy", "noise")  # controls that copy or average


@dataclasses.dataclass(frozen=True)
class Means:
    """Mean scores that say whether a generator is broken.

    Attributes:
        generated: of the models that are judged.
        original: of the zoo.
        ruined: of the noise control at its largest amplitude.
    """

    generated: float
    original: float
    ruined: float

    @property
    def lost(self) -> float:
        """Share of what separates the originals from the noisiest control that is lost."""
        apart = self.original - self.ruined
        return (self.original - self.generated) / apart if apart else 0.0


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the rule reads of the models that are judged.

    Attributes:
        models: how many there are.
        median_novelty: median of 1 - similarity with the nearest original.
        toward_mean: where they lie between the nearest original and the mean of all, see ``judged.Origin``.
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
        evidence: of the judged models.
        own: similarity of the judged models.
        controls: that of every control that copies or averages, by the control's name.
    """
    if means.lost > LOST or worse_than_all(evidence.advantages):
        return "broken"
    if is_novel(evidence):
        return "novel"
    near = evidence.toward_mean is not None and evidence.toward_mean < TOWARD_MEAN
    return "copies" if near and nearest_control(own, controls) not in AVERAGES else "averages"


def of(record: Record) -> Verdict:
    """Return the verdict that a record's numbers give."""
    made, judge = record.generated, record.judge
    means = Means(made.mean, record.original.mean, noisiest(record.controls).mean)
    evidence = Evidence(made.n, judge.median_novelty, judge.origin.toward_mean, judge.advantages)
    controls = {
        name: one.similarity for name, one in record.controls.items() if one.name in LIKENED
    }
    return verdict(means, evidence, made.similarity, controls)


def noisiest(controls: Mapping[str, Population]) -> Population:
    """Return the noise control at its largest amplitude."""
    return max(controls.values(), key=lambda one: one.amplitude or 0.0)


def worse_than_all(advantages: Mapping[str, Advantage]) -> bool:
    """Return whether the models are below every control at equal novelty, the intervals wholly below zero."""
    means = [advantage.mean for advantage in advantages.values()]
    return all(mean is not None and mean.high < 0 for mean in means)


def is_novel(evidence: Evidence) -> bool:
    """Return whether most models differ from every original, and at matched novelty score above every control.

    Against noise the 40th percentile counts too: a few new models among copies raise the mean alone.
    """
    new = evidence.median_novelty is not None and evidence.median_novelty > 0
    advantages = evidence.advantages.values()
    ahead = all(one.typical is None or one.typical.low > 0 for one in advantages)
    return evidence.models >= MODELS and new and ahead and all(map(beats, advantages))


def beats(advantage: Advantage) -> bool:
    """Return whether the interval is above zero, or hardly any model is within the control's range of novelty."""
    above = advantage.mean is not None and advantage.mean.low > 0
    return above or (advantage.beyond is not None and advantage.beyond >= BEYOND)


def nearest_control(own: Similarity, controls: Mapping[str, Similarity]) -> str:
    """Return the control whose similarities are most like the judged models'.

    Compared are those with the originals, with the nearest original, and within the population: the mean absolute
    difference of those that both have.
    """
    return min(controls, key=lambda name: _distance(own, controls[name]))


def _distance(a: Similarity, b: Similarity) -> float:
    pairs = [(a.originals, b.originals), (a.nearest, b.nearest), (a.within, b.within)]
    known = [abs(x.value - y.value) for x, y in pairs if x is not None and y is not None]
    return sum(known) / len(known) if known else 0.0
