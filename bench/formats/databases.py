"""Databases of checkpoints as G.pt publishes them: LMDB folders of flat vectors, with runs.json.

A key is a checkpoint's name and holds its float32 numbers; ``<name>_arch`` holds the sizes of its tensors, as float32
too. Names and shapes of tensors are not in the database.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from bench.errors import BadRequest, printable
from bench.formats.checkpoint import Checkpoint, walk
from bench.system import reading
from bench.system.data import Json

if TYPE_CHECKING:
    from torch import Tensor

MARK, RUNS = "data.mdb", "runs.json"
LIMIT = 500_000_000  # bytes of runs.json


def find(root: Path) -> list[Checkpoint]:
    """Return the checkpoints of all databases in and below a folder, as runs.json lists them."""
    folders = [folder for folder, names in walk(root) if MARK in names]
    return [one for folder in folders for one in _listed(folder)]


def _listed(folder: Path) -> Iterator[Checkpoint]:
    """Yield the checkpoints of one database.

    Raises:
        BadRequest: runs.json is missing, or lists none.
    """
    try:
        told = json.loads(reading.content(folder / RUNS, LIMIT, "list of runs"))
        runs = {folder.name: told} if "checkpoints" in told else told
        listed = {str(run): dict(one["checkpoints"]) for run, one in runs.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise BadRequest(
            f"{folder / RUNS} lists no checkpoints: expected the metrics of each, by run and name"
        ) from None
    for run, checkpoints in listed.items():
        for place, (name, metrics) in enumerate(checkpoints.items()):
            number = re.search(r"(\d+)\D*$", name)
            epoch = int(number[1]) if number else place
            yield Checkpoint((folder,), run, epoch, _numbers(metrics), name)


def _numbers(metrics: Json) -> dict[str, float]:
    items = metrics.items() if isinstance(metrics, Mapping) else ()
    return {
        name: float(value)
        for name, value in items
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def read(checkpoint: Checkpoint, like: "Mapping[str, Tensor] | None") -> "dict[str, Tensor]":
    """Read a checkpoint of a database.

    Args:
        checkpoint: the checkpoint.
        like: a state dict of the same network, whose names and shapes it gets; without one its tensors are flat, and
            named by their places.

    Raises:
        BadRequest: the package lmdb is not installed, the database is damaged, or the sizes of tensors do not fit.
    """
    import torch  # here, because listing needs none

    vector, sizes = (
        torch.frombuffer(bytearray(one), dtype=torch.float32) for one in _values(checkpoint)
    )
    counts = [int(size) for size in sizes.tolist()]
    if sum(counts) != len(vector) or min(counts, default=0) < 0:
        raise BadRequest(
            f"{checkpoint.path}: {len(vector):,} numbers, its tensors have {sum(counts):,}"
        )
    pieces = vector.split(counts)
    if like is None:
        return {f"{place:03d}": piece for place, piece in enumerate(pieces)}
    floats = {name: one for name, one in like.items() if one.is_floating_point()}
    _check_sizes(checkpoint, counts, [one.numel() for one in floats.values()])
    return {n: p.reshape(one.shape) for (n, one), p in zip(floats.items(), pieces, strict=True)}


def _check_sizes(checkpoint: Checkpoint, counts: Sequence[int], expected: Sequence[int]) -> None:
    if list(counts) != list(expected):
        raise BadRequest(
            f"{checkpoint.path}: tensors of {_few(counts)} numbers, those of --base have {_few(expected)}"
        )


def _few(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes[:8])) + (
        f" and {len(sizes) - 8} more" if len(sizes) > 8 else ""
    )


def _values(checkpoint: Checkpoint) -> tuple[bytes, bytes]:
    """Return the bytes of a checkpoint and of its tensors' sizes, whole float32 numbers of both."""
    (folder,), lmdb = checkpoint.files, _library()
    try:
        with (
            lmdb.open(str(folder), readonly=True, lock=False, create=False) as database,
            database.begin() as reading_,
        ):
            found = [
                reading_.get(name.encode()) for name in (checkpoint.key, f"{checkpoint.key}_arch")
            ]
    except lmdb.Error as error:
        raise BadRequest(f"{folder} is no readable database: {printable(str(error))}") from None
    if any(not value or len(value) % 4 for value in found):
        raise BadRequest(
            f"{folder} has no checkpoint '{printable(checkpoint.key)}' of float32 numbers"
        )
    return found[0], found[1]


def _library() -> ModuleType:
    try:
        import lmdb  # here, because few have it
    except ImportError:
        raise BadRequest(
            "databases need the package lmdb: pip install 'pgen-bench[lmdb]'"
        ) from None
    return lmdb
