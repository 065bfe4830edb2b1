"""What somebody sends, validated: records, their side files, and exported zips. Imports no torch.

A record's schema checks each number by itself; here numbers are held against each other, and against the files.
"""

import math
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from bench import side
from bench.errors import BadRequest
from bench.export import RECORD, SIDE, WEIGHTS
from bench.record import Paired, Population, Record, comparability_key
from bench.store import file_hash

RECORD_LIMIT = 20_000_000  # bytes
WEIGHTS_LIMIT = 8_000_000_000
HALF = 2e-3  # what float16 loses of a number in [0, 1], and a little more
Arrays = Mapping[str, NDArray[Any]]


def files(paths: Iterable[Path]) -> list[Path]:
    """The records and zips that are named, and those below folders that are named.

    Raises:
        BadRequest: a path that is not there, or nothing to check.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(
                p for p in path.rglob("*") if p.suffix in (".json", ".zip") or _orphan(p)
            )
        elif path.exists():
            found.append(path)
        else:
            raise BadRequest(
                f"{path} is not there: expected a record, an exported zip or a folder of them"
            )
    if not found:
        raise BadRequest(
            f"nothing to check in {', '.join(map(str, paths))}: expected .json or .zip files"
        )
    return found


def _orphan(path: Path) -> bool:
    return path.suffix == ".npz" and not path.with_suffix(".json").is_file()


def check(path: Path) -> list[str]:
    """Everything that is wrong with a file; nothing if all is well."""
    try:
        if path.suffix == ".zip":
            return _zip(path)
        if path.suffix == ".npz":
            return ["a side file without its record beside it"] if _orphan(path) else []
        return [*_place(path), *_files(path)]
    except BadRequest as error:
        return [str(error).removeprefix(f"{path} ")]


def _read(path: Path) -> Record:
    """A record, if the file is not too large to be one."""
    if path.stat().st_size > RECORD_LIMIT:
        raise BadRequest(
            f"{path} has {path.stat().st_size:,} bytes, expected at most {RECORD_LIMIT:,}"
        )
    return Record.read(path)


def _place(path: Path) -> list[str]:
    """A record's file is named after its id, and its folder after its key."""
    record, problems = _read(path), []
    if path.stem != record.id:
        problems.append(f"the file should be named {record.id}.json")
    if path.resolve().parent.name != record.key:
        problems.append(f"the file should be in a folder named {record.key}")
    return problems


def _files(path: Path) -> list[str]:
    """A record, and the side file beside it."""
    record = _read(path)
    problems = list(identities(record))
    named, file = record.artifacts.side, path.with_suffix(".npz")
    if named is None:
        return problems
    if not file.is_file():
        return [*problems, f"its side file {file.name} is missing"]
    if file_hash(file) != named.sha256:
        return [*problems, f"{file.name} is not the side file that it names"]
    try:
        return [*problems, *outcomes(record, side.read(file))]
    except BadRequest as error:
        return [*problems, str(error)]


# A zip ---------------------------------------------------------------------------------------------------------------


def _zip(path: Path) -> list[str]:
    """An exported zip: its members, their sizes and hashes, and what is in them."""
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            problems = list(_members(archive))
            if problems:
                return problems
            record = Path(folder, RECORD)
            record.write_bytes(archive.read(RECORD))
            if SIDE in archive.namelist():
                record.with_suffix(".npz").write_bytes(archive.read(SIDE))
            problems = _files(record)
            if WEIGHTS in archive.namelist():
                file = Path(folder, WEIGHTS)
                with archive.open(WEIGHTS) as source, file.open("wb") as target:
                    while block := source.read(1 << 24):
                        target.write(block)
                problems += _weights(file, Record.read(record))
            return [problem.replace(f"{folder}/", "") for problem in problems]
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        return [f"not a readable zip ({error})"]


def _members(archive: zipfile.ZipFile) -> Iterator[str]:
    limits = {RECORD: RECORD_LIMIT, SIDE: side.LIMIT, WEIGHTS: WEIGHTS_LIMIT}
    names = [entry.filename for entry in archive.infolist()]
    for name in names:
        if name not in limits:
            yield f"it has {name[:80]!a}, expected {', '.join(limits)} alone"
    if len(set(names)) < len(names):
        yield "it has a file twice"
    if RECORD not in names:
        yield f"it has no {RECORD}"
    for entry in archive.infolist():
        if entry.file_size > limits.get(entry.filename, 0) and entry.filename in limits:
            yield f"{entry.filename} has {entry.file_size:,} bytes, expected at most {limits[entry.filename]:,}"


def _weights(path: Path, record: Record) -> list[str]:
    """The generated weights: the file that the record names, a matrix of finite numbers."""
    from safetensors import SafetensorError, safe_open  # here, because few checks need it

    if file_hash(path) != record.artifacts.generated.sha256:
        return [f"{WEIGHTS} is not the file that the record names"]
    try:
        with safe_open(path, "numpy") as file:
            vectors = file.get_tensor("vectors")
    except (SafetensorError, ValueError, TypeError) as error:
        return [f"{WEIGHTS} is not readable ({error})"]
    expected = (len(record.scores.generated.values), record.zoo.d)
    if vectors.shape != expected or vectors.dtype != np.float32:
        return [f"{WEIGHTS} has {vectors.shape} {vectors.dtype}, expected {expected} float32"]
    return [] if np.isfinite(vectors).all() else [f"{WEIGHTS} has values that are not finite"]


# A record ------------------------------------------------------------------------------------------------------------


def identities(record: Record) -> Iterator[str]:
    """What must hold between a record's numbers, and does not."""
    if record.key != comparability_key(record.task, record.zoo, record.protocol):
        yield "key is not that of its task, zoo and protocol"
    higher = record.task.higher_is_better
    for name, population in populations(record).items():
        if not _ordered(population, higher):
            yield f"scores.{name}: expected worst <= median <= best, in the direction of the metric"
    if record.task.metric == "accuracy":
        for name, population in populations(record).items():
            if not 0 <= min(population.values) <= max(population.values) <= 1:
                yield f"scores.{name}: an accuracy is not between 0 and 1"
    yield from _similarity(record)
    yield from _timing(record)
    if record.tests:
        for name in ("best_original", "average"):
            if not _close(_mcnemar(getattr(record.tests, name)), getattr(record.tests, name).p):
                yield f"tests.{name}: p is not that of its wins and losses"


def populations(record: Record) -> dict[str, Population]:
    """Originals, generated models and controls by name."""
    scores = record.scores
    return {"original": scores.original, "generated": scores.generated, **scores.controls()}


def _ordered(population: Population, higher: bool) -> bool:
    sign = 1 if higher else -1
    values = [sign * v for v in (population.worst, population.median, population.best)]
    return values == sorted(values)


def _close(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)


def _mcnemar(paired: Paired) -> float:
    """Two-sided p of the exact test."""
    total = paired.wins + paired.losses
    return float(binomtest(paired.wins, total).pvalue) if total else 1.0


def _similarity(record: Record) -> Iterator[str]:
    alike, novelty = record.similarity, record.novelty
    if set(alike.controls) != set(record.scores.controls()):
        yield "similarity.controls: not the controls of scores"
    if alike.original_generated.value > alike.original_generated_max.value + 1e-9:
        yield "similarity: the nearest original is less similar than originals are on average"
    for name, control in alike.controls.items():
        if control.original > control.original_max + 1e-9:
            yield f"similarity.controls.{name}: the nearest original is less similar than the average one"
    copy = alike.controls.get("copy")
    if copy and not math.isclose(copy.original_max, 1.0, abs_tol=1e-6):
        yield "similarity.controls.copy: a copy's similarity to the nearest original is 1"
    own, usual = alike.generated_generated, alike.original_original
    collapsed = None if own is None or usual is None else own.value > usual.value
    if novelty.collapsed is not collapsed:
        yield "novelty.collapsed does not follow from similarity"
    single = len(record.scores.generated.values) == 1
    if (own is None) is not single:
        yield "similarity.generated_generated: expected for several models, and for several alone"


def _timing(record: Record) -> Iterator[str]:
    timing, models = record.timing, len(record.scores.generated.values)
    each, sgd = timing.sample_per_model_s, timing.sgd_s
    if not _close(each, timing.sample_s / models):
        yield "timing.sample_per_model_s is not sample_s over the number of models"
    if not _close(timing.speedup, sgd / each if sgd is not None and each > 0 else None):
        yield "timing.speedup is not sgd_s over sample_per_model_s"
    fixed = None
    if timing.collect_s is not None:
        fixed = timing.collect_s + timing.fit_s + timing.select_s
    amortised = None
    if sgd is not None and fixed is not None:
        amortised = sgd / ((fixed + timing.sample_s) / models)
    if not _close(timing.speedup_amortised, amortised):
        yield "timing.speedup_amortised does not follow from the times"
    pays = sgd is not None and fixed is not None and sgd > each
    expected = max(1, math.ceil(fixed / (sgd - each))) if pays and fixed and sgd else None
    if timing.break_even_models is None or expected is None:
        if timing.break_even_models is not expected:
            yield "timing.break_even_models does not follow from the times"
    elif abs(timing.break_even_models - expected) > 1:
        yield "timing.break_even_models does not follow from the times"
    worse = min if record.task.higher_is_better else max
    target = worse(record.scores.generated.selected, record.scores.original.best)
    if not _close(timing.target_score, target):
        yield "timing.target_score is not the worse of the selected and the best original score"


# A side file ---------------------------------------------------------------------------------------------------------


def outcomes(record: Record, arrays: Arrays) -> Iterator[str]:
    """Where a side file and its record disagree."""
    yield from _iou(arrays)
    own = populations(record)
    for name, array in arrays.items():
        kind, _, population = name.partition(".")
        if kind in ("nearest", "train") or kind.startswith("right_"):
            if population not in own:
                yield f"side file: {name} is of a population that the record has not"
            elif kind in ("nearest", "train"):
                expected = min(len(own[population].values), side.MODELS)
                if len(array) != expected:
                    yield f"side file: {name} has {len(array)} models, expected {expected}"
    yield from _nearest(record, arrays)
    yield from _right(record, arrays, own)


def _iou(arrays: Arrays) -> Iterator[str]:
    matrix = arrays.get("iou")
    if matrix is None:
        return
    if matrix.shape[0] != matrix.shape[1] or not np.array_equal(matrix, matrix.T):
        yield "side file: iou is not symmetric"
    elif not np.array_equal(np.diagonal(matrix), np.ones(len(matrix))):
        yield "side file: iou of a model with itself is not 1"
    if matrix.size and not 0 <= matrix.min() <= matrix.max() <= 1:
        yield "side file: iou is not between 0 and 1"


def _nearest(record: Record, arrays: Arrays) -> Iterator[str]:
    alike = record.similarity
    named = {name: control.original_max for name, control in alike.controls.items()}
    named["generated"] = alike.original_generated_max.value
    for name, value in named.items():
        array = arrays.get(f"nearest.{name}")
        if array is None or len(populations(record)[name].values) > side.MODELS:
            continue
        if abs(float(array.astype(np.float64).mean()) - value) > HALF:
            yield f"side file: the mean of nearest.{name} is not the record's {value:.4f}"


def _right(record: Record, arrays: Arrays, own: Mapping[str, Population]) -> Iterator[str]:
    """Outcomes of units: as many as there are said to be, and where all are kept, those that the scores follow from."""
    units = arrays.get("units")
    if units is None or len(units) != 2:
        if any(name.startswith("right_") for name in arrays):
            yield "side file: outcomes without their numbers of units"
        return
    kept, total = (int(value) for value in units)
    if not 0 < kept <= total:
        yield f"side file: {kept} of {total} units is no part of them"
        return
    follow = kept == total and record.task.metric == "accuracy"
    for name, population in own.items():
        mean = arrays.get(f"right_mean.{name}")
        if mean is not None and len(mean) != kept:
            yield f"side file: right_mean.{name} has {len(mean)} units, expected {kept}"
        elif mean is not None and follow and abs(mean.mean() / 255 - population.mean) > 0.002:
            yield f"side file: right_mean.{name} is not the record's mean {population.mean:.4f}"
        for statistic in side.STATISTICS:
            packed = arrays.get(f"right_{statistic}.{name}")
            if packed is not None and len(packed) != math.ceil(kept / 8):
                yield f"side file: right_{statistic}.{name} has not {kept} units"
            elif packed is not None and follow and statistic != "median":
                share = float(np.unpackbits(packed, count=kept).mean())
                if abs(share - getattr(population, statistic)) > 0.5 / total:
                    yield f"side file: right_{statistic}.{name} is not the record's {statistic}"
