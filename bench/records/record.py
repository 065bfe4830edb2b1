"""The record: one run's result, typed, validated on write and on load. Imports neither torch nor the harness."""

import datetime
import functools
import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from bench.errors import BadRequest, printable
from bench.records.asked import Asked
from bench.system import reading
from bench.system.store import digest, write_text

SCHEMA = 1
PROTOCOL = 1  # its version: records of different versions are never ranked together
LIMIT = 20_000_000  # bytes of a file
LARGEST = 2**53  # whole numbers up to it are exact wherever JSON is read
FIRST = 2024  # the year before which no record was made
SKEW = datetime.timedelta(minutes=5)  # by which the clocks of two machines may differ

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Short = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Version = Annotated[int, Field(ge=1, le=1000)]
Seconds = Annotated[float, Field(ge=0)]
Unit = Annotated[float, Field(ge=0, le=1)]
Tier = Literal["claimed", "rescored", "regenerated"]
Verdict = Literal["broken", "copies", "averages", "novel"]

Name = Annotated[str, Field(min_length=1, max_length=300)]


def _finite(value: Any) -> Any:
    """Refuse NaN, inf and huge whole numbers anywhere in plain data."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        _finite(part)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is not finite")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"a whole number is beyond {LARGEST}")
    return value


def _plausible(created: datetime.datetime) -> datetime.datetime:
    """Refuse times at which no record can have been made."""
    try:
        moment = created.astimezone(datetime.UTC)
    except (OverflowError, ValueError):
        raise ValueError("this time cannot be told in UTC") from None
    if moment.year < FIRST:
        raise ValueError(f"this is before {FIRST}, when there was no record yet")
    if moment > datetime.datetime.now(datetime.UTC) + SKEW:
        raise ValueError("this is in the future")
    return created


def _plain(name: str) -> str:
    """Refuse names of files that lead into another folder, or nowhere."""
    if name in (".", "..") or not name.isprintable() or any(mark in name for mark in "/\\"):
        raise ValueError("not the plain name of a file")
    return name


Settings = Annotated[dict[str, Any], AfterValidator(_finite)]
Moment = Annotated[AwareDatetime, AfterValidator(_plausible)]
FileName = Annotated[Name, AfterValidator(_plain)]


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, serialize_by_alias=True
    )


class Task(_Model):
    """What was solved: the data, the architecture, the metric.

    ``settings`` holds how its checkpoints were trained, and under ``scoring`` what else decides a score, if there is
    something.
    """

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


class Zoo(_Model):
    """The checkpoints. ``base_score`` is the trained network's score before its generated part was collected."""

    hash: Hash
    track: Name
    k: Positive
    d: Positive
    seed: Seed | None
    base_score: float | None


class Generator(_Model):
    """The generator.

    Attributes:
        source: SHA-256 of its code.
        uses: what it got beyond the zoo.
        aligned: whether it was fitted on checkpoints with their hidden units aligned.
    """

    name: Name
    source: Hash
    hyperparameters: Settings
    uses_scores: bool
    uses: list[str]
    aligned: bool = False


class Protocol(_Model):
    """How it was run. ``selection`` says by what, on the training split, the selected model was chosen."""

    version: Version
    preset: Name
    samples: Positive
    seed: Seed
    selection: Name
    train_size: Positive
    val_size: Positive


def _moments(values: list[float], ordered: list[float]) -> dict[str, float | None]:
    """Mean, median and std (of n - 1; None for one value)."""
    n = len(values)
    mean = math.fsum(values) / n
    return {
        "mean": mean,
        "median": (ordered[(n - 1) // 2] + ordered[n // 2]) / 2,
        "std": math.dist(values, [mean] * n) / math.sqrt(n - 1) if n > 1 else None,
    }


def _close(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)


class Further(_Model):
    """Another metric of a population on validation: the mean over its models, and that of the selected one."""

    mean: float
    selected: float


class Population(_Model):
    """Scores of one population of models on validation.

    Attributes:
        best, mean, median, worst, std: over ``values``; std has n - 1 in its denominator, null for one model.
        selected: the score of the model that was chosen on the training split.
        low, high: 95 % bootstrap interval of the mean over models.
        values: the score of every model.
        further: other metrics by name; nothing is selected by them.
        not_finite: how many of the models put out something that is not finite (NaN or infinite) for some example,
            which counts as wrong; null in records from before this was counted.
    """

    best: float
    selected: float
    mean: float
    median: float
    worst: float
    std: Annotated[float, Field(ge=0)] | None
    low: float
    high: float
    values: Annotated[list[float], Field(min_length=1)]
    further: dict[Name, Further] = {}
    not_finite: Count | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = sorted((self.worst, self.best))
        slack = 1e-9 * max(1.0, abs(low), abs(high))
        for name in ("selected", "mean", "median", "low", "high"):
            if not low - slack <= getattr(self, name) <= high + slack:
                raise ValueError(f"{name} is not between worst and best")
        if self.not_finite is not None and self.not_finite > len(self.values):
            raise ValueError("not_finite is more than there are models")
        ordered = sorted(self.values)
        if not math.isclose(ordered[-1], high) or not math.isclose(ordered[0], low):
            raise ValueError("best and worst are not those of values")
        for name, value in _moments(self.values, ordered).items():
            if not _close(getattr(self, name), value):
                raise ValueError(f"{name} is not that of values")
        # Membership first: it is nearly always there as it stands, and a leaderboard reads thousands of records.
        if self.selected not in self.values and not any(
            math.isclose(value, self.selected) for value in self.values
        ):
            raise ValueError("selected is not among values")
        return self


class NoisePopulation(Population):
    """One amplitude of the noise sweep: sigma times each tensor's own std within the checkpoint."""

    amplitude: Annotated[float, Field(gt=0)]


class Scores(_Model):
    """Every population that was scored."""

    original: Population
    generated: Population
    average: Population
    noise: list[NoisePopulation]
    copy_: Population = Field(alias="copy")
    interpolation: Population
    gaussian: Population
    finetune: Population
    greedy_soup: Population

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        amplitudes = [level.amplitude for level in self.noise]
        if amplitudes != sorted(set(amplitudes)):
            raise ValueError("noise amplitudes are not in ascending order")
        return self

    def controls(self) -> dict[str, Population]:
        """The controls by name, the noise sweep last, one entry an amplitude."""
        named: dict[str, Population] = {
            "average": self.average,
            "greedy_soup": self.greedy_soup,
            "copy": self.copy_,
            "interpolation": self.interpolation,
            "gaussian": self.gaussian,
            "finetune": self.finetune,
        }
        return named | {f"noise {level.amplitude:g}": level for level in self.noise}


class Interval(_Model):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError("value is not between low and high")
        return self


class ControlSimilarity(_Model):
    """A control's mean IoU with originals, with the nearest original, and within itself."""

    original: Unit
    original_max: Unit
    within: Unit | None


class GoodModels(_Model):
    """The paper's four comparisons among good models only (section 4): those that score ``min_score`` or better.

    Attributes:
        min_score: on validation.
        originals, generated: how many there are.
        original_original, generated_generated, original_generated, original_generated_max: mean IoU; null where there
            are too few models.
    """

    min_score: float
    originals: Count
    generated: Count
    original_original: Unit | None
    generated_generated: Unit | None
    original_generated: Unit | None
    original_generated_max: Unit | None


class Similarity(_Model):
    """IoU of wrong sets (paper, equation 7); pairs of a model with itself are left out."""

    original_original: Interval | None
    generated_generated: Interval | None
    original_generated: Interval
    original_generated_max: Interval
    controls: dict[str, ControlSimilarity]
    good: GoodModels | None = None

    @field_validator(
        "original_original", "generated_generated", "original_generated", "original_generated_max"
    )
    @classmethod
    def _shares(cls, interval: Interval | None) -> Interval | None:
        if interval and not -1e-9 <= interval.low <= interval.high <= 1 + 1e-9:
            raise ValueError("not between 0 and 1")
        return interval


class Novelty(_Model):
    """How new the generated models are; see design section 5. Fields with a default are missing in older records.

    Attributes:
        advantage_over_noise, advantage_over_interpolation, advantage_over_gaussian: mean score above the control's at
            the same novelty; null where no generated model lies within the control's range.
        typical_advantage_over_noise: the 40th percentile instead of the mean.
        median_novelty: of 1 - IoU with the nearest original.
        beyond_noise, beyond_interpolation, beyond_gaussian: share of generated models that are more novel than any of
            the control's, and so not compared.
        nearest_l2_ratio: median distance to the nearest original over the originals' own median nearest distance.
        nearest_l2_ratio_aligned: the same after hidden units were aligned to the original's; null where they cannot be,
            and in zoos of more than 2^28 values.
        toward_mean: median of a / (a + b) for the distances a to the nearest original and b to the originals' mean: 0
            at an original, 1 at the mean.
        collapsed: whether generated models are more alike than the originals are.
        rule: version of the rule, and of the intervals it reads; null in records from before there was one.
        verdict: broken, copies, averages or novel, by ``bench.records.verdict``.
        sees_training: whether the rule calls the fine-tuned originals novel. Where it does not, it cannot tell really
            trained models from controls here, and "copies" or "averages" means no more than that.
    """

    advantage_over_noise: Interval | None
    advantage_over_interpolation: Interval | None
    advantage_over_gaussian: Interval | None
    typical_advantage_over_noise: Interval | None = None
    median_novelty: Unit | None = None
    beyond_noise: Unit
    beyond_interpolation: Unit | None = None
    beyond_gaussian: Unit | None = None
    nearest_l2_ratio: Annotated[float, Field(ge=0)] | None
    nearest_l2_ratio_aligned: Annotated[float, Field(ge=0)] | None = None
    toward_mean: Unit | None = None
    collapsed: bool | None
    rule: Version | None = None
    verdict: Verdict | None
    sees_training: bool | None = None


class Paired(_Model):
    """Two models on the same validation units.

    Attributes:
        wins, losses: units that only the first, or only the second, gets right.
        p: of the exact McNemar test, two-sided.
    """

    wins: Count
    losses: Count
    p: Unit


class Tests(_Model):
    """The selected generated model against the best original (on validation), and against their uniform average."""

    best_original: Paired
    average: Paired


class Timing(_Model):
    """Wall time, device-synchronised.

    Attributes:
        collect_s: training all checkpoints, evaluation pauses excluded; null for an imported zoo.
        fit_s, sample_s: the generator's; sampling is warmed up first.
        sample_per_model_s: sample_s over the number of models.
        select_s, score_s: scoring the generated models on the training and on the validation split.
        target_score: the lower of the selected generated and the best original score (the higher, for errors).
        sgd_s: SGD's training time until it first reached the target score.
        speedup: sgd_s / sample_per_model_s.
        speedup_amortised: sgd_s over one model's share of collect + fit + sample + select.
        break_even_models: models after which the generator has cost less time than SGD would have.
        peak_memory_bytes: of the device (GPU) or the process (CPU).
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
    speedup: Annotated[float, Field(ge=0)] | None
    speedup_amortised: Annotated[float, Field(ge=0)] | None
    break_even_models: Positive | None
    peak_memory_bytes: Count


class Environment(_Model):
    """Where it ran."""

    git_commit: str | None
    git_dirty: bool | None
    python: Name
    packages: dict[str, str]
    cpu: Name
    gpu: str | None
    threads: Positive


class Artifact(_Model):
    """A file that the record's numbers come from."""

    file: FileName
    sha256: Hash


class Artifacts(_Model):
    """The checkpoints, the generated weights, and the side file (``bench.records.side``) beside the record."""

    zoo: Artifact
    generated: Artifact
    side: Artifact | None = None


def percent(metric: str) -> bool:
    """Whether a metric is between 0 and 1, and people are shown it in percent."""
    return metric in ("accuracy", "mAP", "mean IoU")


def likeness(kind: str) -> str:
    """What the similarity of two models is, in words, by the task's kind."""
    return "overlap of image features" if kind == "image generation" else "IoU of wrong predictions"


def selection(higher_is_better: bool) -> str:
    """By what, on the training split, protocol 1 chooses a population's selected model, in words."""
    best = "highest" if higher_is_better else "lowest"
    return f"{best} train score, ties by lowest train loss, then the first"


def comparability_key(task: Task, zoo: Zoo, protocol: Protocol) -> str:
    """The hash under which records may be ranked together: same checkpoints, data, metric and protocol."""
    sizes = [protocol.samples, protocol.train_size, protocol.val_size]
    facts = [task.name, task.dataset_hash, task.arch, task.layers, task.metric]
    scoring = [task.settings["scoring"]] if "scoring" in task.settings else []
    return digest([protocol.version, *facts, zoo.hash, zoo.k, *sizes, *scoring])


class Verified(_Model):
    """What ``bench verify --mark`` leaves beside a tier.

    Attributes:
        code: SHA-256 of the code that verified.
        record: ``content_hash`` of the record with this tier.
    """

    code: Hash
    record: Hash


def content_hash(text: str | bytes) -> str:
    """SHA-256 of all that a record's JSON says but for ``verified``, however it is written."""
    data = json.loads(text)
    data.pop("verified", None)
    plain = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


class Record(_Model):
    """One run's result.

    ``tier`` says how far it was verified: not at all, its numbers computed again from the stored weights, or the
    weights themselves made again from their seed as well; ``verified`` by which code, and which record that was.
    """

    schema_: Literal[1] = Field(alias="schema")
    id: Short
    created: Moment
    command: Annotated[str, Field(min_length=1, max_length=4000)]
    key: Short
    task: Task
    zoo: Zoo
    generator: Generator
    protocol: Protocol
    scores: Scores
    similarity: Similarity
    novelty: Novelty
    tests: Tests | None = None
    timing: Timing
    environment: Environment
    artifacts: Artifacts
    tier: Tier = "claimed"
    verified: Verified | None = None

    @model_validator(mode="after")
    def _counts(self) -> Self:
        if len(self.scores.original.values) != self.zoo.k:
            raise ValueError(
                "scores.original has not one value for each of the zoo's k checkpoints"
            )
        if len(self.scores.generated.values) not in (1, self.protocol.samples):
            raise ValueError("scores.generated has not one value for each sample")
        return self

    @functools.cached_property
    def request(self) -> Asked:
        """What the run was asked for.

        Raises:
            BadRequest: the command is none of ``bench run``.
        """
        return Asked.read(self.command)

    def to_json(self) -> str:
        """Indented JSON, ending in a line break."""
        return self.model_dump_json(indent=1) + "\n"

    def write(self, results: Path) -> Path:
        """Write to ``<results>/<key>/<id>.json``, atomically; the same run overwrites its own record."""
        path = results / self.key / f"{self.id}.json"
        write_text(path, self.to_json())
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and validate a record.

        Raises:
            BadRequest: the file is missing, no regular file, too large or no valid record; the message names the first
                wrong field.
        """
        found, wrong = cls.parsed(reading.content(path, LIMIT, "record"))
        if found is None:
            raise BadRequest(f"{path} is not a valid record: {wrong[0]}")
        return found

    @classmethod
    def parsed(cls, data: bytes) -> tuple[Self | None, list[str]]:
        """The record of a file's content, or None and every field that is wrong."""
        try:
            return cls.model_validate_json(data), []
        except ValidationError as error:
            return None, [_told(one["loc"], one["msg"]) for one in error.errors()]
        except (ArithmeticError, RecursionError) as error:
            return None, [_told((), str(error))]  # numbers that are too large to compute with


def _told(place: tuple[int | str, ...], message: str) -> str:
    """One wrong field in words."""
    where = ".".join(str(part) for part in place) or "the file"
    return printable(f"{where}: {message.removeprefix('Value error, ')}")
