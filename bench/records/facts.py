"""Parts of a record on the run itself: task, zoo, generator, protocol, times, machine and files."""

from typing import Annotated, Literal

from pydantic import Field

from bench.contract.metric import Compared, Metric
from bench.records.fields import (
    Count,
    FileName,
    Hash,
    Model,
    Name,
    Positive,
    Ratio,
    Seconds,
    Seed,
    Settings,
    Version,
)

IMPORTED = "imported"  # the track of checkpoints that were made elsewhere


class Task(Model):
    """The task of the run: data, architecture, metric.

    Attributes:
        kind: the kind of task, such as classification.
        layers: the generated part of the network's parameters.
        metric: facts of the scores.
        compared: what two models are compared by.
        settings: how the checkpoints were trained; under ``scoring`` further settings that decide a score, if there are
            any.
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
    """The zoo: the checkpoints that the generator was fitted on.

    Attributes:
        hash: SHA-256 of the zoo's content.
        track: trajectory, seeds or imported.
        k, d: number of checkpoints, without those that are held out, and of parameters in each.
        seed: seed of the training; null where it is unknown.
        base_score: validation score of the trained network before the checkpoints were collected; null where unknown.
        official: whether it is one of those that come with the suite, which all machines share.
        collected_on: name of the processor that trained it, whose seconds those of SGD are; null where unknown.
    """

    hash: Hash
    track: Name
    k: Positive
    d: Positive
    seed: Seed | None
    base_score: float | None
    official: bool = False
    collected_on: Name | None = None


class Reference(Model):
    """The reference: models of the checkpoints' process that no generator sees.

    Attributes:
        origin: "training" where they were trained here as the checkpoints were; "other runs" where they are rows of a
            zoo that was made elsewhere, all those of the runs that are held out.
        runs: number of independent runs of training that they come from; of models trained here, each is one.
    """

    origin: Literal["training", "other runs"]
    runs: Positive


class Generator(Model):
    """The generator and its hyperparameters.

    Attributes:
        code: SHA-256 of its code.
        uses: what it was given beyond the zoo: "score", "train", or nothing.
        aligned: whether it was fitted on checkpoints with their hidden units aligned.
    """

    name: Name
    code: Hash
    hyperparameters: Settings
    uses: list[str]
    aligned: bool = False


class Protocol(Model):
    """How the models were sampled, selected and scored.

    Attributes:
        version: version of the protocol.
        preset: quick, paper, or one of the generator's own.
        samples: number of generated models.
        held_out: number of trained models that no generator sees: the reference. A zoo that was made elsewhere, and
            does not tell its runs, has none nevertheless.
        seed: seed of the generator's fit and samples.
        selection: in words, by what on the training split the selected model is chosen.
        train_size, val_size: examples of each split that are scored.
    """

    version: Version
    preset: Name
    samples: Positive
    held_out: Count = 0
    seed: Seed
    selection: Name
    train_size: Positive
    val_size: Positive


class Timing(Model):
    """Wall time in seconds, measured after the device has finished its work.

    What follows from other times is computed by ``bench.records.speed`` alone.

    Attributes:
        collect_s: training all checkpoints, evaluation pauses excluded; null for an imported zoo.
        fit_s: fitting the generator.
        sample_s: sampling all models, warm: the median of ``sample_repeats_s``.
        sample_repeats_s: each timed sampling of as many models, after one that is not timed; null in records of schema
            1, whose sample_s is of a single sampling after that of one model.
        sample_per_model_s, select_per_model_s: sample_s and select_s over the number of models.
        select_s, score_s: scoring the generated models on the training and on the validation split.
        target_score: the lower of the selected generated and the best original score (the higher, for errors).
        base_s: SGD's training time until the zoo's own base; null where there is none (independent runs of whole
            networks, imported zoos), and in records of schema 1.
        sgd_s: SGD's training time until it first reached the target score.
        marginal_s: SGD's training time from the base to the target score, from the start where there is no base; null
            where the base reaches it already, SGD never does, or it is unknown.
        speedup: sgd_s / sample_per_model_s.
        speedup_marginal: marginal_s / (sample_per_model_s + select_per_model_s).
        speedup_amortised_1, speedup_amortised_10, speedup_amortised_100: N * sgd_s over the cost of N models, which is
            collect_s + fit_s + N * (sample_per_model_s + select_per_model_s).
        break_even_models: models after which the generator has cost less time than SGD would have, at that cost.
        peak_memory_bytes: peak memory of the device (GPU) or the process (CPU).

    The speed-ups and the break-even are null where the verdict is "broken", or a time that they need is null.
    """

    device: Name
    collect_s: Seconds | None
    fit_s: Seconds
    sample_s: Seconds
    sample_repeats_s: Annotated[list[Seconds], Field(min_length=1, max_length=100)] | None
    sample_per_model_s: Seconds
    select_s: Seconds
    select_per_model_s: Seconds
    score_s: Seconds
    target_score: float
    base_s: Seconds | None
    sgd_s: Seconds | None
    marginal_s: Seconds | None
    speedup: Ratio | None
    speedup_marginal: Ratio | None
    speedup_amortised_1: Ratio | None
    speedup_amortised_10: Ratio | None
    speedup_amortised_100: Ratio | None
    break_even_models: Positive | None
    peak_memory_bytes: Count


class Environment(Model):
    """The machine and the software that made the record; ``git_*`` are null outside a repository."""

    git_commit: str | None
    git_dirty: bool | None
    python: Name
    packages: dict[str, str]
    cpu: Name
    gpu: str | None
    threads: Positive


class Artifact(Model):
    """A file that the record's numbers come from, by its name and SHA-256."""

    file: FileName
    sha256: Hash


class Artifacts(Model):
    """The files of a run: checkpoints, generated weights, and if there are any, the held-out trained models and the
    side file (``bench.records.side``)."""

    zoo: Artifact
    generated: Artifact
    reference: Artifact | None = None
    side: Artifact | None = None


class Verified(Model):
    """The mark that ``bench verify --mark`` leaves beside a tier.

    Attributes:
        code: SHA-256 of the code that verified.
        record: ``content_hash`` of the record with this tier.
    """

    code: Hash
    record: Hash
