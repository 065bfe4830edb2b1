"""What a record says of the run itself: task, zoo, generator, protocol, times, machine and files."""

from typing import Annotated

from pydantic import Field

from bench.contract.metric import Compared, Metric
from bench.records.fields import (
    Count,
    FileName,
    Hash,
    Model,
    Name,
    Positive,
    Seconds,
    Seed,
    Settings,
    Version,
)


class Task(Model):
    """What was solved: the data, the architecture, the metric.

    Attributes:
        metric: of the scores.
        compared: what two models are compared by.
        settings: how the checkpoints were trained, and under ``scoring`` what else decides a score, if there is
            something.
    """

    name: Name
    kind: Name
    dataset: Name
    dataset_hash: Hash
    arch: Name
    layers: Name
    metric: Metric
    compared: Compared
    settings: Settings


class Zoo(Model):
    """The checkpoints. ``base_score`` is the trained network's score before its generated part was collected."""

    hash: Hash
    track: Name
    k: Positive
    d: Positive
    seed: Seed | None
    base_score: float | None


class Generator(Model):
    """The generator.

    Attributes:
        code: SHA-256 of its code.
        uses: what it got beyond the zoo.
        aligned: whether it was fitted on checkpoints with their hidden units aligned.
    """

    name: Name
    code: Hash
    hyperparameters: Settings
    uses: list[str]
    aligned: bool = False


class Protocol(Model):
    """How it was run. ``selection`` says by what, on the training split, the selected model was chosen."""

    version: Version
    preset: Name
    samples: Positive
    seed: Seed
    selection: Name
    train_size: Positive
    val_size: Positive


class Timing(Model):
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


class Environment(Model):
    """Where it ran."""

    git_commit: str | None
    git_dirty: bool | None
    python: Name
    packages: dict[str, str]
    cpu: Name
    gpu: str | None
    threads: Positive


class Artifact(Model):
    """A file that the record's numbers come from."""

    file: FileName
    sha256: Hash


class Artifacts(Model):
    """The checkpoints, the generated weights, and the side file (``bench.records.side``) beside the record."""

    zoo: Artifact
    generated: Artifact
    side: Artifact | None = None


class Verified(Model):
    """What ``bench verify --mark`` leaves beside a tier.

    Attributes:
        code: SHA-256 of the code that verified.
        record: ``content_hash`` of the record with this tier.
    """

    code: Hash
    record: Hash
