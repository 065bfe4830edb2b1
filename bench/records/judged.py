"""Parts of a record that follow from its populations: the verdict with the numbers it is made of, and paired tests."""

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from bench.records.fields import Count, Interval, Model, Name, Ratio, Unit, Verdict, Version

KINDS = ("new", "copies", "averages", "broken")  # what models are made of
# A difference of scores that matters: half a point of a share; of another metric, half a percent of the reference's.
MARGIN = 0.005


class Advantage(Model):
    """The score of the generated models above a control's at the same novelty (docs/record.md, "novelty").

    Attributes:
        mean: mean difference in the metric's unit; null where no generated model is within the control's range of
            novelty.
        typical: the 40th percentile of the difference instead of the mean; given for the control noise alone.
        beyond: share of generated models that are more novel than any of the control's, and so not compared.
    """

    mean: Interval | None
    typical: Interval | None = None
    beyond: Unit | None


class Origin(Model):
    """Where the generated models lie in weight space.

    Attributes:
        nearest_l2_ratio: median distance to the nearest original over that of the reference, hidden units aligned
            (``bench.judge.align.Comparer``); null without a reference. In records of schema 1 it is over the originals'
            own median nearest distance, and not aligned.
        nearest_l2_ratio_aligned: of schema 1 alone: the same after alignment.
        toward_mean: median of a / (a + b) for the distances a to the nearest original and b to the originals' mean: 0
            at an original, 1 at the mean.
    """

    nearest_l2_ratio: Ratio | None
    nearest_l2_ratio_aligned: Ratio | None = None
    toward_mean: Unit | None = None


class Paired(Model):
    """A paired test of two models on the same validation units.

    Attributes:
        wins, losses: number of units that only the first, or only the second, gets right.
        p: p-value of the exact McNemar test, two-sided.
    """

    wins: Count
    losses: Count
    p: Unit


class Tests(Model):
    """Paired tests of the selected generated model with the best original (on validation), and with the average."""

    best_original: Paired
    average: Paired


class GoodModels(Model):
    """The paper's four comparisons among good models only (section 4): those that score ``min_score`` or better.

    Attributes:
        min_score: the lowest validation score of a good model; the highest where a lower one is better.
        originals, generated: number of good models.
        original_original, generated_generated, original_generated, original_generated_max: mean similarity; null where
            there are too few models.
    """

    min_score: float
    originals: Count
    generated: Count
    original_original: Unit | None
    generated_generated: Unit | None
    original_generated: Unit | None
    original_generated_max: Unit | None


class Composition(Model):
    """What the models of a population are made of: the mixture of known populations that best reproduces them.

    Each share has its bootstrap interval over all models.

    Attributes:
        new: share of the reference, which are models that really were trained.
        copies, averages, broken: shares of the checkpoints and of the controls that are made so.
        residual: energy distance that the mixture leaves, over the reference's mean distance; about 0 where it is true.
        p: share of samples of the mixture itself that leave as much.
    """

    new: Interval
    copies: Interval
    averages: Interval
    broken: Interval
    residual: float
    p: Unit

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if not math.isclose(math.fsum(self.shares.values()), 1, abs_tol=1e-6):
            raise ValueError("the shares do not sum to 1")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The shares by what they are of: new, copies, averages, broken."""
        return {name: getattr(self, name).value for name in KINDS}


class CopyTest(Model):
    """Whether models are nearer to the checkpoints than models that never saw them.

    Attributes:
        nearer: models that put out what a checkpoint does more closely than any model of the reference does.
        p: of the exact test.
    """

    nearer: Count
    p: Unit


class Quality(Model):
    """The mean score of a population beside the reference's.

    Attributes:
        difference: mean score minus the reference's, with Welch's 95 % interval; above 0 is better in every metric.
        margin: difference that is taken to matter, see ``MARGIN``.
        equivalence: p of two one-sided tests against a difference of the margin or more.
    """

    difference: Interval
    margin: Annotated[float, Field(ge=0)]
    equivalence: Unit


class Variety(Model):
    """How varied a population is beside the reference: ratios at equal numbers of models, each with its interval.

    Attributes:
        distance: ratio of mean distances within.
        vendi: ratio of Vendi scores (Friedman and Dieng 2023), the effective numbers of different models.
    """

    distance: Interval
    vendi: Interval

    @property
    def collapsed(self) -> bool:
        """Whether the models vary less than the reference: the whole interval of the distance is below its."""
        return self.distance.high < 1


class Fidelity(Model):
    """p-values of two exact two-sample tests against the reference: energy distance of outputs, and of weights."""

    outputs: Unit
    weights: Unit


class Judgement(Model):
    """One population against the reference; what needs two models is null for a single one.

    Attributes:
        composition: what its models are made of.
        copying: the copy test.
        quality: its scores.
        variety: its spread.
        fidelity: whether it could be the reference; reported, and asked for by no rule.
        span_residual: median share of a model's deviation from the checkpoints' mean that no affine combination of
            checkpoints explains; null with fewer parameters than checkpoints.
    """

    composition: Composition
    copying: CopyTest
    quality: Quality | None = None
    variety: Variety | None = None
    fidelity: Fidelity | None = None
    span_residual: Unit | None = None


class Judge(Model):
    """The verdict on the generated models; fields with a default are missing in older records.

    Attributes:
        word: broken, copies, averages, novel or undecided, by ``bench.records.verdict``.
        rule: version of the rule, and of the intervals it reads; null in records from before there was one.
        collapsed: whether generated models vary less than the reference: the whole interval of their mean distance is
            below its. Null without a reference. In records of schema 1: whether they are more alike than the originals.
        median_novelty: median over generated models of 1 - similarity with the nearest original.
        advantages: advantage over each of noise, interpolation and gaussian, by the control's name.
        sees_training: whether the rule calls the fine-tuned originals novel. Where it does not, it cannot tell really
            trained models from controls here, and "copies" or "averages" means no more than that.
        origin: where the generated models lie in weight space.
        tests: paired tests; null where units are not independent, or neither right nor wrong.
        good: comparisons of good models alone; null where no ``min_score`` was asked for.
        against_reference: every population against the reference, by its key; empty where there is none.
        resolution: new share of one half of the reference against the other, minus the largest of any control; null
            without a reference.
    """

    word: Verdict | None
    rule: Version | None = None
    collapsed: bool | None
    median_novelty: Unit | None = None
    advantages: dict[Name, Advantage]
    sees_training: bool | None = None
    origin: Origin
    tests: Tests | None = None
    good: GoodModels | None = None
    against_reference: dict[Name, Judgement] = {}
    resolution: Annotated[float, Field(ge=-1, le=1)] | None = None
