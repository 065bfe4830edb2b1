"""What a run is asked to do, checked before any work starts; and the command line that asks for it.

``command`` prints a request and ``read`` reads it back. ``options`` says what a recorded command asks for in a form
that can be compared: an option that is left out counts as its default, and so does one that says the default.
"""

import dataclasses
import functools
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import declared, plugins
from bench.contract.zoo_header import ZooHeader, read_header
from bench.errors import BadRequest, unknown
from bench.records.values import LARGEST, parsed, plain, written

# Task settings with an option of their own.
DIRECT = ("arch", "layers", "track", "pretrained", "limit", "fid_images")
SET = "set."  # in flat settings, what the name of a hyperparameter or further task setting begins with
TASK = "task."  # what the name of a task's setting begins with
NUMBERS = ("k", "samples", "seed", "zoo_seed", "min_score", "limit", "fid_images")
FLAGS = ("align",)
WORDS = ["python", "-m", "bench", "run"]
LONGEST, LONGEST_NAME = 4000, 300  # characters of a command and of a name: what a record holds
USUAL = {"seed": 0, "zoo_seed": 0, "preset": "quick"}  # what options count as that are left out


@dataclasses.dataclass(frozen=True)
class Request:
    """What a run is asked to do; the command line's options.

    Attributes:
        task, generator: names, or ``module:Class``.
        settings: hyperparameters of the generator; those named ``task.<name>`` are settings of the task.
        k, samples: checkpoints in the zoo, models to generate. None takes those of the zoo's file, or the task's own.
        seed: of the generator's fit and samples.
        zoo_seed: of the checkpoints. None takes that of the zoo's file, or 0; it stays None where the file does not
            say.
        zoo: file of a zoo to use instead of collecting one.
        collected: checkpoints that are collected, of which the first k are the zoo; None collects k.
        align: permute the checkpoints' hidden units alike before the generator is fitted.
        min_score: also compare models of this score or better alone.
        results: folder that the record is written to.
        force: make every stage again.

    Raises:
        BadRequest: a value that cannot be, or that a given zoo contradicts.
    """

    task: str
    generator: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    k: int = None  # type: ignore[assignment]  # a number from __post_init__ on
    samples: int = None  # type: ignore[assignment]  # as k
    seed: int = 0
    zoo_seed: int | None = None
    preset: str = "quick"
    device: str = "auto"
    data_dir: str | None = None
    zoo: Path | None = None
    collected: int | None = None
    align: bool = False
    min_score: float | None = None
    results: Path = Path("results")
    force: bool = False

    def __post_init__(self) -> None:
        for name in ("k", "samples", "zoo_seed"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.usual[name])
        object.__setattr__(self, "settings", _settings(self.settings))
        for name in ("k", "samples"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise BadRequest(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("seed", "zoo_seed"):
            if abs(getattr(self, name) or 0) > LARGEST:
                raise BadRequest(f"{name} is {getattr(self, name)}, expected at most 2^53")
        if self.header and self.zoo_seed != (seed := self.header.seed):
            said = "does not say its seed" if seed is None else f"has seed {seed}"
            raise BadRequest(
                f"the zoo {self.zoo} {said}, {self.zoo_seed} was asked for: leave --zoo-seed out"
            )
        for name in ("task", "generator", "settings.task.layers"):
            text = str(self.settings.get("task.layers", "") if "." in name else getattr(self, name))
            if len(text) > LONGEST_NAME:
                raise BadRequest(
                    f"{name.rpartition('.')[2]} has {len(text)} characters, expected at most 300"
                )
        if self.preset not in ("quick", "paper"):
            raise BadRequest(f"unknown preset '{self.preset}': expected quick or paper")
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise BadRequest(f"min_score is {self.min_score}, expected a finite number")
        if (length := len(command(self))) > LONGEST:
            raise BadRequest(
                f"the command has {length:,} characters, a record holds {LONGEST:,}: "
                "put long values into a file that a setting names"
            )

    @property
    def task_settings(self) -> dict[str, Any]:
        """Return the settings that are the task's."""
        return {
            name.removeprefix(TASK): value
            for name, value in self.settings.items()
            if name.startswith(TASK)
        }

    @property
    def generator_settings(self) -> dict[str, Any]:
        """Return the settings that are the generator's."""
        return {n: value for n, value in self.settings.items() if not n.startswith(TASK)}

    @functools.cached_property
    def header(self) -> ZooHeader | None:
        """What the given zoo's file says of itself; None where none is given."""
        return read_header(self.zoo) if self.zoo else None

    @functools.cached_property
    def usual(self) -> Mapping[str, Any]:
        """What options count as that are left out: as the zoo's file says, or the task."""
        variant = plugins.task_variant(self.task)
        usual = {"k": variant.k, "samples": variant.samples, **USUAL, "min_score": None}
        return usual | ({"k": self.header.k, "zoo_seed": self.header.seed} if self.header else {})


def of(flat: Mapping[str, Any]) -> Request:
    """Return the request of flat settings, as recipes of studies and the paper's tables have them.

    Args:
        flat: fields of ``Request`` by name; what ``DIRECT`` names; and as ``set.NAME`` what the command line sets with
            ``--set NAME=``. Without ``k`` and ``samples`` they are the zoo's or the task's own.

    Raises:
        BadRequest: no such task or setting, or a value of the wrong type or out of range.
    """
    from pydantic import TypeAdapter, ValidationError

    plugins.task_variant(str(flat.get("task", "")))
    values: dict[str, Any] = {"settings": {}}
    fields = [field.name for field in dataclasses.fields(Request)]
    for name, value in flat.items():
        if name.startswith(SET):
            values["settings"][name.removeprefix(SET)] = value
        elif name in DIRECT:
            values["settings"][f"{TASK}{name}"] = value
        elif name in fields:
            values[name] = value
        else:
            raise unknown("setting", name, (*fields, *DIRECT))
    try:
        return TypeAdapter(Request).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise BadRequest(f"{name}={values.get(name)}: {first['msg']}") from None


# Values --------------------------------------------------------------------------------------------------------------


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as plain data that a command line and a record can hold.

    Raises:
        BadRequest: a name that none can have, or a value that no text stands for.
    """
    for name in settings:
        if not re.fullmatch(r"[^\W\d][\w.]*", name):
            raise BadRequest(
                f"a setting is named {name!a}, expected a name of letters, digits and _"
            )
    return {name: plain(value, name) for name, value in settings.items()}


# Commands ------------------------------------------------------------------------------------------------------------


def command(request: Request) -> str:
    """Return the command line that repeats the run; data folder, results folder and device are the reader's own."""
    asked: dict[str, Any] = {"task": request.task, "generator": request.generator}
    if request.zoo:
        asked["zoo"] = str(request.zoo)
    own = request.task_settings
    asked |= {name: own.pop(name) for name in DIRECT if _has_option(name, own.get(name))}
    for name, value in request.usual.items():
        if getattr(request, name) != value:
            asked[name] = getattr(request, name)
    words = list(WORDS)
    for name, value in asked.items():
        option, text = f"--{name.replace('_', '-')}", str(value)
        words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    words += ["--align"] if request.align else []
    for name, value in (
        request.generator_settings | {f"{TASK}{n}": v for n, v in own.items()}
    ).items():
        words += ["--set", f"{name}={written(value)}"]
    return shlex.join(words)


def _has_option(name: str, value: Any) -> bool:
    """Whether a task's setting is printed as the option of its name; of another type it is set like any other."""
    return isinstance(value, int if name in NUMBERS else str) and not isinstance(value, bool)


def read(command_line: str) -> dict[str, Any]:
    """Return the flat settings (see ``of``) that a command line asks for; what it leaves out is left out.

    Raises:
        BadRequest: it is no command of ``bench run``.
    """
    try:
        words = shlex.split(command_line)
    except ValueError:
        words = []
    if words[: len(WORDS)] != WORDS:
        raise BadRequest(f"{command_line[:80]!a} is no command of 'python -m bench run'")
    flat: dict[str, Any] = {}
    for option, text in _pairs(words[len(WORDS) :]):
        name = option.removeprefix("--").replace("-", "_")
        if name == "set":
            setting, _, value = text.partition("=")
            bare = setting.removeprefix(TASK)
            own = setting.startswith(TASK) and _has_option(bare, parsed(value)) and bare in DIRECT
            flat[bare if own else f"{SET}{setting}"] = parsed(value)
        else:
            flat[name] = True if name in FLAGS else parsed(text) if name in NUMBERS else text
    return flat


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    """Each option with its value, however it is joined to it; flags have none."""
    left = iter(words)
    for word in left:
        option, equals, text = word.partition("=")
        if not option.startswith("--"):
            raise BadRequest(f"{word[:80]!a} stands where an option was expected")
        if option.removeprefix("--").replace("-", "_") in FLAGS:
            yield option, ""
        else:
            yield option, text if equals else next(left, "")


def options(command_line: str) -> frozenset[tuple[str, str]]:
    """Return what a recorded command asks for, whatever the order and however its values are written.

    What equals a default is left out: a record from before a setting existed asks for that setting's default.
    """
    try:
        flat = read(command_line)
    except BadRequest:
        return frozenset({("", command_line)})
    usual = _defaults(flat)
    return frozenset(
        (name, json.dumps(_number(value), sort_keys=True))
        for name, value in flat.items()
        if name not in usual or _number(usual[name]) != _number(value)
    )


def _number(value: Any) -> Any:
    """A value with whole floats as integers, so that 1 and 1.0 are one number; True is none."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_number(part) for part in value]
    return value


def _defaults(flat: Mapping[str, Any]) -> dict[str, Any]:
    """What settings are where a command does not say, as far as the sources of task and generator tell."""
    usual: dict[str, Any] = {**USUAL, "align": False}
    preset = str(flat.get("preset", "quick"))
    made = declared.generator(str(flat.get("generator")))
    if made:
        own = {**made.fields, **made.preset(preset)}
        usual |= {f"{SET}{name}": value for name, value in own.items()}
    task = str(flat.get("task"))
    known = declared.task(task)
    if known and "zoo" not in flat:
        variant = plugins.task_variant(task)
        own = {**known.fields, **variant.settings, **known.preset(preset)}
        usual |= {name if name in DIRECT else f"{SET}{TASK}{name}": v for name, v in own.items()}
        usual |= {"k": variant.k, "samples": variant.samples}
    return usual
