"""The command a record names, held against what the record says was run: an option left out means its default."""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from bench.checks.case import Case, told
from bench.declared import Declared, recipe
from bench.record import Record
from bench.request import DIRECT, parsed

VALUED = (
    "task", "generator", "arch", "layers", "track", "k", "samples", "seed", "zoo-seed", "zoo", "preset", "device",
    "data-dir", "min-score", "pretrained", "limit", "fid-images", "set", "results",
)  # fmt: skip
FLAGS = ("align", "json", "profile", "force", "debug")
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


class Asked(NamedTuple):
    """What a command asks for.

    Attributes:
        options: each with its value; flags have an empty one.
        settings: of ``--set`` and of options that stand for task settings, ``task.`` before the names of the latter.
    """

    options: Mapping[str, str]
    settings: Mapping[str, Any]


def asked(command: str) -> Asked:
    """What a command line asks for.

    Raises:
        ValueError: it is none of ``bench run``, or has something that is no option of it.
    """
    words = shlex.split(command)
    if words[:4] != ["python", "-m", "bench", "run"]:
        raise ValueError("it does not begin with 'python -m bench run'")
    options: dict[str, str] = {}
    pairs = []
    rest = iter(words[4:])
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in (*VALUED, *FLAGS) or (equals and name in FLAGS):
            raise ValueError(f"{word[:80]!r} is no option of it")
        if name in VALUED and not equals:
            value = next(rest, "")
        if name == "set":
            pairs.append(value)
        else:
            options[name] = value
    own = {name: options.get(name.replace("_", "-")) for name in DIRECT}
    settings = {f"task.{n}": parsed_option(n, v) for n, v in own.items() if v is not None}
    settings |= {name: parsed(value) for name, _, value in (pair.partition("=") for pair in pairs)}
    return Asked(options, settings)


def parsed_option(name: str, text: str) -> Any:
    """The value of an option that stands for a task setting."""
    return parsed(text) if name in ("limit", "fid_images") else text


def problems(case: Case) -> Iterator[str]:
    """Where the command asks for something else than the record says."""
    try:
        found = asked(case.record.command)
    except ValueError as error:
        yield f"command cannot have been the record's: {error}"
        return
    yield from _options(case.record, found.options)
    yield from _task(case, found)
    yield from _generator(case, found)


def _options(record: Record, options: Mapping[str, str]) -> Iterator[str]:
    """Options that the record has a field for."""
    from tasks.catalog import TASKS, Variant

    variant = TASKS.get(record.task.name, Variant("", ""))
    good = record.similarity.good
    wanted: dict[str, tuple[Any, Any]] = {  # what stands in the record, and what no option means
        "task": (record.task.name, None),
        "generator": (record.generator.name, None),
        "k": (record.zoo.k, variant.k),
        "samples": (record.protocol.samples, variant.samples),
        "seed": (record.protocol.seed, 0),
        "preset": (record.protocol.preset, "quick"),
        "min-score": (None if good is None else good.min_score, None),
    }
    if "zoo" in options:
        wanted["zoo"] = (record.artifacts.zoo.file, None)
        if record.zoo.seed is not None:
            yield told("zoo.seed", record.zoo.seed, None, "the command gives a zoo")
    elif record.zoo.seed is None:
        yield told("zoo.seed", None, options.get("zoo-seed", 0), "the command gives no zoo")
    else:
        wanted["zoo-seed"] = (record.zoo.seed, 0)
    for name, (says, default) in wanted.items():
        given = _value(name, options.get(name), default)
        if not _same(given, says):
            yield told(f"command's --{name}", given, says, "as the record says")
    if record.generator.aligned is not ("align" in options):
        yield told("command's --align", "align" in options, record.generator.aligned)


def _value(name: str, text: str | None, default: Any) -> Any:
    if text is None:
        return default
    if name == "zoo":
        return Path(text).name
    return text if name in ("task", "generator", "preset") else parsed(text)


def _task(case: Case, found: Asked) -> Iterator[str]:
    """Settings of the task: those asked for, and the defaults of the others."""
    says = case.record.task.settings
    given = {n.removeprefix("task."): v for n, v in found.settings.items() if n.startswith("task.")}
    wanted = _expected(case, given) if case.task else given
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
    from tasks.catalog import RECIPES, TASKS, Variant

    variant = TASKS.get(case.record.task.name, Variant("", ""))
    assert case.task is not None
    preset = case.task.facts.get("presets", {}).get(case.record.protocol.preset, {})
    values = {**case.task.fields, **variant.settings, **preset, **given}
    trained = {**recipe(), **RECIPES.get(str(values.get("arch")), {})}
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


def _generator(case: Case, found: Asked) -> Iterator[str]:
    """Hyperparameters: those asked for, and the defaults of the others."""
    made = case.record.generator
    given = {n: v for n, v in found.settings.items() if not n.startswith("task.")}
    wanted = {**_defaults(case.generator, case.record.protocol.preset), **given}
    for name, value in wanted.items():
        says = made.hyperparameters.get(name, "missing")
        if says == "missing" and name not in given:
            continue  # there was no such hyperparameter when it was made
        if not _same(value, says):
            why = "by the command and its defaults"
            yield told(f"generator.hyperparameters.{name}", says, value, why)


def _defaults(own: Declared | None, preset: str) -> dict[str, Any]:
    return {**own.fields, **own.facts.get("presets", {}).get(preset, {})} if own else {}


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
