"""Facts of a record in the table of runs, beside the columns of a board's table. Each is declared once."""

import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from bench.records.population import Likeness, Population
from bench.records.record import Record
from leaderboard import columns

NUMBER, COUNT = "float64", "int64"


@dataclass(frozen=True)
class Fact:
    """One fact of a record.

    Attributes:
        name: name of its column in the table of runs.
        read: returns its value; None where the record does not have it.
        dtype: type of its column; None for text.
        word: the fact in words, for readers, where two boards differ in it.
    """

    name: str
    read: Callable[[Record], Any]
    dtype: str | None = None
    word: str = ""


def plain(settings: dict[str, Any]) -> str:
    """Return settings as canonical JSON text, equal for equal settings."""
    return json.dumps(settings, sort_keys=True)


def _scoring(record: Record) -> str:
    return plain(record.task.settings.get("scoring", {}))


# Facts that records share where they are ranked together: the key, and the facts that it is a hash of. These are
# compared as well, since the key in a file can be edited.
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
# Facts of a board's metric.
METRIC = (
    Fact("percent", attrgetter("task.metric.percent")),
    Fact("mean_over_units", attrgetter("task.metric.mean_over_units")),
)
# Facts in which variants of a generator differ; the device, a column of the table, is another one.
GENERATOR = (
    Fact("generator", attrgetter("generator.name")),
    Fact("source", attrgetter("generator.code")),
    Fact("hyperparameters", lambda record: plain(record.generator.hyperparameters)),
    Fact("aligned", attrgetter("generator.aligned")),
)


def _content(record: Record) -> int:
    """Return a hash that differs between two records of the same run, unless their content is the same."""
    scores = tuple(record.generated.values)
    return hash((scores, record.created.timestamp(), record.timing.fit_s, record.timing.sample_s))


def _controls(record: Record) -> int:
    """Return a hash of the scores of originals, reference and controls."""
    own = sorted(columns.populations(record))
    return hash(tuple(_numbers([record.populations[name] for name in own])))


def _is_control(record: Record) -> bool:
    """Return whether the generator is a control that was run as one, and so stands in every record already."""
    return record.generator.name in {control.name for control in record.controls.values()}


def _numbers(populations: Sequence[Population]) -> Iterator[float]:
    for population in populations:
        yield from (population.selected, population.mean, population.best, population.worst)


def _average(record: Record) -> float | None:
    """Return the score of the average of the originals; None where the record has no such control."""
    average = record.controls.get("average")
    return average.selected if average else None


def _value(likeness: Likeness | None) -> float | None:
    return likeness.value if likeness else None


RUN = (
    Fact("id", attrgetter("id")),
    Fact("created", lambda record: record.created.astimezone(datetime.UTC).isoformat()),  # sorts by time
    Fact("content", _content),
    Fact("command", attrgetter("command")),
    # Without defaults, in order.
    Fact("changes", lambda record: json.dumps(record.request.changes)),
    Fact("seed", attrgetter("protocol.seed"), COUNT),
    Fact("zoo_seed", attrgetter("zoo.seed"), "Int64"),  # imported zoos may have none
    Fact("preset", attrgetter("protocol.preset")),
    Fact("settings", lambda record: plain(record.task.settings)),
    Fact("fit_s", attrgetter("timing.fit_s"), NUMBER),
    Fact("uses", lambda record: json.dumps(record.generator.uses)),
    Fact("controls", _controls),
    Fact("is_control", _is_control, "bool"),
)  # fmt: skip
# Numbers that are compared with the paper's, by the names in ``bench.records.paper.OURS``.
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
