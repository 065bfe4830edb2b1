"""Parts of a record that follow from its populations: the verdict with the numbers it is made of, and paired tests."""

from typing import Annotated

from pydantic import Field

from bench.records.fields import Count, Interval, Model, Name, Unit, Verdict, Version

Ratio = Annotated[float, Field(ge=0)]


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
        nearest_l2_ratio: median distance to the nearest original over the originals' own median nearest distance.
        nearest_l2_ratio_aligned: the same after hidden units were aligned to the original's; null where they cannot be,
            and in zoos of more than 2^28 values.
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


class Judge(Model):
    """The verdict on the generated models; fields with a default are missing in older records.

    Attributes:
        word: broken, copies, averages or novel, by ``bench.records.verdict``.
        rule: version of the rule, and of the intervals it reads; null in records from before there was one.
        collapsed: whether generated models are more alike than the originals are.
        median_novelty: median over generated models of 1 - similarity with the nearest original.
        advantages: advantage over each of noise, interpolation and gaussian, by the control's name.
        sees_training: whether the rule calls the fine-tuned originals novel. Where it does not, it cannot tell really
            trained models from controls here, and "copies" or "averages" means no more than that.
        origin: where the generated models lie in weight space.
        tests: paired tests; null where units are not independent, or neither right nor wrong.
        good: comparisons of good models alone; null where no ``min_score`` was asked for.
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
