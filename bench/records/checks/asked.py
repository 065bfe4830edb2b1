"""Checks of a record against the command that it names: an option that is left out means its default."""

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
from bench.records.checks.case import Case, mismatch
from bench.records.record import Record

# Settings in a record that are no fields of the task, or that have another form in a command.
TRANSFORMED = (
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
    """Yield a problem for each option or setting of the command that the record contradicts."""
    asked = case.record.request
    yield from _options(case.record, asked)
    yield from _alignment(case, asked)
    yield from _task(case, asked)
    yield from _generator(case, asked)


def _options(record: Record, asked: Asked) -> Iterator[str]:
    """Yield a problem for each option whose value in the command, or default, is not that of the record."""
    variant = plugins.tasks().get(record.task.name, Variant("", ""))
    good = record.judge.good
    says: dict[str, Any] = {
        "task": record.task.name,
        "generator": record.generator.name,
        "samples": record.protocol.samples,
        "seed": record.protocol.seed,
        "preset": record.protocol.preset,
        "min_score": None if good is None else good.min_score,
    }
    usual: dict[str, Any] = {**USUAL, "samples": variant.samples, "k": variant.k}
    if asked.zoo:  # the zoo's file has K, and may lack the seed
        says |= {"zoo": record.artifacts.zoo.file, "k": record.zoo.k, "zoo_seed": record.zoo.seed}
        usual |= {"k": record.zoo.k, "zoo_seed": record.zoo.seed}
    elif record.zoo.seed is None:
        yield mismatch("zoo.seed", None, asked.zoo_seed or 0, "the command gives no zoo")
    else:
        says |= {"k": record.zoo.k, "zoo_seed": record.zoo.seed}
    options = {**usual, **asked.given()}
    for name, value in says.items():
        given = options.get(name)
        if not _same(Path(str(given)).name if name == "zoo" else given, value):
            yield mismatch(
                f"command's --{name.replace('_', '-')}", given, value, "as the record says"
            )


def _alignment(case: Case, asked: Asked) -> Iterator[str]:
    """Compare whether the generator saw aligned checkpoints with the command and the hyperparameter ``align``.

    The command forces it; the hyperparameter asks for it wherever hidden units can be permuted.
    """
    made = case.record.generator
    wanted = asked.align or (made.hyperparameters.get("align") is True and case.twinned)
    if made.aligned is not wanted:
        why = "by the command and the generator's hyperparameters"
        yield mismatch("generator.aligned", made.aligned, wanted, why)


def _task(case: Case, asked: Asked) -> Iterator[str]:
    """Compare the task's settings with those of the command and the defaults of the others.

    Defaults are not compared where the command names the file of a zoo: the file has the settings.
    """
    says = case.record.task.settings
    given = asked.task_settings
    wanted = _expected(case, given) if case.task and not asked.zoo else given
    for name, value in wanted.items():
        if name in ("pretrained", "feature_weights"):
            fine = name not in says or _weights_match(value, says[name])
        elif name in ("train_size", "val_size"):
            fine = _size_fits(says.get("fid_images", value), says.get(name))
        elif name == "precision" and value == "auto":
            fine = says.get(name) in ("float32", "bfloat16")
        elif name in TRANSFORMED or (name not in says and name not in given):
            continue
        else:
            fine = name in says and _same(value, says[name])
        if not fine:
            place = f"task.settings.{name}"
            yield mismatch(
                place, says.get(name, "missing"), value, "by the command and its defaults"
            )


def _expected(case: Case, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a command gives one of the suite's own tasks, defaults included."""
    variant = plugins.tasks().get(case.record.task.name, Variant("", ""))
    assert case.task is not None
    preset = case.task.preset(case.record.protocol.preset)
    values = {**case.task.fields, **variant.settings, **preset, **given}
    architecture = registry.architectures().get(str(values.get("arch")))
    trained = {**recipe(), **(architecture.recipe if architecture else {})}
    return values | {n: v for n, v in trained.items() if values.get(n) is None}


def _weights_match(given: Any, says: Any) -> bool:
    """Return whether the weights are those asked for; a SHA-256 stands for any file, since the file is not here."""
    return _same(given, says) or (
        isinstance(given, str) and isinstance(says, str) and bool(HASH.fullmatch(says))
    )


def _size_fits(given: Any, says: Any) -> bool:
    """Return whether at most as many examples are scored as were asked for; a split may have fewer."""
    numbers = isinstance(given, int) and isinstance(says, int)
    return says <= given if numbers else given is None or says is None


def _generator(case: Case, asked: Asked) -> Iterator[str]:
    """Compare the hyperparameters with those of the command and the defaults of the others."""
    made = case.record.generator
    given = asked.generator_settings
    wanted = {**_defaults(case.generator, case.record.protocol.preset), **given}
    for name, value in wanted.items():
        says = made.hyperparameters.get(name, "missing")
        if says == "missing" and name not in given:
            continue  # the record is older than this hyperparameter
        if not _same(value, says):
            why = "by the command and its defaults"
            yield mismatch(f"generator.hyperparameters.{name}", says, value, why)


def _defaults(declared: Declared | None, preset: str) -> dict[str, Any]:
    return {**declared.fields, **declared.preset(preset)} if declared else {}


def _same(given: Any, says: Any) -> bool:
    """Return whether two values are equal once the command's value is converted to the type of the record's."""
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
