"""Records in, tables out: pure functions, no widgets, no torch.

Every text that comes from a record leaves this module through ``plain``, so nothing invisible
reaches a page.
"""

import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from bench.errors import BadRequest
from bench.record import Population, Record, Verdict

SCORES = ("best", "selected", "mean", "low", "high", "median", "worst")
NUMBERS = (*SCORES, "nearest_iou", "p_best", "seconds_per_model", "speedup", "speedup_amortised")
COLUMNS = (
    "key", "generator", "kind", "seeds", *SCORES, "p_best", "nearest_iou", "verdict", "collapsed",
    "seconds_per_model", "speedup", "speedup_amortised", "device", "command",
)  # fmt: skip


@dataclass(frozen=True)
class Broken:
    """A file or folder that is left out of every table, and why."""

    path: str
    reason: str


@dataclass(frozen=True, order=True)
class Board:
    """What records share to be ranked together: the key, and the facts that the key stands for.

    The facts are compared as well: a key is only a field of a file, and files are edited.
    """

    task: str
    arch: str
    layers: str
    track: str
    k: int
    samples: int
    train_size: int
    val_size: int
    metric: str
    higher_is_better: bool
    parameters: int
    dataset_hash: str
    zoo_hash: str
    key: str

    @classmethod
    def of(cls, record: Record) -> "Board":
        """The board that a record belongs to."""
        task, zoo, protocol = record.task, record.zoo, record.protocol
        return cls(
            task=plain(task.name),
            arch=plain(task.arch),
            layers=plain(task.layers),
            track=plain(zoo.track),
            k=zoo.k,
            samples=protocol.samples,
            train_size=protocol.train_size,
            val_size=protocol.val_size,
            metric=plain(task.metric),
            higher_is_better=task.higher_is_better,
            parameters=zoo.d,
            dataset_hash=task.dataset_hash,
            zoo_hash=zoo.hash,
            key=record.key,
        )


def plain(text: str) -> str:
    r"""Text with what cannot be seen (control, direction, lone surrogate) spelled out.

    >>> plain("a\nb")
    'a\\nb'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


# Reading ----------------------------------------------------------------------------------------


def load(folders: Iterable[Path]) -> tuple[list[Record], list[Broken]]:
    """Every record below some folders.

    The same content found twice counts once. A run that was made again (same key, generator, code,
    settings, seed and device) stands with its newest record; the older one is listed as left out.

    Returns:
        The valid records, and what is left out with the reason. Both are in a fixed order.
    """
    newest: dict[tuple[object, ...], tuple[Path, Record]] = {}
    broken: list[Broken] = []
    for path in _files(folders, broken):
        try:
            record = Record.read(path)
        except BadRequest as error:
            broken.append(_broken(path, str(error).removeprefix(f"{path} ")))
            continue
        run = (Board.of(record), *_variant(record), record.protocol.seed)
        if run not in newest:
            newest[run] = path, record
        elif newest[run][1] != record:
            older, newest[run] = sorted((newest[run], (path, record)), key=_age)
            broken.append(_broken(older[0], f"the same run was made again: {newest[run][0]}"))
    records = sorted((record for _, record in newest.values()), key=lambda r: (r.key, r.id))
    return records, broken


def _files(folders: Iterable[Path], broken: list[Broken]) -> list[Path]:
    """The JSON files below the folders, each once."""
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            broken.append(_broken(folder, "no such folder"))
        for path in sorted(folder.rglob("*.json")):
            if path.is_file():
                found.setdefault(path.resolve())
            else:
                broken.append(_broken(path, "not a file"))
    return list(found)


def _broken(path: Path, reason: str) -> Broken:
    return Broken(plain(str(path)), plain(reason))


def _age(found: tuple[Path, Record]) -> tuple[datetime.datetime, str]:
    """Sorts records by their time, a time without a zone taken as UTC; then by content."""
    created = found[1].created
    aware = created if created.tzinfo else created.replace(tzinfo=datetime.UTC)
    return aware, hashlib.sha256(found[1].to_json().encode()).hexdigest()


# Rows -------------------------------------------------------------------------------------------


def boards(records: Iterable[Record]) -> dict[Board, list[Record]]:
    """The records by what may be ranked together, in alphabetical order."""
    found: dict[Board, list[Record]] = {}
    for record in records:
        found.setdefault(Board.of(record), []).append(record)
    return dict(sorted(found.items()))


def rows(records: Iterable[Record]) -> pd.DataFrame:
    """One row a generator (seeds pooled), one for the originals and one a control, best first.

    Records of different keys are never pooled or ranked together: their rows follow each other,
    board by board.

    Args:
        records: as ``load`` gives them.

    Returns:
        Columns ``COLUMNS``. Scores are in the metric's own unit, times in seconds. What a record
        does not know, and the interval of a single model, is missing.
    """
    found = [row for board, own in boards(records).items() for row in _board_rows(board, own)]
    frame = pd.DataFrame(found, columns=list(COLUMNS))
    types = dict.fromkeys(NUMBERS, "float64") | {"seeds": "Int64"}
    return frame.astype(types)


def controls_agree(records: Sequence[Record]) -> bool:
    """Whether the records of one board hold the same scores of originals and controls."""
    exclude = {"generated"}
    first = records[0].scores.model_dump(exclude=exclude)
    return all(record.scores.model_dump(exclude=exclude) == first for record in records)


def _board_rows(board: Board, records: list[Record]) -> list[dict[str, Any]]:
    """The rows of one board, ranked by the selected model's score, then by the mean."""
    variants: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        variants.setdefault(_variant(record), []).append(record)
    found = [_generator_row(own, _label(own[0], records)) for own in variants.values()]
    tested = [row for row in found if row["p_best"] is not None]
    for row, p in zip(tested, holm([row["p_best"] for row in tested]), strict=True):
        row["p_best"] = p
    found += _control_rows(max(records, key=lambda record: _age((Path(), record))))
    sign = -1 if board.higher_is_better else 1
    found.sort(key=lambda row: (sign * row["selected"], sign * row["mean"]))
    return [{"key": board.key} | row for row in found]


def holm(values: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected by Holm's step-down method: any below 0.05 holds beside all others.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    ascending = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    steps = np.maximum.accumulate(np.asarray(values)[ascending] * factors)
    adjusted = np.empty(len(values))
    adjusted[ascending] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


def _p_best(records: list[Record]) -> float | None:
    """The p-value of "better than the best original" in every seed: the largest; 1.0 where one is not better."""
    tests = [record.tests.best_original for record in records if record.tests]
    if len(tests) < len(records):
        return None
    return max(test.p if test.wins > test.losses else 1.0 for test in tests)


def _variant(record: Record) -> tuple[str, ...]:
    """What the seeds of one row share: name, code, settings, aligned checkpoints or not, and device."""
    made = record.generator
    settings = json.dumps(made.hyperparameters, sort_keys=True)
    return made.name, made.source, settings, str(made.aligned), record.timing.device


def _label(record: Record, records: list[Record]) -> str:
    """The generator's name, with the settings and code that tell it from others of that name."""
    made = record.generator
    others = [r.generator for r in records if r.generator.name == made.name]
    parts = [
        f"{name}={value}"
        for name, value in made.hyperparameters.items()
        if any(other.hyperparameters.get(name) != value for other in others)
    ]
    if any(other.source != made.source for other in others):
        parts.append(f"code {made.source[:8]}")
    if any(other.aligned != made.aligned for other in others):
        parts.append("aligned" if made.aligned else "not aligned")
    return plain(", ".join([made.name, *parts]))


def _generator_row(records: list[Record], label: str) -> dict[str, Any]:
    """One generator's seeds as one row: means over seeds."""
    records = sorted(records, key=lambda record: record.protocol.seed)
    timings = [record.timing for record in records]
    return {
        "generator": label,
        "kind": "generator",
        "seeds": len(records),
        **_pooled([record.scores.generated for record in records]),
        "p_best": _p_best(records),
        "nearest_iou": _mean([r.similarity.original_generated_max.value for r in records]),
        "verdict": _verdicts([record.novelty.verdict for record in records]),
        "collapsed": _collapsed([record.novelty.collapsed for record in records]),
        "seconds_per_model": _mean([timing.sample_per_model_s for timing in timings]),
        "speedup": _mean([timing.speedup for timing in timings]),
        "speedup_amortised": _mean([timing.speedup_amortised for timing in timings]),
        "device": plain(timings[0].device),
        "command": "\n".join(plain(record.command) for record in records),
    }


def _control_rows(record: Record) -> list[dict[str, Any]]:
    """The originals and every control, which all records of a key share."""
    original = {"generator": "original", "kind": "original", **_pooled([record.scores.original])}
    alike = record.similarity.controls
    controls = [
        {
            "generator": name,
            "kind": "control",
            **_pooled([population]),
            "nearest_iou": alike[name].original_max if name in alike else None,
        }
        for name, population in record.scores.controls().items()
    ]
    return [original, *controls]


def _pooled(populations: list[Population]) -> dict[str, float | None]:
    """Means over seeds; the mean's interval over seeds where there are several, else models."""
    scores: dict[str, float | None] = {
        name: _mean([getattr(population, name) for population in populations]) for name in SCORES
    }
    if len(populations) > 1:
        scores["low"], scores["high"] = _student([population.mean for population in populations])
    elif len(populations[0].values) == 1:
        scores["low"] = scores["high"] = None
    return scores


def _student(values: list[float]) -> tuple[float, float]:
    """95 % interval of the mean of a few values, by Student's t."""
    count = len(values)
    half = float(stdtrit(count - 1, 0.975)) * float(np.std(values, ddof=1)) / count**0.5
    middle = float(np.mean(values))
    return middle - half, middle + half


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, or nothing where one of the values is unknown: a mean of the rest would flatter."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _verdicts(words: list[Verdict | None]) -> str | None:
    """The verdict; how many of the seeds got which where they differ."""
    known = Counter(word for word in words if word is not None)
    if known.total() < len(words):
        return None
    if len(known) == 1:
        return next(iter(known))
    return ", ".join(f"{word} {count} of {len(words)}" for word, count in known.most_common())


def _collapsed(flags: list[bool | None]) -> str | None:
    """The flag in words; how many of the seeds where they differ."""
    known = [flag for flag in flags if flag is not None]
    if len(known) < len(flags):
        return None
    if len(set(known)) == 1:
        return "yes" if known[0] else "no"
    return f"{sum(known)} of {len(known)}"
