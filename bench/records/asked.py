"""The canonical request: what a run was asked for, as records hold it and requests are compared. Imports no torch.

Two requests are equal where they ask for the same run: the order of settings and the notation of a number do not
count, and a setting that is left out equals its default. So a record from before a setting existed asks for that
setting's default. The command line of a run is printed from its canonical request.
"""

import functools
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_serializer,
    model_validator,
)

from bench import declared, plugins
from bench.errors import BadRequest, printable
from bench.records.values import LARGEST, canonical, parsed, plain, recorded, written
from bench.system.data import Json
from bench.system.store import digest

if TYPE_CHECKING:
    from bench.records.request import Request

# Task settings with an option of their own: its type and its help text. Every other one is set by --set task.NAME=.
TASK_OPTIONS: Mapping[str, object] = {
    "arch": Annotated[str, "Architecture; default: the task's own."],
    "layers": Annotated[
        str,
        "Generated parameters: last-norms:N, norms:A-B, linear, conv:first, shortcut, head, all, or name patterns.",
    ],
    "track": Annotated[str, "trajectory (steps of one run) or seeds (independent runs)."],
    "pretrained": Annotated[
        str, "'released' for released weights, or a file (or diffusers folder) of weights."
    ],
    "limit": Annotated[
        int, "Images of each split to use at all, drawn at random (tasks on COCO's data)."
    ],
    "fid_images": Annotated[int, "Images that each model draws for FID: 50,000 for publication."],
}
TASK = "task."  # prefix of the task's settings in --set
WORDS = ["python", "-m", "bench", "run"]
LONGEST, LONGEST_NAME = 4000, 300  # most characters of a command and of a name
FLAGS = ("align", "collect")  # options without a value
USUAL = {"seed": 0, "zoo_seed": 0, "preset": "quick", **dict.fromkeys(FLAGS, False)}  # defaults


def _settings(values: dict[str, Json]) -> dict[str, Json]:
    try:
        return {name: recorded(plain(value, name)) for name, value in values.items()}
    except BadRequest as error:
        raise ValueError(str(error)) from None


def set_at(name: str) -> tuple[str, str]:
    """Return which settings ``--set NAME=`` changes, the task's or the generator's, and the name in these settings."""
    of_task = name.startswith(TASK)
    return "task_settings" if of_task else "generator_settings", name.removeprefix(TASK)


Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
Size = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Settings = Annotated[dict[str, Json], AfterValidator(_settings)]


class Asked(BaseModel):
    """What a run was asked for, without what belongs to one machine: device, folders, force.

    Settings are held as they were given, so that the printed command stays the same when a default changes. None stands
    for an option that was left out.

    Attributes:
        task, generator: names, or ``module:Class``.
        zoo: path of the file of a zoo, used instead of collecting one.
        k, samples, held_out: number of checkpoints in the zoo, of models to generate, and of models in the reference.
        seed, zoo_seed: seed of the generator's fit and samples, and seed of the checkpoints.
        preset: quick, paper, or one of the generator's own.
        min_score: models of this score or better are also compared alone.
        align: whether hidden units were aligned before the generator was fitted.
        collect: whether the checkpoints were collected anew, although official ones might be there.
        task_settings, generator_settings: fields of the task's and the generator's class by name.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    task: Name
    generator: Name
    zoo: str | None = None
    k: Size | None = None
    samples: Size | None = None
    held_out: Annotated[int, Field(ge=0, le=LARGEST)] | None = None
    seed: Seed | None = None
    zoo_seed: Seed | None = None
    preset: str | None = None
    min_score: float | None = None
    align: bool = False
    collect: bool = False
    task_settings: Settings = Field(default={})
    generator_settings: Settings = Field(default={})

    @classmethod
    def of(cls, request: "Request") -> Self:
        """Return the canonical request of a request, without sizes, seeds and preset where they are the usual ones.

        Raises:
            BadRequest: the command would be longer than a record holds.
        """
        given = {name: getattr(request, name) for name in cls.model_fields}
        given["zoo"] = str(request.zoo) if request.zoo else None
        return cls._validated(
            {n: v for n, v in given.items() if n not in request.usual or v != request.usual[n]}
        )

    @classmethod
    def read(cls, command_line: str) -> Self:
        """Return the canonical request of a printed command line. Only records of schema 1 are read in this way.

        Raises:
            BadRequest: the text is no command of ``bench run``, or has an unknown option or a wrong value.
        """
        return cls._validated(_command_fields(command_line), strict=False)

    @classmethod
    def _validated(cls, values: Mapping[str, Json], *, strict: bool = True) -> Self:
        try:
            return cls.model_validate(values, strict=strict)
        except ValidationError as error:
            first = error.errors()[0]
            place = "".join(f"{part}: " for part in first["loc"][:1])
            raise BadRequest(
                printable(f"{place}{first['msg'].removeprefix('Value error, ')}")
            ) from None

    @model_validator(mode="after")
    def _printable(self) -> Self:
        if (length := len(self.command)) > LONGEST:
            raise ValueError(
                f"the command has {length:,} characters, a record holds {LONGEST:,}: "
                "put long values into a file that a setting names"
            )
        return self

    @model_serializer
    def given(self) -> dict[str, Json]:
        """Return the fields that were not left out, as plain data."""
        fields = type(self).model_fields.items()
        return {n: getattr(self, n) for n, f in fields if getattr(self, n) != f.default}

    @functools.cached_property
    def command(self) -> str:
        """The command line that repeats the run, without the reader's own device, data folder and results folder."""
        task = dict(self.task_settings)
        own = {n: task.pop(n) for n in TASK_OPTIONS if n in task and _has_option(n, task[n])}
        given = self.given()
        first = [name for name in ("task", "generator", "zoo") if name in given]
        options = {name: given.pop(name) for name in first} | own | given
        words = list(WORDS)
        for name, value in options.items():
            if name not in (*FLAGS, "task_settings", "generator_settings"):
                option, text = f"--{name.replace('_', '-')}", str(value)
                words += [f"{option}={text}"] if text.startswith("-") else [option, text]
        words += [f"--{name}" for name in FLAGS if given.get(name)]
        sets = {**self.generator_settings, **{f"{TASK}{n}": value for n, value in task.items()}}
        for name, value in sets.items():
            words += ["--set", f"{name}={written(value)}"]
        return shlex.join(words)

    @functools.cached_property
    def changes(self) -> Mapping[str, Json]:
        """The fields that differ from their defaults, by name, with settings in two mappings of their own."""
        usual, task, generator = self._defaults()
        return {
            **_not_default(self.given(), usual),
            "task_settings": _not_default(self.task_settings, task),
            "generator_settings": _not_default(self.generator_settings, generator),
        }

    @functools.cached_property
    def canonical(self) -> str:
        """The JSON text that is the same for all equal requests."""
        return canonical(self.changes)

    def _defaults(self) -> tuple[dict[str, Json], dict[str, Json], dict[str, Json]]:
        """Return the declared defaults of options, task settings and hyperparameters."""
        usual: dict[str, Json] = dict(USUAL)
        task: dict[str, Json] = {}
        preset = self.preset or "quick"
        known, made = declared.task(self.task), declared.generator(self.generator)
        if known and not self.zoo:  # the file of a zoo has the task's settings
            variant = plugins.task_variant(self.task)
            usual |= variant.counts
            task = {**known.fields, **variant.settings, **known.preset(preset)}
        return usual, task, {**made.fields, **made.preset(preset)} if made else {}

    @property
    def digest(self) -> str:
        """The sixteen hexadecimal digits that are the same for all equal requests."""
        return digest(self.canonical)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Asked) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)


def _not_default(given: Mapping[str, Json], usual: Mapping[str, Json]) -> dict[str, Json]:
    """Return the values that differ from the defaults, or have none."""
    return {
        name: value
        for name, value in given.items()
        if name not in usual or canonical(recorded(usual[name])) != canonical(value)
    }


def _has_option(name: str, value: Json) -> bool:
    """Return whether a task setting can be printed as the option of its name, or, by its type, only by ``--set``."""
    kind = get_args(TASK_OPTIONS[name])[0]
    return isinstance(value, kind) and not isinstance(value, bool)


# Command lines of records of schema 1 --------------------------------------------------------------------------------


def _command_fields(command_line: str) -> dict[str, Json]:
    """Return the fields that a command line gives, as text that ``pydantic`` converts."""
    try:
        words = shlex.split(command_line)
    except ValueError:
        words = []
    if words[: len(WORDS)] != WORDS:
        raise BadRequest(f"{command_line[:80]!a} is no command of 'python -m bench run'")
    given: dict[str, Json] = {"task_settings": {}, "generator_settings": {}}
    for option, text in _pairs(words[len(WORDS) :]):
        name = option.removeprefix("--").replace("-", "_")
        if name == "set":
            setting, _, value = text.partition("=")
            field, bare = set_at(setting)
            given[field][bare] = parsed(value)
        elif name in TASK_OPTIONS:
            number = get_args(TASK_OPTIONS[name])[0] is int
            given["task_settings"][name] = parsed(text) if number else text
        elif name in Asked.model_fields and not name.endswith("_settings"):
            given[name] = text
        else:
            raise BadRequest(f"{option[:80]} is no option of 'python -m bench run'")
    return given


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each option of a command line with its value, after a space or ``=``; a flag has none."""
    left = iter(words)
    for word in left:
        option, equals, text = word.partition("=")
        if not re.fullmatch(r"--[a-z-]+", option):
            raise BadRequest(f"{word[:80]!a} stands where an option was expected")
        if option.removeprefix("--") in FLAGS:
            yield option, "true"
        else:
            yield option, text if equals else next(left, "")
