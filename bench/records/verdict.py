"""The verdict: one word for a generator, by a rule on the record's numbers alone. docs/verdict.md has the reasons."""

import dataclasses
from collections.abc import Mapping

from bench.records.record import ControlSimilarity, Interval, Novelty, Record, Similarity, Verdict

RULE = 1  # of the verdict and of the intervals it reads; a record says by which it was written
LOST = 0.5  # share of what separates originals from the noisiest control; a generator that lost more is broken
BEYOND = 0.95  # a control is beaten by reach alone if this share of models is more novel than any of its models
TOWARD_MEAN = 0.48  # models below it are nearer to a checkpoint than to the checkpoints' mean
MODELS = 10  # a population of fewer is not called novel
AVERAGES = ("average", "interpolation", "gaussian")


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


def verdict(means: Means, models: int, similarity: Similarity, novelty: Novelty) -> Verdict:
    """Broken, novel, copies or averages, tried in this order.

    Args:
        means: mean scores.
        models: how many are judged.
        similarity: of the judged models and every control to the originals.
        novelty: the judged models' advantages over the controls.
    """
    if means.lost > LOST or worse_than_all(novelty):
        return "broken"
    if is_novel(models, novelty):
        return "novel"
    near = novelty.toward_mean is not None and novelty.toward_mean < TOWARD_MEAN
    return "copies" if near and nearest_control(similarity) not in AVERAGES else "averages"


def of(record: Record) -> Verdict:
    """The verdict that a record's numbers give."""
    scores = record.scores
    means = Means(scores.generated.mean, scores.original.mean, scores.noise[-1].mean)
    return verdict(means, len(scores.generated.values), record.similarity, record.novelty)


def worse_than_all(novelty: Novelty) -> bool:
    """At equal novelty below every control, the intervals wholly below zero."""
    advantages = [advantage for advantage, _ in over_controls(novelty).values()]
    return all(advantage is not None and advantage.high < 0 for advantage in advantages)


def is_novel(models: int, novelty: Novelty) -> bool:
    """Most models differ from every original, and at matched novelty they score above every control.

    Against noise the 40th percentile counts too: a few new models among copies raise the mean alone.
    """
    typical = novelty.typical_advantage_over_noise
    most_new = novelty.median_novelty is not None and novelty.median_novelty > 0
    ahead = typical is None or typical.low > 0
    beaten = all(beats(*against) for against in over_controls(novelty).values())
    return models >= MODELS and most_new and ahead and beaten


def beats(advantage: Interval | None, beyond: float | None) -> bool:
    """The interval is above zero, or hardly any model is within the control's range of novelty."""
    above = advantage is not None and advantage.low > 0
    return above or (beyond is not None and beyond >= BEYOND)


def over_controls(novelty: Novelty) -> Mapping[str, tuple[Interval | None, float | None]]:
    """Advantage, and share of models out of reach, by control."""
    return {
        "noise": (novelty.advantage_over_noise, novelty.beyond_noise),
        "interpolation": (novelty.advantage_over_interpolation, novelty.beyond_interpolation),
        "gaussian": (novelty.advantage_over_gaussian, novelty.beyond_gaussian),
    }


def nearest_control(similarity: Similarity) -> str:
    """The copying or averaging control whose similarities are most like the judged models'.

    Compared are the IoU with originals, with the nearest original, and within the population: the mean absolute
    difference of those that both have.
    """
    within = similarity.generated_generated
    own = ControlSimilarity(
        original=similarity.original_generated.value,
        original_max=similarity.original_generated_max.value,
        within=None if within is None else within.value,
    )
    distances = {
        name: _distance(own, control)
        for name, control in similarity.controls.items()
        if name in (*AVERAGES, "copy") or name.startswith("noise ")
    }
    return min(distances, key=distances.__getitem__)


def _distance(a: ControlSimilarity, b: ControlSimilarity) -> float:
    pairs = [(a.original, b.original), (a.original_max, b.original_max)]
    if a.within is not None and b.within is not None:
        pairs.append((a.within, b.within))
    return sum(abs(x - y) for x, y in pairs) / len(pairs)
