"""Assembly of a run's record from the results of its stages."""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from bench.contract import Generator, Task
from bench.contract.whole_runs import held_rows
from bench.contract.zoo import Zoo
from bench.judge import compare
from bench.judge.composition import against_reference
from bench.judge.population import Population
from bench.judge.timing import timing
from bench.records import facts, versions
from bench.records.asked import LONGEST_NAME
from bench.records.facts import IMPORTED
from bench.records.judged import GoodModels, Tests
from bench.records.record import Record, comparability_key, selection
from bench.records.request import Request
from bench.records.values import recorded
from bench.runs import foreign
from bench.runs.stages import Sampled
from bench.system import store
from bench.system.data import Json
from bench.system.environment import describe
from bench.system.identity import Code
from bench.system.randomness import derive, generator


@runtime_checkable
class Asking(Protocol):
    """A request with the plugins that carry it out, and the version of the protocol."""

    protocol: int
    request: Request
    task: Task
    generator: Generator
    device: str
    code: Code

    def aligns(self, zoo: Zoo) -> bool:
        """Return whether the generator sees aligned checkpoints."""
        ...


@dataclasses.dataclass(frozen=True)
class Heading:
    """The part of a record that is known before anything is scored.

    Attributes:
        task, zoo, generator, protocol: fields of the record.
        key: the comparability key, which names the board of the record.
        id: of the run; equal runs have equal ids.
    """

    task: facts.Task
    zoo: facts.Zoo
    generator: facts.Generator
    protocol: facts.Protocol
    key: str
    id: str


@dataclasses.dataclass(frozen=True)
class Files:
    """The files that a record's numbers come from.

    Attributes:
        zoo, generated: files of the checkpoints and of the generated weights.
        reference: file of the held-out trained models, if there are any.
        side: the side file.
    """

    zoo: Path
    generated: Path
    reference: Path | None
    side: Path | None

    def artifacts(self) -> facts.Artifacts:
        """Return names and hashes of the files."""
        return facts.Artifacts(
            zoo=artifact(self.zoo),
            generated=artifact(self.generated),
            reference=artifact(self.reference) if self.reference else None,
            side=artifact(self.side) if self.side else None,
        )


def heading(run: Asking, zoo: Zoo) -> Heading:
    """Return the heading of the record of a run on a zoo."""
    task, checkpoints, made, protocol = (
        _task(run, zoo),
        _zoo(run, zoo),
        _generator(run, zoo),
        _protocol(run),
    )
    key = comparability_key(task, checkpoints, protocol)
    identity_facts = [key, made.name, made.code, made.hyperparameters, protocol.seed, run.device]
    identity_facts += ["align"] if made.aligned else []
    identity_facts += ["held out", protocol.held_out] if protocol.held_out else []
    return Heading(task, checkpoints, made, protocol, key, store.digest(identity_facts))


def assemble(
    run: Asking,
    head: Heading,
    zoo: Zoo,
    sampled: Sampled,
    populations: Sequence[Population],
    files: Files,
) -> Record:
    """Compute every number of a run's record; return the record.

    Args:
        run: the request, and the plugins that carried it out.
        head: the record's heading.
        zoo: the checkpoints.
        sampled: the generated vectors.
        populations: originals, reference, generated models and every control.
        files: the files that the numbers come from.
    """
    rng, metric = generator(0, head.key, "bootstrap"), run.task.metric
    generated = next(one for one in populations if one.origin.role == "generated")
    baselines = compare.Baselines.of(populations, metric, rng)
    finding = compare.assess(baselines, generated, rng)
    described = compare.described(baselines, generated, finding.similarity, rng)
    judge = finding.judge(
        against_reference(populations, metric, derive(rng, "against the reference")),
        models=run.request.samples,
        tests=_tests(run, baselines, generated),
        good=_good(run, baselines, generated),
    )
    return Record(
        schema=2,
        id=head.id,
        created=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        key=head.key,
        request=run.request.asked,
        task=head.task,
        zoo=head.zoo,
        reference=_reference(run, baselines.reference),
        generator=head.generator,
        protocol=head.protocol,
        populations=described,
        judge=judge,
        timing=timing(
            device=torch.cuda.get_device_name(run.device)
            if run.device.startswith("cuda")
            else "cpu",
            zoo=head.zoo,
            layers=head.task.layers,
            curve=zoo.curve,
            collect_s=zoo.collect_s or None,
            fit_s=sampled.fit_s,
            sample_s=sampled.sample_s,
            sample_repeats_s=sampled.sample_repeats_s,
            models=len(sampled.vectors),
            select_s=generated.select_s,
            score_s=generated.score_s,
            selected=described["generated"].selected,
            best=described["original"].best,
            metric=metric,
            word=judge.word,
            peak_memory_bytes=sampled.peak_memory_bytes,
        ),
        environment=facts.Environment(**describe(run.device)),
        artifacts=files.artifacts(),
        versions=dict(versions.CURRENT),
    )


def artifact(path: Path) -> facts.Artifact:
    """Return a file's name and hash."""
    return facts.Artifact(file=path.name, sha256=store.file_hash(path))


def _task(run: Asking, zoo: Zoo) -> facts.Task:
    task, settings = run.task, run.task.identity()
    if "track" not in zoo.settings:  # made elsewhere: how they were trained is not known
        settings |= dict.fromkeys(task.collecting) | {"track": IMPORTED}
    return facts.Task(
        name=run.request.task,
        kind=task.kind,
        metric=task.metric,
        compared=task.compared,
        settings=settings,
        **{name: settings[name] for name in ("dataset", "dataset_hash", "arch", "layers")},
    )


def _zoo(run: Asking, zoo: Zoo) -> facts.Zoo:
    return facts.Zoo(
        hash=zoo.hash,
        track=str(zoo.settings.get("track", IMPORTED)),
        k=len(zoo),
        d=zoo.layout.dim,
        seed=run.request.zoo_seed,
        base_score=zoo.base_score,
        official=zoo.settings.get("official") is True,
        collected_on=_text(zoo.settings.get("collected_on")),
    )


def _text(said: Json) -> str | None:
    """Return what a zoo's file says if it is a text that a record can hold."""
    return said[:LONGEST_NAME] if isinstance(said, str) and said else None


def _reference(run: Asking, held: Population | None) -> facts.Reference | None:
    """Return where the models of the reference come from; None without any."""
    if held is None:
        return None
    if runs := run.request.parted:
        rows = held_rows(runs, run.request.held_out)
        return facts.Reference(origin="other runs", runs=len({runs[row] for row in rows}))
    return facts.Reference(origin="training", runs=len(held))


def _generator(run: Asking, zoo: Zoo) -> facts.Generator:
    made = run.generator
    settings = foreign.hyperparameters(made)
    return facts.Generator(
        name=run.request.generator,
        code=run.code.of(made, settings),
        hyperparameters=recorded(settings),
        uses=list(made.uses()),
        aligned=run.aligns(zoo),
    )


def _protocol(run: Asking) -> facts.Protocol:
    return facts.Protocol(
        version=run.protocol,
        preset=run.request.preset,
        samples=run.request.samples,
        held_out=run.request.held_out,
        seed=run.request.seed,
        selection=selection(run.task.metric.higher_is_better),
        train_size=run.task.size("train"),
        val_size=run.task.size("val"),
    )


def _tests(run: Asking, baselines: compare.Baselines, generated: Population) -> Tests | None:
    """Return the paired tests; None where the task's units do not allow them."""
    if not run.task.compared.tested:
        return None
    average = baselines.controls["average"]
    return compare.paired_tests(baselines.original, generated, average, run.task.metric)


def _good(run: Asking, baselines: compare.Baselines, generated: Population) -> GoodModels | None:
    """Return the comparisons of good models; None without a ``min_score`` in the request."""
    if run.request.min_score is None:
        return None
    least, metric = run.request.min_score, run.task.metric
    return compare.good_models(baselines.original, generated, least, metric)
