"""What a run is asked to do, checked before any work starts."""

import dataclasses
import itertools
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import plugins
from bench.errors import BadRequest, unknown

# Task settings with an option of their own.
DIRECT = ("arch", "layers", "track", "pretrained", "limit", "fid_images")
SET = "set."  # in flat settings, what the name of a hyperparameter or further task setting begins with


@dataclasses.dataclass(frozen=True)
class Request:
    """What a run is asked to do; the command line's options.

    Attributes:
        task, generator: names, or ``module:Class``.
        settings: hyperparameters of the generator; those named ``task.<name>`` are settings of the task.
        k, samples: checkpoints in the zoo, models to generate.
        seed: of the generator's fit and samples; ``zoo_seed`` of the checkpoints.
        zoo: file of a zoo to use instead of collecting one.
        collected: checkpoints that are collected, of which the first k are the zoo; None collects k.
        align: permute the checkpoints' hidden units alike before the generator is fitted.
        min_score: also compare models of this score or better alone.
        results: folder that the record is written to.
        force: make every stage again.
    """

    task: str
    generator: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    k: int = 200
    samples: int = 100
    seed: int = 0
    zoo_seed: int = 0
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
        for name in ("k", "samples"):
            if getattr(self, name) < 1:
                raise BadRequest(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.preset not in ("quick", "paper"):
            raise BadRequest(f"unknown preset '{self.preset}': expected quick or paper")

    def of_task(self) -> dict[str, Any]:
        """The settings that are the task's."""
        return {
            name.removeprefix("task."): value
            for name, value in self.settings.items()
            if name.startswith("task.")
        }

    def of_generator(self) -> dict[str, Any]:
        """The settings that are the generator's."""
        return {n: value for n, value in self.settings.items() if not n.startswith("task.")}


def of(flat: Mapping[str, Any]) -> Request:
    """The request of flat settings, as recipes of studies and the paper's tables have them.

    Args:
        flat: fields of ``Request`` by name; what ``DIRECT`` names; and as ``set.NAME`` what the command line sets with
            ``--set NAME=``. Without ``k`` and ``samples`` they are the task's own.

    Raises:
        BadRequest: no such task or setting, or a value of the wrong type or out of range.
    """
    from pydantic import TypeAdapter, ValidationError

    variant = plugins.task_variant(str(flat.get("task", "")))
    values: dict[str, Any] = {"settings": {}, "k": variant.k, "samples": variant.samples}
    fields = [field.name for field in dataclasses.fields(Request)]
    for name, value in flat.items():
        if name.startswith(SET):
            values["settings"][name.removeprefix(SET)] = value
        elif name in DIRECT:
            values["settings"][f"task.{name}"] = value
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


def parsed(text: str) -> Any:
    """The value that a text on the command line stands for: JSON, Python's constants, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def options(command_line: str) -> frozenset[tuple[str, str]]:
    """What a recorded command asks for, whatever the order: each option with its value."""
    try:
        words = shlex.split(command_line)[4:]  # after "python -m bench run"
    except ValueError:
        return frozenset()
    return frozenset(
        (name, "" if value.startswith("--") else value)
        for name, value in itertools.pairwise([*words, ""])
        if name.startswith("--")
    )


def command(request: Request) -> str:
    """The command line that repeats the run; folders and the device are the reader's own and left out."""
    options = {"task": request.task, "generator": request.generator}
    variant = plugins.task_variant(request.task)
    usual = {field.name: field.default for field in dataclasses.fields(Request)}
    usual |= {"k": variant.k, "samples": variant.samples}
    if request.zoo:
        options["zoo"] = request.zoo.name
    own = request.of_task()
    options |= {name: own.pop(name) for name in DIRECT if own.get(name) is not None}
    if "pretrained" in options:
        options["pretrained"] = Path(options["pretrained"]).name
    for name in ("k", "samples", "seed", "zoo_seed", "preset"):
        if getattr(request, name) != usual[name]:
            options[name] = getattr(request, name)
    if request.min_score is not None:
        options["min_score"] = str(request.min_score)
    pairs = [f"{n}={v}" for n, v in request.of_generator().items()]
    pairs += [f"task.{n}={v}" for n, v in own.items()]
    words = ["python", "-m", "bench", "run"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--align"] if request.align else []
    words += [word for pair in pairs for word in ("--set", pair)]
    return shlex.join(words)
