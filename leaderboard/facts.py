"""What the table of runs holds of a record beside the columns of the board; each fact is declared once."""

import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from bench.records.population import Likeness, Population
from bench.records.record import Record

NUMBER, COUNT = "float64", "int64"


@dataclass(frozen=True)
class Fact:
    """One fact of a record.

    Attributes:
        name: of its column in the table of runs.
        read: returns it; None where the record does not know it.
        dtype: of the column; None for words.
        word: what people are told that two boards differ in.
    """

    name: str
    read: Callable[[Record], Any]
    dtype: str | None = None
    word: str = ""


def plain(settings: dict[str, Any]) -> str:
    """Return settings as text that is equal where they are."""
    return json.dumps(settings, sort_keys=True)


def _scoring(record: Record) -> str:
    return plain(record.task.settings.get("scoring", {}))


# What records share to be ranked together: the key, and the facts that the key stands for. The facts are compared as
# well: a key is only a field of a file, and files are edited.
BOARD = (
    Fact("key", attrgetter("key")),
    Fact("task", attrgetter("task.name"), word="task"),
    Fact("dataset", attrgetter("task.dataset"), word="data set"),
    Fact("dataset_hash", attrgetter("task.dataset_hash"), word="data"),
    Fact("arch", attrgetter("task.arch"), word="architecture"),
    Fact("layers", attrgetter("task.layers"), word="layers"),
    Fact("track", attrgetter("zoo.track"), word="track"),
    Fact("k", attrgetter("zoo.k"), COUNT, "K"),
    Fact("d", attrgetter("zoo.d"), COUNT, "parameters"),
    Fact("zoo_hash", attrgetter("zoo.hash"), word="checkpoints"),
    Fact("samples", attrgetter("protocol.samples"), COUNT, "samples"),
    Fact("train_size", attrgetter("protocol.train_size"), COUNT, "training examples"),
    Fact("val_size", attrgetter("protocol.val_size"), COUNT, "validation examples"),
    Fact("metric", attrgetter("task.metric.name"), word="metric"),
    Fact("higher_is_better", attrgetter("task.metric.higher_is_better"), word="direction"),
    Fact("scoring", _scoring, word="way of scoring"),
    Fact("version", attrgetter("protocol.version"), COUNT, "version of the protocol"),
)
# What follows from a board's metric.
METRIC = (
    Fact("percent", attrgetter("task.metric.percent")),
    Fact("mean_over_units", attrgetter("task.metric.mean_over_units")),
)
# What tells a generator's variants apart, beside the device, which is a column.
GENERATOR = (
    Fact("generator", attrgetter("generator.name")),
    Fact("source", attrgetter("generator.code")),
    Fact("hyperparameters", lambda record: plain(record.generator.hyperparameters)),
    Fact("aligned", attrgetter("generator.aligned")),
)


def _content(record: Record) -> int:
    """Return a number that differs where two records of one run differ."""
    scores = tuple(record.generated.values)
    return hash((scores, record.created.timestamp(), record.timing.fit_s, record.timing.sample_s))


def _controls(record: Record) -> int:
    """Return a number that is equal where two records have the same scores of originals and controls."""
    controls = record.controls
    return hash(tuple(_numbers([record.original, *(controls[name] for name in sorted(controls))])))


def _numbers(populations: Sequence[Population]) -> Iterator[float]:
    for population in populations:
        yield from (population.selected, population.mean, population.best, population.worst)


def _average(record: Record) -> float | None:
    """Return the score of the average of the originals; None where there is no such control."""
    average = record.controls.get("average")
    return average.selected if average else None


def _value(likeness: Likeness | None) -> float | None:
    return likeness.value if likeness else None


RUN = (
    Fact("id", attrgetter("id")),
    Fact("created", lambda record: record.created.astimezone(datetime.UTC).isoformat()),  # sorts by time
    Fact("content", _content),
    Fact("command", attrgetter("command")),
    Fact("changes", lambda record: json.dumps(record.request.changes)),  # what was asked for, no default, in its order
    Fact("seed", attrgetter("protocol.seed"), COUNT),
    Fact("preset", attrgetter("protocol.preset")),
    Fact("settings", lambda record: plain(record.task.settings)),
    Fact("fit_s", attrgetter("timing.fit_s"), NUMBER),
    Fact("controls", _controls),
)  # fmt: skip
# Numbers that stand beside the paper's, by the names of ``bench.records.paper.OURS``.
PAPER = (
    Fact("original_best", attrgetter("original.best"), NUMBER),
    Fact("original_mean", attrgetter("original.mean"), NUMBER),
    Fact("original_median", attrgetter("original.median"), NUMBER),
    Fact("average_selected", _average, NUMBER),
    Fact("generated_best", attrgetter("generated.best"), NUMBER),
    Fact("generated_selected", attrgetter("generated.selected"), NUMBER),
    Fact("generated_mean", attrgetter("generated.mean"), NUMBER),
    Fact("generated_median", attrgetter("generated.median"), NUMBER),
    Fact("generated_worst", attrgetter("generated.worst"), NUMBER),
    Fact("oo", lambda record: _value(record.original.similarity.within), NUMBER),
    Fact("gg", lambda record: _value(record.generated.similarity.within), NUMBER),
    Fact("og", lambda record: _value(record.generated.similarity.originals), NUMBER),
    Fact("og_max", lambda record: _value(record.generated.similarity.nearest), NUMBER),
    Fact("sample_s", attrgetter("timing.sample_s"), NUMBER),
    Fact("peak_memory_bytes", attrgetter("timing.peak_memory_bytes"), NUMBER),
)
FACTS = (*RUN, *BOARD, *METRIC, *GENERATOR, *PAPER)
