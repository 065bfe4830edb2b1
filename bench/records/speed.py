"""Speed beside SGD: what models cost by training, what they cost by the generator, and the speed-ups between the two.

Every formula stands here once. Whoever writes a record, reads an earlier one, checks one or draws one computes with it.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.records.fields import LARGEST, Verdict

if TYPE_CHECKING:  # a record is read with these formulas
    from bench.records.record import Record

AMORTISED = (1, 10, 100)  # numbers of models that a record has an amortised speed-up for


@dataclasses.dataclass(frozen=True)
class Sgd:
    """Training time of SGD, in seconds.

    Attributes:
        base_s: until the zoo's own base; None where there is none, or nothing is known of its training.
        target_s: from the start until the target score; None where it was never reached, or there is no curve.
        marginal_s: from the base until the target score, or from the start where there is no base; None where the base
            reaches the target already, SGD never does, or one of the two times is not known.
    """

    base_s: float | None
    target_s: float | None
    marginal_s: float | None


def has_base(track: str, layers: str, base_score: float | None) -> bool:
    """Return whether the checkpoints of a zoo start from a trained base, so that the next one would, too.

    Independent runs of whole networks each start anew. Where a part of the network is trained, the rest of the base is
    there, on either track.

    Args:
        track: trajectory, seeds or imported.
        layers: the generated part of the network.
        base_score: validation score of the base; None where there is none, or it is unknown.
    """
    return base_score is not None and not (track == "seeds" and layers == "all")


def of_sgd(
    curve: Sequence[tuple[float, float]],
    checkpoints: int,
    *,
    target: float,
    sign: float,
    based: bool,
) -> Sgd:
    """Return when SGD was at the base and at the target score.

    Args:
        curve: (seconds of training, validation score) in order; the last points are the checkpoints, the one before
            them is the base.
        checkpoints: how many there are.
        target: the score to reach.
        sign: 1 where a higher score is better, otherwise -1.
        based: ``has_base`` of the zoo.
    """
    target_s = _first(curve, target, sign)
    if not based:
        return Sgd(None, target_s, target_s)
    if len(curve) <= checkpoints:
        return Sgd(None, target_s, None)
    base_s, base_score = curve[-checkpoints - 1]
    if sign * base_score >= sign * target:
        return Sgd(base_s, target_s, None)
    reached = _first(curve[-checkpoints:], target, sign)
    return Sgd(base_s, target_s, None if reached is None else reached - base_s)


def _first(curve: Sequence[tuple[float, float]], target: float, sign: float) -> float | None:
    return next((seconds for seconds, score in curve if sign * score >= sign * target), None)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What models of a generator cost, in seconds.

    Attributes:
        collect_s: training all checkpoints; None where that is unknown.
        fit_s: fitting the generator.
        sample_per_model_s, select_per_model_s: sampling a model, and scoring it on the training split to select one.
    """

    collect_s: float | None
    fit_s: float
    sample_per_model_s: float
    select_per_model_s: float

    @classmethod
    def measured(
        cls, *, collect_s: float | None, fit_s: float, sample_s: float, select_s: float, models: int
    ) -> "Cost":
        """Return the cost by the times of a run that sampled and scored this many models."""
        return cls(collect_s, fit_s, sample_s / models, select_s / models)

    @classmethod
    def of(cls, record: "Record") -> "Cost":
        """Return the cost by the times that a record measured."""
        times = record.timing
        return cls.measured(
            collect_s=times.collect_s,
            fit_s=times.fit_s,
            sample_s=times.sample_s,
            select_s=times.select_s,
            models=record.generated.n,
        )

    @property
    def per_model_s(self) -> float:
        """Seconds that one more model costs: sampling and selecting."""
        return self.sample_per_model_s + self.select_per_model_s

    @property
    def fixed_s(self) -> float | None:
        """Seconds before the first model: collecting and fitting; None where the former is unknown."""
        return None if self.collect_s is None else self.collect_s + self.fit_s

    def in_all(self, models: int) -> float | None:
        """Return the seconds that this many models cost, with all that came before the first."""
        return None if self.fixed_s is None else self.fixed_s + models * self.per_model_s


@dataclasses.dataclass(frozen=True)
class Speed:
    """The numbers of a record's ``timing`` that follow from its measured times; ``facts.Timing`` defines each."""

    sample_per_model_s: float
    select_per_model_s: float
    speedup: float | None
    speedup_marginal: float | None
    speedup_amortised_1: float | None
    speedup_amortised_10: float | None
    speedup_amortised_100: float | None
    break_even_models: int | None


def speed(cost: Cost, sgd: Sgd, word: Verdict | None) -> Speed:
    """Return the speed-ups and the break-even of a generator.

    Args:
        cost: of its models.
        sgd: SGD's time to the same score.
        word: the verdict. A generator of broken models saves nobody any training: it has no speed-up.
    """
    wanted = sgd if word != "broken" else Sgd(None, None, None)
    amortised = {
        f"speedup_amortised_{models}": _quotient(
            None if wanted.target_s is None else models * wanted.target_s, cost.in_all(models)
        )
        for models in AMORTISED
    }
    return Speed(
        sample_per_model_s=cost.sample_per_model_s,
        select_per_model_s=cost.select_per_model_s,
        speedup=_quotient(wanted.target_s, cost.sample_per_model_s),
        speedup_marginal=_quotient(wanted.marginal_s, cost.per_model_s),
        **amortised,
        break_even_models=_break_even(cost, wanted.target_s),
    )


def _quotient(seconds: float | None, cost: float | None) -> float | None:
    """Return a quotient; None where a term is None or the divisor is 0."""
    return None if seconds is None or not cost else seconds / cost


def _break_even(cost: Cost, target_s: float | None) -> int | None:
    """Return how many models pay for all that came before the first; None where no number does."""
    if target_s is None or cost.fixed_s is None or target_s <= cost.per_model_s:
        return None
    models = cost.fixed_s / (target_s - cost.per_model_s)
    return max(1, math.ceil(models)) if models <= LARGEST else None


def without_marginal(record: "Record") -> str:
    """Return in words why a record has no time of SGD from the zoo's own base to the target score."""
    zoo, target, sign = record.zoo, record.timing.target_score, record.task.metric.sign
    if record.timing.sgd_s is None:
        return "SGD's time to the same score is not known"
    base = zoo.base_score
    if base is not None and sign * base >= sign * target:
        return "not applicable: the zoo's own base is there already"
    return "not known: when the base was trained is not recorded"
