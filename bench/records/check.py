"""Checks of submitted files: records, their side files, and exported zips. Imports no torch.

A record's schema checks each number by itself. This module also computes again everything that follows from other
numbers of the record or its side file (``bench.records.checks``), and compares files with the hashes that the record
has of them. Nothing is computed from weights: that is ``bench verify``.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from bench.errors import BadRequest, line
from bench.records import side, versions
from bench.records.checks import (
    agreement,
    alike,
    asked,
    identity,
    implied,
    novel,
    outcomes,
    plausible,
    reference,
    resampled,
    scores,
    shapes,
    tiers,
    times,
    weights,
)
from bench.records.checks import versions as versions_
from bench.records.checks.case import Case
from bench.records.export import RECORD, SIDE, WEIGHTS
from bench.records.record import LIMIT, SCHEMA, Record, schema
from bench.records.side import PATHS, STEPS
from bench.records.tensors import Vectors
from bench.system import reading

WEIGHTS_LIMIT = 8_000_000_000  # bytes of a file of generated weights, sampling paths and latents
LATENTS_LIMIT = 1_000_000_000  # bytes of latents in this file
SMALL = 64_000_000  # bytes that weights may unpack to anyway
RATIO = 20  # times the size of their zip that they may: numbers hardly compress, and an export does not try
LINE = 500  # characters of a problem that are printed
LINES = 200  # problems of a file that are printed
MANY = 16  # files from which on it pays to start processes, a second each
SUBJECTS = (
    versions_,
    identity,
    asked,
    scores,
    outcomes,
    resampled,
    plausible,
    alike,
    agreement,
    implied,
    novel,
    reference,
    weights,
    times,
)


def files(paths: Iterable[Path]) -> list[Path]:
    """Return the files that are named, and all records, zips and lone side files below the folders that are named.

    Raises:
        BadRequest: a path that is not there, or nothing to check.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(
                p for p in path.rglob("*") if p.suffix in (".json", ".zip") or _orphan(p)
            )
        elif os.path.lexists(path):
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


def check_all(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """Return the problems of every file, as ``check`` does; many files are checked on all cores."""
    if len(paths) < MANY:
        return {path: check(path) for path in paths}
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return dict(zip(paths, pool.map(check, paths, chunksize=4), strict=True))


def check(path: Path) -> list[str]:
    """Return a line of text for each problem of a file; an empty list if all is well."""
    kinds: dict[str, Callable[[Path], Iterator[str]]] = {".zip": _zip, ".npz": _side}
    problems = _guarded("the file", functools.partial(kinds.get(path.suffix, _file), path))
    lines = [line(problem.removeprefix(f"{path} "), LINE) for problem in dict.fromkeys(problems)]
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"and {len(lines) - LINES} more problems"]
    return lines


def fine(path: Path) -> str:
    """Return what is said of a file without problems: "ok", and which of a record's numbers are withdrawn."""
    if path.suffix != ".json":
        return "ok"
    withdrawn = versions.withdrawn(Record.read(path))
    return f"ok; withdrawn: {', '.join(withdrawn)}" if withdrawn else "ok"


def _guarded(what: str, problems: Callable[[], Iterable[str]]) -> Iterator[str]:
    """Yield the problems that a check finds; an exception that it raises is one more problem.

    Whoever sends a file may put anything into it: no single file ends the check of all.
    """
    try:
        yield from problems()
    except BadRequest as error:
        yield str(error)
    except Exception as error:
        yield f"{what} cannot be checked ({type(error).__name__}: {error})"


def _side(path: Path) -> Iterator[str]:
    if _orphan(path):
        yield "a side file without its record beside it"


# A record and its side file ------------------------------------------------------------------------------------------


def _file(path: Path) -> Iterator[str]:
    """Check a record, its file name, its folder, and the side file beside it."""
    data = reading.content(path, LIMIT, "record")
    record, wrong = Record.parsed(data)
    if record is None:
        yield from (f"not a valid record: {field}" for field in wrong)
        return
    if path.stem != record.id:
        yield f"the file should be named {record.id}.json"
    if path.resolve().parent.name != record.key:
        yield f"the file should be in a folder named {record.key}"
    beside = path.with_suffix(".npz")
    yield from _content(
        record, data, lambda: reading.content(beside, side.LIMIT, "side file"), beside.name
    )


def _content(record: Record, data: bytes, beside: Callable[[], bytes], name: str) -> Iterator[str]:
    """Check what a record says against itself and its side file.

    Args:
        record: the record.
        data: content of the record's file.
        beside: returns the content of the side file; raises BadRequest.
        name: file name of the side file.
    """
    arrays, problems = _arrays(record, beside, name)
    yield from problems
    case = Case(record, arrays or {}, schema=schema(data) or SCHEMA)
    if arrays is not None:
        case, problems = shapes.valid_arrays(case)
        yield from problems
    yield from _guarded("tier", functools.partial(tiers.problems, record, data))
    for subject in SUBJECTS:
        what = subject.__name__.rpartition(".")[2]
        yield from _guarded(what, functools.partial(subject.problems, case))


def _arrays(
    record: Record, beside: Callable[[], bytes], name: str
) -> tuple[dict[str, side.Array] | None, list[str]]:
    """Return the side file's arrays, or None, and its problems; its hash is checked before its content is read."""
    named = record.artifacts.side
    if named is None:
        return None, [
            "artifacts.side is null, expected the side file: without it nothing can be checked"
        ]
    try:
        data = beside()
        if hashlib.sha256(data).hexdigest() != named.sha256:
            return None, [f"{name} is not the side file that it names"]
        arrays, problems = side.unpacked(data)
    except BadRequest as error:
        return None, [f"its side file {name} is missing or cannot be read ({error})"]
    return arrays, [f"side file: {problem}" for problem in problems]


# A zip ---------------------------------------------------------------------------------------------------------------


def _zip(path: Path) -> Iterator[str]:
    """Check an exported zip: its members, their sizes and hashes, the record, the side file and the weights."""
    limits = {RECORD: LIMIT, SIDE: side.LIMIT, WEIGHTS: WEIGHTS_LIMIT}
    with reading.opened(path, sum(limits.values()), "zip") as file:
        archive = reading.Archive(file)
        problems = [*_members(archive.names, limits), *archive.problems(limits)]
        yield from problems
        if problems:
            return
        data = archive.read(RECORD, LIMIT)
        record, wrong = Record.parsed(data)
        if record is None:
            yield from (f"{RECORD} is not a valid record: {field}" for field in wrong)
            return
        yield from _content(record, data, lambda: archive.read(SIDE, side.LIMIT), SIDE)
        if WEIGHTS in archive.names:
            models, d = record.generated.n, record.zoo.d
            said = 4 * d * (models + PATHS * STEPS) + LATENTS_LIMIT
            most = min(WEIGHTS_LIMIT, said, SMALL + RATIO * path.stat().st_size)
            yield from _weights(archive.blocks(WEIGHTS, most), record)


def _members(names: list[str], limits: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name not in limits:
            yield f"it has {name[:80]!a}, expected {', '.join(limits)} alone"
    if len(set(names)) < len(names):
        yield "it has a file twice"
    if RECORD not in names:
        yield f"it has no {RECORD}"


def _weights(blocks: Iterator[bytes], record: Record) -> Iterator[str]:
    """Check hash, shape and values of the generated weights, block by block: they need not fit into memory."""
    digest, vectors = hashlib.sha256(), Vectors()
    for block in blocks:
        digest.update(block)
        vectors.add(block)
    if digest.hexdigest() != record.artifacts.generated.sha256:
        yield f"{WEIGHTS} is not the file that the record names"
        return
    expected = (record.generated.n, record.zoo.d)
    yield from (f"{WEIGHTS} {problem}" for problem in vectors.problems(expected))
