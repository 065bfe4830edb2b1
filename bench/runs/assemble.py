"""The record of a run, put together from what its stages made."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from bench.contract import Generator, Task
from bench.contract.zoo import Zoo
from bench.judge import compare
from bench.judge.align import aligned_l2_ratio
from bench.metrics.statistics import mcnemar
from bench.records import record
from bench.records.request import Request
from bench.records.values import recorded
from bench.runs import foreign
from bench.runs.stages import Evaluated, Sampled
from bench.system import identity, store
from bench.system.environment import describe
from bench.system.randomness import generator

VERSION = record.PROTOCOL
IMPORTED = "imported"  # the track of checkpoints that were made elsewhere


@runtime_checkable
class Finished(Protocol):
    """What is needed of a run whose stages are done."""

    request: Request
    task: Task
    generator: Generator
    device: str


def assemble(
    run: Finished, zoo: Zoo, zoo_path: Path, sampled: Sampled, evaluated: Mapping[str, Evaluated]
) -> record.Record:
    """The record.

    Args:
        run: the request, and the plugins that carried it out.
        zoo: the checkpoints, and the file they lie in.
        sampled: the generated vectors.
        evaluated: "original", "generated" and every control.
    """
    request, higher = run.request, run.task.metric.higher_is_better
    task = _task(run, zoo)
    protocol = record.Protocol(
        version=VERSION,
        preset=request.preset,
        samples=request.samples,
        seed=request.seed,
        selection=record.selection(higher),
        train_size=run.task.size("train"),
        val_size=run.task.size("val"),
    )
    made = _generator(run)
    facts = _zoo(zoo, request)
    key = record.comparability_key(task, facts, protocol)
    scores, similarity, novelty = compare.compare(
        {name: (e.val, e.train, e.train_loss, e.compared) for name, e in evaluated.items()},
        sampled.vectors,
        zoo.vectors,
        higher_is_better=higher,
        rng=generator(0, key, "bootstrap"),
        further={name: e.further for name, e in evaluated.items()},
        not_finite={name: e.not_finite for name, e in evaluated.items()},
    )
    ratio = aligned_l2_ratio(sampled.vectors, zoo)
    novelty = novelty.model_copy(update={"nearest_l2_ratio_aligned": ratio})
    if request.min_score is not None:
        good = compare.good_models(
            evaluated["original"], evaluated["generated"], request.min_score, higher
        )
        similarity = similarity.model_copy(update={"good": good})
    own = [key, made.name, made.source, made.hyperparameters, request.seed, run.device]
    own += ["align"] if request.align else []
    return record.Record(
        schema=1,
        id=store.digest(own),
        created=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        command=request.asked.command,
        key=key,
        task=task,
        zoo=facts,
        generator=made,
        protocol=protocol,
        scores=scores,
        similarity=similarity,
        novelty=novelty,
        tests=_tests(evaluated, higher) if run.task.compared.tested else None,
        timing=_timing(run, zoo, sampled, evaluated["generated"], scores),
        environment=record.Environment(**describe(run.device)),
        artifacts=record.Artifacts(zoo=_artifact(zoo_path), generated=_artifact(sampled.path)),
    )


def _task(run: Finished, zoo: Zoo) -> record.Task:
    task, settings = run.task, run.task.identity()
    if "track" not in zoo.settings:  # made elsewhere: how they were trained is not known
        settings |= dict.fromkeys(task.collecting) | {"track": IMPORTED}
    return record.Task(
        name=run.request.task,
        kind=task.kind,
        metric=task.metric.name,
        higher_is_better=task.metric.higher_is_better,
        units=task.compared.units,
        settings=settings,
        **{name: settings[name] for name in ("dataset", "dataset_hash", "arch", "layers")},
    )


def _generator(run: Finished) -> record.Generator:
    made = run.generator
    settings = foreign.hyperparameters(made)
    return record.Generator(
        name=run.request.generator,
        source=identity.plugin_hash(made, settings),
        hyperparameters=recorded(settings),
        uses_scores="score" in made.needs,
        uses=list(made.needs),
        aligned=run.request.align,
    )


def _tests(evaluated: Mapping[str, Evaluated], higher_is_better: bool) -> record.Tests | None:
    """The selected generated model against the best original, and against the average; None without wrong units."""
    sign = 1.0 if higher_is_better else -1.0
    generated, original, average = (evaluated[n] for n in ("generated", "original", "average"))
    if generated.wrong is None or original.wrong is None or average.wrong is None:
        return None
    chosen = generated.wrong[compare.select(sign * generated.train, generated.train_loss)]
    best = original.wrong[int((sign * original.val).argmax())]
    against = {"best_original": best, "average": average.wrong[0]}
    results = {name: mcnemar(chosen, other) for name, other in against.items()}
    return record.Tests(
        **{name: record.Paired(wins=w, losses=x, p=p) for name, (w, x, p) in results.items()}
    )


def _zoo(zoo: Zoo, request: Request) -> record.Zoo:
    return record.Zoo(
        hash=zoo.hash,
        track=str(zoo.settings.get("track", IMPORTED)),
        k=len(zoo),
        d=zoo.layout.dim,
        seed=request.zoo_seed,
        base_score=zoo.base_score,
    )


def _timing(
    run: Finished, zoo: Zoo, sampled: Sampled, generated: Evaluated, scores: record.Scores
) -> record.Timing:
    cuda = run.device.startswith("cuda")
    return compare.timing(
        device=torch.cuda.get_device_name(run.device) if cuda else "cpu",
        curve=zoo.curve,
        collect_s=zoo.collect_s or None,
        fit_s=sampled.fit_s,
        sample_s=sampled.sample_s,
        samples=len(sampled.vectors),
        select_s=generated.select_s,
        score_s=generated.score_s,
        scores=scores,
        higher_is_better=run.task.metric.higher_is_better,
        peak_memory_bytes=sampled.peak_memory_bytes,
    )


def _artifact(path: Path) -> record.Artifact:
    return record.Artifact(file=path.name, sha256=store.file_hash(path))
