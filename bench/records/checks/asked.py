"""The command a record names, held against what the record says was run: an option left out means its default."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench import plugins
from bench.contract import registry
from bench.contract.declarations import Variant
from bench.declared import Declared, recipe
from bench.records.asked import USUAL, Asked
from bench.records.checks.case import Case, told
from bench.records.record import Record

# What a task's settings hold besides its fields, or in another form than they were asked for.
OTHER = (
    "kind",
    "dataset_hash",
    "train_size",
    "val_size",
    "pretrained",
    "feature_weights",
    "scoring",
)
HASH = re.compile(r"[0-9a-f]{64}")


def problems(case: Case) -> Iterator[str]:
    """Yield where the record was asked for something else than it says was run."""
    asked = case.record.request
    yield from _options(case.record, asked)
    yield from _task(case, asked)
    yield from _generator(case, asked)


def _options(record: Record, asked: Asked) -> Iterator[str]:
    """Yield options that the record has another value for; one that was left out stands for its default."""
    variant = plugins.tasks().get(record.task.name, Variant("", ""))
    good = record.judge.good
    says: dict[str, Any] = {
        "task": record.task.name,
        "generator": record.generator.name,
        "samples": record.protocol.samples,
        "seed": record.protocol.seed,
        "preset": record.protocol.preset,
        "min_score": None if good is None else good.min_score,
        "align": record.generator.aligned,
    }
    usual: dict[str, Any] = {**USUAL, "samples": variant.samples, "k": variant.k}
    if asked.zoo:  # its file tells K and seed, and may not tell the latter
        says |= {"zoo": record.artifacts.zoo.file, "k": record.zoo.k, "zoo_seed": record.zoo.seed}
        usual |= {"k": record.zoo.k, "zoo_seed": record.zoo.seed}
    elif record.zoo.seed is None:
        yield told("zoo.seed", None, asked.zoo_seed or 0, "the command gives no zoo")
    else:
        says |= {"k": record.zoo.k, "zoo_seed": record.zoo.seed}
    said = {**usual, **asked.said()}
    for name, value in says.items():
        given = said.get(name)
        if not _same(Path(str(given)).name if name == "zoo" else given, value):
            yield told(f"command's --{name.replace('_', '-')}", given, value, "as the record says")


def _task(case: Case, asked: Asked) -> Iterator[str]:
    """Settings of the task: those asked for, and the defaults of the others, unless a zoo's file tells them."""
    says = case.record.task.settings
    given = asked.task_settings
    wanted = _expected(case, given) if case.task and not asked.zoo else given
    for name, value in wanted.items():
        if name in ("pretrained", "feature_weights"):
            fine = name not in says or _weights(value, says[name])
        elif name in ("train_size", "val_size"):
            fine = _size(says.get("fid_images", value), says.get(name))
        elif name in OTHER or (name not in says and name not in given):
            continue
        else:
            fine = name in says and _same(value, says[name])
        if not fine:
            place = f"task.settings.{name}"
            yield told(place, says.get(name, "missing"), value, "by the command and its defaults")


def _expected(case: Case, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a suite's own task is set to by a command."""
    variant = plugins.tasks().get(case.record.task.name, Variant("", ""))
    assert case.task is not None
    preset = case.task.preset(case.record.protocol.preset)
    values = {**case.task.fields, **variant.settings, **preset, **given}
    architecture = registry.architectures().get(str(values.get("arch")))
    trained = {**recipe(), **(architecture.recipe if architecture else {})}
    return values | {n: v for n, v in trained.items() if values.get(n) is None}


def _weights(given: Any, says: Any) -> bool:
    """Files of weights are told by their hash, and not found again here."""
    return _same(given, says) or (
        isinstance(given, str) and isinstance(says, str) and bool(HASH.fullmatch(says))
    )


def _size(given: Any, says: Any) -> bool:
    """At most as many examples are scored as were asked for; a split may have fewer."""
    numbers = isinstance(given, int) and isinstance(says, int)
    return says <= given if numbers else given is None or says is None


def _generator(case: Case, asked: Asked) -> Iterator[str]:
    """Hyperparameters: those asked for, and the defaults of the others."""
    made = case.record.generator
    given = asked.generator_settings
    wanted = {**_defaults(case.generator, case.record.protocol.preset), **given}
    for name, value in wanted.items():
        says = made.hyperparameters.get(name, "missing")
        if says == "missing" and name not in given:
            continue  # there was no such hyperparameter when it was made
        if not _same(value, says):
            why = "by the command and its defaults"
            yield told(f"generator.hyperparameters.{name}", says, value, why)


def _defaults(own: Declared | None, preset: str) -> dict[str, Any]:
    return {**own.fields, **own.preset(preset)} if own else {}


def _same(given: Any, says: Any) -> bool:
    """Whether a value on a command line stands for one in a record, as its field's type converts it."""
    if isinstance(given, list | tuple) and isinstance(says, list | tuple):
        pairs = zip(given, says, strict=False)
        return len(given) == len(says) and all(_same(one, other) for one, other in pairs)
    if given == says or str(given) == str(says):
        return True
    if given is None or says is None or isinstance(says, list | dict):
        return False
    try:
        converted = TypeAdapter(type(says)).validate_python(given)
    except ValidationError:
        return False
    return bool(converted == says)
