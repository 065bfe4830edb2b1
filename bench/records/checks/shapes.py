"""Checks of the side file's arrays: exactly those that a run writes, each of the right shape, range and content."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bench.records import side
from bench.records.checks.case import Case
from bench.records.side import Array


class Expected(NamedTuple):
    """An array that a side file may have.

    Attributes:
        name: name of the array.
        shape: its dimensions; None for any size above 0.
        required: whether it must be there.
    """

    name: str
    shape: tuple[int | None, ...]
    required: bool = True

    def fits(self, array: Array) -> bool:
        """Return whether an array has this shape."""
        pairs = zip(array.shape, self.shape, strict=True)
        return all(there == size if size is not None else there > 0 for there, size in pairs)

    def shape_text(self) -> str:
        """Return the shape in words."""
        return f"({', '.join('any' if size is None else str(size) for size in self.shape)})"


def valid_arrays(case: Case) -> tuple[Case, list[str]]:
    """Return the case with the valid arrays only, and the problems of the others and of those that are missing."""
    arrays, problems = valid(case)
    problems += _missing(
        [one for one in expected(case) if one.required and one.name not in case.arrays]
    )
    kept = dataclasses.replace(case, arrays=arrays, array_names=frozenset(case.arrays))
    return kept, [f"side file: {problem}" for problem in problems]


def valid(case: Case) -> tuple[dict[str, Array], list[str]]:
    """Return the arrays of a side file that a run of this record may have written, and the problems of the others."""
    problems: list[str] = []
    arrays: dict[str, Array] = {}
    every = {one.name: one for one in expected(case)}
    for name, array in case.arrays.items():
        if name not in every:
            problems.append(f"'{name}' is not among the arrays of such a run")
        elif not every[name].fits(array):
            shapes = f"has shape {array.shape}, expected {every[name].shape_text()}"
            problems.append(f"'{name}' {shapes}")
        elif wrong := list(_content(case, name, array)):
            problems += wrong
        else:
            arrays[name] = array
    return arrays, problems


def _missing(lacking: Sequence[Expected]) -> Iterator[str]:
    """Yield a problem for each kind of array that is missing."""
    kinds: dict[str, list[Expected]] = {}
    for one in lacking:
        kinds.setdefault(one.name.partition(".")[0], []).append(one)
    for kind, ones in kinds.items():
        populations = ", ".join(one.name.partition(".")[2] for one in ones)
        of = f" of {populations}" if populations else ""
        yield f"'{kind}'{of} is missing, expected shape {ones[0].shape_text()}"


def expected(case: Case) -> Iterator[Expected]:
    """Yield every array that the record's run may have written."""
    yield from _models(case)
    yield from _weights(case)
    yield from _outcomes(case)
    yield from _resampled(case)
    yield from _maps(case)
    # The file of a zoo may lack the curve of SGD: the zoo was made elsewhere, or scored in another way.
    yield Expected("curve", (None, 2), case.task is not None and not case.record.request.zoo)


def _models(case: Case) -> Iterator[Expected]:
    """Yield the arrays with numbers of single models."""
    for name in case.populations:
        count = len(case.stored(name))
        yield Expected(f"train.{name}", (count,))
        if name != "original" or count > 1:
            yield Expected(f"nearest.{name}", (count,))
    models = sum(len(case.stored(name, side.IOU_MODELS)) for name in ("original", "generated"))
    yield Expected("iou", (models, models))
    yield Expected("iou_originals", (1,))


def _weights(case: Case) -> Iterator[Expected]:
    columns = min(case.record.zoo.d, side.HEAT_PARAMETERS)
    yield Expected("weights_index", (columns,))
    held = [name for name in ("reference",) if name in case.populations]
    for name in ("original", "generated", *held):
        yield Expected(f"weights.{name}", (len(case.stored(name, side.HEAT_MODELS)), columns))
    known = case.task is not None  # the suite's own tasks can make untrained networks
    yield Expected("weights.random", (side.HEAT_MODELS if known else None, columns), known)


def _outcomes(case: Case) -> Iterator[Expected]:
    """Yield the arrays with outcomes of validation units."""
    if case.record.task.compared.features:
        return
    kept, required = min(unit_count(case), side.UNITS), True
    yield Expected("units", (2,), required)
    for name in case.populations:
        yield Expected(f"right_mean.{name}", (kept,), required)
        for statistic in side.STATISTICS:
            yield Expected(f"right_{statistic}.{name}", (math.ceil(kept / 8),), required)


def _resampled(case: Case) -> Iterator[Expected]:
    """Yield the arrays of scores on replicates of the validation examples, as many for all populations."""
    if case.record.task.metric.resampled == "none":
        return
    first = case.arrays.get("resampled_mean.original", np.zeros(side.FEWEST_REPLICATES))
    for name in case.populations:
        for which in side.RESAMPLED:
            yield Expected(f"resampled_{which}.{name}", (max(len(first), side.FEWEST_REPLICATES),))


def unit_count(case: Case) -> int:
    """Return the number of validation units: by the record, or by the side file where the record does not say."""
    record = case.record
    pixels = record.task.settings.get("pixels")
    if case.exact:
        return record.protocol.val_size
    if record.task.kind == "segmentation" and case.task and isinstance(pixels, int):
        return max(1, record.protocol.val_size * pixels)
    units = case.arrays.get("units", np.ones(2))
    return max(1, int(units[-1])) if len(units) else 1


def _maps(case: Case) -> Iterator[Expected]:
    """Yield the arrays with two-dimensional maps of parameters, and of latents where the generator has them."""
    facts = case.generator.facts if case.generator else {}
    named = [name for name in side.EMBEDDED if name in case.populations]
    points = {name: len(case.stored(name)) for name in named}
    enough = sum(points.values()) >= side.MAPPED
    path, known = bool(facts.get("has_path")), case.generator is not None
    latents = bool(facts.get("has_latents")) or (
        not known and any(name.startswith("latent.") for name in case.arrays)
    )
    for name, count in points.items():
        if enough or path or not known:
            yield Expected(f"map.{name}", (count, 2), enough or path)
        if latents:
            yield Expected(f"latent.{name}", (count, 2), enough)
    if path or not known:
        yield Expected("map_path", (side.PATHS if known else None, None, 2), path)


# Content of the arrays -----------------------------------------------------------------------------------------------


def _content(case: Case, name: str, array: Array) -> Iterator[str]:
    """Yield a problem for each value that an array of the right shape cannot have."""
    kind = name.partition(".")[0]
    if kind in ("iou", "nearest") and not _within(array, 0.0, 1.0):
        yield f"'{name}' is not between 0 and 1"
    elif kind == "iou":
        yield from _matrix(array)
    elif kind == "train" and not _within(array, *case.record.task.metric.bounds):
        yield f"'{name}' has training scores that {case.record.task.metric.name} cannot have"
    elif kind.startswith("resampled") and not _within(array, *case.record.task.metric.bounds):
        yield f"'{name}' has scores that {case.record.task.metric.name} cannot have"
    elif kind == "curve":
        yield from _curve(case, array)
    elif kind == "units":
        yield from _units(case, array)
    elif kind == "right_mean":
        yield from _shares(case, name, array)
    elif kind.startswith("right_") and unit_count(case) < side.UNITS:
        if np.unpackbits(array)[unit_count(case) :].any():
            yield f"'{name}' has outcomes after the last unit"
    elif kind == "map_path" and array.shape[1] > side.STEPS and case.generator:
        yield f"'{name}' has {array.shape[1]} steps, expected at most {side.STEPS}"
    elif kind in ("iou_originals", "weights_index"):
        yield from _indices(case, name, array)


def _within(array: Array, low: float, high: float) -> bool:
    return bool(((array >= low) & (array <= high)).all())


def _matrix(array: Array) -> Iterator[str]:
    if not np.array_equal(array, array.T):
        yield "iou is not symmetric"
    if not np.array_equal(np.diagonal(array), np.ones(len(array))):
        yield "iou of a model with itself is not 1"


def _indices(case: Case, name: str, array: Array) -> Iterator[str]:
    """Compare the number of originals in the matrix, or the kept parameters, with what every run keeps."""
    originals = [len(case.stored("original", side.IOU_MODELS))]
    wanted = {
        "iou_originals": np.array(originals),
        "weights_index": side.evenly(case.record.zoo.d, side.HEAT_PARAMETERS),
    }[name]
    if not np.array_equal(array, wanted):
        first = int(np.flatnonzero(array != wanted)[0])
        yield f"'{name}' has {array[first]} at {first}, expected {wanted[first]}"


def _units(case: Case, array: Array) -> Iterator[str]:
    every = unit_count(case)
    wanted = [min(every, side.UNITS), every]
    if array.tolist() != wanted:
        yield f"'units' is {array.tolist()}, expected {wanted}: those kept, and all that are scored"


def _shares(case: Case, name: str, array: Array) -> Iterator[str]:
    """Check that shares of the N models of a population are multiples of 1 / N, rounded to 1 / 255."""
    count = case.populations[name.partition(".")[2]].n
    possible = np.round(255 * np.arange(count + 1) / count) if count <= 255 else np.arange(256)
    if not np.isin(array, possible).all():
        yield f"'{name}' has shares that {count} models cannot have"


def _curve(case: Case, array: Array) -> Iterator[str]:
    seconds, scores = array.T
    if len(array) > side.CURVE_POINTS or len(array) < min(case.record.zoo.k, side.CURVE_POINTS):
        most, least = side.CURVE_POINTS, min(case.record.zoo.k, side.CURVE_POINTS)
        yield f"'curve' has {len(array)} points, expected {least} to {most}"
    if (seconds < 0).any() or (np.diff(seconds) < 0).any():
        yield "'curve' goes back in time"
    if not _within(scores, *case.record.task.metric.bounds):
        yield f"'curve' has scores that {case.record.task.metric.name} cannot have"
