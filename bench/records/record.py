"""The record: one run's result, typed, validated on write and on load. Imports neither torch nor the harness.

Its parts are in ``facts``, ``population`` and ``judged`` beside this module; ``schema1`` reads files of schema 1.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from bench.errors import BadRequest, printable
from bench.records.asked import Asked
from bench.records.facts import (
    Artifact,
    Artifacts,
    Environment,
    Generator,
    Protocol,
    Task,
    Timing,
    Verified,
    Zoo,
)
from bench.records.fields import Interval, Model, Moment, Name, Short, Tier
from bench.records.judged import Judge
from bench.records.population import Population
from bench.system import reading
from bench.system.store import digest, write_text

__all__ = ["Artifact", "Interval", "Judge", "Population", "Record"]
SCHEMA = 2
PROTOCOL = 1  # its version: records of different versions are never ranked together
LIMIT = 20_000_000  # bytes of a file
FIRST = re.compile(rb'\s*\{\s*"schema"\s*:\s*(\d{1,9})\s*,')  # what files begin with


class Record(Model):
    """One run's result.

    Attributes:
        id: of the run; the same run has the same.
        key: ``comparability_key``.
        request: what was asked for.
        populations: the models that were scored, by ``Population.key``: originals, generated models, every control.
        judge: what follows from the populations.
        tier: how far it was verified: not at all, its numbers computed again from the stored weights, or the weights
            themselves made again from their seed as well.
        verified: by which code, and which record that was.
    """

    schema_: Literal[2] = Field(alias="schema")
    id: Short
    created: Moment
    key: Short
    request: Asked
    task: Task
    zoo: Zoo
    generator: Generator
    protocol: Protocol
    populations: dict[Name, Population]
    judge: Judge
    timing: Timing
    environment: Environment
    artifacts: Artifacts
    tier: Tier = "claimed"
    verified: Verified | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for name, population in self.populations.items():
            if name != population.key:
                raise ValueError(f"populations.{name} should be named {population.key}")
        for name in ("original", "generated"):
            if name not in self.populations or self.populations[name].role != name:
                raise ValueError(f"populations has no {name} models")
        if self.original.n != self.zoo.k:
            raise ValueError(
                "populations.original has not one value for each of the zoo's k checkpoints"
            )
        if self.generated.n not in (1, self.protocol.samples):
            raise ValueError("populations.generated has not one value for each sample")
        return self

    @property
    def command(self) -> str:
        """The command line that repeats the run."""
        return self.request.command

    @property
    def original(self) -> Population:
        """The checkpoints of the zoo."""
        return self.populations["original"]

    @property
    def generated(self) -> Population:
        """The generated models."""
        return self.populations["generated"]

    @property
    def controls(self) -> dict[str, Population]:
        """The controls by name."""
        return {name: one for name, one in self.populations.items() if one.role == "control"}

    def to_json(self) -> str:
        """Return indented JSON, ending in a line break."""
        return self.model_dump_json(indent=1) + "\n"

    def write(self, results: Path) -> Path:
        """Write to ``<results>/<key>/<id>.json``, atomically; the same run overwrites its own record."""
        path = results / self.key / f"{self.id}.json"
        write_text(path, self.to_json())
        return path

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Read and validate a record of any schema.

        Raises:
            BadRequest: the file is missing, no regular file, too large or no valid record; the message names the first
                wrong field.
        """
        found, wrong = cls.parsed(reading.content(path, LIMIT, "record"))
        if found is None:
            raise BadRequest(f"{path} is not a valid record: {wrong[0]}")
        return found

    @classmethod
    def parsed(cls, data: bytes) -> tuple["Record | None", list[str]]:
        """Return the record of a file's content, or None and every field that is wrong."""
        from bench.records import schema1  # here, because it is made of the parts of this schema

        try:
            if _schema(data) == 1:
                return schema1.Record.model_validate_json(data).converted(), []
            return cls.model_validate_json(data), []
        except ValidationError as error:
            return None, [_told(one["loc"], one["msg"]) for one in error.errors()]
        except (ArithmeticError, RecursionError) as error:
            return None, [_told((), str(error))]  # numbers that are too large to compute with


class _Head(BaseModel):
    """The field of a record that says how to read the others."""

    schema_: int = Field(alias="schema", strict=True)


def _schema(data: bytes) -> int | None:
    """Return the schema that a file's content names; None where it names none."""
    if first := FIRST.match(data):  # reading the whole file for one number takes longer
        return int(first[1])
    try:
        return _Head.model_validate_json(data).schema_
    except ValidationError:
        return None


def _told(place: tuple[int | str, ...], message: str) -> str:
    """Return one wrong field in words."""
    where = ".".join(str(part) for part in place) or "the file"
    return printable(f"{where}: {message.removeprefix('Value error, ')}")


def selection(higher_is_better: bool) -> str:
    """Return by what, on the training split, protocol 1 chooses a population's selected model, in words."""
    best = "highest" if higher_is_better else "lowest"
    return f"{best} train score, ties by lowest train loss, then the first"


def comparability_key(task: Task, zoo: Zoo, protocol: Protocol) -> str:
    """Return the hash under which records may be ranked together: same checkpoints, data, metric and protocol."""
    sizes = [protocol.samples, protocol.train_size, protocol.val_size]
    metric = [task.metric.name, *([task.metric.version] if task.metric.version > 1 else [])]
    facts = [task.name, task.dataset_hash, task.arch, task.layers, *metric]
    scoring = [task.settings["scoring"]] if "scoring" in task.settings else []
    return digest([protocol.version, *facts, zoo.hash, zoo.k, *sizes, *scoring])


def content_hash(text: str | bytes) -> str:
    """Return SHA-256 of all that a record's JSON says but for ``verified``, however it is written."""
    data = json.loads(text)
    data.pop("verified", None)
    plain = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()
