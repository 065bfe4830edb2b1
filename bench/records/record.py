"""The record: the result of one run, validated when it is written and read. Imports neither torch nor the harness.

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
    Reference,
    Task,
    Timing,
    Verified,
    Zoo,
)
from bench.records.fields import Interval, Model, Moment, Name, Short, Tier, Version
from bench.records.judged import Judge
from bench.records.population import Population
from bench.system import reading
from bench.system.store import digest, write_text

__all__ = ["Artifact", "Interval", "Judge", "Population", "Record"]
SCHEMA = 2
LIMIT = 20_000_000  # largest size of a record's file in bytes
FIRST = re.compile(rb'\s*\{\s*"schema"\s*:\s*(\d{1,9})\s*,')  # beginning of a file


class Record(Model):
    """The result of one run.

    Attributes:
        id: identity of the run; the same run has the same id.
        created: when the record was made.
        key: ``comparability_key``; records with the same key are ranked together.
        request: what the run was asked for.
        reference: where the reference comes from; null without one.
        populations: the models that were scored, by ``Population.key``: originals, generated models, every control.
        judge: the verdict and the numbers that follow from the populations.
        versions: of the numbers' definitions, by ``bench.records.versions``; empty in records of schema 1.
        tier: how far it was verified: "claimed" (not at all), "rescored" (numbers computed again from the stored
            weights) or "regenerated" (weights made again from their seed as well).
        verified: the mark of ``bench verify`` beside a tier other than claimed.
    """

    schema_: Literal[2] = Field(alias="schema")
    id: Short
    created: Moment
    key: Short
    request: Asked
    task: Task
    zoo: Zoo
    reference: Reference | None = None
    generator: Generator
    protocol: Protocol
    populations: dict[Name, Population]
    judge: Judge
    timing: Timing
    environment: Environment
    artifacts: Artifacts
    versions: dict[Name, Version] = {}
    tier: Tier = "claimed"
    verified: Verified | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        return self.whole()

    def whole(self) -> Self:
        """Return the record itself.

        Raises:
            ValueError: its parts do not belong together.
        """
        for name, population in self.populations.items():
            if name != population.key:
                raise ValueError(f"populations.{name} should be named {population.key}")
        for name in ("original", "generated"):
            if name not in self.populations or self.populations[name].role != name:
                raise ValueError(f"populations has no {name} models")
        if self.original.further.keys() != self.generated.further.keys():
            raise ValueError(
                "populations.generated has other further metrics than populations.original"
            )
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
        """The population of originals: the checkpoints of the zoo."""
        return self.populations["original"]

    @property
    def generated(self) -> Population:
        """The population of generated models."""
        return self.populations["generated"]

    @property
    def controls(self) -> dict[str, Population]:
        """The controls by name."""
        return {name: one for name, one in self.populations.items() if one.role == "control"}

    def to_json(self) -> str:
        """Return the record as indented JSON, ending in a line break."""
        return self.model_dump_json(indent=1) + "\n"

    def write(self, results: Path) -> Path:
        """Write the record to ``<results>/<key>/<id>.json``, atomically, in place of an earlier one of the same run."""
        path = results / self.key / f"{self.id}.json"
        write_text(path, self.to_json())
        return path

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Return the valid record in a file of any schema.

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
        """Return the record in a file's content and no problems, or None and a line for each wrong field."""
        from bench.records import schema1  # here, because it is made of the parts of this schema

        try:
            if schema(data) == 1:
                # What is converted is not validated again, but for what parts have to have in common.
                return schema1.Record.model_validate_json(data).converted().whole(), []
            return cls.model_validate_json(data), []
        except ValidationError as error:
            return None, [_field_error(one["loc"], one["msg"]) for one in error.errors()]
        except (ArithmeticError, RecursionError, ValueError) as error:
            # Numbers that are too large to compute with, or parts that do not belong together.
            return None, [_field_error((), str(error))]


class _Head(BaseModel):
    """The field of a record that names its schema."""

    schema_: int = Field(alias="schema", strict=True)


def schema(data: bytes) -> int | None:
    """Return the schema that a file's content names; None where it names none."""
    if first := FIRST.match(data):  # reading the whole file for one number takes longer
        return int(first[1])
    try:
        return _Head.model_validate_json(data).schema_
    except ValidationError:
        return None


def _field_error(place: tuple[int | str, ...], message: str) -> str:
    """Return a wrong field and what is wrong with it as one line."""
    where = ".".join(str(part) for part in place) or "the file"
    return printable(f"{where}: {message.removeprefix('Value error, ')}")


def selection(higher_is_better: bool) -> str:
    """Return in words how the protocol chooses a population's selected model on the training split."""
    best = "highest" if higher_is_better else "lowest"
    return f"{best} train score, ties by lowest train loss, then the first"


def comparability_key(task: Task, zoo: Zoo, protocol: Protocol) -> str:
    """Return the hash of what records must share to be ranked together: checkpoints, data, metric, protocol."""
    sizes = [protocol.samples, protocol.train_size, protocol.val_size]
    metric = [task.metric.name, *([task.metric.version] if task.metric.version > 1 else [])]
    facts = [task.name, task.dataset_hash, task.arch, task.layers, *metric]
    scoring = [task.settings["scoring"]] if "scoring" in task.settings else []
    return digest([protocol.version, *facts, zoo.hash, zoo.k, *sizes, *scoring])


def content_hash(text: str | bytes) -> str:
    """Return the SHA-256 of a record's JSON without ``verified``; order and white space do not count."""
    data = json.loads(text)
    data.pop("verified", None)
    plain = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()
