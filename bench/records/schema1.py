"""Records of schema 1: their form, and their conversion to the current schema.

They can be read for ever, and are no longer written. Fields that schema 1 lacks are null after the conversion.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, field_validator, model_validator

from bench.contract.control import Control
from bench.contract.metric import Compared, Metric
from bench.errors import BadRequest
from bench.records import facts, judged, population, record, speed
from bench.records.asked import Asked
from bench.records.fields import (
    Count,
    Hash,
    Interval,
    Model,
    Moment,
    Name,
    Positive,
    Ratio,
    Seconds,
    Settings,
    Short,
    Tier,
    Unit,
    Verdict,
    Version,
)
from bench.records.population import SLACK, Likeness, Population, Similarity
from bench.system.data import Json

# The metrics that schema 1 names alone; of any other metric it says only whether higher is better.
METRICS = {
    "accuracy": Metric("accuracy", scale=100, mean_over_units=True),
    "mAP": Metric("mAP", scale=100),
    "mean IoU": Metric("mean IoU", scale=100),
}
DRAWN = "image generation"  # the kind of task whose models are compared by features
# Whether units are independent, by kind of task; schema 1 does not say it of other kinds.
INDEPENDENT = {"classification": True, "detection": False, "segmentation": False, DRAWN: True}
CONTROLS = (
    "average",
    "greedy_soup",
    "copy",
    "interpolation",
    "gaussian",
    "finetune",
)  # controls other than noise
# What a run did not say and meant by the defaults of its time, where today's are others.
LEFT_OUT: Mapping[str, Mapping[str, Json]] = {
    "shapes": {"samples": 50},
    "shapes-seg": {"samples": 50, "task_settings": {"precision": "bfloat16"}},
    "digits-ddpm": {"samples": 24},
}
ADVANTAGES = ("noise", "interpolation", "gaussian")
# Times that were measured, or are the same in both schemas.
MEASURED = (
    "device",
    "collect_s",
    "fit_s",
    "sample_s",
    "select_s",
    "score_s",
    "target_score",
    "sgd_s",
    "peak_memory_bytes",
)
# Fields of a record that are the same in both schemas.
SAME = (
    "id",
    "created",
    "key",
    "zoo",
    "protocol",
    "environment",
    "artifacts",
    "tier",
    "verified",
)


class Task(Model):
    """The task of the run, with its metric by name."""

    name: Name
    kind: Name
    dataset: Name
    dataset_hash: Hash
    arch: Name
    layers: Name
    metric: Name
    higher_is_better: bool
    units: Name
    settings: Settings

    def converted(self, *, tested: bool) -> facts.Task:
        """Return the task in the current schema, with all facts of its metric.

        Args:
            tested: whether the record has paired tests; if so, units are independent in an unknown kind of task.
        """
        metric = METRICS.get(self.metric) if self.higher_is_better else None
        independent = INDEPENDENT.get(self.kind, tested)
        return facts.Task(
            **self.model_dump(exclude={"metric", "higher_is_better", "units"}),
            metric=metric or Metric(self.metric, higher_is_better=self.higher_is_better),
            compared=Compared(self.units, independent, self.kind == DRAWN),
        )


class Generator(Model):
    """The generator; ``uses_scores`` says again whether "score" is among its ``uses``."""

    name: Name
    source: Hash
    hyperparameters: Settings
    uses_scores: bool
    uses: list[str]
    aligned: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.uses_scores is not ("score" in self.uses):
            raise ValueError("uses_scores is not what uses says")
        return self

    def converted(self) -> facts.Generator:
        """Return the generator in the current schema."""
        return facts.Generator(
            name=self.name,
            code=self.source,
            hyperparameters=self.hyperparameters,
            uses=self.uses,
            aligned=self.aligned,
        )


class Noise(population.Scores):
    """Scores of the control noise at one amplitude."""

    amplitude: Annotated[float, Field(gt=0)]


class Scores(Model):
    """Scores of every population."""

    original: population.Scores
    generated: population.Scores
    average: population.Scores
    noise: list[Noise]
    copy_: population.Scores = Field(alias="copy")
    interpolation: population.Scores
    gaussian: population.Scores
    finetune: population.Scores
    greedy_soup: population.Scores

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        amplitudes = [level.amplitude for level in self.noise]
        if amplitudes != sorted(set(amplitudes)):
            raise ValueError("noise amplitudes are not in ascending order")
        return self


def _likeness(value: float | None) -> Likeness | None:
    """Return a similarity without an interval; None for None."""
    if value is None:
        return None
    return Likeness.model_construct(value=value, low=None, high=None)


class ControlSimilarity(Model):
    """Mean IoU of a control's models with all originals, with the nearest original, and with each other."""

    original: Unit
    original_max: Unit
    within: Unit | None

    def converted(self) -> Similarity:
        """Return the similarity in the current schema; controls have no intervals."""
        return Similarity.model_construct(
            originals=_likeness(self.original),
            nearest=_likeness(self.original_max),
            within=_likeness(self.within),
        )


class Similarities(Model):
    """Mean IoU of the wrong predictions of originals, generated models and controls."""

    original_original: Interval | None
    generated_generated: Interval | None
    original_generated: Interval
    original_generated_max: Interval
    controls: dict[str, ControlSimilarity]
    good: judged.GoodModels | None = None

    @field_validator(
        "original_original", "generated_generated", "original_generated", "original_generated_max"
    )
    @classmethod
    def _shares(cls, interval: Interval | None) -> Interval | None:
        if interval and not -SLACK <= interval.low <= interval.high <= 1 + SLACK:
            raise ValueError("not between 0 and 1")
        return interval

    def of(self, name: str) -> Similarity:
        """Return the similarity of one population; an empty one for a control that is not there."""
        if name == "original":
            return Similarity(within=Likeness.of(self.original_original))
        if name == "generated":
            return Similarity(
                originals=Likeness.of(self.original_generated),
                nearest=Likeness.of(self.original_generated_max),
                within=Likeness.of(self.generated_generated),
            )
        return self.controls[name].converted() if name in self.controls else Similarity()


class Timing(Model):
    """Times. The speed-ups and the break-even are not read: they follow from the times.

    Attributes:
        sample_s: one sampling of all models, after one of a single model.
        speedup_amortised: sgd_s over one model's share of collect + fit + sample + select.
    """

    device: Name
    collect_s: Seconds | None
    fit_s: Seconds
    sample_s: Seconds
    sample_per_model_s: Seconds
    select_s: Seconds
    score_s: Seconds
    target_score: float
    sgd_s: Seconds | None
    speedup: Ratio | None
    speedup_amortised: Ratio | None
    break_even_models: Positive | None
    peak_memory_bytes: Count


class Novelty(Model):
    """Novelty of the generated models, and the verdict. Fields with a default are missing in older records."""

    advantage_over_noise: Interval | None
    advantage_over_interpolation: Interval | None
    advantage_over_gaussian: Interval | None
    typical_advantage_over_noise: Interval | None = None
    median_novelty: Unit | None = None
    beyond_noise: Unit
    beyond_interpolation: Unit | None = None
    beyond_gaussian: Unit | None = None
    nearest_l2_ratio: Ratio | None
    nearest_l2_ratio_aligned: Ratio | None = None
    toward_mean: Unit | None = None
    collapsed: bool | None
    rule: Version | None = None
    verdict: Verdict | None
    sees_training: bool | None = None

    def advantage(self, control: str) -> judged.Advantage:
        """Return the advantage over one control in the current schema."""
        return judged.Advantage(
            mean=getattr(self, f"advantage_over_{control}"),
            typical=getattr(self, f"typical_advantage_over_{control}", None),
            beyond=getattr(self, f"beyond_{control}"),
        )


def _asked(command: object) -> Asked:
    """Return the canonical request of a command line; raise ValueError where it is none."""
    if not isinstance(command, str):
        raise ValueError("expected a command line")
    try:
        asked = Asked.read(command)
        if asked.zoo or asked.task not in LEFT_OUT:
            return asked
        meant, given = LEFT_OUT[asked.task], asked.given()
        settings = {**meant.get("task_settings", {}), **asked.task_settings}
        return Asked.model_validate({**meant, **given, "task_settings": settings})
    except BadRequest as error:
        raise ValueError(str(error)) from None


class Record(Model):
    """The result of one run in schema 1; of the command line its canonical request is kept."""

    schema_: Literal[1] = Field(alias="schema")
    id: Short
    created: Moment
    command: Annotated[Asked, PlainValidator(_asked)]
    key: Short
    task: Task
    zoo: facts.Zoo
    generator: Generator
    protocol: facts.Protocol
    scores: Scores
    similarity: Similarities
    novelty: Novelty
    tests: judged.Tests | None = None
    timing: Timing
    environment: facts.Environment
    artifacts: facts.Artifacts
    tier: Tier = "claimed"
    verified: facts.Verified | None = None

    @model_validator(mode="after")
    def _counts(self) -> Self:
        if len(self.scores.original.values) != self.zoo.k:
            raise ValueError(
                "scores.original has not one value for each of the zoo's k checkpoints"
            )
        if len(self.scores.generated.values) not in (1, self.protocol.samples):
            raise ValueError("scores.generated has not one value for each sample")
        noise = (str(Control("noise", level.amplitude)) for level in self.scores.noise)
        unknown = set(self.similarity.controls) - {*CONTROLS, *noise}
        if unknown:
            raise ValueError(f"similarity.controls has '{min(unknown)}', which is no population")
        return self

    def converted(self) -> record.Record:
        """Return the record in the current schema. For speed, what was valid before is not validated again."""
        return record.Record.model_construct(
            schema_=2,
            request=self.command,
            task=self.task.converted(tested=self.tests is not None),
            generator=self.generator.converted(),
            populations=self._populations(),
            judge=self._judge(),
            timing=self._timing(),
            **{name: getattr(self, name) for name in SAME},
        )

    def _populations(self) -> dict[str, Population]:
        """Return all populations by key, the noise sweep last."""
        named = {**vars(self.scores), "copy": self.scores.copy_}
        found = [
            self._population(name, named[name]) for name in ("original", "generated", *CONTROLS)
        ]
        found += [self._population("noise", level) for level in self.scores.noise]
        return {one.key: one for one in found}

    def _population(self, name: str, scores: population.Scores) -> Population:
        """Return one population in the current schema, with its similarity."""
        role = "control" if name in (*CONTROLS, "noise") else name
        amplitude = scores.amplitude if isinstance(scores, Noise) else None
        aligned = role == "generated" and self.generator.aligned
        return Population.model_construct(
            **{
                **vars(scores),
                "name": name,
                "role": role,
                "aligned": aligned,
                "amplitude": amplitude,
                "n": len(scores.values),
                "similarity": self.similarity.of(
                    name if amplitude is None else str(Control(name, amplitude))
                ),
            }
        )

    def _timing(self) -> facts.Timing:
        """Return the times in the current schema; what follows from others is computed by today's formulas."""
        said, zoo = self.timing, self.zoo
        based = speed.has_base(zoo.track, self.task.layers, zoo.base_score)
        sgd = speed.Sgd(None, said.sgd_s, None if based else said.sgd_s)
        cost = speed.Cost.measured(
            collect_s=said.collect_s,
            fit_s=said.fit_s,
            sample_s=said.sample_s,
            select_s=said.select_s,
            models=len(self.scores.generated.values),
        )
        return facts.Timing.model_construct(
            **{name: getattr(said, name) for name in MEASURED},
            sample_repeats_s=None,
            base_s=None,
            marginal_s=sgd.marginal_s,
            **vars(speed.speed(cost, sgd, self.novelty.verdict)),
        )

    def _judge(self) -> judged.Judge:
        """Return the verdict and the numbers it is made of in the current schema."""
        novelty = self.novelty
        return judged.Judge(
            word=novelty.verdict,
            rule=novelty.rule,
            collapsed=novelty.collapsed,
            median_novelty=novelty.median_novelty,
            advantages={name: novelty.advantage(name) for name in ADVANTAGES},
            sees_training=novelty.sees_training,
            origin=judged.Origin(
                nearest_l2_ratio=novelty.nearest_l2_ratio,
                nearest_l2_ratio_aligned=novelty.nearest_l2_ratio_aligned,
                toward_mean=novelty.toward_mean,
            ),
            tests=self.tests,
            good=self.similarity.good,
        )
