"""Folders of records in, one table of runs out: a row a record, without the scores of single models.

Every text that comes from a record leaves this module through ``printable``, so nothing invisible reaches a page.
"""

import datetime
import gc
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BadRequest, printable
from bench.records.population import Likeness, Population
from bench.records.record import Record

# What records share to be ranked together: the key, and the facts that the key stands for. The facts are compared as
# well: a key is only a field of a file, and files are edited.
BOARD = [
    "key", "task", "dataset", "dataset_hash", "arch", "layers", "track", "k", "d", "zoo_hash", "samples",
    "train_size", "val_size", "metric", "higher_is_better", "scoring", "version",
]  # fmt: skip
METRIC = ["percent", "mean_over_units"]  # facts of a board's metric
# What the seeds of one row share: name, code, settings, aligned checkpoints or not, and device.
VARIANT = ["generator", "source", "hyperparameters", "aligned", "device"]


@dataclass(frozen=True)
class Broken:
    """A file or folder that is left out of every table, and why."""

    path: str
    reason: str


def load(folders: Iterable[Path]) -> tuple[pd.DataFrame, list[Broken]]:
    """Every record below some folders.

    The same content found twice counts once. A run that was made again (same board, variant and seed) stands with its
    newest record; the older one is listed as left out.

    Returns:
        One row a valid record, in a fixed order, with the columns of ``summary`` and ``board``; and what is left out,
        with the reason.
    """
    broken: list[Broken] = []
    rows = []
    with _no_garbage_collection():
        for path in _files(folders, broken):
            try:
                rows.append(summary(Record.read(path), path))
            except BadRequest as error:
                broken.append(_broken(path, str(error).removeprefix(f"{path} ")))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame = frame.astype(TYPES)
    frame = frame.sort_values(["key", "id", "created", "path"], kind="stable")
    frame = _newest(frame, broken).reset_index(drop=True)
    frame["board"] = _board_names(frame)
    return frame, broken


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Reading makes many objects and no cycles: looking for some would take a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _files(folders: Iterable[Path], broken: list[Broken]) -> list[Path]:
    """The JSON files below the folders, each once."""
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            broken.append(_broken(folder, "no such folder"))
        for parent, folders_in, names in os.walk(folder):
            folders_in.sort()
            odd = [name for name in folders_in if name.endswith(".json")]
            for name in sorted([*names, *odd]):
                path = Path(parent, name)
                if not name.endswith(".json"):
                    continue
                if path.is_file():
                    found.setdefault(os.path.realpath(path), path)
                else:
                    broken.append(_broken(path, "not a file"))
    return list(found.values())


def _broken(path: Path, reason: str) -> Broken:
    return Broken(printable(str(path)), printable(reason))


def _newest(frame: pd.DataFrame, broken: list[Broken]) -> pd.DataFrame:
    """One row for each run; the same content in another file is no other run."""
    frame = frame.sort_values("created", kind="stable", ascending=False)
    run = [*BOARD, *VARIANT, "seed"]
    again = frame.duplicated(run)
    if again.any():
        kept = frame[~again][[*run, "path", "content"]]
        both = frame[again].merge(kept, on=run, suffixes=("", "_kept"))
        for row in both[both["content"] != both["content_kept"]].itertuples():
            reason = f"the same run was made again: {row.path_kept}"
            broken.append(_broken(Path(str(row.path)), reason))
    return frame[~again].sort_values(["key", "id"], kind="stable")


def _board_names(frame: pd.DataFrame) -> "pd.Series[str]":
    """The key; where records share it that differ in what it stands for, the key and a hash of the facts."""
    names: pd.Series[str] = frame["key"].astype(str)
    facts = frame.drop_duplicates(BOARD)
    shared = facts["key"].duplicated(keep=False)
    for key in facts.loc[shared, "key"].unique():
        for row in facts[facts["key"] == key][BOARD].itertuples(index=False):
            same = (frame[BOARD] == pd.Series(row._asdict())).all(axis=1)
            names[same] = f"{key}-{hashlib.sha256(repr(tuple(row)).encode()).hexdigest()[:4]}"
    return names


# One record as a row -------------------------------------------------------------------------------------------------


def summary(record: Record, path: Path) -> dict[str, Any]:
    """A record's row. Scores are in the metric's own unit, times in seconds; what it does not know is missing."""
    return {
        "path": str(path),
        "id": record.id,
        "key": record.key,
        "created": record.created.astimezone(datetime.UTC).isoformat(),  # text sorts by time
        "content": _content(record),
        "tier": record.tier,
        "command": printable(record.command),
        **_task(record),
        **_generator(record),
        **_population("generated", record.generated),
        **_population("original", record.original),
        "average_selected": _average(record),
        **_likeness(record),
        **_timing(record),
        "side": record.artifacts.side is not None,
        "controls": hash(tuple(_numbers(record))),
    }


def _content(record: Record) -> int:
    """Differs where two records of one run differ."""
    scores = tuple(record.generated.values)
    return hash((scores, record.created.timestamp(), record.timing.fit_s, record.timing.sample_s))


def _numbers(record: Record) -> Iterator[float]:
    """The scores that all records of a board share."""
    controls = sorted(record.controls.items())
    for population in (record.original, *(control for _, control in controls)):
        yield from (population.selected, population.mean, population.best, population.worst)


def _task(record: Record) -> dict[str, Any]:
    task, zoo, protocol = record.task, record.zoo, record.protocol
    return {
        "task": printable(task.name),
        "kind": printable(task.kind),
        "dataset": printable(task.dataset),
        "dataset_hash": task.dataset_hash,
        "arch": printable(task.arch),
        "layers": printable(task.layers),
        "metric": printable(task.metric.name),
        "higher_is_better": task.metric.higher_is_better,
        "percent": task.metric.percent,
        "mean_over_units": task.metric.mean_over_units,
        "units": printable(task.compared.units),
        "settings": _text(task.settings),
        "scoring": _text(task.settings.get("scoring", {})),
        "zoo_hash": zoo.hash,
        "track": printable(zoo.track),
        "k": zoo.k,
        "d": zoo.d,
        "zoo_seed": zoo.seed,
        "base_score": zoo.base_score,
        "version": protocol.version,
        "preset": printable(protocol.preset),
        "samples": protocol.samples,
        "seed": protocol.seed,
        "train_size": protocol.train_size,
        "val_size": protocol.val_size,
    }


def _text(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _generator(record: Record) -> dict[str, Any]:
    made = record.generator
    return {
        "generator": printable(made.name),
        "source": made.code,
        "hyperparameters": _text(made.hyperparameters),
        "aligned": made.aligned,
        "uses": printable(", ".join(made.uses)),
    }


def _population(name: str, population: Population) -> dict[str, float | None]:
    """Statistics of one population; a single model's mean has no interval."""
    several = population.n > 1
    return {
        f"{name}_best": population.best,
        f"{name}_selected": population.selected,
        f"{name}_mean": population.mean,
        f"{name}_median": population.median,
        f"{name}_worst": population.worst,
        f"{name}_std": population.std,
        f"{name}_low": population.low if several else None,
        f"{name}_high": population.high if several else None,
    }


def _likeness(record: Record) -> dict[str, Any]:
    judge, alike = record.judge, record.generated.similarity
    noise = judge.advantages.get("noise")
    advantage = noise.mean if noise else None
    best = judge.tests.best_original if judge.tests else None
    return {
        "oo": _value(record.original.similarity.within),
        "gg": _value(alike.within),
        "og": _value(alike.originals),
        "og_max": _value(alike.nearest),
        "median_novelty": judge.median_novelty,
        "advantage": advantage.value if advantage else None,
        "advantage_low": advantage.low if advantage else None,
        "advantage_high": advantage.high if advantage else None,
        "collapsed": judge.collapsed,
        "verdict": judge.word,
        "sees_training": judge.sees_training,
        "p_best": None if best is None else best.p if best.wins > best.losses else 1.0,
    }


def _value(likeness: Likeness | None) -> float | None:
    return likeness.value if likeness else None


def _average(record: Record) -> float | None:
    """The score of the average of the originals; None where there is no such control."""
    average = record.controls.get("average")
    return average.selected if average else None


TIMES = (
    "collect_s", "fit_s", "sample_s", "sample_per_model_s", "select_s", "score_s", "target_score", "sgd_s",
    "speedup", "speedup_amortised",
)  # fmt: skip


def _timing(record: Record) -> dict[str, Any]:
    timing, environment = record.timing, record.environment
    return {
        **{name: getattr(timing, name) for name in TIMES},
        "break_even": timing.break_even_models,
        "peak_memory_bytes": timing.peak_memory_bytes,
        "device": printable(timing.device),
        "cpu": printable(environment.cpu),
        "threads": environment.threads,
        "git_commit": printable(environment.git_commit or ""),
    }


_STATISTICS = ("best", "selected", "mean", "median", "worst", "std", "low", "high")
_NUMBERS = [
    "base_score",
    *(f"{name}_{part}" for name in ("generated", "original") for part in _STATISTICS),
    "average_selected", "oo", "gg", "og", "og_max", "median_novelty",
    "advantage", "advantage_low", "advantage_high", "p_best", *TIMES, "break_even",
]  # fmt: skip
_COUNTS = ["k", "d", "version", "samples", "seed", "train_size", "val_size", "threads"]
TYPES = dict.fromkeys(_NUMBERS, "float64") | dict.fromkeys(_COUNTS, "int64")
COLUMNS = [
    "path", "id", "key", "created", "content", "tier", "command",
    "task", "kind", "dataset", "dataset_hash", "arch", "layers", "metric", "higher_is_better", *METRIC,
    "units", "settings",
    "scoring", "zoo_hash", "track", "k", "d", "zoo_seed", "version", "preset", "samples", "seed", "train_size",
    "val_size",
    "generator", "source", "hyperparameters", "aligned", "uses",
    "collapsed", "verdict", "sees_training", "peak_memory_bytes", "device", "cpu", "git_commit", "side", "controls",
    *_NUMBERS, "threads",
]  # fmt: skip
