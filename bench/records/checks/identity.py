"""Checks of key, id and file names, and of the facts of task, generator, protocol and machine against each other."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bench.contract import presets
from bench.contract.metric import Metric
from bench.contract.needs import NEEDS
from bench.records.checks.case import Case, mismatch
from bench.records.facts import Task
from bench.records.protocol import VERSIONS
from bench.records.record import Record, comparability_key, selection
from bench.system.store import digest

LARGEST_ZOO = 20_000  # most checkpoints of a collected zoo, of which the record uses the first K
DEVICES = ("cuda", *(f"cuda:{index}" for index in range(16)))
COMMIT, PYTHON = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}"), re.compile(r"\d+\.\d+")
FILE = re.compile(r"[0-9a-f]{16}\.safetensors")


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each fact of a record that contradicts another."""
    record = case.record
    if record.key != comparability_key(record.task, record.zoo, record.protocol):
        yield "key is not that of its task, zoo and protocol"
    yield from _id(record)
    yield from _files(case)
    yield from _task(case)
    yield from _settings(case)
    yield from _generator(case)
    yield from _protocol(case)
    yield from _machine(record)


def devices(record: Record) -> tuple[str, ...]:
    """Return the devices that the run may have named; of a GPU a record has the model name only."""
    return ("cpu",) if record.timing.device == "cpu" else DEVICES


def _id(record: Record) -> Iterator[str]:
    made, seed = record.generator, record.protocol.seed
    facts = [record.key, made.name, made.code, made.hyperparameters, seed]
    held = record.protocol.held_out
    more = [*(["align"] if made.aligned else []), *(["held out", held] if held else [])]
    possible = [digest([*facts, device, *more]) for device in devices(record)]
    if record.id not in possible:
        yield mismatch("id", record.id, possible[0], "of its key, generator, seed and device")


# Files ---------------------------------------------------------------------------------------------------------------


def _files(case: Case) -> Iterator[str]:
    """Check the file names of the artifacts, which the store derives from what made them."""
    record = case.record
    side = record.artifacts.side
    if side and side.file != f"{record.id}.npz":
        yield mismatch("artifacts.side.file", side.file, f"{record.id}.npz")
    generated, zoo = record.artifacts.generated.file, record.artifacts.zoo.file
    if not FILE.fullmatch(generated):
        yield mismatch("artifacts.generated.file", generated, "16 hexadecimal digits.safetensors")
    elif earlier(case) and not record.generator.aligned and generated not in _generated(case):
        why = "of its generator, zoo, seed and device"
        yield mismatch("artifacts.generated.file", generated, next(iter(_generated(case))), why)
    if earlier(case) and record.zoo.seed is not None and not _collected(record, zoo):
        yield f"artifacts.zoo.file is {zoo}, which is not the zoo of its task's settings, seed and device"


def earlier(case: Case) -> bool:
    """Return whether the record was written before file names depended on the code of the task.

    A record does not have that code, so that later names cannot be checked. Records of the suite's own tasks have
    counts in ``not_finite`` since then.
    """
    return case.task is not None and case.record.original.not_finite is None


def _generated(case: Case) -> dict[str, None]:
    """Return the possible file names of the generated weights, one a device; not those of an aligned zoo."""
    record, made = case.record, case.record.generator
    count = record.generated.n
    facts = [record.protocol.version, made.name, made.code, made.hyperparameters]
    seen: list[Any] = [record.task.settings] if made.uses else []
    every = (
        digest([*facts, record.zoo.hash, str(record.protocol.seed), count, device, *seen])
        for device in devices(record)
    )
    return dict.fromkeys(f"{name}.safetensors" for name in every)


def _collected(record: Record, file: str) -> bool:
    """Return whether the zoo's file is named for these settings and this seed, and for K or more checkpoints."""
    settings = {n: v for n, v in record.task.settings.items() if n != "train_size"}
    for device in devices(record):
        identity = {**settings, "k": "@", "seed": record.zoo.seed, "device": device}
        before, after = _identity_text(record.protocol.version, identity)
        for k in range(record.zoo.k, max(record.zoo.k, LARGEST_ZOO) + 1):
            found = hashlib.sha256(f"{before}{k}{after}".encode()).hexdigest()
            if f"{found[:16]}.safetensors" == file:
                return True
    return False


def _identity_text(version: int, identity: Mapping[str, Any]) -> tuple[str, str]:
    """Return the text that ``store.digest`` hashes, before and after the number of checkpoints."""
    text = json.dumps([version, identity], sort_keys=True, separators=(",", ":"), allow_nan=False)
    before, _, after = text.partition('"k":"@"')
    return f'{before}"k":', after


# What was run --------------------------------------------------------------------------------------------------------


def _task(case: Case) -> Iterator[str]:
    """Yield a problem for each fact of the task that differs from what the suite's own task declares."""
    task = case.record.task
    if case.task is None:
        return
    why = f"of the task {task.name}"
    if task.kind != case.task.facts["kind"]:
        yield mismatch("task.kind", task.kind, case.task.facts["kind"], why)
    metric = case.task.facts.get("metric") or _image_metric(task)
    for part, says in (("metric", task.metric), ("compared", task.compared)):
        wanted = metric if part == "metric" else case.task.facts["compared"]
        for name, value in dataclasses.asdict(says).items():
            unsaid = name == "resampled" and case.schema == 1
            if not unsaid and value != getattr(wanted, name):
                yield mismatch(f"task.{part}.{name}", value, getattr(wanted, name), why)


def _image_metric(task: Task) -> Metric:
    """Return the metric of drawn images, whose name depends on the settings."""
    return Metric(drawn_metric(task.settings), higher_is_better=False, resampled="jackknife")


def drawn_metric(settings: Mapping[str, Any]) -> str:
    """Return the name of the distance between drawn and real images, by the network that gives the features."""
    network, weights = settings.get("feature_network"), str(settings.get("feature_weights"))
    if network != "inception":
        return f"fd-{network}"
    return "FID" if weights == "released" else f"fd-inception-{weights[:8]}"


def _settings(case: Case) -> Iterator[str]:
    """Compare the task's settings with the same facts elsewhere in the record."""
    record = case.record
    task, settings = record.task, record.task.settings
    twice = {name: getattr(task, name) for name in ("dataset", "dataset_hash", "arch", "layers")}
    for name, value in twice.items():
        if settings.get(name) != value:
            yield mismatch(f"task.settings.{name}", settings.get(name), value, f"as task.{name}")
    maybe = {
        "kind": task.kind,
        "train_size": record.protocol.train_size,
        "val_size": record.protocol.val_size,
        "fid_images": record.protocol.val_size,
        "track": record.zoo.track,
    }
    for name, value in maybe.items():
        said = settings.get(name, value)
        if said != value and (case.task or said is not None):
            yield mismatch(f"task.settings.{name}", said, value, "by the rest of the record")
    if record.zoo.seed is not None and record.zoo.track == "imported":
        yield mismatch(
            "zoo.track", "imported", "that of the task", "its seed says that it was collected"
        )


def _generator(case: Case) -> Iterator[str]:
    made = case.record.generator
    if len(set(made.uses)) < len(made.uses) or not set(made.uses) <= set(NEEDS):
        yield mismatch("generator.uses", made.uses, f"some of {list(NEEDS)}")
    if made.aligned is not case.record.generated.aligned:
        aligned = case.record.generated.aligned
        yield mismatch(
            "populations.generated.aligned", aligned, made.aligned, "as generator.aligned"
        )
    own = case.generator.uses(made.hyperparameters) if case.generator else None
    if own is not None and made.uses != list(own):
        yield mismatch("generator.uses", made.uses, list(own), f"as {made.name} declares")


def _protocol(case: Case) -> Iterator[str]:
    record, protocol = case.record, case.record.protocol
    if protocol.version not in VERSIONS:
        yield mismatch("protocol.version", protocol.version, " or ".join(map(str, VERSIONS)))
    own = case.generator.presets if case.generator else {protocol.preset: {}}
    if protocol.preset not in presets.known(own):
        yield mismatch("protocol.preset", protocol.preset, presets.expected(own))
    wanted = selection(record.task.metric.higher_is_better)
    if protocol.selection != wanted:
        yield mismatch("protocol.selection", protocol.selection, wanted)


def _machine(record: Record) -> Iterator[str]:
    gpu, device = record.environment.gpu, record.timing.device
    if gpu != (None if device == "cpu" else device):
        yield mismatch(
            "environment.gpu", gpu, None if device == "cpu" else device, "as timing.device"
        )
    commit, dirty = record.environment.git_commit, record.environment.git_dirty
    if commit is None and dirty is not None:
        yield mismatch("environment.git_dirty", dirty, None, "no commit is known")
    if commit is not None and not COMMIT.fullmatch(commit):
        yield mismatch("environment.git_commit", commit, "40 or 64 hexadecimal digits")
    if not PYTHON.match(record.environment.python):
        yield mismatch("environment.python", record.environment.python, "a version")
