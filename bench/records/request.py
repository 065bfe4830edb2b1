"""The request: what a run is asked to do, checked before any work starts. It declares the command line's options."""

import dataclasses
import functools
import inspect
import math
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from bench import declared, plugins
from bench.contract import presets
from bench.contract.whole_runs import held_rows, usual_count
from bench.contract.zoo_header import ZooHeader, read_header
from bench.errors import BadRequest, unknown
from bench.records.asked import LONGEST_NAME, TASK_OPTIONS, USUAL, Asked, set_at
from bench.records.values import LARGEST, plain
from bench.system.data import Json, Settings

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SET = "set."  # prefix of settings that the command line sets with --set NAME=
CANONICAL = tuple(name for name in Asked.model_fields if not name.endswith("_settings"))


@dataclasses.dataclass(frozen=True)
class Request:
    """What a run is asked to do; the text beside a field is the help of its option.

    What decides the run's numbers is in ``asked``; device, data_dir, results, force and collected belong to the
    machine that carries it out.

    Attributes:
        task, generator: names, or ``module:Class``.
        task_settings, generator_settings: fields of the task's and the generator's class by name, as plain data.
        k, samples, held_out: number of checkpoints in the zoo, of models to generate, and of trained models that no
            generator sees: the reference of the verdict, 0 for no verdict. None takes the numbers of the zoo's
            file, or the task's own. Of a zoo that was made elsewhere whole runs are held out, and held_out becomes
            the number of their rows.
        seed: seed of the generator's fit and samples.
        zoo_seed: seed of the checkpoints. None takes that of the zoo's file, or 0; it stays None where the file has
            none.
        zoo: file of a zoo to use instead of collecting one.
        preset: quick, paper, or one of the generator's own, which leaves the task as it is.
        align: permute the checkpoints' hidden units alike before the generator is fitted, even if its method does not.
        collect: collect checkpoints and reference anew where official ones come with the task.
        min_score: also compare models of this score or better alone.
        device: auto, cpu, cuda or cuda:N.
        data_dir: folder of real data.
        results: folder that the record is written to.
        force: make every stage again.
        collected: checkpoints that are collected, of which the first k are the zoo; None collects k.

    Raises:
        BadRequest: a value has the wrong type, is out of range, or contradicts the given zoo.
    """

    task: Annotated[str, "What to solve; see 'bench list'."]
    generator: Annotated[str, "What generates; see 'bench list'. Or my_package.module:Class."]
    task_settings: Settings = dataclasses.field(default_factory=dict)
    generator_settings: Settings = dataclasses.field(default_factory=dict)
    k: Annotated[int, "Checkpoints in the zoo. Default: the task's own, 200 for most."] = None  # type: ignore[assignment]  # a number from __post_init__ on
    samples: Annotated[int, "Models to generate. Default: the task's own, 100 for most."] = None  # type: ignore[assignment]  # as k
    held_out: Annotated[
        int,
        "Models to train that no generator sees: the reference of the verdict; 0: no verdict. "
        "Default: the task's own, 100 for most.",
    ] = None  # type: ignore[assignment]  # as k
    seed: Annotated[int, "Seed of the generator's fit and samples."] = 0
    zoo_seed: Annotated[
        int | None, "Seed of the checkpoints. Default: 0, or that of the zoo's file."
    ] = None
    zoo: Annotated[Path | None, "File of a zoo to use instead of collecting one."] = None
    preset: Annotated[
        str,
        "quick (2 CPU cores), paper (the paper's recipe), or one that the generator alone has (official).",
    ] = "quick"
    align: Annotated[bool, "Align hidden units before the generator is fitted."] = False
    collect: Annotated[
        bool, "Collect the checkpoints anew, even where official ones come with the suite."
    ] = False
    min_score: Annotated[float | None, "Also compare models of this score or better alone."] = None
    device: Annotated[str, "auto, cpu, cuda or cuda:N."] = "auto"
    data_dir: Annotated[str | None, "Folder of real data, or to download it to."] = None
    results: Annotated[Path, "Folder that records are written to."] = Path("results")
    force: Annotated[bool, "Make every stage again."] = False
    collected: int | None = None

    @classmethod
    def named(cls, options: Settings) -> Self:
        """Return the request for options by name, as recipes, the paper's tables and the command line have them.

        Args:
            options: fields of a request; task settings with an option of their own (``arch``); and as ``set.NAME`` or
                ``set.task.NAME`` what the command line sets with ``--set``.

        Raises:
            BadRequest: the task or an option is unknown, or a value has a wrong type or is out of range.
        """
        plugins.task_variant(str(options.get("task", "")))
        whole = {name: value for name, value in options.items() if place(name)[1] is None}
        values = _typed({"task_settings": {}, "generator_settings": {}, **whole})
        for name, value in options.items():
            field, key = place(name)
            if key is not None:
                values[field] = {**values[field], key: value}
        return cls(**values)

    def __post_init__(self) -> None:
        self._set(_typed({name: getattr(self, name) for name in _adapters()}))
        usual = self.usual
        if self.parted and (self.held_out or 0) > 0:
            self._set({"held_out": len(held_rows(self.parted, self.held_out))})
        names = ("k", "samples", "held_out", "zoo_seed")
        self._set({n: usual[n] for n in names if self._is_left_out(n)})
        self._set({"task_settings": _settings(self.task_settings, "task.")})
        self._set({"generator_settings": _settings(self.generator_settings)})
        self._check_numbers()
        self._check_texts()
        _ = self.asked  # refuses a command that is too long

    def _set(self, values: Settings) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _is_left_out(self, name: str) -> bool:
        return getattr(self, name) is None

    def _check_numbers(self) -> None:
        for name in ("k", "samples"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise BadRequest(f"{name} is {getattr(self, name)}, expected at least 1")
        if not 0 <= self.held_out <= LARGEST:
            raise BadRequest(f"held_out is {self.held_out}, expected 0 or more")
        for name in ("seed", "zoo_seed"):
            if abs(getattr(self, name) or 0) > LARGEST:
                raise BadRequest(f"{name} is {getattr(self, name)}, expected at most 2^53")
        if self.header and self.zoo_seed != (seed := self.header.seed):
            known = "does not say its seed" if seed is None else f"has seed {seed}"
            raise BadRequest(
                f"the zoo {self.zoo} {known}, {self.zoo_seed} was asked for: leave --zoo-seed out"
            )
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise BadRequest(f"min_score is {self.min_score}, expected a finite number")

    def _check_texts(self) -> None:
        texts = {"task": self.task, "generator": self.generator}
        for name, text in {**texts, "layers": str(self.task_settings.get("layers", ""))}.items():
            if len(text) > LONGEST_NAME:
                raise BadRequest(f"{name} has {len(text)} characters, expected at most 300")
        if made := declared.generator(self.generator):  # of other packages once they are imported
            presets.check(self.preset, made.presets)

    @functools.cached_property
    def asked(self) -> Asked:
        """The canonical request, as the record holds it."""
        return Asked.of(self)

    @functools.cached_property
    def header(self) -> ZooHeader | None:
        """The facts in the header of the given zoo's file; None where no zoo is given."""
        return read_header(self.zoo) if self.zoo else None

    @functools.cached_property
    def usual(self) -> Settings:
        """The values of options that are left out, by the given zoo's file or by the task."""
        variant = plugins.task_variant(self.task)
        usual = {**variant.counts, **USUAL}
        if not self.header:
            return usual
        usual |= {"k": self.header.k, "zoo_seed": self.header.seed}
        if self.parted:
            usual["held_out"] = usual_count(self.parted, variant.held_out)
            held = usual["held_out"] if self.held_out is None else self.held_out
            usual["k"] = self.header.k - len(held_rows(self.parted, held))
        return usual

    @property
    def parted(self) -> tuple[str, ...]:
        """The run of every row of the given zoo, where rows are held out by runs; otherwise empty."""
        return self.header.runs if self.header else ()


@dataclasses.dataclass(frozen=True)
class Option:
    """The declaration of one option of a run.

    Attributes:
        hint: type of its values, ``Annotated`` with a help text where the command line has the option.
        default: default value; ``inspect.Parameter.empty`` where the option is required.
    """

    hint: object
    default: object


@functools.cache
def options() -> Mapping[str, Option]:
    """Return all options by name: the fields of a request, and the task settings with an option of their own."""
    hints = typing.get_type_hints(Request, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(Request)}
    own = {name: Option(hints[name], _default(field)) for name, field in fields.items()}
    return own | {name: Option(hint, None) for name, hint in TASK_OPTIONS.items()}


def _default(field: "dataclasses.Field[object]") -> object:
    if field.default is dataclasses.MISSING:
        required = field.default_factory is dataclasses.MISSING
        return inspect.Parameter.empty if required else None
    return field.default


def place(name: str) -> tuple[str, str | None]:
    """Return the request's field that holds a named option and, of a setting, its name in that field; else None.

    >>> place("k"), place("arch"), place("set.task.epochs"), place("set.lr")
    (('k', None), ('task_settings', 'arch'), ('task_settings', 'epochs'), ('generator_settings', 'lr'))

    Raises:
        BadRequest: the option is unknown.
    """
    if name.startswith(SET):
        return set_at(name.removeprefix(SET))
    if name in TASK_OPTIONS:
        return "task_settings", name
    if name not in options():
        raise unknown("setting", name, options())
    return name, None


def _typed(values: Settings) -> dict[str, Json]:
    """Return values converted to the types of a request's fields; None, an option left out, stays None.

    Raises:
        BadRequest: a value that its type does not allow.
    """
    from pydantic import ValidationError

    typed = {}
    for name, value in values.items():
        try:
            typed[name] = None if value is None else _adapters()[name].validate_python(value)
        except ValidationError as error:
            raise BadRequest(f"{name}={value}: {error.errors()[0]['msg']}") from None
    return typed


@functools.cache
def _adapters() -> "Mapping[str, TypeAdapter[Json]]":
    from pydantic import TypeAdapter

    return {name: TypeAdapter(hint) for name, hint in typing.get_type_hints(Request).items()}


def _settings(settings: Settings, prefix: str = "") -> dict[str, Json]:
    """Return settings as plain data that a command line and a record can hold.

    Args:
        settings: values by name.
        prefix: prefix of the names on the command line, "task." or nothing.

    Raises:
        BadRequest: a name or a value that cannot be written on a command line.
    """
    for name in settings:
        if not re.fullmatch(r"[^\W\d][\w.]*", f"{prefix}{name}") or (
            set_at(f"{prefix}{name}")[1] != name
        ):
            raise BadRequest(
                f"a setting is named {name!a}, expected a name of letters, digits and _"
            )
    return {name: plain(value, f"{prefix}{name}") for name, value in settings.items()}
